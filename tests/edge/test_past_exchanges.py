"""An exchange that is over keeps its hands off the connection it had: the next one may be using it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from gateway.edge.connection import ClientConnection
from gateway.edge.lane import Lane
from gateway.edge.relay import AnswerAttempt, Attempt, StreamAttempt
from gateway.errors import UpstreamCut, UpstreamStall
from gateway.ledger.board import Board, Slot
from gateway.upstream.pool import Origin, Pool
from gateway.upstream.transport import UpstreamConnection
from gateway.wire.openai_stream import StreamTap
from tests.edge.test_delivery import Client
from tests.edge.test_lane import Sweeps
from tests.edge.worker import working
from tests.fakes.backend import ScriptedBackend, Site
from tests.fakes.client import request
from tests.fakes.configurations import EDGE, document
from tests.fakes.configurations import backend as backend_entry
from tests.fakes.gateway import eventually
from tests.fakes.script import Script

# What may still happen to an exchange whose answer is complete.
LATE: dict[str, Callable[[Attempt], None]] = {
    "too_late": lambda past: past.give_up(UpstreamStall()),
    "found_wanting": lambda past: past.fail(UpstreamCut("no answer")),
    "client_gone": lambda past: past.cancel(),
    "client_full": lambda past: past.pause(),
    "all_it_wants": lambda past: past.connection.let_end(past),
}


@pytest.fixture
def site(backend: ScriptedBackend) -> Site:
    return backend.site()


@pytest.fixture
async def pool(site: Site) -> AsyncIterator[Pool]:
    pool = Pool(Origin.of(site.url), connect_s=2.0, head_bytes_max=32_768)
    yield pool
    pool.close()


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    slot = Board.create(tmp_path / "board", 1).claim(bytes(16), b"{}")
    assert slot is not None
    return slot


class Watcher:
    """Owns an attempt and lets a stream begin."""

    def attempt_ready(self, attempt: Attempt) -> None:
        if isinstance(attempt, StreamAttempt):
            attempt.release()

    def attempt_over(self, attempt: Attempt) -> None:
        assert attempt.error is None


def begin(connection: UpstreamConnection, slot: Slot, site: Site, script: Script, *, streamed: bool = False) -> Attempt:
    """An attempt at an answer."""
    loop, client = asyncio.get_running_loop(), cast(ClientConnection, Client())
    delivery, now = Lane(client, slot, Sweeps()), loop.time
    attempt: Attempt = AnswerAttempt(Watcher(), connection, slot, now, delivery, 4.0)
    if streamed:
        attempt = StreamAttempt(Watcher(), connection, slot, now, StreamTap(choices=1, show="none"), delivery)
    body = {"model": "m", "messages": [], "stream": streamed, "user": script.to_json()}
    connection.send(request(path=f"/{site.name}/v1/chat/completions", json_body=body), b"", attempt)
    return attempt


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("what", LATE)
async def test_nothing_that_happens_to_a_past_exchange_touches_the_next(
    pool: Pool, slot: Slot, site: Site, what: str, streamed: bool
) -> None:
    connection = await pool.connect()
    past = begin(connection, slot, site, Script(tokens=2), streamed=streamed)
    await eventually(lambda: past.over, "the answer is whole")
    await eventually(lambda: pool.take_idle() is connection, "the connection is idle")
    present = begin(connection, slot, site, Script(tokens=2, body_hold=10))
    await eventually(lambda: present.head is not None, "its head")
    LATE[what](past)
    site.release()
    await eventually(lambda: present.over, "the next answer is whole")
    assert pool.take_idle() is connection, "it cannot be used again"


async def test_an_answer_that_waits_for_its_record_cannot_cancel_the_next_ones(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    """Its connection is in the pool already when its own deadlines pass."""
    site = backend.site()
    content = document(
        [backend_entry("near", EDGE, site.url, models={"hasty": "m", "patient": "m"})],
        routes=[
            {"model": "hasty", "backends": ["near"], "first_content_s": 2.0, "gap_s": 2.0},
            {"model": "patient", "backends": ["near"], "first_content_s": 3000.0},
        ],
        limits={"connections_max": 16},
    )
    async with working(tmp_path, content) as worker:
        worker.disk.hang()
        first = asyncio.create_task(worker.ask("hasty", Script(tokens=3)))
        board = worker.plane.desk.board
        await eventually(
            lambda: site.log and [entry.bytes_from_backend for entry in board.entries()] == [site.log[0].bytes_written],
            "the whole of the first answer",
        )
        second = asyncio.create_task(worker.ask("patient", Script(tokens=3, hold_before_head=True)))
        await eventually(lambda: len(site.log) == 2, "the second request")
        assert site.log[0].connection == site.log[1].connection
        await worker.pass_time(4)
        worker.disk.turn()
        site.release()
        assert [(await first).status, (await second).status] == [200, 200]
        rows = await worker.rows(2)
    assert [(row["outcome"], row["attempts"]) for row in rows] == [("completed", 1)] * 2
