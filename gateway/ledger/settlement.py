"""From an opening and an ending to the row of the export contract: one terminal record per request.

The one place where rows are made: a request that ends, one that is stopped by a shutdown and one that recovery finds
open all come through here, so all of them are priced alike and can be recomputed alike.

A row is text with holes, made from the columns of the contract (`_ROW`) and filled once: %d takes an integer that is
always known, %b takes JSON. Stretches of columns that many requests share are one hole each: what is in them is encoded
once. Named tuples are unpacked here, because reading a field by its name costs eight times as much.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

import orjson

from gateway.ledger.entry import Shared, Terminal
from gateway.ledger.instants import rfc3339
from gateway.ledger.opening import FailedAttempt, Opening
from pricing.export import ATTEMPT_COSTS, COLUMNS, FIRST_COLUMNS, Column, Costs, Usage, revenue_nano, settle
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices

_NO_USAGE = Usage()
_NO_PRICES = UnitPrices()


class Ending(NamedTuple):
    """How it ended. Usage and backend bytes are those of the serving attempt; times are from admission on."""

    outcome: str
    ended_at_us: int  # wall time
    status: int | None = None
    usage: Usage = _NO_USAGE
    delivered_tokens: int = 0
    billed_output_tokens: int = 0
    count_source: str = "counted"
    count_flags: tuple[str, ...] = ()
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    bytes_to_backend: int = 0
    bytes_from_backend: int = 0
    ttft_ms: int | None = None  # None: no content event
    duration_ms: int | None = None
    failed: tuple[FailedAttempt, ...] = ()  # all of them, in order; the opening's are not looked at
    serving: bool = True  # False: every attempt is among the failed
    cause: str = ""  # what ended the serving attempt, if not the end of the answer
    attempt_ttft_ms: int | None = None  # the serving attempt's own times
    attempt_duration_ms: int | None = None
    recovered: bool = False


def settle_row(opening: Opening, ending: Ending) -> Terminal:
    """The terminal record."""
    # fmt: off
    (export_id, opened_at_us, tenant, model, request_id, key_id, dialect, stream, upstream_model,
     backend, region, country, destination, method, exported, _, _, _,
     currency, price_version, route_version, edge, units, tariff, _) = opening
    (outcome, ended_at_us, status, usage, delivered, billed, source, flags,
     from_client, to_client, to_backend, from_backend, ttft_ms, duration_ms,
     failed, serving, cause, attempt_ttft_ms, attempt_duration_ms, recovered) = ending
    # fmt: on
    if not serving:
        upstream_model = backend = region = country = ""
        exported, units, usage, to_backend, from_backend = None, _NO_PRICES, _NO_USAGE, 0, 0
    costs = settle(units, usage, to_backend, from_backend)
    attempts, waste = _failures(failed) if failed else ([], 0)
    if serving:
        times = (_number(attempt_ttft_ms), _number(attempt_duration_ms))
        sizes = (to_backend, from_backend)
        attempts.append(_attempt(_attempt_place(backend, region, cause, True), times, usage, sizes, units, costs))
    if recovered:
        kind = "recovered"
    else:
        kind = "void" if ttft_ms is None and not delivered else "settled"
    # fmt: off
    place = _place(tenant, key_id, dialect, stream, model, upstream_model,
                   backend, region, units.zone, country, destination, method, exported)
    # fmt: on
    to_log = _TO_LOG % (
        rfc3339(opened_at_us).encode(),
        rfc3339(ended_at_us).encode(),
        _text(outcome),
        _number(status),
        place,
        *_tokens_of(usage),
        delivered,
        billed,
        _text(source),
        _text(";".join(flags)),
        from_client,
        to_client,
        to_backend,
        from_backend,
        _number(ttft_ms),
        _number(duration_ms),
        len(attempts),
        b",".join(attempts),
        *costs[:_FIRST_COSTS],
        waste,
        costs.total_nano + waste,
        revenue_nano(tariff, usage, billed, ttft_ms is not None),
        _text(currency or None),
        _units.of(units),
        _tariffs.of(tariff),
        _versions(price_version, route_version, edge),
    )
    to_seq = _TO_SEQ % (_text(export_id), _text(request_id))
    return Terminal(kind, export_id, to_seq, to_log, _REST % (_text(kind), *(_later(units, costs) if _LATER else ())))


def _failures(failed: Iterable[FailedAttempt]) -> tuple[list[bytes], int]:
    """The attempts that did not serve, and what they cost."""
    attempts: list[bytes] = []
    waste = 0
    for backend, region, cause, ttft_ms, duration_ms, usage, to_backend, from_backend, units in failed:
        costs = settle(units, usage, to_backend, from_backend)
        times, sizes = (_number(ttft_ms), _number(duration_ms)), (to_backend, from_backend)
        attempts.append(_attempt(_attempt_place(backend, region, cause, False), times, usage, sizes, units, costs))
        waste += costs.total_nano
    return attempts, waste


def _attempt(
    place: bytes, times: tuple[bytes, bytes], usage: Usage, sizes: tuple[int, int], units: UnitPrices, costs: Costs
) -> bytes:
    """An element of `attempts_json`, which is JSON within a JSON string."""
    costs_of_attempt = costs[-len(ATTEMPT_COSTS) :]
    return _ATTEMPT % (place, *times, *_tokens_of(usage), *sizes, _units_within.of(units), *costs_of_attempt)


# ---- what goes into the holes

_text = orjson.dumps


def _number(value: int | None) -> bytes:
    return b"null" if value is None else b"%d" % value


def _within(members: bytes) -> bytes:
    """Members of an object that is JSON within a JSON string."""
    return orjson.dumps(members.decode())[1:-1]


def _members(names: Iterable[str], values: Iterable[object]) -> bytes:
    """Members of an object; an empty text is unknown."""
    return orjson.dumps({name: None if value == "" else value for name, value in zip(names, values, strict=True)})[1:-1]


@lru_cache(maxsize=2048)  # tenants x keys x models x routes in use at a time; about 1 MB
def _place(*values: str | bool | None) -> bytes:
    return _members(_PLACE, values)


@lru_cache(maxsize=16)
def _versions(*values: str) -> bytes:
    return _members(_VERSIONS, values)


@lru_cache(maxsize=1024)  # backends x causes
def _attempt_place(*values: str | bool) -> bytes:
    return _within(orjson.dumps(dict(zip(_ATTEMPT_PLACE, values, strict=True)))[1:-1])


def _columns_of(units: UnitPrices, names: Iterable[str]) -> bytes:
    columns = units.columns()
    return _members(names, [columns[name] for name in names])


def _later(units: UnitPrices, costs: Costs) -> list[object]:
    """The values of columns that came after the first version."""
    known: dict[str, object] = {**units.columns(), **costs._asdict()}
    return [known[name] for name in _LATER]


# ---- the text

_FIRST = [column.name for column in COLUMNS[:FIRST_COLUMNS]]
_LATER = [column.name for column in COLUMNS[FIRST_COLUMNS:]]


def _stretch(first: str, last: str) -> tuple[str, ...]:
    return tuple(_FIRST[_FIRST.index(first) : _FIRST.index(last) + 1])


_PLACE = _stretch("tenant", "exported")
_TOKENS = _stretch("input_tokens", "reasoning_tokens")
_FIRST_COSTS = len(_stretch("energy_uwh", "cost_link_nano"))
_UNITS = _stretch("unit_energy_nano_per_kwh", "unit_output_nano_per_mtok")
_ALL_UNITS = tuple(name for name in UnitPrices().columns() if name != "zone")
_TARIFF = _stretch("tariff_input_nano_per_mtok", "tariff_output_nano_per_mtok")
_VERSIONS = _stretch("price_version", "edge")
_ATTEMPT_PLACE = ("backend", "region", "cause", "serving")

_units: Shared[UnitPrices, bytes] = Shared(lambda units: _columns_of(units, _UNITS))
_units_within: Shared[UnitPrices, bytes] = Shared(lambda units: _within(_columns_of(units, _ALL_UNITS)))
_tariffs: Shared[Tariff, bytes] = Shared(lambda tariff: _members(_TARIFF, tariff.columns().values()))
_tokens_of = attrgetter(*_TOKENS)

_KNOWN_LATE = frozenset(("status", "ttft_ms", "duration_ms"))  # or never: null
_HOLES = {"integer": "%d", "time": '"%b"', "json": '"[%b]"'}


def _form(columns: Iterable[Column], *stretches: tuple[str, ...]) -> str:
    """The members of an object with a hole for every value, and one for each stretch of members."""
    members: list[str] = []
    for name, kind in columns:
        stretch = next((stretch for stretch in stretches if name in stretch), None)
        if stretch is None:
            hole = "%b" if name in _KNOWN_LATE else _HOLES.get(kind, "%b")
            members.append(f'"{name}":{hole}')
        elif name == stretch[0]:
            members.append("%b")
    return ",".join(members)


_ROW = "{" + _form(COLUMNS, _PLACE, _UNITS, _TARIFF, _VERSIONS) + "}"
_TO_SEQ, _TO_LOG, _REST = (part.encode() for part in re.split(r'(?<="seq":)%d|(?<="log":)%d', _ROW))

_ATTEMPT_NAMES = (
    *_ATTEMPT_PLACE,
    *("ttft_ms", "duration_ms"),
    *_TOKENS,
    *("bytes_to_backend", "bytes_from_backend"),
    *_ALL_UNITS,
    *ATTEMPT_COSTS,
)
_attempt_form = _form((Column(name, "integer") for name in _ATTEMPT_NAMES), _ATTEMPT_PLACE, _ALL_UNITS)
_ATTEMPT = _within(b"{%b}" % _attempt_form.encode())
