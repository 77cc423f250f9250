"""What is done to a running gateway while visitors come: workers die, configurations change."""

import os
import signal

from tests.chaos.world import REPLACED_S, World
from tests.fakes.configurations import toml
from tests.fakes.gateway import eventually

WORKER_KILLS = "kills of a worker"
RELOADS = "reloads"


async def kill_worker(world: World) -> None:
    """kill -9 of one worker; another must take its place."""
    async with world.disturbed(WORKER_KILLS):
        worker = world.rng.choice(world.gateway.workers())
        os.kill(worker, signal.SIGKILL)

        def replaced() -> bool:
            return len(set(world.gateway.workers()) - {worker}) == world.workers

        await eventually(replaced, f"another worker than {worker}", REPLACED_S)


async def reload(world: World) -> None:
    """Prices move and the cheapest backend of a scene comes and goes; or the file is bad and changes nothing."""
    gateway, number = world.gateway, world.report.deeds[RELOADS]
    world.report.deeds[RELOADS] += 1
    bad = number % 4 == 3
    in_force = gateway.config.read_text()
    content = toml(world.configuration(near=number % 2 == 1, price=11.0 + number))
    sign = "configuration not taken" if bad else "configuration reloaded"
    said = gateway.stderr.count(sign)
    gateway.configure("nonsense = 1\n" + content if bad else content)
    gateway.signal(signal.SIGHUP)
    with world.report.finding(f"reload {number}"):
        await eventually(lambda: gateway.stderr.count(sign) > said, sign, REPLACED_S)
    if bad:
        # The commands read the file as well.
        gateway.configure(in_force)
