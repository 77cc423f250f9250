"""Who is killed, always with SIGKILL and at a random point under load; and the restart on the same data directory."""

import asyncio

from tests.chaos.deeds import kill_worker
from tests.chaos.world import Deed, World

GROUP_KILLS = "kills of the group"
SUPERVISOR_KILLS = "kills of the supervisor"
STARTING_KILLS = "kills while it starts"
# A start takes about a second, more on a busy machine: reading, recovery, the index, the first requests.
STARTING_S = 1.5


async def kill_group(world: World) -> None:
    """All of it at once, as a machine would; then a new gateway recovers what was under way."""
    async with world.disturbed(GROUP_KILLS):
        await _die(world)
        await _start(world)


async def kill_supervisor(world: World) -> None:
    """The supervisor alone: its workers end by themselves while the next gateway is starting already."""
    async with world.disturbed(SUPERVISOR_KILLS):
        world.serving.clear()
        world.gateway.kill_supervisor()
        await world.gateway.ended()
        await _start(world)


async def kill_starting(world: World) -> None:
    """All of it, and once more while it recovers, builds its index or begins to serve."""
    async with world.disturbed(STARTING_KILLS):
        await _die(world)
        await world.gateway.launch()
        await asyncio.sleep(world.rng.random() * STARTING_S)
        await _die(world)
        await _start(world)


async def _die(world: World) -> None:
    world.serving.clear()
    _no_surprise(world)
    world.gateway.kill_group()
    await world.gateway.ended()


async def _start(world: World) -> None:
    _no_surprise(world)
    await world.gateway.start()
    world.serving.set()


def _no_surprise(world: World) -> None:
    """Nobody reads what a killed gateway said, so it is read now."""
    if "Traceback" in world.gateway.stderr:
        world.report.findings.append(f"the gateway said:\n{world.gateway.stderr[-5000:]}")


KINDS: tuple[Deed, ...] = (kill_group, kill_worker, kill_supervisor, kill_starting)


def kills(count: int) -> list[tuple[Deed, int]]:
    """So many deeds in all, of every kind alike; each is one kill at least."""
    return [(deed, len(range(place, count, len(KINDS)))) for place, deed in enumerate(KINDS)]
