"""The planner: what it makes of what workers tell, and what happens to requests when it fails (nothing)."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.clock import PriceTime, wall
from gateway.config import load_text
from gateway.config.build import price_book
from gateway.control import highs
from gateway.control.planner import Planner, solve_in_child
from routing.plan import LOADS, Duals, Kind, Problem, Way, plan
from routing.shadow import ShadowPrices
from tests.edge.worker import working
from tests.fakes.configurations import Document, document, region, toml
from tests.fakes.configurations import backend as backend_entry
from tests.fakes.gateway import Gateway
from tests.routing.world import demand

CONFIGURATION = """
[gateway]
edge = "eu"
[regions.eu]
country = "DE"
[regions.north]
country = "NO"
power = { price_per_mwh = 20.0 }
[regions.south]
country = "ES"
power = { price_per_mwh = 200.0 }
[[backends]]
name = "cheap"
region = "north"
url = "http://127.0.0.1:9/v1"
models = { m = "m" }
slots = 20
joules_per_token = { prefill = 0.3, decode = 2.0 }
[[backends]]
name = "dear"
region = "south"
url = "http://127.0.0.1:9/v1"
models = { m = "m" }
slots = 500
joules_per_token = { prefill = 0.3, decode = 2.0 }
[[links]]
from = "north"
to = "eu"
rtt_ms = 30
billing = "flat"
price_per_month = 100
[[links]]
from = "south"
to = "eu"
rtt_ms = 30
billing = "flat"
price_per_month = 100
[[routes]]
model = "m"
backends = ["cheap", "dear"]
[[tenants]]
name = "acme"
"""


class Market:
    """A gateway whose one worker was asked for 600 requests a minute, each of them ten seconds long."""

    def __init__(self) -> None:
        self.settings = load_text(CONFIGURATION, Path(), {}, files=False)
        self.price_time = PriceTime(None, 0.0)
        self.book = price_book(self.settings, {})
        self.told: list[dict[str, Any]] = []
        self.out: list[str] = []

    async def ask_workers(self, what: str, **fields: Any) -> list[Any]:
        kinds = [["eu", "m", "DE", [], 0.0, [600.0, 600 * 100.0, 600 * 330.0, 600 * 900.0]]]
        return [{"kinds": kinds, "out": self.out, "down": [], "itl_s": {}}]

    def tell_workers(self, what: str, **fields: Any) -> None:
        assert what == "room"
        self.told.append(fields)


async def no_solver(problems: list[Problem]) -> list[tuple[Duals, ...] | None]:
    raise ValueError("the solver ended with 1")


async def minutes(planner: Planner, count: int, from_s: float = 0.0) -> None:
    for minute in range(count):
        await planner.follow(from_s + 60.0 * minute)


async def test_slots_that_are_wanted_get_a_price_and_workers_hear_of_it():
    market = Market()
    await minutes(Planner(market, no_solver), 30)
    first, prices = market.told[-1]["slots"]["cheap"]
    assert prices[19 - first] > 0.0
    assert "dear" not in market.told[-1]["slots"]


async def test_without_a_plan_the_correction_goes_on_and_status_has_the_reason():
    market = Market()
    planner = Planner(market, no_solver)
    await minutes(planner, 3)
    assert "the solver ended with 1" in planner.problem
    assert planner.planned_at is None
    assert planner.followed_at == 120.0
    assert planner.outlook(0.0) == []


async def test_a_plan_that_takes_too_long_is_given_up(monkeypatch):
    async def never(problems: list[Problem]) -> list[tuple[Duals, ...] | None]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("gateway.control.planner.PLAN_TIMEOUT_S", 0.01)
    market = Market()
    planner = Planner(market, never)
    await planner.follow(0.0)
    assert "not ready in time" in planner.problem
    assert len(market.told) == 1


async def test_an_hour_is_planned_once_and_shown():
    asked: list[int] = []

    async def solver(problems: list[Problem]) -> list[tuple[Duals, ...] | None]:
        asked.append(len(problems))
        return [(Duals((1e-6, 0.0), ()),) * len(LOADS) for _ in problems]

    planner = Planner(Market(), solver)
    await minutes(planner, 61)
    assert len(asked) == 2
    assert planner.problem == ""
    hours = planner.outlook(3600.0)
    assert hours[0]["since"] == 3600.0
    assert hours[0]["slot_per_hour"]["cheap"] == pytest.approx(3600 * 1e-6)


async def test_a_site_that_is_out_has_no_price_and_no_part_in_that_of_others():
    market = Market()
    market.out = ["cheap"]
    await minutes(Planner(market, no_solver), 30)
    assert market.told[-1]["slots"] == {}


# HiGHS


def two_sites(rate_per_s: float) -> Problem:
    ways = (Way(0, -1, 1e-5, 10.0, 0.01), Way(1, -1, 3e-5, 10.0, 0.01))
    return Problem(("cheap", "dear"), (50.0, 1000.0), (), (), (Kind(rate_per_s, 0.0, ways),), 1e-3)


def test_the_solver_finds_what_a_slot_saves():
    assert highs.solve(two_sites(8.0)) == Duals((pytest.approx(2e-6), pytest.approx(0.0)), ())
    assert highs.solve(two_sites(2.0)) == Duals((pytest.approx(0.0), pytest.approx(0.0)), ())


def test_the_correction_comes_near_the_solver():
    """Softness takes some per cent off where everything is wanted at one place."""
    problem = two_sites(8.0)
    planned = plan(problem, highs.solve)
    assert planned is not None
    prices = ShadowPrices()
    for _ in range(10):
        prices.follow(problem)
    mean = sum(each.slots[0] for each in planned) / len(planned)
    assert prices.planned(problem).slots[0] == pytest.approx(mean, rel=0.15)


async def test_a_child_solves_what_this_process_would():
    problems = [two_sites(8.0), two_sites(2.0)]
    assert await solve_in_child(problems) == [plan(problem, highs.solve) for problem in problems]


async def test_a_child_that_fails_says_why():
    broken = two_sites(8.0)._replace(slots=())
    with pytest.raises(ValueError, match="solver ended with 1"):
        await solve_in_child([broken])


# In a worker, and in a whole gateway


def gateway_document() -> Document:
    backends = [backend_entry(name, name, "http://127.0.0.1:9/v1") for name in ("near", "far")]
    content = document(backends, regions={"near": region("DE"), "far": region("NO")})
    content["links"] = [
        {"from": "near", "to": "edge", "rtt_ms": 9, "billing": "flat", "price_per_month": 1.0, "capacity_mbps": 10.0},
        {"from": "far", "to": "edge", "rtt_ms": 19, "billing": "flat", "price_per_month": 1.0},
    ]
    return content


def explained(worker: Any) -> dict[str, dict[str, Any]]:
    answer = worker.plane.explain({"demand": {"model": "m"}}, worker.now(), wall())
    return {each["backend"]: each for each in answer["candidates"]}


async def test_a_worker_prices_slots_and_lines_at_the_load_it_finds(tmp_path: Path) -> None:
    async with working(tmp_path, gateway_document()) as worker:
        live = worker.plane.live
        before = explained(worker)["near"]
        worker.plane.price_room({"slots": {"near": [1, [1e-3, 2e-3]]}, "lines": {"near-edge": [0.0, 1e-6]}})
        idle = explained(worker)["near"]
        assert (idle["capacity"], idle["link_cost"]) == (0.0, before["link_cost"])
        near, line = live.states["near"], live.links["near-edge"]
        with near.lease(worker.now(), link=line, mbps=6.0):
            busy = explained(worker)["near"]
            with near.lease(worker.now()):
                busier = explained(worker)["near"]
    assert 0.0 < busy["capacity"] < busier["capacity"]
    assert busy["link_cost"] > before["link_cost"]


async def test_prices_of_room_survive_new_prices_of_power(tmp_path: Path) -> None:
    async with working(tmp_path, gateway_document()) as worker:
        live = worker.plane.live
        worker.plane.price_room({"slots": {"near": [0, [1e-3]]}, "lines": {}})
        live.install(live.settings, {}, live.price_time)
        assert explained(worker)["near"]["capacity"] > 0.0


async def test_a_worker_tells_what_was_asked_for_once(tmp_path: Path) -> None:
    async with working(tmp_path, gateway_document()) as worker:
        live = worker.plane.live
        live.decide(live.tables, demand(model="m", destination="FR"), worker.now(), wall(), frozenset())
        live.decide(live.tables, demand(model="m", destination="FR"), worker.now(), wall(), frozenset({"near"}))
        told = orjson.loads(orjson.dumps(worker.plane.wanted(worker.now())))
        assert [(kind[2], kind[5][0]) for kind in told["kinds"]] == [("FR", 1.0)]
        assert (told["out"], told["down"], sorted(told["itl_s"])) == ([], [], ["far", "near"])
        assert worker.plane.wanted(worker.now())["kinds"] == []


async def test_a_gateway_says_how_old_its_prices_of_room_are(tmp_path: Path) -> None:
    async with Gateway(tmp_path, toml(gateway_document())) as gateway:

        async def followed() -> bool:
            return (await gateway.status())["planner"]["followed_at"] is not None

        async with asyncio.timeout(20):
            while not await followed():  # noqa: ASYNC110  another process does it
                await asyncio.sleep(0.05)
        status = await gateway.status()
    assert status["planner"]["problem"] == ""
    assert len(status["planner"]["hours"]) == 36
    assert {backend["slot_per_hour"] for backend in status["backends"]} == {0.0}
