"""Streams held at once, and what they cost a worker in memory. `python -m tests.bench.held JSON` prints JSON.

    streams  thousands of streams, an event a second each            resident memory per stream, the worst lag
    stalled  the same, and beside them readers that stop reading      growth per stalled reader
    large    an answer of very many tokens, then very long prompts    growth after each

Every stream is compared with what the backend sent, the stalled ones too: they read on at last.
"""

import asyncio
import json
import math
import socket
import ssl
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.answers import ANSWER_TOKENS, CONTENT, Plan
from tests.bench.clients import Asker, Listener, WrongBytes, connected, tell, unless_failed
from tests.bench.memory import resident_bytes, shared_bytes
from tests.bench.serving import HOST

GAP_S = 1.0
# Streams begin at this pace: a gateway in service does not get thousands of requests in one moment.
STARTS_PER_S = 250
STARTS_EVERY_S = 0.02
# What comes to rest after the last request: opens become durable, first events leave.
SETTLE_S = 2.0
LOOK_EVERY_S = 0.5
# A stalled reader is a distant one: packets of the usual size, and little room in its kernel. So what it does not take
# fills the gateway and not the loopback's large buffers.
SEGMENT_BYTES = 1400
RECEIVE_BYTES = 16 * 1024
# More than all buffers between the backend and a stalled reader hold.
STALLED_BYTES = 2 * 1024 * 1024
STALLED_BURST = 64
HOLD_S_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Hold:
    """What to hold, and whose memory to watch."""

    kind: str
    port: int
    pid: int
    streams: int = 0
    seconds: float = 0.0  # all of them at once for so long; for the stalled: without reading
    stalled: int = 0
    answer_tokens: int = 0
    prompt_bytes: int = 0
    prompts: int = 0
    ca_file: str = ""  # of a port with TLS


@dataclass(slots=True)
class Held:
    """What was found, in bytes of resident memory of the worker."""

    requests: int = 0
    tokens: int = 0
    before: int = 0
    during: int = 0  # with all streams open; with stalled readers, the most seen
    after: int = 0
    shared_before: int = 0  # of these, mapped files
    shared_during: int = 0
    lag_s: float = 0.0  # the longest an event was under way


async def start(listeners: Sequence[Listener], plan: Plan) -> None:
    """Ask, a few at a time."""
    step = max(1, round(STARTS_PER_S * STARTS_EVERY_S))
    request = plan.request()
    for at in range(0, len(listeners), step):
        for listener in listeners[at : at + step]:
            listener.transport.write(request)
        await asyncio.sleep(STARTS_EVERY_S)


async def ended(listeners: Sequence[Listener], plan: Plan) -> None:
    """Wait for the ends; check."""
    payload = plan.payload()
    await asyncio.gather(*(listener.ended for listener in listeners))
    for listener in listeners:
        listener.check(payload)


async def streams(hold: Hold, failed: asyncio.Future[None]) -> Held:
    """Streams side by side; and with stalled readers, those beside them."""
    lags_s = array("d")
    tls = ssl.create_default_context(cafile=hold.ca_file) if hold.ca_file else None
    starting_s = hold.streams / STARTS_PER_S + SETTLE_S
    held_s = hold.seconds + SETTLE_S + (hold.stalled / STARTS_PER_S + SETTLE_S if hold.stalled else 0.0)
    plan = Plan(math.ceil((starting_s + held_s) / GAP_S), gap_s=GAP_S, stamped=True)
    found = Held(before=resident_bytes(hold.pid), shared_before=shared_bytes(hold.pid))
    async with connected(hold.port, hold.streams, lambda: Listener(failed, lags_s), tls) as listeners:
        await start(listeners, plan)
        await asyncio.sleep(SETTLE_S)
        if hold.stalled:
            await stalled(hold, failed, found)
        else:
            await asyncio.sleep(hold.seconds)
            found.during, found.shared_during = resident_bytes(hold.pid), shared_bytes(hold.pid)
            if any(listener.ended.done() for listener in listeners):
                raise WrongBytes("a stream ended before all were there")
        await ended(listeners, plan)
    if len(lags_s) != hold.streams * plan.events:
        raise WrongBytes(f"{len(lags_s)} events were timed of {hold.streams * plan.events}")
    await asyncio.sleep(SETTLE_S)
    found.requests += hold.streams
    found.tokens += hold.streams * plan.events
    found.after, found.lag_s = resident_bytes(hold.pid), max(lags_s)
    return found


async def stalled(hold: Hold, failed: asyncio.Future[None], found: Held) -> None:
    """Readers that stop after a moment, for so long, and then read on."""
    plan = Plan(STALLED_BYTES // len(CONTENT[0]), STALLED_BURST)
    found.before = resident_bytes(hold.pid)
    loop = asyncio.get_running_loop()
    listeners: list[Listener] = []
    try:
        for _ in range(hold.stalled):
            end = socket.socket()
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
            end.setblocking(False)
            await loop.sock_connect(end, (HOST, hold.port))
            listener = (await loop.create_connection(lambda: Listener(failed), sock=end))[1]
            listener.transport.pause_reading()
            listeners.append(listener)
        await start(listeners, plan)
        until = loop.time() + hold.seconds
        while loop.time() < until:
            found.during = max(found.during, resident_bytes(hold.pid))
            await asyncio.sleep(LOOK_EVERY_S)
        for listener in listeners:
            listener.transport.resume_reading()
        await ended(listeners, plan)
    finally:
        for listener in listeners:
            listener.close()
    found.requests += len(listeners)
    found.tokens += len(listeners) * plan.events


async def large(hold: Hold, failed: asyncio.Future[None]) -> Held:
    """One long answer, or long prompts one after another."""
    found = Held(before=resident_bytes(hold.pid))
    if hold.answer_tokens:
        plan = Plan(hold.answer_tokens)
        async with connected(hold.port, 1, lambda: Listener(failed)) as listeners:
            await start(listeners, plan)
            await ended(listeners, plan)
        found.requests, found.tokens = 1, plan.events
    else:
        request = Plan().request(hold.prompt_bytes)
        async with connected(hold.port, 1, lambda: Asker(failed, request)) as [asker]:
            asker.ask()
            while asker.answers < hold.prompts - 1:  # noqa: ASYNC110  counted by the protocol, not told
                await asyncio.sleep(LOOK_EVERY_S)
            asker.stopping = True
            await asker.ended
        found.requests, found.tokens = asker.answers, asker.answers * ANSWER_TOKENS
    await asyncio.sleep(SETTLE_S)
    found.after = resident_bytes(hold.pid)
    return found


async def measure(hold: Hold) -> Held:
    """Do it.

    Raises:
        WrongBytes: an answer differs from what was sent, or an event is missing.
        TimeoutError: it did not end.
    """
    work = large if hold.kind == "large" else streams
    return await unless_failed(lambda failed: work(hold, failed), HOLD_S_MAX + hold.seconds)


if __name__ == "__main__":
    sys.exit(tell(measure(Hold(**json.loads(sys.argv[1])))))
