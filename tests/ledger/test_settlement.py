"""A row says what happened, can be recomputed from itself, and comes from an opening that survives any storage."""

from dataclasses import fields, replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.board import AREA_BYTES
from gateway.ledger.opening import FailedAttempt, Opening
from pricing.export import NAMES, Usage, conservation
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices

from .exports import BOUGHT, POWER, ending, opening, record_of, row_of

FAILED = FailedAttempt("hydro-1", "quebec", "connect_failed", None, 3000, Usage(), 512, 0, POWER)
WASTEFUL = FailedAttempt("bought-1", "saxony", "cut", 900, 1500, Usage(100, 0, 0, 7), 512, 2000, BOUGHT)

counts = st.integers(0, 10**7)
prices = st.integers(-(10**4), 10**9)
names = st.text(max_size=8)
small = {"pue_milli": 3000, "carbon_g_per_kwh": 2000, "prefill_mj_per_token": 2000, "decode_mj_per_token": 2000}


def integers_of(record: type[UnitPrices | Usage | Tariff]) -> dict[str, st.SearchStrategy[int]]:
    """A strategy for every field of a record that is an integer, so that a new one is drawn too."""
    integers = [field.name for field in fields(record) if field.type is int]
    return {name: st.integers(0, small[name]) if name in small else prices for name in integers}


def with_its_parts(usage: Usage) -> Usage:
    """Cached and written tokens are parts of the input."""
    return replace(usage, input_tokens=usage.input_tokens + usage.cached_input_tokens + usage.cache_write_tokens)


units = st.builds(UnitPrices, zone=names, **integers_of(UnitPrices))
usages = st.builds(Usage, **dict.fromkeys(integers_of(Usage), counts)).map(with_its_parts)
attempts = st.builds(
    FailedAttempt,
    backend=names,
    region=names,
    cause=names,
    ttft_ms=st.none() | counts,
    duration_ms=st.none() | counts,
    usage=usages,
    bytes_to_backend=counts,
    bytes_from_backend=counts,
    units=units,
)
openings = st.builds(
    opening,
    number=st.integers(0, 10**6),
    opened_at_us=st.integers(0, 4 * 10**15),
    tenant=names,
    model=names,
    request_id=names,
    stream=st.booleans(),
    exported=st.none() | st.booleans(),
    input_estimate=counts,
    units=units,
    tariff=st.builds(Tariff, **integers_of(Tariff)),
    failed=st.lists(attempts, max_size=2).map(tuple),
)


def test_a_row_has_all_columns_in_their_order():
    row = row_of(opening(1), ending(1))
    assert tuple(row) == NAMES
    assert ... not in row.values(), "a column without a value"


def test_a_row_says_who_what_and_where():
    row = row_of(opening(1), ending(1))
    expected = {
        "tenant": "acme",
        "model": "qwen3",
        "upstream_model": "Qwen/Qwen3",
        "origin_backend": "gz-1",
        "origin_country": "CN",
        "zone": "guizhou",
        "destination_country": "DE",
        "exported": True,
        "opened_at": "2025-11-24T16:00:01.000000Z",
        "ended_at": "2025-11-24T16:00:02.000000Z",
        "outcome": "completed",
        "record": "settled",
        "attempts": 1,
        "pue_milli": 1200,
        "tariff_output_nano_per_mtok": 1_200_000_000,
    }
    assert {name: row[name] for name in expected} == expected


@given(openings, usages, counts, st.booleans())
def test_every_row_recomputes_from_itself(opened, usage, size, serving):
    ended = ending(usage=usage, bytes_to_backend=size, bytes_from_backend=size, serving=serving, failed=opened.failed)
    row = row_of(opened, ended)
    assert conservation(orjson.loads(orjson.dumps(row))) == []
    assert not [name for name, value in row.items() if isinstance(value, float)]
    parts = ("cost_energy_nano", "cost_tokens_nano", "cost_link_nano", "cost_waste_nano")
    assert row["cost_nano"] == sum(row[part] for part in parts)


def test_failed_attempts_are_listed_in_order_and_paid_as_waste():
    row = row_of(opening(1, failed=(FAILED, WASTEFUL)), ending(1, failed=(FAILED, WASTEFUL)))
    tried = orjson.loads(row["attempts_json"])
    assert [(each["backend"], each["cause"], each["serving"]) for each in tried] == [
        ("hydro-1", "connect_failed", False),
        ("bought-1", "cut", False),
        ("gz-1", "", True),
    ]
    assert row["attempts"] == 3
    # 512 bytes to the first; 100 fresh tokens in and 7 out bought from the second, whose link is free.
    assert row["cost_waste_nano"] == round(512 * 0.12) + 100 * 100 + 7 * 400
    assert row["bytes_to_backend"] == 500, "the serving attempt's"


