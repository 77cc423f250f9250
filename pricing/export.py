"""Settlement: what a request cost and earned, in integers that anyone can recompute from its ledger row.

Every result is one line of exact integer arithmetic, rounded half-even once (pricing.units). Totals are sums of rounded
parts, so parts always add up. The unit prices and the tariff are columns of the row itself: prices that arrive later
cannot reach a row that is settled, and an auditor needs nothing but the row.

Energy is prefill for input that was not in the cache and decode for output; a cache write is fresh input as far as
energy goes and has a price of its own where tokens are bought.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices
from pricing.units import GB, MILLI, MJ_PER_KWH, MTOK, divide_half_even


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer as generated. Cached and cache-write tokens are parts of input, reasoning of output."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Costs(NamedTuple):
    """Field names are the ledger's column names."""

    energy_uwh: int
    carbon_mg: int
    cost_energy_nano: int
    cost_tokens_nano: int
    cost_link_nano: int

    @property
    def total_nano(self) -> int:
        return self.cost_energy_nano + self.cost_tokens_nano + self.cost_link_nano


def settle(units: UnitPrices, usage: Usage, bytes_to_backend: int, bytes_from_backend: int) -> Costs:
    """What one attempt cost."""
    uncached = usage.input_tokens - usage.cached_input_tokens
    millijoules = units.prefill_mj_per_token * uncached + units.decode_mj_per_token * usage.output_tokens
    energy = millijoules * units.pue_milli  # in 1e-6 J
    tokens = (
        units.input_nano_per_mtok * (uncached - usage.cache_write_tokens)
        + units.cached_nano_per_mtok * usage.cached_input_tokens
        + units.cache_write_nano_per_mtok * usage.cache_write_tokens
        + units.output_nano_per_mtok * usage.output_tokens
    )
    return Costs(
        divide_half_even(energy, 3600),
        divide_half_even(energy * units.carbon_g_per_kwh, MJ_PER_KWH),
        divide_half_even(energy * units.energy_nano_per_kwh, MILLI * MJ_PER_KWH),
        divide_half_even(tokens, MTOK),
        divide_half_even((bytes_to_backend + bytes_from_backend) * units.link_nano_per_gb, GB),
    )


def revenue_nano(tariff: Tariff, usage: Usage, billed_output_tokens: int, answered: bool) -> int:
    """What the tenant is charged. Input counts only if content came (ttft_ms is set): no answer, no charge."""
    amount = tariff.output_nano_per_mtok * billed_output_tokens
    if answered:
        amount += tariff.input_nano_per_mtok * (usage.input_tokens - usage.cached_input_tokens)
        amount += tariff.cached_input_nano_per_mtok * usage.cached_input_tokens
    return divide_half_even(amount, MTOK)


def cost_waste_nano(attempts: Iterable[Mapping[str, object]]) -> int:
    """What failed and losing attempts cost: the sum of the costs of those that did not serve."""
    wasted = (attempt for attempt in attempts if attempt["serving"] is not True)
    return sum(_integer(attempt, cost) for attempt in wasted for cost in ATTEMPT_COSTS)


class Column(NamedTuple):
    name: str
    kind: str  # text | integer | time | bool | json


def _columns(kind: str, names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for name in names.split())


# The export format: these columns in this order are a contract (`log` and `record` are ours), and the first version of
# the log's rows has no others.
_FIRST: tuple[Column, ...] = (
    *_columns("text", "export_id request_id"),
    *_columns("integer", "seq"),
    *_columns("time", "opened_at ended_at"),
    *_columns("text", "outcome"),
    *_columns("integer", "status"),
    *_columns("text", "tenant key_id dialect"),
    *_columns("bool", "stream"),
    *_columns("text", "model upstream_model"),
    *_columns("text", "origin_backend origin_region zone origin_country destination_country destination_method"),
    *_columns("bool", "exported"),
    *_columns("integer", "input_tokens cached_input_tokens cache_write_tokens output_tokens reasoning_tokens"),
    *_columns("integer", "delivered_tokens billed_output_tokens"),
    *_columns("text", "count_source count_flags"),
    *_columns("integer", "bytes_from_client bytes_to_client bytes_to_backend bytes_from_backend"),
    *_columns("integer", "ttft_ms duration_ms attempts"),
    *_columns("json", "attempts_json"),
    *_columns("integer", "energy_uwh carbon_mg cost_energy_nano cost_tokens_nano cost_link_nano cost_waste_nano"),
    *_columns("integer", "cost_nano revenue_nano"),
    *_columns("text", "currency"),
    *_columns("integer", "unit_energy_nano_per_kwh pue_milli carbon_g_per_kwh"),
    *_columns("integer", "prefill_mj_per_token decode_mj_per_token unit_link_nano_per_gb"),
    *_columns("integer", "unit_input_nano_per_mtok unit_cached_nano_per_mtok"),
    *_columns("integer", "unit_cache_write_nano_per_mtok unit_output_nano_per_mtok"),
    *_columns("integer", "tariff_input_nano_per_mtok tariff_cached_nano_per_mtok tariff_output_nano_per_mtok"),
    *_columns("text", "price_version route_version edge"),
    *_columns("integer", "log"),
    *_columns("text", "record"),
)
# What later versions write behind them, in the order in which it came. Rows that are older do not have it, and are read
# for ever: an absent amount counts as 0.
_LATER: tuple[Column, ...] = ()

