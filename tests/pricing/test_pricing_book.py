import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import astuple, fields, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import EnergyUse, PriceBook, Source, UnitPrices
from pricing.energy import PriceCurve
from pricing.export import Usage, conservation, settle
from pricing.region import Power, Region
from pricing.tariff import Tariff, TariffSchedule
from pricing.transit import LOCAL_LINK, TransitPrice
from pricing.version import version_of

HOUR = 3600.0
PAIRS = [(backend, link) for backend in ("gz-1", "no-1", "is-1", "shop") for link in ("iepl", "leased", LOCAL_LINK)]


def reversed_order(parts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value
        for name, value in reversed(parts.items())
    }


def test_unit_prices_are_converted_exactly_and_rounded_once(world: Any) -> None:
    units = world.book().at(world.noon).units("no-1", "iepl")
    assert units == UnitPrices(
        zone="no2",
        energy_nano_per_kwh=round((Fraction(40) + 15) * Fraction("1.08") / 1000 * 10**9),
        pue_milli=1100,
        carbon_g_per_kwh=30,
        prefill_mj_per_token=300,
        decode_mj_per_token=1300,
        link_nano_per_gb=120_000_000,
    )


def test_a_term_that_does_not_apply_is_zero(world: Any) -> None:
    now = world.book().at(world.utc("2026-03-27T17:00"))  # 01:00 in Shanghai: half price
    assert now.units("shop", LOCAL_LINK) == UnitPrices(
        input_nano_per_mtok=139_000_000,
        cached_nano_per_mtok=13_900_000,
        cache_write_nano_per_mtok=173_750_000,
        output_nano_per_mtok=556_000_000,
    )


@pytest.mark.parametrize(
    ("backend", "zone", "nano"),
    [("gz-1", "guizhou", 55_600_000), ("no-1", "no2", 59_400_000), ("is-1", "", 56_160_000)],
)
def test_the_zone_is_the_feed_or_tariff_that_priced_the_energy(world: Any, backend: str, zone: str, nano: int) -> None:
    units = world.book().at(world.noon).units(backend, LOCAL_LINK)
    assert (units.zone, units.energy_nano_per_kwh) == (zone, nano)


@given(st.floats(-1_000, 30_000), st.floats(-50, 200), st.floats(1e-4, 100))
def test_every_unit_price_is_an_integer_whatever_the_floats_are(
    world: Any, make_curve: Callable[..., PriceCurve], price: float, adder: float, rate: float
) -> None:
    regions = {
        **world.parts()["regions"],
        "norway": Region("norway", "NO", power=Power(feed="no2", adder_per_mwh=adder)),
    }
    book = world.book(fx={"CNY": rate, "EUR": rate}, regions=regions, curves={"no2": make_curve([price])})
    for pair in PAIRS:
        units = book.at(world.noon).units(*pair)
        assert all(type(value) is int for value in astuple(units)[1:])
    expected = (Fraction(repr(price)) + Fraction(repr(adder))) * Fraction(repr(rate)) * 10**6
    assert book.at(world.noon).units("no-1", LOCAL_LINK).energy_nano_per_kwh == round(expected)


def test_a_negative_electricity_price_stays_negative(world: Any, make_curve: Callable[..., PriceCurve]) -> None:
    now = world.book(curves={"no2": make_curve([-100.0])}).at(world.noon)
    assert now.units("no-1", LOCAL_LINK).energy_nano_per_kwh == -91_800_000
    assert now.rates("no-1", LOCAL_LINK).per_output_token_energy < 0


