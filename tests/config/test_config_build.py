"""Settings become the tables that requests are decided and settled by."""

from datetime import UTC, datetime

import pytest

from gateway.config.build import feed_curve, price_book, read_curves, route_table
from tests.config.configurations import PRICES, WHOLE, read, spoilt

SHANGHAI_NIGHT = datetime(2025, 12, 31, 17, tzinfo=UTC).timestamp()  # 01:00 in Shanghai
NORWAY_PRICED = datetime(2026, 1, 1, 1, 30, tzinfo=UTC).timestamp()  # the second line of the price file


def test_rules_lead_to_the_routes_they_name(tmp_path):
    table = route_table(read(WHOLE, tmp_path))
    assert table.models() == ("qwen3", "llama")
    rule = table.match("qwen3", "DE")
    assert rule is not None
    assert [route.name for route in rule.routes] == ["gz-1/gz-leased", "no-1/no-line"]
    assert table.match("qwen3", "") is None
    elsewhere = table.match("llama", "")
    assert elsewhere is not None
    assert [route.name for route in elsewhere.routes] == ["no-1/no-line", "seller-1/seller-eu-edge"]
    assert elsewhere.first_content_s == 90


def test_a_route_knows_the_countries_it_is_served_from_and_passes(tmp_path):
    rule = route_table(read(WHOLE, tmp_path)).match("qwen3", "FR")
    assert rule is not None
    assert [set(route.countries) for route in rule.routes] == [{"CN", "HK"}, {"NO"}]


def test_a_backend_is_reached_with_its_credential_and_its_own_header(tmp_path):
    backend = route_table(read(WHOLE, tmp_path)).backends["seller-1"]
    assert (backend.auth, backend.api_key) == ("api-key", "sk-seller-secret")


def test_the_same_text_makes_the_same_versions_and_another_key_does_not_change_them(tmp_path):
    first, second = read(WHOLE, tmp_path), read(WHOLE, tmp_path, {"GZ1_KEY": "other", "SELLER_KEY": "other"})
    curves = read_curves(first, 0.0)
    assert route_table(first).version == route_table(second).version
    assert price_book(first, curves).version == price_book(second, read_curves(second, 9.0)).version


@pytest.mark.parametrize(("old", "new"), [("rtt_ms = 23", "rtt_ms = 24"), ('deny_origins = ["SG"]', "")])
def test_another_route_table_has_another_version(tmp_path, old, new):
    assert route_table(read(WHOLE, tmp_path)).version != route_table(read(spoilt(old, new), tmp_path)).version


def test_the_book_prices_power_by_tariff_feed_and_contract(tmp_path):
    settings = read(WHOLE, tmp_path)
    book = price_book(settings, read_curves(settings, 0.0))
    night, priced = book.at(SHANGHAI_NIGHT), book.at(NORWAY_PRICED)
    guizhou, norway, edge = night.power("guizhou"), priced.power("norway"), priced.power("eu-edge")
    assert guizhou is not None and norway is not None and edge is not None
    assert guizhou.price_per_mwh == pytest.approx(260 * 0.139)
    assert norway.price_per_mwh == pytest.approx((-3.05 + 15) * 1.08)
    assert edge.price_per_mwh == pytest.approx(90 * 1.08)


def test_the_power_tariff_behind_a_feed_takes_over_when_the_feed_is_silent(tmp_path):
    settings = read(WHOLE, tmp_path)
    power = price_book(settings, {}).at(SHANGHAI_NIGHT).power("norway")
    assert power is not None
    assert power.quality == "fallback"
    assert power.price_per_mwh == pytest.approx(260 * 0.139)


def test_unit_prices_are_integers_in_the_gateways_currency(tmp_path):
    settings = read(WHOLE, tmp_path)
    prices = price_book(settings, read_curves(settings, 0.0)).at(SHANGHAI_NIGHT)
    own = prices.units("gz-1", "gz-leased")
    assert own.zone == "guizhou"
    assert (own.pue_milli, own.prefill_mj_per_token, own.decode_mj_per_token) == (1200, 250, 1100)
    assert own.energy_nano_per_kwh == 36_140_000  # 260 CNY per MWh at 0.139
    assert own.link_nano_per_gb == 0
    bought = prices.units("seller-1", "seller-eu-edge")
    assert bought.link_nano_per_gb == 20_000_000
    assert bought.input_nano_per_mtok == 278_000_000  # 2 CNY at 0.139
    assert bought.energy_nano_per_kwh == 0


def test_bought_tokens_are_cheaper_in_their_hours(tmp_path):
    settings = read(WHOLE, tmp_path)
    book = price_book(settings, {})
    full = book.at(SHANGHAI_NIGHT).units("seller-1", "seller-eu-edge").output_nano_per_mtok
    half = book.at(SHANGHAI_NIGHT + 8 * 3600).units("seller-1", "seller-eu-edge").output_nano_per_mtok  # 01:00 UTC
    assert (full, half) == (1_112_000_000, 556_000_000)


def test_a_tenant_is_charged_its_tariff(tmp_path):
    charge = price_book(read(WHOLE, tmp_path), {}).at(0.0).charge("acme")
    assert (charge.input_nano_per_mtok, charge.output_nano_per_mtok) == (300_000_000, 1_200_000_000)


def test_a_feed_with_nothing_behind_it_needs_its_curve(tmp_path):
    settings = read(spoilt('fallback = "guizhou"\n', ""), tmp_path)
    with pytest.raises(ValueError, match="no2"):
        price_book(settings, {})
    assert price_book(settings, read_curves(settings, 0.0)).at(NORWAY_PRICED).power("norway") is not None


def test_a_feed_is_read_with_its_own_currency_and_interval(tmp_path):
    feed = read(WHOLE, tmp_path).feeds["no2"]
    curve = feed_curve(feed, PRICES.encode(), 5.0)
    assert (curve.currency, curve.resolution_s, curve.zone, curve.fetched_at) == ("EUR", 3600.0, "no2", 5.0)
    with pytest.raises(ValueError, match="line 2"):
        feed_curve(feed, b"utc_start,price_per_mwh\n2026-01-01T00:00:00Z,NaN\n", 5.0)


def test_caps_of_regions_reach_the_route_table(tmp_path):
    text = spoilt('label = "simulated distance"', "power_cap_w = 5e5")
    assert route_table(read(text, tmp_path)).power_caps_w == {"guizhou": 500_000.0}
