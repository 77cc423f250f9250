"""A request's objects go when it ends: nothing of it waits for a collection, which would hold every stream up."""

import asyncio
import gc
from pathlib import Path

import pytest

from gateway.edge.exchange import Exchange
from tests.edge.worker import Worker, working
from tests.fakes.backend import ScriptedBackend
from tests.fakes.configurations import one_site
from tests.fakes.gateway import eventually
from tests.fakes.script import Script


def exchanges() -> int:
    return sum(type(each) is Exchange for each in gc.get_objects())


async def ask(worker: Worker, script: Script, *, stream: bool) -> None:
    for _ in range(3):
        await worker.ask("m", script, stream=stream)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [Script(tokens=3), Script(tokens=3, status=500)], ids=["answered", "refused"])
async def test_a_request_that_ended_leaves_no_circle_behind(
    tmp_path: Path, backend: ScriptedBackend, script: Script, stream: bool
) -> None:
    async with working(tmp_path, one_site(backend.site().url)) as worker:
        gc.collect()
        gc.disable()
        try:
            await ask(worker, script, stream=stream)
            await eventually(lambda: not worker.held(), "everything is given back")
            await asyncio.sleep(0)
            assert exchanges() == 0
        finally:
            gc.enable()
