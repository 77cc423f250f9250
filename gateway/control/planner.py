"""Prices of room: what a slot, and a place on a line with a capacity, is worth to the requests that come later.

Once a minute the supervisor asks the workers what was asked for, lets the online correction follow (`routing.shadow`)
and sends them prices by load; every decision reads them at the load it finds, so between two minutes they follow by
themselves, and a price that falls for many at once rises again with the first few who come: no herd. Once an hour a
plan is made for the hours whose prices are known, by HiGHS in a child process: it can be stopped, and neither its
memory nor its time are the supervisor's. It sets where the correction starts in each hour. Without scipy, or when the
child fails, the correction goes on alone, and /status says so.

Traffic is counted by the wall clock, prices are read by the price clock.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, Protocol

from gateway.clock import PriceTime, wall
from gateway.config import Settings
from gateway.config.build import route_table
from gateway.control import highs
from pricing.book import PriceBook
from routing.forecast import HOUR_S, Forecast, KindKey, Sums
from routing.plan import Duals, Problem, Surroundings, pose
from routing.shadow import ShadowPrices
from routing.table import RouteTable

logger = logging.getLogger("tokenport.planner")

FOLLOW_S = 60.0
# Hours planned ahead: to the end of the next day at most, which is as far as day-ahead prices reach.
HOURS_MAX = 36
PLAN_TIMEOUT_S = 60.0  # 36 hours of the largest problems take a few seconds
NO_SOLVER = "scipy is not installed: the online correction alone"


class Market(Protocol):
    """What the planner needs of the gateway."""

    @property
    def settings(self) -> Settings: ...

    @property
    def price_time(self) -> PriceTime: ...

    @property
    def book(self) -> PriceBook: ...

    async def ask_workers(self, what: str, **fields: Any) -> list[Any]: ...

    def tell_workers(self, what: str, **fields: Any) -> None: ...


class Planner:
    """One per gateway. `solve` gives the shadow prices of problems at each load; it raises OSError or ValueError."""

    def __init__(
        self, market: Market, solve: Callable[[list[Problem]], Awaitable[list[tuple[Duals, ...] | None]]] | None = None
    ) -> None:
        self._market = market
        self._solve = solve or (solve_in_child if highs.available() else None)
        self._forecast = Forecast()
        self._shadow = ShadowPrices()
        self._settings: Settings | None = None
        self._tables: Mapping[str, RouteTable] = {}
        self._itl_s: dict[str, float] = {}
        self._out: set[str] = set()
        self._hours: dict[int, tuple[Problem, tuple[Duals, ...]]] = {}
        self._planned_hour: int | None = None
        self._followed_hour: int | None = None
        self.planned_at: float | None = None
        self.followed_at: float | None = None
        self.problem = "" if self._solve is not None else NO_SOLVER

    async def run(self) -> None:
        """For ever. Nothing that fails here touches a request."""
        while True:
            try:
                await self.follow(wall())
            except Exception:
                logger.exception("prices of room not renewed")
            await asyncio.sleep(FOLLOW_S)

    def message(self) -> dict[str, Any]:
        """The prices as workers take them."""
        return {
            "slots": {
                name: (price.first, price.by_load)
                for name, price in self._shadow.by_site.items()
                if price.by_load[-1] > 0.0
            },
            "lines": {name: price.by_share for name, price in self._shadow.by_line.items()},
        }

    async def follow(self, now: float) -> None:
        """What was asked for since the last time, and the prices that follow from it."""
        self._install()
        answers = await self._market.ask_workers("wanted")
        self._hear(answers, now)
        hour = int(now // HOUR_S)
        if hour != self._planned_hour and self._solve is not None:
            self._planned_hour = hour
            await self._plan(now)
        planned = self._hours.get(hour)
        if planned is not None and hour != self._followed_hour:
            self._shadow.anchor(*planned)
        self._followed_hour = hour
        problem = self._pose(now, now)
        # Some ten milliseconds for large tables; the event loop has other things to do.
        await asyncio.to_thread(self._shadow.follow, problem)
        self.followed_at = now
        self._market.tell_workers("room", **self.message())

    def outlook(self, now: float) -> list[dict[str, Any]]:
        """The mean price of a slot per hour in the hours planned, by backend."""
        return [
            {"since": hour * HOUR_S, "slot_per_hour": dict(zip(problem.sites, _slot_per_hour(planned), strict=True))}
            for hour, (problem, planned) in sorted(self._hours.items())
            if hour >= int(now // HOUR_S)
        ]

    def _install(self) -> None:
        settings = self._market.settings
        if settings is self._settings:
            return
        self._settings = settings
        table = route_table(settings)
        self._tables = {table.edge: table}
        self._hours, self._planned_hour, self._followed_hour = {}, None, None

    def _hear(self, answers: Sequence[Mapping[str, Any]], now: float) -> None:
        """A backend is out if no worker would use it. Estimates are shared among workers, so one's are all's."""
        for answer in answers:
            for edge, model, destination, deny, value, sums in answer["kinds"]:
                if edge in self._tables:
                    self._forecast.observe(KindKey(edge, model, destination, frozenset(deny), value), Sums(*sums), now)
            self._itl_s = answer["itl_s"]
        outs = [{*answer["out"], *answer["down"]} for answer in answers]
        self._out = set.intersection(*outs) if outs else set()

    def _pose(self, at: float, now: float) -> Problem:
        """What is asked for at a wall time, at the prices known for it."""
        prices = self._market.book.at(self._market.price_time.at(at))
        return pose(self._forecast.at_hour(at, now), prices, Surroundings(self._tables, self._out, self._itl_s))

    async def _plan(self, now: float) -> None:
        """The hours from this one on. What fails is said, and the correction goes on alone."""
        assert self._solve is not None
        first = int(now // HOUR_S)
        middles = [max((first + ahead + 0.5) * HOUR_S, now) for ahead in range(HOURS_MAX)]
        problems = [self._pose(at, now) for at in middles]
        self._hours = {}
        try:
            solved = await asyncio.wait_for(self._solve(problems), PLAN_TIMEOUT_S)
        except (OSError, ValueError) as error:  # a timeout is an OSError
            self.problem = f"no plan: {str(error) or 'not ready in time'}; the online correction alone"
            logger.error("no plan", extra={"problem": str(error)})
            return
        for ahead, (problem, planned) in enumerate(zip(problems, solved, strict=True)):
            if planned is not None:
                self._hours[first + ahead] = problem, planned
        self.problem = "" if self._hours else "no plan: no hour could be solved; the online correction alone"
        self.planned_at = now


def _slot_per_hour(planned: Sequence[Duals]) -> list[float]:
    return [HOUR_S * fmean(column) for column in zip(*(each.slots for each in planned), strict=True)]


async def solve_in_child(problems: list[Problem]) -> list[tuple[Duals, ...] | None]:
    """By a process of its own, which ends with us.

    Raises:
        OSError: it could not be started.
        ValueError: it failed.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.control.highs",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await child.communicate(json.dumps(problems).encode())
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode != 0:
        last = err.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise ValueError(f"the solver ended with {child.returncode}: {''.join(last)[:200]}")
    return [
        tuple(Duals(tuple(slots), tuple(lines)) for slots, lines in planned) if planned is not None else None
        for planned in json.loads(out)
    ]
