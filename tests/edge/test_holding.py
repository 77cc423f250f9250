"""What a stream holds while it lasts: of its request nothing but the facts."""

import gc
from pathlib import Path
from typing import Any

import pytest

from gateway.edge.case import Case
from gateway.edge.course import Course
from gateway.edge.relay import Attempt
from gateway.upstream.transport import RECEIVE_BUFFER_BYTES
from tests.edge.worker import asking, working
from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient
from tests.fakes.configurations import one_site
from tests.fakes.gateway import eventually
from tests.fakes.script import Script

PROMPT = "a long prompt; " * 4000


async def test_the_bodies_of_streams_under_way_leave_room_for_others(tmp_path: Path, backend: ScriptedBackend) -> None:
    content = one_site(backend.site().url)
    content["limits"] |= {"connections_max": 16, "bodies_bytes_max": len(PROMPT) + 4096}
    question = asking("m", Script(tokens=4, hold_after=2), stream=True, metadata={"prompt": PROMPT})
    async with (
        working(tmp_path, content) as worker,
        RawClient.connect(worker.url) as first,
        RawClient.connect(worker.url) as second,
    ):
        for client, under_way in ((first, 1), (second, 2)):
            await client.send(question)
            head = await client.head()
            assert head.status == 200
            await anext(client.events(head))
            assert worker.held()["requests"] == under_way


async def test_a_reader_that_stops_makes_us_hold_little_of_what_its_backend_says(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    content = one_site(backend.site().url)
    content["limits"] |= {"connections_max": 16}
    # More than the kernel holds on the way.
    script = Script(tokens=2000, word_bytes_min=6000)
    async with working(tmp_path, content) as worker, RawClient.connect(worker.url, receive_bytes=4096) as client:
        await client.send(asking("m", script, stream=True))
        [connection] = worker.connections
        high = worker.plane.port.limits.buffer_bytes_high
        await eventually(lambda: connection.unsent_bytes > high, "the buffer is full")
        await worker.pass_time(1)
        assert connection.unsent_bytes <= high + RECEIVE_BUFFER_BYTES + 2 * script.word_bytes_min
        head = await client.head()
        events = [event async for event in client.events(head)]
    assert len(events) == 1 + script.tokens + 2


@pytest.mark.parametrize("members", [{"stream": True}, {}], ids=["stream", "plain"])
async def test_nothing_of_a_request_outlives_it(
    tmp_path: Path, backend: ScriptedBackend, members: dict[str, Any]
) -> None:
    content = one_site(backend.site().url)
    content["limits"] |= {"connections_max": 16}
    async with working(tmp_path, content) as worker:
        await worker.ask("m", Script(tokens=2), **members)
        gc.collect()
        gc.disable()
        try:
            for status in (200, 200, 400, 503):
                await worker.ask("m", Script(tokens=2, status=status), **members)
            await eventually(lambda: not worker.held(), "everything is given back")
            left = [type(each).__name__ for each in gc.get_objects() if isinstance(each, Case | Attempt | Course)]
        finally:
            gc.enable()
    assert left == [], "only a collection would free what is left, and it looks seldom"
