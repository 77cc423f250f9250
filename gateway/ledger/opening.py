"""What is known of an export when its attempt begins: enough to settle it, whatever happens to this process.

An opening is written twice: as `open` (later `attempt`) record of the log, under full names, for whoever reads the log;
and on the board, as an array without names, because a board slot has 1,952 bytes. The attempts that failed before are
part of it, so their costs outlive a crash too.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from gateway.ledger.board import AREA_BYTES
from gateway.ledger.entry import Entry, Shared
from gateway.ledger.instants import parse_us, rfc3339
from pricing.export import Usage
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices

# Numbers are packed in the order of these, so a new field is on the board by itself.
_UNITS = tuple(field.name for field in fields(UnitPrices) if field.name != "zone")
_USAGE = tuple(field.name for field in fields(Usage))
_TARIFF = tuple(field.name for field in fields(Tariff) if field.name != "valid_from")


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
    """Empty text is unknown. Names are at most 64 characters, models and the request id 128."""

    export_id: str  # UUIDv7
    opened_at_us: int  # wall time of admission, microseconds since the epoch
    tenant: str
    model: str
    request_id: str = ""  # the client's
    key_id: str = ""
    dialect: str = "openai"
    stream: bool = True
    upstream_model: str = ""
    origin_backend: str = ""
    origin_region: str = ""
    origin_country: str = ""
    destination_country: str = ""
    destination_method: str = "unknown"
    exported: bool | None = None
    input_estimate: int = 0  # tokens, from the request's bytes
    tokens_per_event_max: int = 4
    tokens_per_event_milli: int = 1000  # the ratio learned for the backend
    currency: str = ""
    price_version: str = ""
    route_version: str = ""
    edge: str = ""
    units: UnitPrices = UnitPrices()
    tariff: Tariff = Tariff()
    failed: tuple[FailedAttempt, ...] = ()  # before this one; units, tariff and failed stay the last three

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
        # fmt: off
        (export_id, opened_at_us, tenant, model, request_id, key_id, dialect, stream, upstream_model,
         backend, region, country, destination, method, exported, input_estimate, per_event_max, per_event_milli,
         currency, price_version, route_version, edge, units, tariff, failed) = self
        # fmt: on
        alike = _alike(
            tenant,
            model,
            key_id,
            dialect,
            stream,
            upstream_model,
            backend,
            region,
            country,
            destination,
            method,
            exported,
            per_event_max,
            currency,
            price_version,
            route_version,
            edge,
        )
        body = _RECORD % (
            kind.encode(),
            rfc3339(opened_at_us).encode(),
            len(failed) + 1,
            orjson.dumps(export_id),
            orjson.dumps(request_id),
            input_estimate,
            per_event_milli,
            alike,
            _units_recorded.of(units),
            _tariff_recorded.of(tariff),
            orjson.dumps([attempt._asdict() for attempt in failed]) if failed else b"[]",
        )
        return Entry(kind, self.export_id, body)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Opening":
        """What an older version did not write has its default. ValueError if the record does not hold an opening."""
        try:
            members = {name: record[name] for name in cls._fields if name in record}
            members["units"] = UnitPrices(**record["units"])
            members["tariff"] = Tariff(**record["tariff"])
            members["failed"] = tuple(_attempt_from_record(attempt) for attempt in record["failed"])
            return cls(opened_at_us=parse_us(record["opened_at"]), **members)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an opening: {error}") from error

    # ---- on the board

    def to_bytes(self) -> bytes:
        """At most `AREA_BYTES`. Where every name is at its bound and two attempts failed, the failed attempts lose
        their backend's and region's names (the log has them), never their costs."""
        packed = self._packed(named=True)
        return packed if len(packed) <= AREA_BYTES else self._packed(named=False)

    def _packed(self, *, named: bool) -> bytes:
        own, units, tariff = orjson.dumps(self[:-3])[1:-1], _units_packed.of(self.units), _tariff_packed.of(self.tariff)
        failed = orjson.dumps([_pack(attempt, named=named) for attempt in self.failed]) if self.failed else b"[]"
        return b"[%d,[%b,%b,%b],%b]" % (_FORM, own, units, tariff, failed)

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Opening":
        """ValueError if these are not the bytes of an opening."""
        try:
            form, own, failed = orjson.loads(packed)
            if form != _FORM:
                raise ValueError(f"an opening of form {form}")
            plain = len(cls._fields) - 3
            zone, prices = own[plain], own[plain + 1 :]
            units = UnitPrices(zone, *prices[: len(_UNITS)])
            tariff = Tariff(*prices[len(_UNITS) :])
            return cls._make([*own[:plain], units, tariff, tuple(_unpack(attempt) for attempt in failed)])
        except (TypeError, IndexError) as error:
            raise ValueError(f"not an opening: {error}") from error


# Of the array on the board: another version's board cannot be read.
_FORM = crc32(" ".join((*Opening._fields, *FailedAttempt._fields, *_UNITS, *_USAGE, *_TARIFF)).encode())


_RECORD = (
    b'{"record":"%b","opened_at":"%b","attempt":%d,"export_id":%b,"request_id":%b,"input_estimate":%d,'
    b'"tokens_per_event_milli":%d,%b,"units":%b,"tariff":%b,"failed":%b}'
)
_WRITTEN_OUT = frozenset(("export_id", "opened_at_us", "request_id", "input_estimate", "tokens_per_event_milli"))
_ALIKE = tuple(name for name in Opening._fields[:-3] if name not in _WRITTEN_OUT)


@lru_cache(maxsize=2048)  # tenants x keys x models x routes in use at a time; about 1 MB
def _alike(*values: str | int | None) -> bytes:
    """Members that are the same for many requests."""
    return orjson.dumps(dict(zip(_ALIKE, values, strict=True)))[1:-1]


_values_of_units = attrgetter(*_UNITS)
_values_of_usage = attrgetter(*_USAGE)
_values_of_tariff = attrgetter(*_TARIFF)

_units_recorded: Shared[UnitPrices, bytes] = Shared(orjson.dumps)
_tariff_recorded: Shared[Tariff, bytes] = Shared(
    lambda tariff: orjson.dumps(dict(zip(_TARIFF, _values_of_tariff(tariff), strict=True)))
)
_units_packed: Shared[UnitPrices, bytes] = Shared(
    lambda units: orjson.dumps((units.zone, *_values_of_units(units)))[1:-1]
)
_tariff_packed: Shared[Tariff, bytes] = Shared(lambda tariff: orjson.dumps(_values_of_tariff(tariff))[1:-1])


def _attempt_from_record(record: Mapping[str, Any]) -> FailedAttempt:
    return FailedAttempt(**{**record, "usage": Usage(**record["usage"]), "units": UnitPrices(**record["units"])})


def _pack(attempt: FailedAttempt, *, named: bool) -> list[object]:
    names = [attempt.backend, attempt.region] if named else ["", ""]
    times = [attempt.cause, attempt.ttft_ms, attempt.duration_ms]
    sizes = [attempt.bytes_to_backend, attempt.bytes_from_backend]
    return [*names, *times, *sizes, *_values_of_usage(attempt.usage), *_values_of_units(attempt.units)]


def _unpack(packed: list[Any]) -> FailedAttempt:
    backend, region, cause, ttft_ms, duration_ms, to_backend, from_backend = packed[:7]
    usage = Usage(*packed[7 : 7 + len(_USAGE)])
    units = UnitPrices("", *packed[7 + len(_USAGE) :])
    return FailedAttempt(backend, region, cause, ttft_ms, duration_ms, usage, to_backend, from_backend, units)
