"""The bench can fail: it finds a wrong byte, an unfinished stream and a refusal; and its ratios are within a round."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.bench.answers import CONTENT, DONE, FINISH, ROLE, Plan, chunk, dechunked, unstamped
from tests.bench.backend import Backend
from tests.bench.clients import WrongBytes
from tests.bench.cpu import cpu_s
from tests.bench.figures import Figures
from tests.bench.held import Held, Hold
from tests.bench.held import measure as hold
from tests.bench.load import Result, Run, measure
from tests.bench.serving import HOST

LOADS = {
    "small": Run("small", 0, (os.getpid(),), connections=2, seconds=0.05),
    "paced": Run("paced", 0, (os.getpid(),), connections=2, seconds=0.2, gap_s=0.02),
    "flat": Run("flat", 0, (os.getpid(),), connections=2, seconds=0.0, events=300),
    "prompt": Run("small", 0, (os.getpid(),), connections=2, seconds=0.05, prompt_bytes=400_000),
    "timed": Run("paced", 0, (os.getpid(),), connections=2, seconds=0.2, gap_s=0.02, timed=True),
}


class Watched(Backend):
    """A backend's connection, and when it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone.set_result(None)


class Corrupting(Watched):
    """Changes what it sends."""

    change: Callable[[bytes], bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sent, change = self._transport.write, type(self).change
        self._transport.write = lambda data: sent(change(bytes(data)))  # type: ignore[method-assign]


@asynccontextmanager
async def listening(protocol: Callable[[], Watched]) -> AsyncIterator[int]:
    made: list[Watched] = []

    def make() -> Watched:
        made.append(protocol())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*(each.gone for each in made)), 5)


async def run(load: str, protocol: Callable[[], Watched]) -> Result:
    async with listening(protocol) as port:
        return await measure(replace(LOADS[load], port=port))


@pytest.mark.parametrize("load", LOADS)
async def test_a_load_on_the_backend_itself_counts_what_came(load: str) -> None:
    result = await run(load, Watched)
    assert result.units > 0
    assert result.tokens >= result.units
    assert sum(result.cpu_s) > 0
    assert (result.lag_p95_s > 0) == LOADS[load].timed


@pytest.mark.parametrize(
    ("load", "before", "after"),
    [
        ("small", b"ninety", b"eighty"),
        ("small", b" 200 ", b" 503 "),
        ("flat", b" word7", b" word8"),
        ("flat", chunk(FINISH), b""),
        ("paced", chunk(DONE), chunk(DONE) + chunk(DONE)),
        ("timed", b'" @0', b'" @x'),
    ],
    ids=["another answer", "a refusal", "another token", "an event missing", "an event too much", "no time"],
)
async def test_an_answer_that_is_not_what_was_sent_ends_the_run(load: str, before: bytes, after: bytes) -> None:
    class Changing(Corrupting):
        change = staticmethod(lambda data: data.replace(before, after))

    with pytest.raises(WrongBytes):
        await run(load, Changing)


async def test_a_stream_that_is_cut_ends_the_run() -> None:
    class Cutting(Watched):
        def _step(self) -> None:
            self._transport.abort()

    with pytest.raises(WrongBytes):
        await run("flat", Cutting)


async def test_streams_that_are_held_are_all_there_and_every_event_is_timed() -> None:
    async with listening(Watched) as port:
        found = await hold(Hold("streams", port, os.getpid(), streams=3))
    assert (found.requests, found.tokens % 3) == (3, 0)
    assert 0 < found.lag_s < 5
    assert found.during > 0


async def test_a_stalled_reader_reads_on_and_must_get_every_byte() -> None:
    class Changing(Corrupting):
        change = staticmethod(lambda data: data.replace(b" word55", b" word56"))

    async with listening(Changing) as port:
        with pytest.raises(WrongBytes):
            await hold(Hold("stalled", port, os.getpid(), streams=1, stalled=1, seconds=0.1))


def test_what_a_stream_takes_is_what_memory_grew_by() -> None:
    figures = Figures()
    figures.held["plain"] = 4, Held(before=100 * 1024, during=132 * 1024)
    assert figures.per_stream_kib("plain") == 8


def test_a_stamped_answer_differs_in_its_stamps_alone() -> None:
    plan = Plan(events=3, stamped=True)
    assert Plan.of(plan.request(10_000)) == plan
    assert len(plan.request(20_000)) > 15_000
    later = plan.payload().replace(b"0000000000.000000", b"0000012345.678901")
    assert later != plan.payload() == unstamped(later)


def test_a_plan_travels_in_a_request_and_says_what_a_client_gets() -> None:
    plan = Plan(events=2, burst=1, gap_s=0.02, first_s=0.5)
    assert Plan.of(plan.request()) == plan
    assert plan.payload() == ROLE + CONTENT[0] + CONTENT[1] + FINISH + DONE
    assert dechunked(chunk(b"a") + chunk(b"bc") + b"0\r\n\r\n") == b"abc"


def test_ratios_are_taken_within_a_round() -> None:
    figures = Figures()
    for floor, ours in [(0.001, 0.002), (0.004, 0.008), (0.002, 0.006)]:
        figures.add("paced", "relay", Result(10, [floor], 1.0, 1, 10))
        figures.add("paced", "tokenport", Result(10, [ours / 2, ours / 2], 1.0, 1, 10))
    assert figures.micros("paced", "relay") == pytest.approx([100.0, 400.0, 200.0])
    assert figures.ratios("paced", "tokenport") == pytest.approx([2.0, 2.0, 3.0])


def test_the_cpu_of_a_process_grows_with_its_work() -> None:
    before = cpu_s(os.getpid())
    while cpu_s(os.getpid()) < before + 0.03:
        sum(range(1000))
    assert cpu_s(os.getpid()) > before
