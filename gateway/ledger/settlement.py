"""From an opening and an ending to the row of the export contract: one terminal record per request.

The one place where rows are made: a request that ends, one that is stopped by a shutdown and one that recovery finds
open all come through here, so all of them are priced alike and can be recomputed alike.

A row is text with holes, made from the columns of the contract (`_ROW`) and filled once: %d takes an integer that is
always known, %b takes JSON. What the row shares with many others (`terms`) is encoded once and fills a hole for a
stretch of columns. Named tuples are unpacked here, because reading a field by its name costs eight times as much.
"""

import re
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

import orjson

from gateway.ledger.entry import Entry
from gateway.ledger.instants import stamp
from gateway.ledger.opening import FailedAttempt, Opening
from gateway.ledger.segment import TERMINAL
from gateway.ledger.terms import PLACE, PRICES, stretch, text_of, unserved, within
from pricing.export import ATTEMPT_COSTS, COLUMNS, FIRST_COLUMNS, NAMES, Column, Costs, Usage, revenue_nano, settle
from pricing.unit_prices import UnitPrices

_NO_USAGE = Usage()


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


def settle_row(opening: Opening, ending: Ending) -> Entry:
    """The terminal record, with gaps for the numbers that the log gives it."""
    export_id, opened_at_us, terms, request_id, _, _, _ = opening
    # fmt: off
    (outcome, ended_at_us, status, usage, delivered, billed, source, flags,
     from_client, to_client, to_backend, from_backend, ttft_ms, duration_ms,
     failed, serving, cause, attempt_ttft_ms, attempt_duration_ms, recovered) = ending
    # fmt: on
    if not serving:
        terms, usage, to_backend, from_backend = unserved(terms), _NO_USAGE, 0, 0
    text, units = text_of(terms), terms.units
    costs = settle(units, usage, to_backend, from_backend)
    energy_uwh, carbon_mg, energy_nano, tokens_nano, link_nano = costs[:_FIRST_COSTS]
    total_input, cached, written, output, reasoning = _tokens_of(usage)
    attempts, number, waste = b"", len(failed), 0
    if number:
        attempts, waste = _failures(failed)
    # fmt: off
    if serving:
        number += 1
        attempts += _ATTEMPT % (
            b"," if failed else b"", text.origin_of_attempt, within(_json(cause)) if cause else _NO_CAUSE, b"true",
            _NULL if attempt_ttft_ms is None else b"%d" % attempt_ttft_ms,
            _NULL if attempt_duration_ms is None else b"%d" % attempt_duration_ms,
            total_input, cached, written, output, reasoning, to_backend, from_backend,
            text.of_attempt, energy_nano, tokens_nano, link_nano, *costs[_FIRST_COSTS:],
        )
    body = _BODY % (
        stamp(opened_at_us), stamp(ended_at_us), _json(outcome), _NULL if status is None else b"%d" % status,
        text.place, total_input, cached, written, output, reasoning, delivered, billed,
        _json(source), _json(";".join(flags)) if flags else _NO_TEXT,
        from_client, to_client, to_backend, from_backend,
        _NULL if ttft_ms is None else b"%d" % ttft_ms,
        _NULL if duration_ms is None else b"%d" % duration_ms,
        number, attempts, energy_uwh, carbon_mg, energy_nano, tokens_nano, link_nano, waste, costs.total_nano + waste,
        revenue_nano(terms.tariff, usage, billed, ttft_ms is not None), text.prices,
    )
    # fmt: on
    if recovered:
        kind = "recovered"
    else:
        kind = "void" if ttft_ms is None and not delivered else "settled"
    tail = _TAIL % (_json(kind), *_later(units, costs)) if _LATER else _TAILS[kind]
    return Entry(kind, export_id, _HEAD % (_json(export_id), _json(request_id)), body, tail)


def _failures(failed: Iterable[FailedAttempt]) -> tuple[bytes, int]:
    """The attempts that did not serve, as elements of `attempts_json`, and what they cost."""
    attempts: list[bytes] = []
    waste = 0
    for backend, region, cause, ttft_ms, duration_ms, usage, to_backend, from_backend, units in failed:
        costs = settle(units, usage, to_backend, from_backend)
        columns = units.columns()
        del columns["zone"]
        origin, prices = orjson.dumps({"backend": backend, "region": region}), orjson.dumps(columns)
        what = (b"", within(origin[1:-1]), within(_json(cause)), b"false", _number(ttft_ms), _number(duration_ms))
        sizes = (*_tokens_of(usage), to_backend, from_backend)
        attempts.append(_ATTEMPT % (*what, *sizes, within(prices[1:-1]), *costs[-_ATTEMPT_COSTS:]))
        waste += costs.total_nano
    return b",".join(attempts), waste


# ---- what goes into the holes

_json = orjson.dumps


def _number(value: int | None) -> bytes:
    return _NULL if value is None else b"%d" % value


def _later(units: UnitPrices, costs: Costs) -> list[object]:
    """The values of columns that came after the first version."""
    known: dict[str, object] = {**units.columns(), **costs._asdict()}
    return [known[name] for name in _LATER]


# ---- the text

_LATER = NAMES[FIRST_COLUMNS:]
_TOKENS = stretch("input_tokens", "reasoning_tokens")
_FIRST_COSTS = len(stretch("energy_uwh", "cost_link_nano"))
_ATTEMPT_COSTS = len(ATTEMPT_COSTS)
_tokens_of = attrgetter(*_TOKENS)

_KNOWN_LATE = frozenset(("status", "ttft_ms", "duration_ms"))  # or never: null
_HOLES = {"integer": "%d", "time": '"%b"', "json": '"[%b]"'}


def _form(columns: Iterable[Column]) -> str:
    """The members of an object with a hole for every value, and one for each stretch of shared members."""
    members: list[str] = []
    for name, kind in columns:
        if name in (PLACE[0], PRICES[0]):
            members.append("%b")
        elif name not in PLACE and name not in PRICES:
            members.append(f'"{name}":{"%b" if name in _KNOWN_LATE else _HOLES.get(kind, "%b")}')
    return ",".join(members)


_HEAD, _BODY, _TAIL = (part.encode() for part in re.split(r'(?<="seq":)%d|(?<="log":)%d', "{" + _form(COLUMNS)))
_TAILS = {} if _LATER else {kind: _TAIL % _json(kind) for kind in TERMINAL}

_OF_ATTEMPT = (*("ttft_ms", "duration_ms"), *_TOKENS, *("bytes_to_backend", "bytes_from_backend"))
_ATTEMPT = b"%%b{%b}" % b",".join(
    (
        b"%b",  # the origin
        within(b'"cause":') + b"%b," + within(b'"serving":') + b"%b",
        within(_form(Column(name, "integer") for name in _OF_ATTEMPT).encode()),
        b"%b",  # the prices
        within(_form(Column(name, "integer") for name in ATTEMPT_COSTS).encode()),
    )
)
_NULL, _NO_TEXT = b"null", _json("")
_NO_CAUSE = within(_NO_TEXT)