def test_a_row_that_nobody_served_has_no_origin_and_all_its_cost_is_waste():
    row = row_of(
        opening(1),
        ending(1, outcome="upstream_refused", status=502, failed=(WASTEFUL,), serving=False, usage=Usage(5, 0, 0, 5),
               delivered_tokens=0, billed_output_tokens=0, ttft_ms=None),
    )  # fmt: skip
    place = ("origin_backend", "origin_region", "zone", "origin_country", "exported", "upstream_model")
    assert [row[name] for name in place] == [None] * 6
    assert row["cost_nano"] == row["cost_waste_nano"] > 0
    assert (row["input_tokens"], row["bytes_to_backend"], row["revenue_nano"]) == (0, 0, 0)
    assert all(row[name] == 0 for name in UnitPrices().columns() if name != "zone")
    assert row["attempts"] == 1
    assert row["record"] == "void"
    assert conservation(row) == []


@pytest.mark.parametrize(
    ("changes", "record"),
    [
        ({}, "settled"),
        ({"ttft_ms": None, "delivered_tokens": 0, "billed_output_tokens": 0}, "void"),
        ({"outcome": "client_gone", "delivered_tokens": 0, "billed_output_tokens": 0}, "settled"),
        ({"recovered": True, "ttft_ms": None, "delivered_tokens": 0}, "recovered"),
    ],
)
def test_an_end_before_any_content_is_void(changes, record):
    assert row_of(opening(1), ending(1, **changes))["record"] == record


@given(openings)
def test_an_opening_comes_back_from_the_log_as_it_was(opened):
    assert Opening.from_record(record_of(opened)) == opened


@given(openings)
def test_an_opening_comes_back_from_the_board_but_for_zones_of_failed_attempts(opened):
    failed = tuple(attempt._replace(units=unzoned(attempt.units)) for attempt in opened.failed)
    back = Opening.from_bytes(opened.to_bytes())
    assert back == opened._replace(failed=failed)


def unzoned(units: UnitPrices) -> UnitPrices:
    return UnitPrices.from_columns({name: value for name, value in units.columns().items() if isinstance(value, int)})


def at_its_bounds(letter: str) -> Opening:
    dear = UnitPrices("", 10**9, 2000, 1000, 2000, 2000, *[10**10] * 5)
    failed = FailedAttempt(
        letter * 64, letter * 64, "first_content_timeout", 60_000, 60_000, Usage(10**6, 10**6), 10**8, 10**8, dear
    )
    names = {
        **dict.fromkeys(("tenant", "key_id", "origin_backend", "origin_region", "edge"), "n" * 64),
        **dict.fromkeys(("model", "upstream_model"), "m" * 128),
    }
    return opening(1, **names, request_id='"' * 128, units=dear, failed=(failed, failed))


def test_an_opening_with_every_name_at_its_bound_fits_on_the_board():
    opened = at_its_bounds("b")
    packed = opened.to_bytes()
    assert len(packed) <= AREA_BYTES
    assert Opening.from_bytes(packed) == opened


def test_an_opening_that_is_too_long_loses_names_of_failed_attempts_but_no_cost():
    opened = at_its_bounds("\N{GREEK SMALL LETTER BETA}")
    packed = opened.to_bytes()
    assert len(packed) <= AREA_BYTES
    back = Opening.from_bytes(packed)
    assert [attempt.backend for attempt in back.failed] == ["", ""]
    assert back._replace(failed=()) == opened._replace(failed=())
    row, recovered = (row_of(each, ending(1, failed=each.failed)) for each in (opened, back))
    assert recovered["cost_waste_nano"] == row["cost_waste_nano"] > 0


@pytest.mark.parametrize("packed", [b"", b"[]", b"[1,[],[]]", b"[2,[],[]]", b"{}", b"[1,null,null]", b"\0" * 100])
def test_bytes_that_are_no_opening_are_refused(packed):
    with pytest.raises(ValueError):
        Opening.from_bytes(packed)


@pytest.mark.parametrize("change", ["export_id", "units", "tariff", "failed", "opened_at"])
def test_a_record_that_holds_no_opening_is_refused(change):
    record = record_of(opening(1))
    del record[change]
    with pytest.raises(ValueError):
        Opening.from_record(record)
