"""Three real backends behind a real gateway: one turns slow, loses its traffic, and gets it back when it is well."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.fakes.configurations import tenant
from tests.fakes.script import Script
from tests.integration.stage import Stage, staged

SCENE = "equal"
WELL = Script(tokens=10, first_s=0.03, event_s=0.002)
SLOW = Script(tokens=10, first_s=0.15, event_s=0.01)
RECENT = 100
AT_ONCE = 4


async def send_until(stage: Stage, holds: Callable[[list[str]], bool], timeout_s: float) -> list[str]:
    """Keep requests coming until this holds of the sites that served the last hundred."""
    served: list[str] = []

    async def client() -> None:
        while not (len(served) >= RECENT and holds(served[-RECENT:])):
            answer = await stage.stream(SCENE)
            served.append(answer.headers["x-tokenport-backend"])

    async with asyncio.timeout(timeout_s):
        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return served[-RECENT:]


async def test_a_site_that_turns_slow_loses_its_share_and_gets_it_back(tmp_path: Path) -> None:
    where = {"region": "north"}
    async with staged(
        tmp_path,
        {SCENE: 3},
        limits={"probe_s": 0.3},
        tenants=[tenant(value_per_second=2e-5)],
        settings={SCENE: where},
        rules={SCENE: {"objective": "balanced"}},
    ) as stage:
        names = [f"{SCENE}-{number}" for number in (1, 2, 3)]
        for name in names:
            stage.scripted.site(name).script = WELL
        await send_until(stage, lambda recent: all(recent.count(name) > RECENT / 6 for name in names), 30)
        stage.site(SCENE, 2).script = SLOW
        await send_until(stage, lambda recent: recent.count(names[1]) < RECENT * 0.05, 10)
        stage.site(SCENE, 2).script = WELL
        await send_until(stage, lambda recent: recent.count(names[1]) > RECENT / 6, 30)
