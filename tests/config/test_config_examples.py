"""The example configurations that ship are good, and the reference shows every key with its default."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest

from gateway.config import GatewaySettings, LedgerSettings, Limits, load_file
from gateway.config.build import price_book, read_curves, route_table
from gateway.config.settings import BackendSettings, FeedSettings, RegionSettings

EXAMPLES = Path(__file__).resolve().parents[2] / "infra" / "config"
ENVIRON = dict.fromkeys(("GUIZHOU_KEY", "NORWAY_KEY", "SELLER_CN_KEY", "SELLER_FR_KEY"), "a-key")
FILES = sorted(path.name for path in EXAMPLES.glob("*.toml"))

# Every key of the contract, by section.
KEYS = {
    "gateway": "listen workers edge data_dir currency trusted_proxies admin_listen admin_token_env tls country_db "
    "destination_header",
    "ledger": "segment_s segment_bytes_max plain_s keep_days keep_bytes",
    "price_clock": "start speed",
    "regions": "country power pue carbon_g_per_kwh power_cap_w label",
    "tariffs": "currency timezone price_per_mwh holidays periods",
    "feeds": "kind path currency resolution_s refresh_s stale_after_s fallback",
    "backends": "name region url api_key_env models slots prefill_tokens_per_s itl_ms joules_per_token price_per_mtok "
    "queue_max dialects auth context_tokens usage tokens_per_event_max ca_file power_cap_w label",
    "links": "name from to rtt_ms billing price_per_month price_per_gb price_per_mbps_month planned_mbps currency "
    "transit capacity_mbps",
    "routes": "model destinations backends regions objective ttft_slo_ms deny_origins first_content_s gap_s stream_s "
    "hedge_after_ms",
    "tenants": "name keys tariff_per_mtok budget limits country value_per_second deny_origins",
    "teams": "tenant name limits budget",
    "users": "team name limits budget",
    "sinks": "name kind url url_env password_env table batch_rows stream subject ca_file",
}


def test_all_four_examples_are_here():
    assert FILES == ["bought-tokens.toml", "one-site.toml", "reference.toml", "three-countries.toml"]


@pytest.mark.parametrize("name", FILES)
def test_an_example_loads_clean_and_makes_its_tables(name):
    settings = load_file(EXAMPLES / name, ENVIRON)
    # Teams and users are shown although no key can belong to one yet.
    assert [note for note in settings.notes if not note.startswith("teams, users:")] == []
    table = route_table(settings)
    prices = price_book(settings, read_curves(settings, 0.0)).at(1_714_953_600.0)
    for rule in table.rules:
        for route in rule.routes:
            assert prices.units(route.backend.name, route.link.name)


@pytest.mark.parametrize("name", FILES)
def test_an_example_reaches_only_this_machine(name):
    settings = load_file(EXAMPLES / name, ENVIRON)
    assert settings.gateway.listen.loopback and settings.gateway.admin_listen.loopback
    assert all(backend.url.startswith("http://127.0.0.1:") for backend in settings.backends)


def test_no_key_that_anybody_knows_opens_an_example():
    for name in FILES:
        for tenant in load_file(EXAMPLES / name, ENVIRON).tenants:
            assert all(key.startswith("0" * 63) for key in tenant.key_hashes)


def test_traffic_moves_with_the_hours_of_a_seller():
    settings = load_file(EXAMPLES / "bought-tokens.toml", ENVIRON)
    book = price_book(settings, {})

    def cheaper(at):
        units = {b.name: book.at(at).units(b.name, f"{b.name}-frankfurt") for b in settings.backends}
        return min(units, key=lambda name: units[name].output_nano_per_mtok)

    monday = 1_714_953_600.0  # 2024-05-06 00:00 UTC, 08:00 in Beijing
    assert [cheaper(monday + hour * 3600) for hour in (0, 2, 5, 7, 12)] == [
        "seller-cn",
        "seller-fr",
        "seller-cn",
        "seller-fr",
        "seller-cn",
    ]


def test_the_price_file_is_a_whole_week_of_hours_and_its_licence_lies_beside_it():
    with (EXAMPLES / "no2_2024-05.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 7 * 24
    assert "CC BY 4.0 (Energinet)" in (EXAMPLES / "NOTICE").read_text("utf-8")


@pytest.mark.parametrize(
    ("section", "end", "defaults"), [("limits", "ledger", Limits()), ("ledger", "fx", LedgerSettings())]
)
def test_the_reference_shows_every_limit_with_its_default(section, end, defaults):
    text = (EXAMPLES / "reference.toml").read_text("utf-8")
    part = text[text.index(f"\n[{section}]") : text.index(f"\n[{end}]")]
    shown = dict(re.findall(r"^(\w+) = (\S+)", part, re.MULTILINE))
    assert {name: json.loads(value) for name, value in shown.items()} == dataclasses.asdict(defaults)


@pytest.mark.parametrize("section", KEYS)
def test_the_reference_shows_every_key(section):
    text = (EXAMPLES / "reference.toml").read_text("utf-8")
    header = rf"^\[+{section}[\].]"
    parts = re.split(r"^(?=\[)", text, flags=re.MULTILINE)
    found = "".join(part for part in parts if re.match(header, part))
    for key in KEYS[section].split():
        assert re.search(rf"^{key} =|^\[backends\.{key}\]", found, re.MULTILINE), key


def test_the_values_of_the_reference_are_the_defaults():
    settings = load_file(EXAMPLES / "reference.toml", ENVIRON)
    assert settings.limits == Limits()
    gateway, backend = settings.gateway, settings.backends[0]
    assert gateway == GatewaySettings(edge="eu-edge", data_dir=EXAMPLES / "var")
    region = settings.regions["eu-edge"]
    assert region == RegionSettings(name="eu-edge", country="DE", power=region.power)
    assert backend == BackendSettings(
        name=backend.name,
        region=backend.region,
        url=backend.url,
        models=backend.models,
        slots=backend.slots,
        queue_max=backend.slots,
        energy=backend.energy,
    )
    feed = settings.feeds["no2"]
    assert feed == FeedSettings(name="no2", kind="csv", currency="EUR", path=EXAMPLES / "no2_2024-05.csv")
