"""Token-factory figures against the rows they are made of."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest

from gateway.commands.sites import nearest_prices
from gateway.config import load_file
from gateway.ledger.segment import Record
from pricing.export import Usage, settle
from pricing.unit_prices import UnitPrices
from tests.commands.filled import Ledger, export_of
from tests.commands.test_commands import CONFIGURATION
from tests.ledger.exports import BOUGHT, POWER

SITES = (
    CONFIGURATION.replace('models = { "m" = "m" }', 'models = { "qwen3" = "q" }').replace(
        'model = "m"', 'model = "qwen3"'
    )
    + """
[regions.norway]
country = "NO"
power = { price_per_mwh = 40.0 }
power_cap_w = 2000000
[[backends]]
name = "no-1"
region = "norway"
url = "http://127.0.0.1:9002/v1"
models = { "qwen3" = "q", "far" = "f" }
slots = 4
joules_per_token = { prefill = 0.2, decode = 1.0 }
[[links]]
from = "norway"
to = "edge"
rtt_ms = 23
billing = "per_gb"
price_per_gb = 0.02
"""
)
HERE = {"origin_backend": "here", "origin_region": "edge", "origin_country": "DE"}
NORWAY = {"origin_backend": "no-1", "origin_region": "norway", "origin_country": "NO"}


@pytest.fixture
def sites(ledger: Ledger) -> Ledger:
    ledger.configuration.write_text(SITES)
    return ledger


def figures(ledger: Ledger, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Record]:
    assert ledger.ask("report", "--sites", "--format", "json", *arguments) == 0
    found: list[Record] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("indexed", [False, True])
def test_figures_are_those_of_the_rows(sites, capsys, indexed):
    rows = [export_of(number, f"2025-11-24T{number // 4:02}:10:00Z", **NORWAY) for number in range(12)]
    sites.write(*rows)
    if indexed:
        sites.fold()
    (site,) = figures(sites, capsys)

    def total(name: str) -> int:
        return sum(row[name] for row in rows)

    tokens, energy, revenue = total("delivered_tokens"), total("energy_uwh"), total("revenue_nano")
    spread = revenue - total("cost_energy_nano") - total("cost_tokens_nano") - total("cost_link_nano")
    assert site["tokens_per_kwh"] == round(Fraction(tokens * 10**9, energy))
    assert site["income_nano_per_mwh"] == round(Fraction(revenue * 10**12, energy))
    assert site["income_nano_per_mw"] == round(Fraction(revenue, 2))
    assert (site["spread_nano"], site["spread_nano_per_mtok"]) == (spread, round(Fraction(spread * 10**6, tokens)))
    assert (site["hours"], site["negative_hours"]) == (3, 0)


def test_an_hour_at_a_negative_spread_is_one_of_its_site_and_period(sites, capsys):
    dear = replace(POWER, energy_nano_per_kwh=10**15)
    sites.write(
        export_of(0, "2025-11-24T22:10:00Z", units=dear, **NORWAY),
        export_of(1, "2025-11-24T23:10:00Z", **NORWAY),
        export_of(2, "2025-11-24T22:20:00Z", **HERE),
    )
    found = figures(sites, capsys, "--period", "day", "--tz", "Europe/Berlin")
    shares = [(each["period"], each["origin_region"], each["negative_hours"], each["hours"]) for each in found]
    assert shares == [("2025-11-24", "edge", 0, 1), ("2025-11-24", "norway", 1, 1), ("2025-11-25", "norway", 0, 1)]


def test_the_saving_is_the_same_tokens_and_bytes_at_the_nearest_site(sites, capsys):
    rows = [export_of(number, f"2025-11-24T12:1{number}:00Z", **NORWAY) for number in range(3)]
    sites.write(*rows, export_of(5, **HERE))
    here, norway = figures(sites, capsys)
    nearest = nearest_prices(load_file(sites.configuration, {}))("qwen3", 1_764_000_000.0)
    assert nearest is not None and nearest[0] == "here"
    units = UnitPrices("", 60_000_000, 1000, 0, 100, 1000)
    assert nearest[1] == units
    expected = sum(
        settle(
            units,
            Usage(row["input_tokens"], row["cached_input_tokens"], 0, row["output_tokens"]),
            row["bytes_to_backend"],
            row["bytes_from_backend"],
        ).total_nano
        for row in rows
    )
    assert abs(norway["nearest_cost_nano"] - expected) <= len(rows)
    assert norway["saving_nano"] == norway["nearest_cost_nano"] - sum(row["cost_nano"] for row in rows)
    assert here["saving_nano"] == 0, "it is the nearest"


def test_a_model_that_the_nearest_site_lacks_is_compared_with_the_nearest_that_has_it(sites):
    prices = nearest_prices(load_file(sites.configuration, {}))
    assert prices("far", 0.0) is None, "no rule serves it"
    sites.configuration.write_text(SITES + '[[routes]]\nmodel = "far"\nregions = ["norway"]\n')
    found = nearest_prices(load_file(sites.configuration, {}))("far", 0.0)
    assert found is not None and (found[0], found[1].link_nano_per_gb) == ("no-1", 20_000_000)


def test_what_cannot_be_known_is_empty(sites, capsys):
    sites.write(export_of(0, units=BOUGHT, model="gone", origin_region="virginia"))
    (site,) = figures(sites, capsys)
    for name in ("tokens_per_kwh", "income_nano_per_mwh", "available_w", "income_nano_per_mw", "saving_nano"):
        assert site[name] is None


def test_other_currencies_have_lines_and_totals_of_their_own_and_no_saving(sites, capsys):
    sites.write(export_of(0, **NORWAY), export_of(1, currency="EUR", **NORWAY))
    eur, usd = figures(sites, capsys)
    assert (eur["saving_nano"], usd["saving_nano"] is None) == (None, False)
    assert sites.ask("report", "--sites") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[-3:-1]] == [["total", "EUR"], ["total", "USD"]]
    assert lines[-1].startswith("saving: estimated")
