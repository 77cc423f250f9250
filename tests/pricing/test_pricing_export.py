import json
from dataclasses import fields
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.export import COLUMNS, Usage, conservation, cost_waste_nano, revenue_nano, settle
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices

CONTRACT = """
    export_id request_id seq opened_at ended_at outcome status tenant key_id dialect stream model upstream_model
    origin_backend origin_region zone origin_country destination_country destination_method exported input_tokens
    cached_input_tokens cache_write_tokens output_tokens reasoning_tokens delivered_tokens billed_output_tokens
    count_source count_flags bytes_from_client bytes_to_client bytes_to_backend bytes_from_backend ttft_ms duration_ms
    attempts attempts_json energy_uwh carbon_mg cost_energy_nano cost_tokens_nano cost_link_nano cost_waste_nano
    cost_nano revenue_nano currency unit_energy_nano_per_kwh pue_milli carbon_g_per_kwh prefill_mj_per_token
    decode_mj_per_token unit_link_nano_per_gb unit_input_nano_per_mtok unit_cached_nano_per_mtok
    unit_cache_write_nano_per_mtok unit_output_nano_per_mtok tariff_input_nano_per_mtok tariff_cached_nano_per_mtok
    tariff_output_nano_per_mtok price_version route_version edge
"""

UNITS = UnitPrices(
    zone="guizhou",
    energy_nano_per_kwh=55_600_000,
    pue_milli=1200,
    carbon_g_per_kwh=404,
    prefill_mj_per_token=250,
    decode_mj_per_token=1100,
    link_nano_per_gb=120_000_000,
    input_nano_per_mtok=278_000_000,
    cached_nano_per_mtok=27_800_000,
    cache_write_nano_per_mtok=347_500_000,
    output_nano_per_mtok=1_112_000_000,
)
TARIFF = Tariff(300_000_000, 30_000_000, 1_200_000_000)


def test_the_columns_are_the_contract_in_its_order_and_then_ours() -> None:
    assert [column.name for column in COLUMNS] == [*CONTRACT.split(), "log", "record"]
    kinds = {column.name: column.kind for column in COLUMNS}
    assert {name for name, kind in kinds.items() if kind == "bool"} == {"stream", "exported"}
    assert {name for name, kind in kinds.items() if kind == "time"} == {"opened_at", "ended_at"}
    assert {name for name, kind in kinds.items() if kind == "json"} == {"attempts_json"}
    assert {kinds[name] for name in [*UNITS.columns(), *TARIFF.columns()] if name != "zone"} == {"integer"}
    assert kinds["log"] == "integer" and kinds["record"] == kinds["zone"] == "text"


def test_every_unit_price_is_a_column_and_comes_back_from_it() -> None:
    names = [field.name for field in fields(UnitPrices) if field.name != "zone"]
    units = UnitPrices(**{name: number for number, name in enumerate(names, 1)})
    columns = {name: value for name, value in units.columns().items() if isinstance(value, int)}
    assert columns.keys() <= {column.name for column in COLUMNS}
    assert UnitPrices.from_columns(columns) == units


def test_a_settlement_by_hand() -> None:
    usage = Usage(input_tokens=1000, cached_input_tokens=400, cache_write_tokens=100, output_tokens=2000)
    # 600 x 0.25 J + 2,000 x 1.1 J = 2,350 J; with a PUE of 1.2, 2,820 J = 0.78333 Wh
    assert settle(UNITS, usage, 4_000, 700_000)._asdict() == {
        "energy_uwh": 783_333,
        "carbon_mg": 316,
        "cost_energy_nano": 43_553,
        "cost_tokens_nano": 139_000 + 11_120 + 34_750 + 2_224_000,
        "cost_link_nano": 84_480,
    }


counts = st.integers(0, 10**7)
signed = st.integers(-(10**12), 10**12)


@given(
    st.builds(UnitPrices, st.just(""), signed, *[counts] * 4, signed, *[counts] * 4),
    st.tuples(counts, counts, counts).map(lambda parts: (sum(parts), parts[0], parts[1])),
    counts,
    counts,
)
def test_every_line_is_rounded_once_from_exact_integers(
    units: UnitPrices, inputs: tuple[int, int, int], output: int, size: int
) -> None:
    total, cached, written = inputs
    costs = settle(units, Usage(total, cached, written, output), size, size)
    mj = units.prefill_mj_per_token * (total - cached) + units.decode_mj_per_token * output
    tokens = (
        units.input_nano_per_mtok * (total - cached - written)
        + units.cached_nano_per_mtok * cached
        + units.cache_write_nano_per_mtok * written
        + units.output_nano_per_mtok * output
    )
    assert costs == (
        round(Fraction(mj * units.pue_milli, 3600)),
        round(Fraction(mj * units.pue_milli * units.carbon_g_per_kwh, 3_600_000_000)),
        round(Fraction(mj * units.pue_milli * units.energy_nano_per_kwh, 3_600_000_000_000)),
        round(Fraction(tokens, 1_000_000)),
        round(Fraction(2 * size * units.link_nano_per_gb, 1_000_000_000)),
    )
    assert all(type(value) is int for value in costs)
    assert costs.total_nano == sum(costs[2:])


def test_input_is_charged_only_for_an_answer() -> None:
    usage = Usage(input_tokens=1_000_000, cached_input_tokens=400_000, output_tokens=9)
    assert revenue_nano(TARIFF, usage, 0, answered=False) == 0
    assert revenue_nano(TARIFF, usage, 0, answered=True) == 192_000_000
    assert revenue_nano(TARIFF, usage, 1000, answered=True) == 193_200_000


