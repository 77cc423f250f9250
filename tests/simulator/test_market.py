"""When prices become public, and what stands in for them until then."""

import pytest

from pricing.energy import PricePoint
from routing.simulator.market import PublicPrices
from routing.simulator.world import World, ZonePrices
from tests.simulator.stage import Document, fault, inputs, part, world

HOUR_S = 3600
NOON = inputs("smoke").world.scenario.start  # 2024-05-08 12:00 UTC, when the scenario starts


def numbered(place: World) -> dict[str, ZonePrices]:
    """Prices that tell their hour: 0 is the first of the scenario."""
    first = NOON // HOUR_S - 120
    return {zone: ZonePrices(first, tuple(float(hour) for hour in range(-120, 120))) for zone in place.zones}


def price(place: World, site: str, at_s: float, known_s: float | None = None) -> PricePoint:
    """What a router that knows what is public at `known_s` (now, unless given) holds for the price of a moment."""
    public = PublicPrices(place, numbered(place))
    for release in public.pending:
        if release.at_s <= (at_s if known_s is None else known_s):
            public.release(release)
    found = public.book.at(NOON + at_s).power(site)
    assert found is not None
    return found


def bare(content: Document) -> None:
    """Power at the market's price as it stands."""
    for site in content["sites"]:
        site["adder_per_kwh"] = 0.0
    content["fx"] = dict.fromkeys(content["fx"], 1.0)


def dead_feeds(*faults: tuple[str, float, float]):
    def change(content: Document) -> None:
        bare(content)
        content["faults"] = [fault("feed_dead", *given) for given in faults]

    return change


def test_a_day_ahead_price_is_public_from_one_oclock_of_the_day_before():
    place = world("smoke", bare)
    tomorrow = 12 * HOUR_S  # midnight
    assert price(place, "de", tomorrow, known_s=HOUR_S - 1).price_per_mwh == 11.0  # the last known is held
    known = price(place, "de", tomorrow, known_s=HOUR_S)
    assert (known.price_per_mwh, known.quality) == (12.0, "live")
    assert price(place, "de", tomorrow + 24 * HOUR_S - 1, known_s=HOUR_S).price_per_mwh == 35.0
    assert price(place, "de", tomorrow + 24 * HOUR_S, known_s=HOUR_S).price_per_mwh != 36.0


@pytest.mark.parametrize(("at_s", "hour"), [(0, -1), (299, -1), (300, 0), (3599, 0), (3600, 0), (3899, 0), (3900, 1)])
def test_a_real_time_price_comes_five_minutes_late_and_holds_until_the_next(at_s, hour):
    assert price(world("smoke", bare), "sg", at_s).price_per_mwh == hour


def test_a_dead_feed_brings_what_it_missed_when_it_is_back():
    place = world("smoke", dead_feeds(("SG_SGD", 4000.0, 12_000.0)))
    assert price(place, "sg", 8000.0).price_per_mwh == 1.0  # of 3,900 s
    assert price(place, "sg", 11_999.0).price_per_mwh == 1.0
    assert price(place, "sg", 12_000.0).price_per_mwh == 3.0


def test_a_dead_feed_leaves_other_zones_alone():
    place = world("smoke", dead_feeds(("DE-LU_EUR", 0.0, 20_000.0)))
    assert price(place, "sg", 8000.0).price_per_mwh == 2.0
    tomorrow = 12 * HOUR_S
    assert price(place, "tx", tomorrow, known_s=HOUR_S).price_per_mwh == 12.0
    assert price(place, "de", tomorrow, known_s=19_999.0).price_per_mwh == 11.0
    assert price(place, "de", tomorrow, known_s=20_000.0).price_per_mwh == 12.0


def test_all_feeds_can_be_dead_and_one_after_another():
    place = world("smoke", dead_feeds(("*", 3700.0, 8000.0), ("SG_SGD", 8000.0, 9000.0)))
    assert price(place, "sg", 8999.0).price_per_mwh == 0.0
    assert price(place, "sg", 9000.0).price_per_mwh == 2.0


def test_a_feed_that_stays_silent_is_trusted_less_and_less():
    place = world("smoke", dead_feeds(("SG_SGD", 0.0, 1e9)))
    assert price(place, "sg", 1.9 * HOUR_S).quality == "live"
    assert price(place, "sg", 2.1 * HOUR_S).quality == "stale"  # three hours after its last hour began


def test_a_power_tariff_is_known_for_all_time_and_turns_at_the_local_hour():
    """Guizhou is eight hours ahead: midnight there, when the night price begins, is 16:00 UTC."""
    place = world("smoke")
    evening, night = price(place, "gz", 4 * HOUR_S - 1, known_s=0), price(place, "gz", 4 * HOUR_S, known_s=0)
    assert evening.price_per_mwh == pytest.approx(0.4 * 1.0 * 1000 * 0.13897)
    assert night.price_per_mwh == pytest.approx(0.4 * 0.5 * 1000 * 0.13897)


def test_adder_and_exchange_rate_are_in_the_price():
    smoke = inputs("smoke")
    zone = smoke.prices["DE-LU_EUR"].at(NOON // HOUR_S)
    public = PublicPrices(smoke.world, smoke.prices)
    found = public.book.at(NOON).power("de")
    assert found is not None
    assert found.price_per_mwh == pytest.approx((zone + 50.0) * 1.082)


def test_a_price_that_arrives_in_its_hour_counts_as_changed_when_it_arrives():
    place = world("smoke", bare)
    public = PublicPrices(place, numbered(place))
    public.release(public.pending[0])
    assert public.pending[0].at_s == 300.0
    prices = public.book.at(NOON + 301.0)
    assert prices.since == NOON + 300.0
    before = prices.previous
    assert before is not None
    power = before.power("sg")
    assert power is not None
    assert power.price_per_mwh == -1.0


def test_a_zone_without_a_public_price_is_an_error_that_names_it():
    def late(content: Document) -> None:
        part(content, "sites", "sg")["publish"] = "day_ahead"

    place = world("smoke", late)
    prices = {**inputs("smoke").prices, "SG_SGD": ZonePrices(NOON // HOUR_S + 12, (1.0, 2.0))}
    with pytest.raises(ValueError, match="SG_SGD"):
        PublicPrices(place, prices)