def test_lines_that_are_sunk_or_below_plan_carry_the_next_byte_for_nothing(world: Any) -> None:
    now = world.book().at(world.noon)
    assert [now.units("gz-1", link).link_nano_per_gb for link in ("iepl", "leased", "burst", LOCAL_LINK)] == [
        120_000_000,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize(("backend", "link"), [("nobody", "iepl"), ("gz-1", "nowhere")])
def test_an_unknown_backend_or_link_has_no_price(world: Any, backend: str, link: str) -> None:
    with pytest.raises(KeyError):
        world.book().at(world.noon).units(backend, link)


# Slices


def test_one_slice_is_handed_out_for_as_long_as_nothing_changes(world: Any) -> None:
    book = world.book()
    now = book.at(world.noon + 60)
    assert book.at(world.noon) is now
    assert book.at(math.nextafter(world.noon + HOUR, 0)) is now
    assert book.at(world.noon + HOUR) is not now
    assert now.units("gz-1", "iepl") is now.units("gz-1", "iepl")
    assert now.rates("gz-1", "iepl") is now.rates("gz-1", "iepl")


def test_a_price_changes_at_its_boundary_and_not_a_moment_before(world: Any) -> None:
    book, edge = world.book(), world.noon + HOUR
    before, after = book.at(math.nextafter(edge, 0)), book.at(edge)
    assert (before.until, after.since) == (edge, edge)
    assert before.units("no-1", LOCAL_LINK).energy_nano_per_kwh == 59_400_000
    assert after.units("no-1", LOCAL_LINK).energy_nano_per_kwh == 60_480_000


def test_a_slice_ends_with_the_first_of_all_its_sources(world: Any) -> None:
    half_past = world.noon + 4 * HOUR + 1800
    charges = {"acme": TariffSchedule((Tariff(1, 1, 1), Tariff(2, 2, 2, valid_from=half_past)))}
    book = world.book(charges=charges)
    night_in_shanghai = world.noon + 4 * HOUR
    assert (book.at(half_past - 1).since, book.at(half_past - 1).until) == (night_in_shanghai, half_past)
    assert (book.at(half_past).since, book.at(half_past).until) == (half_past, night_in_shanghai + HOUR)
    assert (book.at(half_past - 1).charge("acme"), book.at(half_past).charge("acme")) == charges["acme"].versions


@given(st.integers(-48 * 60, 120 * 60), st.floats(0, 1))
def test_nothing_changes_within_a_slice(world: Any, minute: int, inside: float) -> None:
    t = world.noon + minute * 60.0
    now, other = world.book().at(t), world.book()
    assert now.since <= t < now.until
    low, high = max(now.since, world.noon - 1e6), min(now.until, world.noon + 1e7)
    again = other.at(min(low + inside * (high - low), math.nextafter(high, 0)))
    assert (again.since, again.until) == (now.since, now.until)
    assert [again.units(*pair) for pair in PAIRS] == [now.units(*pair) for pair in PAIRS]


def test_the_previous_slice_is_what_was_in_force_just_before(world: Any) -> None:
    book = world.book()
    now = book.at(world.noon + 2 * HOUR + 5)
    before = now.previous
    assert before is not None and before is now.previous
    assert (before.since, before.until) == (world.noon + HOUR, world.noon + 2 * HOUR)
    assert before.units("no-1", LOCAL_LINK) == book.at(world.noon + HOUR).units("no-1", LOCAL_LINK)


def test_where_nothing_ever_changed_nothing_was_before() -> None:
    book = PriceBook("USD", regions={"here": Region("here", "DE", power=Power(price_per_mwh=50.0))})
    now = book.at(0.0)
    assert (now.since, now.until, now.previous) == (-math.inf, math.inf, None)


def test_a_late_price_comes_into_force_when_it_arrives(world: Any, make_curve: Callable[..., PriceCurve]) -> None:
    old, arrival = world.book(), world.noon + 420
    late = old.with_curve("no2", make_curve([400.0])).following(old, arrival)
    now = late.at(arrival + 10)
    assert now.since == arrival
    assert now.units("no-1", LOCAL_LINK).energy_nano_per_kwh == 448_200_000
    assert now.previous is not None
    assert now.previous.units("no-1", LOCAL_LINK).energy_nano_per_kwh == 59_400_000
    assert late.at(arrival - 10).until == arrival
    assert late.at(world.noon + 4 * HOUR).since > arrival


def test_a_batch_that_changes_nothing_in_force_does_not_look_like_a_change(
    world: Any, make_curve: Callable[..., PriceCurve]
) -> None:
    old = world.book()
    same = old.with_curve("no2", make_curve([40.0, 999.0])).following(old, world.noon + 10)
    assert same.at(world.noon + 20).since == world.noon
    changed = old.with_curve("no2", make_curve([400.0])).following(old, world.noon + 30)
    again = changed.with_curve("no2", make_curve([400.0, 7.0])).following(changed, world.noon + 40)
    assert again.at(world.noon + 50).since == world.noon + 30
    before = again.at(world.noon + 50).previous
    assert before is not None and before.version == old.version


def test_a_price_that_arrives_at_its_hour_replaces_what_was_in_force_until_then(
    world: Any, make_curve: Callable[..., PriceCurve]
) -> None:
    old, hour = world.book(), world.noon + HOUR
    new = old.with_curve("no2", make_curve([1.0, 2.0])).following(old, hour)
    now = new.at(hour)
    assert now.since == hour
    assert now.previous is not None and now.previous.units("no-1", LOCAL_LINK).energy_nano_per_kwh == 59_400_000


def test_a_book_with_other_backends_starts_anew(world: Any, make_curve: Callable[..., PriceCurve]) -> None:
    old = world.book()
    sources = {**world.parts()["sources"], "no-2": Source("norway", EnergyUse(1, 1))}
    new = world.book(sources=sources, curves={"no2": make_curve([400.0])}).following(old, world.noon + 420)
    assert new.at(world.noon + 430).since == world.noon


def test_books_that_follow_each_other_do_not_pile_up(world: Any, make_curve: Callable[..., PriceCurve]) -> None:
    book = world.book()
    for arrival in range(1, 6):
        book = book.with_curve("no2", make_curve([100.0 * arrival])).following(book, world.noon + arrival)
    now = book.at(world.noon + 10)
    assert now.since == world.noon + 5
    assert now.previous is not None and now.previous.since == world.noon


# From the feed to what stands behind it


def energy(book: PriceBook, t: float) -> tuple[str, int, str]:
    now = book.at(t)
    units, power = now.units("no-1", LOCAL_LINK), now.power("norway")
    assert power is not None
    return units.zone, units.energy_nano_per_kwh, power.quality


def test_a_silent_feed_is_mixed_with_its_fallback_and_then_replaced_by_it(
    world: Any, make_curve: Callable[..., PriceCurve]
) -> None:
    book = world.book(curves={"no2": make_curve([35.0], stale_after_s=HOUR)})
    feed, grid = 54_000_000, 97_200_000  # (35 + 15) and 90 EUR per MWh
    end = world.noon + HOUR
    assert energy(book, end - 1) == ("no2", feed, "live")
    assert energy(book, end) == ("no2", (3 * feed + grid) // 4, "stale")
    assert energy(book, end + 8 * HOUR) == ("no2", (feed + grid) // 2, "stale")
    assert energy(book, end + 16 * HOUR) == ("no2", (feed + 3 * grid) // 4, "stale")
    assert energy(book, end + 24 * HOUR) == ("grid", grid, "fallback")
    assert energy(book, world.noon - 1) == ("grid", grid, "fallback")


def test_a_feed_that_never_answered_leaves_its_fallback(world: Any) -> None:
    assert energy(world.book(curves={}), world.noon) == ("grid", 97_200_000, "fallback")


def test_a_fixed_price_may_stand_behind_a_feed(world: Any) -> None:
    power = Power(feed="no2", price_per_mwh=100.0, currency="USD", adder_per_mwh=15.0)
    regions = {**world.parts()["regions"], "norway": Region("norway", "NO", power=power)}
    assert energy(world.book(regions=regions, curves={}), world.noon) == ("", 100_000_000, "fallback")


def test_a_feed_with_nothing_behind_it_falls_back_to_its_last_day(
    world: Any, make_curve: Callable[..., PriceCurve]
) -> None:
    regions = {**world.parts()["regions"], "norway": Region("norway", "NO", power=Power(feed="no2", adder_per_mwh=5.0))}
    book = world.book(regions=regions, curves={"no2": make_curve([1000.0] * 24 + [10.0, 30.0] * 12)})
    assert energy(book, world.noon + 1000 * HOUR) == ("no2", 27_000_000, "fallback")


def test_power_is_shown_in_the_gateways_currency(world: Any) -> None:
    now = world.book().at(world.noon)
    norway = now.power("norway")
    assert norway is not None
    assert (norway.price_per_mwh, norway.since, norway.until) == (59.4, world.noon, world.noon + HOUR)
    assert now.power("eu-edge") is None


# Charges, and what is settled


def test_a_tenant_without_a_tariff_pays_nothing(world: Any) -> None:
    now = world.book().at(world.noon)
    assert now.charge("acme") == Tariff(300_000_000, 30_000_000, 1_200_000_000)
    assert now.charge("guest") == Tariff()


def test_a_late_price_never_rewrites_a_settled_record(world: Any, make_curve: Callable[..., PriceCurve]) -> None:
    book = world.book()
    held = book.at(world.noon + 1800).units("no-1", "iepl")
    usage = Usage(input_tokens=1200, cached_input_tokens=200, output_tokens=3000)
    settled = settle(held, usage, 5000, 900_000)
    late = book.with_curve("no2", make_curve([900.0])).following(book, world.noon + 2000)
    assert settle(held, usage, 5000, 900_000) == settled
    assert book.at(world.noon + 1800).units("no-1", "iepl") == held
    assert late.at(world.noon + 2100).units("no-1", "iepl") != held
    assert late.version != book.version


# Version


def test_the_version_is_the_same_in_every_process(world: Any) -> None:
    content = world.parts()
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).version)"
    versions = {PriceBook(**content).version, PriceBook(**reversed_order(content)).version}
    for seed in ("1", "2"):
        book = PriceBook(**reversed_order(content))
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=pickle.dumps(book),
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        versions.add(done.stdout.decode().strip())
    assert len(versions) == 1
    (version,) = versions
    assert len(version) == 12 and set(version) <= set("0123456789abcdef")


def test_a_book_survives_the_way_to_another_process(world: Any) -> None:
    book = world.book()
    book.at(world.noon).units("no-1", "iepl")
    copy = pickle.loads(pickle.dumps(book))
    assert [copy.at(world.noon).units(*pair) for pair in PAIRS] == [book.at(world.noon).units(*pair) for pair in PAIRS]


def test_how_a_number_is_written_is_no_content() -> None:
    assert version_of({"price": 400}) == version_of({"price": 400.0})
    assert version_of({"a": 1, "b": {2, 3}}) == version_of({"b": {3, 2}, "a": 1})
    assert version_of([1, 2]) != version_of([2, 1])
    assert version_of(-math.inf) == version_of("-inf")


def test_what_has_no_canonical_form_has_no_version() -> None:
    with pytest.raises(TypeError, match="object"):
        version_of({"a": object()})


def test_a_price_anywhere_is_in_the_version(world: Any, make_curve: Callable[..., PriceCurve]) -> None:
    book = world.book()
    content = world.parts()
    changed = [
        world.book(fx={**content["fx"], "CNY": 0.14}),
        world.book(regions={**content["regions"], "iceland": replace(content["regions"]["iceland"], pue_milli=1001)}),
        world.book(sources={**content["sources"], "gz-1": Source("guizhou", EnergyUse(250, 1101))}),
        world.book(transit={**content["transit"], "iepl": TransitPrice("iepl", "per_gb", "USD", price_per_gb=0.13)}),
        world.book(tariffs={**content["tariffs"], "grid": replace(content["tariffs"]["grid"], price_per_mwh=91.0)}),
        book.with_curve("no2", make_curve([40.0])),
        world.book(charges={}),
    ]
    assert len({book.version, *(other.version for other in changed)}) == len(changed) + 1
    assert book.with_curve("no2", make_curve(fetched_at=99.0)).version == book.version


def test_a_book_cannot_be_changed_through_what_it_was_built_from(world: Any) -> None:
    content = world.parts()
    book = PriceBook(**content)
    version = book.version
    content["regions"].clear()
    assert PriceBook(**world.parts()).version == version
    assert book.at(world.noon).power("norway") is not None


def test_columns_of_unit_prices_carry_every_field(world: Any) -> None:
    units = world.book().at(world.noon).units("gz-1", "iepl")
    columns = units.columns()
    assert sorted(map(str, columns.values())) == sorted(str(getattr(units, item.name)) for item in fields(units))
    assert UnitPrices.from_columns(columns) == replace(units, zone="")
    assert conservation(columns) != []