# Conservation


def attempt(serving: bool, usage: Usage, sizes: tuple[int, int]) -> dict[str, Any]:
    costs = settle(UNITS, usage, *sizes)
    return {
        "backend": "gz-1" if serving else "gz-2",
        "region": "guizhou",
        "cause": "" if serving else "connect_failed",
        "serving": serving,
        "ttft_ms": 100 if serving else None,
        "duration_ms": 900,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "bytes_to_backend": sizes[0],
        "bytes_from_backend": sizes[1],
        **UNITS.columns(),
        "cost_energy_nano": costs.cost_energy_nano,
        "cost_tokens_nano": costs.cost_tokens_nano,
        "cost_link_nano": costs.cost_link_nano,
    }


def settled_row(serving: bool = True) -> dict[str, Any]:
    """A row after one failed attempt; without a serving one if that failed too."""
    usage = Usage(1000, 400, 100, 2000, 50) if serving else Usage()
    sizes = (4_000, 700_000) if serving else (0, 0)
    units = UNITS if serving else UnitPrices()
    attempts = [attempt(False, Usage(1000, 0, 0, 30), (4_000, 9_000))]
    if serving:
        attempts.append(attempt(True, usage, sizes))
    costs = settle(units, usage, *sizes)
    waste = cost_waste_nano(attempts)
    return {
        "ttft_ms": 350 if serving else None,
        "duration_ms": 1_900,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "billed_output_tokens": usage.output_tokens,
        "bytes_to_backend": sizes[0],
        "bytes_from_backend": sizes[1],
        **units.columns(),
        **TARIFF.columns(),
        **costs._asdict(),
        "cost_waste_nano": waste,
        "cost_nano": costs.total_nano + waste,
        "revenue_nano": revenue_nano(TARIFF, usage, usage.output_tokens, serving),
        "attempts_json": json.dumps(attempts),
    }


INTEGERS = sorted(
    name
    for name, value in settled_row().items()
    if type(value) is int and name not in {"ttft_ms", "duration_ms", "reasoning_tokens"}
)


@pytest.mark.parametrize("serving", [True, False])
def test_a_good_row_has_no_findings(serving: bool) -> None:
    row = settled_row(serving)
    assert conservation(row) == []
    assert row["cost_waste_nano"] > 0


@given(st.sampled_from(INTEGERS), st.integers(-(10**6), 10**6).filter(bool))
def test_any_changed_integer_is_found(name: str, change: int) -> None:
    row = settled_row()
    # A tariff is per million tokens and the row has a thousand: less than this may vanish in the rounding.
    row[name] += change * 10**4 if name.startswith("tariff_") else change
    assert conservation(row) != []


RESULTS = [
    "energy_uwh",
    "carbon_mg",
    "cost_energy_nano",
    "cost_tokens_nano",
    "cost_link_nano",
    "cost_nano",
    "revenue_nano",
]


@pytest.mark.parametrize("name", RESULTS)
def test_a_changed_result_is_found_by_its_name(name: str) -> None:
    row = settled_row()
    row[name] += 1
    assert name in conservation(row)


def test_hidden_waste_is_found_even_if_the_total_was_made_to_fit() -> None:
    row = settled_row()
    row["cost_nano"] -= row["cost_waste_nano"]
    row["cost_waste_nano"] = 0
    assert conservation(row) == ["cost_waste_nano"]


@given(st.integers(0, 1), st.data())
def test_any_changed_integer_of_an_attempt_is_found(number: int, data: st.DataObject) -> None:
    row = settled_row()
    attempts = json.loads(row["attempts_json"])
    names = sorted(name for name, value in attempts[number].items() if type(value) is int and not name.endswith("_ms"))
    serving = number == 1
    # A failed attempt wrote nothing into the cache: a price of that, and carbon, leave no trace in its costs.
    silent = set() if serving else {"carbon_g_per_kwh", "unit_cache_write_nano_per_mtok", "unit_cached_nano_per_mtok"}
    name = data.draw(st.sampled_from(sorted(set(names) - silent)))
    attempts[number][name] += 10**6
    row["attempts_json"] = json.dumps(attempts)
    assert any(finding.startswith(f"attempts_json[{number}].") for finding in conservation(row))


@pytest.mark.parametrize("value", [None, "12", 12.0, True])
def test_what_is_not_an_integer_is_named_and_not_computed_with(value: object) -> None:
    assert "output_tokens" in conservation({**settled_row(), "output_tokens": value})
    assert "cost_link_nano" in conservation({**settled_row(), "cost_link_nano": value})


@pytest.mark.parametrize("value", [None, "", "{}", "[1]", "[{}]", '[{"serving": true}]', [], "not json"])
def test_attempts_that_cannot_be_read_are_a_finding(value: object) -> None:
    assert "attempts_json" in conservation({**settled_row(), "attempts_json": value})


def test_two_serving_attempts_are_a_finding() -> None:
    row = settled_row()
    attempts = json.loads(row["attempts_json"])
    row["attempts_json"] = json.dumps([*attempts, attempts[1]])
    assert conservation(row) == ["attempts_json"]


def test_unit_prices_without_a_serving_attempt_are_a_finding() -> None:
    assert conservation({**settled_row(serving=False), "unit_link_nano_per_gb": 5}) == ["unit_link_nano_per_gb"]


def test_a_missing_column_is_a_finding() -> None:
    row = settled_row()
    del row["pue_milli"]
    assert "pue_milli" in conservation(row)
