"""A scenario that does not fit is refused with its place."""

import pytest

from routing.simulator.scenario import world_of
from routing.simulator.world import Market, PowerTariff, TokenSale
from tests.simulator.stage import document, fault, inputs, part

SITES = "sites[0]"

MISTAKES = {
    "no scenario": (lambda c: c.pop("scenario"), "scenario: missing"),
    "not a time": (lambda c: c["scenario"].update(start_utc="noon"), "scenario.start_utc"),
    "not a full hour": (lambda c: c["scenario"].update(start_utc="2024-05-08T12:30:00Z"), "not a full hour"),
    "no thinning": (lambda c: c["scenario"].update(thin=0), "scenario.thin"),
    "text for a number": (lambda c: c["scenario"].update(duration_s="long"), "scenario.duration_s"),
    "truth for a number": (lambda c: c["scenario"].update(reject_usd=True), "scenario.reject_usd"),
    "list for a table": (lambda c: c.update(framing=[]), "framing: not a table"),
    "half a slot": (lambda c: c["sites"][0].update(slots=1.5), f"{SITES}.slots"),
    "no slot": (lambda c: c["sites"][0].update(slots=0), f"{SITES}.slots"),
    "two supplies": (lambda c: c["sites"][0].update(tariff={}), f"{SITES}.zone: exactly one"),
    "no supply": (lambda c: c["sites"][0].pop("zone"), f"{SITES}.zone: exactly one"),
    "unknown publication": (lambda c: c["sites"][0].update(publish="weekly"), f"{SITES}.publish"),
    "no exchange rate": (lambda c: c["fx"].pop("EUR"), "no exchange rate for EUR"),
    "a day of 23 hours": (lambda c: part(c, "sites", "gz")["tariff"]["hourly_multiplier"].pop(), "23 hours"),
    "site there twice": (lambda c: c["sites"].append(c["sites"][0]), "site 'tx' is there twice"),
    "link to nowhere": (lambda c: c["links"][0].update(site="moon"), "links[0].site"),
    "unknown billing": (lambda c: c["links"][0].update(billing="barter"), "links[0].billing"),
    "no price": (lambda c: c["links"][0].pop("usd_per_mbps_month"), "links[0].usd_per_mbps_month: missing"),
    "no price for a region": (lambda c: c["links"][1]["usd_per_gb"].pop("hk"), "links[1].usd_per_gb: no price for hk"),
    "path from nowhere": (lambda c: c["links"][0]["rtt_ms"].update(mars=1.0), "links[0].rtt_ms"),
    "unknown fault": (lambda c: c["faults"].append(fault("strike", "tx", 0, 1)), "faults[1].kind"),
    "fault of nothing": (lambda c: c["faults"].append(fault("link_cut", "tx", 0, 1)), "faults[1].target"),
}


@pytest.mark.parametrize(("change", "place"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_place(change, place):
    content = document("smoke")
    change(content)
    with pytest.raises(ValueError) as caught:
        world_of(content)
    assert place in str(caught.value)


def test_units_are_those_of_the_world():
    place = inputs("smoke").world
    assert place.links["gz-iepl"].rtt_s["hk"] == 0.017
    assert place.links["gz-iepl"].transit == ("HK",)
    assert place.links["tx-p95"].per_gb("us") == 0.0
    assert place.links["gz-ip"].per_gb("us") == 0.12
    assert place.tenants["bank"].deny == {"CN", "US", "SG", "AU", "KR"}
    assert [type(place.sites[name].supply) for name in ("tx", "gz", "api")] == [Market, PowerTariff, TokenSale]
    assert place.zones == ("DE-LU_EUR", "SG_SGD", "US-TEX-ERCO_USD")


def test_a_seller_is_dear_in_its_peak_hours_on_working_days():
    sale = inputs("check").world.sites["api"].supply
    assert isinstance(sale, TokenSale)
    friday, saturday = 19_853 * 24, 19_854 * 24  # 2024-05-10
    assert [sale.multiplier(friday + hour) for hour in (0, 2, 21, 22)] == [2.0, 1.0, 1.0, 2.0]
    assert [sale.multiplier(saturday + hour) for hour in (0, 22)] == [1.0, 1.0]
