"""FOCUS 1.2: every column as the table says, and to the last nano unit what the ledger says."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.charges import billed, incurred
from gateway.ledger.focus import FocusTerms, focus_rows
from gateway.ledger.focus_columns import COLUMNS, FOCUS_COLUMNS, NAMES, SUBCATEGORIES
from gateway.ledger.formats import write_csv
from gateway.ledger.instants import parse_us
from gateway.ledger.parquet import write_parquet
from gateway.ledger.segment import Record
from pricing.export import Usage, conservation
from pricing.tariff import Tariff

from .exports import BOUGHT, POWER, ending, opening, row_of

MANDATORY = [
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd"),
    *("ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity"),
    *("PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
AMOUNT = re.compile(r"-?\d+\.\d+")


def sold(number: int, ended_at: str = "2025-11-24T23:59:59.999999Z", units: Any = POWER, **changes: Any) -> Record:
    names = ("usage", "delivered_tokens", "billed_output_tokens", "ttft_ms", "wasted")
    fields = {name: changes.pop(name) for name in names if name in changes}
    ended = ending(number, ended_at_us=parse_us(ended_at), **fields)
    row = row_of(opening(number, units=units, **changes), ended)
    assert conservation(row) == []
    return row


def ledger_rows() -> list[Record]:
    """Of all kinds: sold and bought tokens, power below zero, unknown places, no answer, a name that is a formula."""
    return [
        sold(0),
        sold(1, model="llama4", tenant="=1+1"),
        sold(2, units=replace(POWER, energy_nano_per_kwh=-30_000_001)),
        sold(3, units=BOUGHT, destination_country="", exported=None),
        sold(4, "2025-11-25T00:00:00.000000Z", ttft_ms=None, billed_output_tokens=0, delivered_tokens=0),
        sold(5, "2025-12-01T00:30:00.000000Z", tariff=Tariff(1, 1, 1), usage=Usage(3, 1, 0, 7)),
        sold(6, "2025-12-31T23:00:00.000000Z", exported=False, origin_country="DE"),
    ]


def charges(rows: Sequence[Record], view: str = "billing", period: str = "day") -> list[dict[str, Any]]:
    return list(focus_rows(rows, FocusTerms("Port of Oslo", view, period)))


def as_csv(rows: Sequence[Record], view: str) -> list[dict[str, str]]:
    out = io.StringIO(newline="")
    write_csv(focus_rows(rows, FocusTerms("Port of Oslo", view)), out, NAMES)
    return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))


def test_the_table_has_every_mandatory_column_and_ours_behind_them():
    assert [column.name for column in FOCUS_COLUMNS if column.level == "Mandatory"] == MANDATORY
    ours = [name for name in NAMES if name.startswith("x_")]
    assert list(NAMES) == [*sorted(set(NAMES) - set(ours)), *ours]


@pytest.mark.parametrize("view", ["billing", "cost"])
@pytest.mark.parametrize("column", FOCUS_COLUMNS, ids=NAMES)
def test_every_column_keeps_to_its_type_nullability_and_values(view, column):
    rows = as_csv(ledger_rows(), view)
    assert len(rows) > 5 and tuple(rows[0]) == NAMES
    for text in (row[column.name] for row in rows):
        if text == "":
            assert column.nullable
        elif column.kind == "decimal":
            assert AMOUNT.fullmatch(text)
        elif column.kind == "time":
            assert MOMENT.fullmatch(text) and datetime.fromisoformat(text)
        elif column.kind == "json":
            values = json.loads(text).values()
            assert all(isinstance(value, str | bool | int | None) for value in values)
        elif column.kind == "bool":
            assert text in ("true", "false")
        assert text == "" or not column.allowed or text in column.allowed


@pytest.mark.parametrize("period", ["hour", "day"])
@pytest.mark.parametrize(("view", "column"), [("billing", "revenue_nano"), ("cost", "cost_nano")])
def test_billed_costs_are_the_ledgers_integers(view, column, period):
    rows = ledger_rows()
    found = charges(rows, view, period)
    for tenant in {row["tenant"] for row in rows}:
        total = sum(row[column] for row in rows if row["tenant"] == tenant)
        billed_nano = sum(each["BilledCost"] for each in found if each["SubAccountId"] == tenant) * 10**9
        assert billed_nano == total
    assert all(each["EffectiveCost"] == each["BilledCost"] for each in found)


@pytest.mark.parametrize("view", ["billing", "cost"])
def test_costs_are_exactly_price_times_quantity_and_no_price_is_below_zero(view):
    for each in charges(ledger_rows(), view):
        if each["ChargeCategory"] == "Usage":
            assert each["ContractedUnitPrice"] * each["PricingQuantity"] == each["ContractedCost"] == each["ListCost"]
            assert each["ContractedUnitPrice"] == each["ListUnitPrice"] >= 0
            assert each["ConsumedQuantity"] >= 0
            assert None not in (each["SkuId"], each["SkuPriceId"], each["PricingUnit"], each["ConsumedUnit"])


def test_tokens_are_told_apart_by_class_and_none_is_lost():
    rows = ledger_rows()
    tokens = {
        "Input Tokens": sum(r["input_tokens"] - r["cached_input_tokens"] for r in rows if r["ttft_ms"] is not None),
        "Cached Input Tokens": sum(r["cached_input_tokens"] for r in rows if r["ttft_ms"] is not None),
        "Output Tokens": sum(r["billed_output_tokens"] for r in rows),
    }
    found = charges(rows)
    for meter, total in tokens.items():
        of_meter = [each for each in found if each["SkuMeter"] == meter]
        assert sum(each["ConsumedQuantity"] for each in of_meter) == total
        assert {each["ConsumedUnit"] for each in of_meter} == {"Tokens"}


def test_periods_of_charge_and_billing_are_whole_and_in_utc():
    found = charges(ledger_rows())
    for each in found:
        assert each["ChargePeriodStart"] < each["ChargePeriodEnd"] <= each["BillingPeriodEnd"]
        assert each["BillingPeriodStart"] <= each["ChargePeriodStart"]
    periods = sorted({(each["ChargePeriodStart"], each["BillingPeriodEnd"][:7]) for each in found})
    assert periods == [
        ("2025-11-24T00:00:00Z", "2025-12"),
        ("2025-12-01T00:00:00Z", "2026-01"),
        ("2025-12-31T00:00:00Z", "2026-01"),
    ]
    hours = {each["ChargePeriodStart"] for each in charges(ledger_rows(), period="hour")}
    assert "2025-11-24T23:00:00Z" in hours


def test_a_price_has_one_sku_and_a_sku_is_the_same_wherever_it_is_made():
    rows = [sold(0), sold(1, origin_country="NO", origin_backend="no-1"), sold(2, tariff=Tariff(5, 5, 5))]
    found = charges(rows)
    parents: dict[str, set[str]] = {}
    for each in found:
        parents.setdefault(each["SkuPriceId"], set()).add(each["SkuId"])
    assert all(len(skus) == 1 for skus in parents.values())
    assert (len({each["SkuId"] for each in found}), len(parents)) == (3, 6)


@pytest.mark.parametrize("view", ["billing", "cost"])
def test_services_belong_to_one_category(view):
    for each in charges(ledger_rows(), view):
        assert SUBCATEGORIES[each["ServiceSubcategory"]] == each["ServiceCategory"]


def test_a_failed_attempt_is_an_adjustment_without_a_price():
    row = sold(0) | {"cost_waste_nano": 17}
    (waste,) = (each for each in charges([row], "cost") if each["ChargeCategory"] == "Adjustment")
    assert waste["BilledCost"] == waste["ContractedCost"] == waste["ListCost"] == Decimal("0.000000017")
    assert waste["ConsumedQuantity"] is waste["PricingQuantity"] is waste["ContractedUnitPrice"] is None


@given(
    tokens=st.tuples(*[st.integers(0, 10**7)] * 4),
    prices=st.tuples(*[st.integers(0, 10**11)] * 3),
    bought=st.tuples(*[st.integers(0, 10**11)] * 4),
    power=st.integers(-(10**10), 10**10),
    answered=st.booleans(),
)
def test_parts_add_up_to_the_row_and_are_within_a_nano_of_their_product(tokens, prices, bought, power, answered):
    fresh, cached, written, output = tokens
    names = ("input", "cached", "cache_write", "output")
    units = replace(
        POWER,
        energy_nano_per_kwh=power,
        **{f"{name}_nano_per_mtok": price for name, price in zip(names, bought, strict=True)},
    )
    row = sold(
        0,
        units=units,
        tariff=Tariff(*prices),
        usage=Usage(fresh + cached + written, cached, written, output),
        delivered_tokens=output,
        billed_output_tokens=output,
        ttft_ms=5 if answered else None,
    )
    assert sum(part.amount_nano for part in billed(row)) == row["revenue_nano"]
    assert sum(part.amount_nano for part in incurred(row)) == row["cost_nano"]
    for part in (*billed(row), *incurred(row)):
        exact = Decimal(part.quantity) * part.price_nano / 10**part.meter.pricing_exponent
        # Energy was rounded to whole micro-watt-hours before its price was taken.
        slack = abs(Decimal(part.price_nano)) / 10**9 if part.meter.unit == "kWh" else 0
        assert abs(part.amount_nano - exact) <= 1 + slack


@pytest.mark.parametrize("view", ["billing", "cost"])
def test_parquet_says_the_same_with_exact_decimals(view):
    rows, out = ledger_rows(), io.BytesIO()
    terms = FocusTerms("Port of Oslo", view)
    write_parquet(focus_rows(rows, terms), out, COLUMNS)
    read = pq.read_table(io.BytesIO(out.getvalue())).to_pylist()
    for found, expected in zip(read, charges(rows, view), strict=True):
        for name, value in expected.items():
            moment = found[name].strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(found[name], datetime) else found[name]
            assert moment == value


def test_a_row_that_does_not_add_up_is_still_charged_as_it_says():
    row = sold(0)
    row["revenue_nano"] += 12_345
    assert sum(each["BilledCost"] for each in charges([row])) * 10**9 == row["revenue_nano"]
