"""The demo's world is a valid configuration, says what is real, and its prices really move the route."""

import hashlib
import tomllib
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from gateway.config import Settings, load_text
from gateway.config.build import price_book, read_curves, route_table
from gateway.demo.world import API_KEY, MODEL, World, configuration, round_trips_s
from routing.backend import BackendState
from routing.decide import decide
from routing.demand import Demand

OWN = {"guizhou", "norway", "germany", "new-south-wales"}
START = datetime(2024, 5, 6, tzinfo=UTC)


def text(**chosen: object) -> str:
    ports = {region: 9001 + number for number, region in enumerate(round_trips_s())}
    return configuration(World(Path("some folder") / "démo", **chosen), ports)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_text(text(), Path.cwd(), {})


def winners(settings: Settings, hours: int, output_tokens: int) -> list[str]:
    """The region that an idle gateway chooses at the start of each hour of the recorded prices."""
    table = route_table(settings)
    book = price_book(settings, read_curves(settings, 0.0))
    states = {name: BackendState(backend) for name, backend in table.backends.items()}
    tenant = settings.tenants[0]
    demand = Demand(
        model=MODEL,
        tenant=tenant.name,
        input_tokens=40,
        output_tokens=output_tokens,
        request_bytes=700,
        destination=tenant.country,
        value_per_second=tenant.value_per_second,
    )
    regions = []
    for hour in range(hours):
        at = (START + timedelta(hours=hour)).timestamp() + 60  # past the minute in which traffic moves over
        decision = decide(table, states, demand, book.at(at), 0.0, at, Random(0))
        assert decision.route is not None
        regions.append(decision.route.backend.region)
    return regions


def test_the_chosen_values_are_in_the_configuration():
    said = tomllib.loads(text(port=9100, admin_port=9101, speed=600.0))
    assert said["gateway"]["listen"] == "127.0.0.1:9100"
    assert said["gateway"]["admin_listen"] == "127.0.0.1:9101"
    assert said["gateway"]["data_dir"].endswith("some folder/démo")
    assert said["price_clock"]["speed"] == 600
    assert said["backends"][0]["url"] == "http://127.0.0.1:9001/v1"


def test_the_world_has_four_own_regions_a_seller_and_one_edge(settings):
    producing = {backend.region for backend in settings.backends if backend.energy}
    assert producing == OWN
    assert {backend.region for backend in settings.backends if backend.tokens} == {"seller-cn"}
    assert settings.gateway.edge == "eu-edge"
    assert settings.notes == ()


def test_the_printed_key_opens_the_gateway(settings):
    assert settings.tenants[0].key_hashes == (hashlib.sha256(API_KEY.encode()).hexdigest(),)


def test_relays_and_links_have_the_same_distance(settings):
    assert {link.origin: link.rtt_s for link in settings.links} == round_trips_s()


def test_every_label_says_what_is_simulated_or_replayed(settings):
    for region in settings.regions.values():
        assert region.name == settings.gateway.edge or "distance simulated" in region.label
        assert not (region.power and region.power.feed) or "prices replayed from 2024-05" in region.label
    assert all("same small model" in backend.label for backend in settings.backends)


def test_recorded_prices_cover_eight_weeks_without_a_gap(settings):
    for curve in read_curves(settings, 0.0).values():
        assert curve.starts[0] == START.timestamp()
        assert len(curve.starts) == 8 * 7 * 24
        assert {later - earlier for earlier, later in pairwise(curve.starts)} == {3600.0}


def test_the_cheapest_region_changes_several_times_a_day(settings):
    regions = winners(settings, hours=14 * 24, output_tokens=120)
    changes = sum(earlier != later for earlier, later in pairwise(regions))
    assert set(regions) == OWN
    assert changes / 14 >= 3
    first_minute_at_speed_600 = regions[:10]
    assert len(set(first_minute_at_speed_600)) >= 3


def test_short_answers_stay_nearer_than_long_ones(settings):
    near = {"germany", "norway"}
    short, long = (Counter(winners(settings, hours=14 * 24, output_tokens=n)) for n in (8, 400))
    assert sum(short[region] for region in near) > sum(long[region] for region in near)
