"""One measured run: a load on one port, and the CPU that the processes behind it used meanwhile.

    small   16 connections, each sends its next request when it has its answer      CPU per request
    paced   streams whose events come one by one                                    CPU per event, requests left out
    flat    streams as fast as they go                                              CPU per event, requests included

Every answer is compared with what the backend sent, byte by byte; a difference ends the run with an error. A run is a
process of its own: `python -m tests.bench.load '{"kind": "small", ...}'` prints its result as JSON.
"""

import asyncio
import json
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import quantiles

from tests.bench.answers import ANSWER_TOKENS, Plan
from tests.bench.clients import Asker, Listener, WrongBytes, connected, tell, unless_failed
from tests.bench.cpu import cpus_s

RUN_S_MAX = 60.0
# What a process tree may use in a quarter of a second and still be called quiet, and how long to wait for that.
QUIET_CPU_S = 0.003
QUIET_LOOK_S = 0.25
QUIET_WAIT_S_MAX = 6.0


@dataclass(frozen=True, slots=True)
class Run:
    """What to measure."""

    kind: str
    port: int = 0
    pids: Sequence[int] = ()  # whose CPU counts
    connections: int = 1
    seconds: float = 0.0  # small, paced
    events: int = 0  # flat: of each stream
    burst: int = 1
    gap_s: float = 0.0
    ramp_s: float = 0.4  # paced: for streams to come to a steady state, before and after the measured time
    prompt_bytes: int = 0  # small: of a request
    timed: bool = False  # paced: whether each event is timed, from the backend's write to here
    work_behind_s: float = 0.0  # work may begin so long after the last answer: it is waited for and counted


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured."""

    units: int  # requests or events within the measured time
    cpu_s: Sequence[float]  # of each process
    wall_s: float
    requests: int  # in all, those outside the measured time too
    tokens: int
    lag_p95_s: float = 0.0  # of the events within the measured time


class Meter:
    """The time and CPU between two moments."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._from = time.perf_counter()
        self._cpu_from = cpus_s(run.pids)

    async def result(self, units: int, requests: int, tokens: int) -> Result:
        """Now is the second moment; what the processes still do behind the answers is waited for."""
        wall_s = time.perf_counter() - self._from
        if self._run.work_behind_s:
            await self._quiet()
        used = [now - before for now, before in zip(cpus_s(self._run.pids), self._cpu_from, strict=True)]
        return Result(units, used, wall_s, requests, tokens)

    async def _quiet(self) -> None:
        await asyncio.sleep(self._run.work_behind_s)
        until = time.perf_counter() + QUIET_WAIT_S_MAX
        while time.perf_counter() < until:
            before = sum(cpus_s(self._run.pids))
            await asyncio.sleep(QUIET_LOOK_S)
            if sum(cpus_s(self._run.pids)) - before < QUIET_CPU_S:
                return


async def small(run: Run, askers: Sequence[Asker]) -> Result:
    """A closed loop of small requests."""
    for asker in askers:
        asker.ask()
    while min(asker.answers for asker in askers) < 5:  # noqa: ASYNC110  counted by the protocols, not told
        await asyncio.sleep(0.002)
    meter, before = Meter(run), sum(asker.answers for asker in askers)
    await asyncio.sleep(run.seconds)
    for asker in askers:
        asker.stopping = True
    await asyncio.gather(*(asker.ended for asker in askers))
    answers = sum(asker.answers for asker in askers)
    return await meter.result(answers - before, answers, answers * ANSWER_TOKENS)


async def paced(run: Run, listeners: Sequence[Listener], lags_s: "array[float]") -> Result:
    """Streams side by side whose events come one by one."""
    events = round((2 * run.ramp_s + run.seconds) / run.gap_s)
    plan = Plan(events, run.burst, run.gap_s, stamped=run.timed)
    for listener in listeners:
        listener.transport.write(plan.request())
    await asyncio.sleep(run.ramp_s)
    meter, before, untimed = Meter(run), sum(listener.events for listener in listeners), len(lags_s)
    await asyncio.sleep(run.seconds)
    units = sum(listener.events for listener in listeners) - before
    measured_s = lags_s[untimed:]
    result = await meter.result(units, run.connections, run.connections * events)
    if any(listener.ended.done() for listener in listeners):
        raise WrongBytes("a paced stream ended before its time")
    await _ended(listeners, plan)
    return replace(result, lag_p95_s=quantiles(measured_s, n=20)[-1]) if run.timed else result


async def flat(run: Run, listeners: Sequence[Listener]) -> Result:
    """Streams side by side as fast as they go."""
    plan = Plan(run.events, run.burst)
    meter = Meter(run)
    for listener in listeners:
        listener.transport.write(plan.request())
    await asyncio.gather(*(listener.ended for listener in listeners))
    events = run.connections * run.events
    result = await meter.result(events, run.connections, events)
    await _ended(listeners, plan)
    return result


async def _ended(listeners: Sequence[Listener], plan: Plan) -> None:
    await asyncio.gather(*(listener.ended for listener in listeners))
    payload = plan.payload()
    for listener in listeners:
        listener.check(payload)


async def _measure(run: Run, failed: asyncio.Future[None]) -> Result:
    if run.kind == "small":
        request = Plan().request(run.prompt_bytes)
        async with connected(run.port, run.connections, lambda: Asker(failed, request)) as askers:
            return await small(run, askers)
    lags_s = array("d")
    async with connected(
        run.port, run.connections, lambda: Listener(failed, lags_s if run.timed else None)
    ) as listeners:
        return await (paced(run, listeners, lags_s) if run.kind == "paced" else flat(run, listeners))


async def measure(run: Run) -> Result:
    """Do a run.

    Raises:
        WrongBytes: an answer differs from what was sent.
        TimeoutError: it did not end.
    """
    return await unless_failed(lambda failed: _measure(run, failed), RUN_S_MAX)


if __name__ == "__main__":
    sys.exit(tell(measure(Run(**json.loads(sys.argv[1])))))
