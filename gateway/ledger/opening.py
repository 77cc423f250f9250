"""What is known of an export when its attempt begins: enough to settle it, whatever happens to this process.

An opening is written twice: as `open` (later `attempt`) record of the log, under full names, for whoever reads the log;
and on the board, as an array without names, because a board slot has 1,952 bytes. The attempts that failed before are
part of it, so their costs outlive a crash too.
"""

from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from gateway.ledger.board import AREA_BYTES
from gateway.ledger.entry import Entry
from gateway.ledger.instants import parse_us, stamp
from gateway.ledger.terms import PLAIN, TARIFF, UNITS, Terms, text_of, values_of_units
from pricing.export import Usage
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices

_USAGE = tuple(field.name for field in fields(Usage))


class FailedAttempt(NamedTuple):
    """One try at one backend that did not serve: it failed, or lost against another."""

    backend: str
    region: str
    cause: str
    ttft_ms: int | None = None
    duration_ms: int | None = None
    usage: Usage = Usage()
    bytes_to_backend: int = 0
    bytes_from_backend: int = 0
    units: UnitPrices = UnitPrices()


class Opening(NamedTuple):
    """The request id is at most 128 characters, empty if there is none."""

    export_id: str  # UUIDv7
    opened_at_us: int  # wall time of admission, microseconds since the epoch
    terms: Terms
    request_id: str = ""  # the client's
    input_estimate: int = 0  # tokens, from the request's bytes
    tokens_per_event_milli: int = 1000  # the ratio learned for the backend
    failed: tuple[FailedAttempt, ...] = ()  # before this one

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return len(self.failed) + 1

    # ---- in the log

    def entry(self) -> Entry:
        """As `open` record, or as `attempt` record from the second attempt on."""
        return self._entry("attempt" if self.failed else "open")

    def first_entry(self) -> Entry:
        """As `open` record whatever its attempt: for one that is found after a crash without any."""
        return self._entry("open")

    def _entry(self, kind: str) -> Entry:
        export_id, opened_at_us, terms, request_id, input_estimate, per_event_milli, failed = self
        own = _RECORD % (
            kind.encode(),
            stamp(opened_at_us),
            len(failed) + 1,
            orjson.dumps(export_id),
            orjson.dumps(request_id),
            input_estimate,
            per_event_milli,
            orjson.dumps([attempt._asdict() for attempt in failed]) if failed else b"[]",
        )
        return Entry(kind, export_id, own, text_of(terms).of_opening)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Opening":
        """What an older version did not write has its default. ValueError if the record does not hold an opening."""
        try:
            own = {name: record[name] for name in _OWN if name in record}
            plain = {name: record[name] for name in PLAIN if name in record}
            terms = Terms(UnitPrices(**record["units"]), Tariff(**record["tariff"]), **plain)
            failed = tuple(_attempt_from_record(attempt) for attempt in record["failed"])
            return cls(opened_at_us=parse_us(record["opened_at"]), terms=terms, failed=failed, **own)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an opening: {error}") from error

    # ---- on the board

    def to_bytes(self) -> bytes:
        """At most `AREA_BYTES`. Where every name is at its bound and two attempts failed, the failed attempts lose
        their backend's and region's names (the log has them), never their costs."""
        packed = self._packed(named=True)
        return packed if len(packed) <= AREA_BYTES else self._packed(named=False)

    def _packed(self, *, named: bool) -> bytes:
        export_id, opened_at_us, terms, *own, failed = self
        attempts = orjson.dumps([_pack(attempt, named=named) for attempt in failed]) if failed else b"[]"
        return b"[%d,%b,[%b],%b]" % (
            _FORM,
            orjson.dumps((export_id, opened_at_us, *own)),
            text_of(terms).packed,
            attempts,
        )

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Opening":
        """ValueError if these are not the bytes of an opening."""
        try:
            form, (export_id, opened_at_us, *own), plain, failed = orjson.loads(packed)
            if form != _FORM:
                raise ValueError(f"an opening of form {form}")
            zone, prices = plain[len(PLAIN)], plain[len(PLAIN) + 1 :]
            units, tariff = UnitPrices(zone, *prices[: len(UNITS)]), Tariff(*prices[len(UNITS) :])
            terms = Terms(units, tariff, *plain[: len(PLAIN)])
            return cls._make((export_id, opened_at_us, terms, *own, tuple(map(_unpack, failed))))
        except (TypeError, IndexError) as error:
            raise ValueError(f"not an opening: {error}") from error


# Of the array on the board: another version's board cannot be read.
_FORM = crc32(" ".join((*Opening._fields, *Terms._fields, *FailedAttempt._fields, *UNITS, *_USAGE, *TARIFF)).encode())

_OWN = ("export_id", "request_id", "input_estimate", "tokens_per_event_milli")
_RECORD = (
    b'{"record":"%b","opened_at":"%b","attempt":%d,"export_id":%b,"request_id":%b,"input_estimate":%d,'
    b'"tokens_per_event_milli":%d,"failed":%b,'
)
_values_of_usage = attrgetter(*_USAGE)


def _attempt_from_record(record: Mapping[str, Any]) -> FailedAttempt:
    return FailedAttempt(**{**record, "usage": Usage(**record["usage"]), "units": UnitPrices(**record["units"])})


def _pack(attempt: FailedAttempt, *, named: bool) -> list[object]:
    names = [attempt.backend, attempt.region] if named else ["", ""]
    times = [attempt.cause, attempt.ttft_ms, attempt.duration_ms]
    sizes = [attempt.bytes_to_backend, attempt.bytes_from_backend]
    return [*names, *times, *sizes, *_values_of_usage(attempt.usage), *values_of_units(attempt.units)]


def _unpack(packed: list[Any]) -> FailedAttempt:
    backend, region, cause, ttft_ms, duration_ms, to_backend, from_backend = packed[:7]
    usage = Usage(*packed[7 : 7 + len(_USAGE)])
    units = UnitPrices("", *packed[7 + len(_USAGE) :])
    return FailedAttempt(backend, region, cause, ttft_ms, duration_ms, usage, to_backend, from_backend, units)