COLUMNS = _FIRST + _LATER
FIRST_COLUMNS = len(_FIRST)  # so many has every row there ever was
NAMES = tuple(column.name for column in COLUMNS)
_LATER_NAMES = frozenset(NAMES[FIRST_COLUMNS:])

ATTEMPT_COSTS = ("cost_energy_nano", "cost_tokens_nano", "cost_link_nano")
# Integers an attempt has under the same name and with another meaning: its own time, not the request's.
_ATTEMPT_TIMES = frozenset({"ttft_ms", "duration_ms"})
_INTEGERS = frozenset(column.name for column in COLUMNS if column.kind == "integer")


def conservation(row: Mapping[str, object]) -> list[str]:
    """Recompute a row from itself; the names of the columns that differ, none for a good row.

    Checked are the five results of settle(), cost_waste_nano, cost_nano and revenue_nano, the costs of every attempt
    ("attempts_json[2].cost_link_nano"), and that the serving attempt says the same as the row, whose unit prices are 0
    without one. A number that is missing or not an integer is named like one that is wrong; only that of a later column
    may be missing, and is 0 then.
    """
    expected: dict[str, int] = {}
    findings: list[str] = []
    try:
        attempts = _attempts(row)
        expected["cost_waste_nano"] = cost_waste_nano(attempts)
        for number, attempt in enumerate(attempts):
            findings += [f"attempts_json[{number}].{name}" for name in _attempt_differences(attempt, row)]
        serving = sum(attempt["serving"] is True for attempt in attempts)
        if serving > 1:
            findings.append("attempts_json")
        if serving == 0:
            findings += [name for name in _UNITS if not _same(row, name, 0)]
    except (KeyError, TypeError, ValueError):
        findings.append("attempts_json")
    try:
        costs = _settled(row)
        expected.update(costs._asdict())
        expected["cost_nano"] = costs.total_nano + _integer(row, "cost_waste_nano")
        expected["revenue_nano"] = _revenue(row)
    except _NotAnInteger as offence:
        findings.append(offence.column)
    findings += [name for name, value in expected.items() if not _same(row, name, value)]
    return list(dict.fromkeys(findings))


class _NotAnInteger(ValueError):
    def __init__(self, column: str) -> None:
        super().__init__(f"{column} is not an integer")
        self.column = column


def _integer(row: Mapping[str, object], column: str) -> int:
    value = _value(row, column)
    if type(value) is not int:  # a bool is none either
        raise _NotAnInteger(column)
    return value


def _same(row: Mapping[str, object], column: str, expected: int) -> bool:
    value = _value(row, column)
    return type(value) is int and value == expected


def _value(row: Mapping[str, object], column: str) -> object:
    value = row.get(column)
    return 0 if value is None and column in _LATER_NAMES else value


def _attempts(row: Mapping[str, object]) -> list[Mapping[str, object]]:
    text = row["attempts_json"]
    attempts = json.loads(text) if isinstance(text, str) else None
    if not isinstance(attempts, list) or not all(isinstance(attempt, dict) for attempt in attempts):
        raise ValueError("attempts_json is not a string of a JSON array of objects")
    return attempts


def _attempt_differences(attempt: Mapping[str, object], row: Mapping[str, object]) -> list[str]:
    costs = _settled(attempt)
    names = [name for name in ATTEMPT_COSTS if not _same(attempt, name, getattr(costs, name))]
    if attempt["serving"] is True:
        shared = (attempt.keys() & _INTEGERS) - _ATTEMPT_TIMES
        names += sorted(name for name in shared if attempt[name] != row.get(name) and name not in names)
    return names


_UNITS = tuple(name for name in UnitPrices().columns() if name != "zone")
_SETTLED_FROM = (
    *_UNITS,
    *("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens"),
    *("bytes_to_backend", "bytes_from_backend"),
)


def _settled(row: Mapping[str, object]) -> Costs:
    """settle() on the columns of a row, or of an attempt."""
    numbers = {column: _integer(row, column) for column in _SETTLED_FROM}
    return settle(
        UnitPrices.from_columns(numbers), _usage(row), numbers["bytes_to_backend"], numbers["bytes_from_backend"]
    )


def _usage(row: Mapping[str, object]) -> Usage:
    return Usage(
        input_tokens=_integer(row, "input_tokens"),
        cached_input_tokens=_integer(row, "cached_input_tokens"),
        cache_write_tokens=_integer(row, "cache_write_tokens"),
        output_tokens=_integer(row, "output_tokens"),
    )


def _revenue(row: Mapping[str, object]) -> int:
    tariff = Tariff(
        input_nano_per_mtok=_integer(row, "tariff_input_nano_per_mtok"),
        cached_input_nano_per_mtok=_integer(row, "tariff_cached_nano_per_mtok"),
        output_nano_per_mtok=_integer(row, "tariff_output_nano_per_mtok"),
    )
    answered = row.get("ttft_ms") is not None
    return revenue_nano(tariff, _usage(row), _integer(row, "billed_output_tokens"), answered)
