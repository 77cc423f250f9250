"""Background probes: how an ejected backend comes back.

A probe asks the backend for its models, on a connection of its own and with our credential, so that it touches what a
request touches. Only backends that are out are probed; healthy ones are measured by their traffic.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from gateway.errors import UpstreamError
from gateway.telemetry import RETURNED
from gateway.upstream.backends import Backends, Upstream
from gateway.wire.http1 import ResponseHead
from routing.backend import BackendState

logger = logging.getLogger("tokenport.probe")

# A probe that takes longer than this is a bad one; distant sites answer in a few round trips.
PROBE_TIMEOUT_S = 5.0
PROBE_BODY_BYTES_MAX = 1024 * 1024


class _Answer:
    """Receives a probe's answer and keeps its status."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._seen = 0
        self._bytes = 0

    def on_head(self, head: ResponseHead) -> None:
        self._seen = head.status

    def on_body(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > PROBE_BODY_BYTES_MAX:
            self._settle(0)

    def on_end(self) -> None:
        self._settle(self._seen)

    def on_failure(self, error: UpstreamError) -> None:
        self._settle(0)

    def _settle(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)


async def probe(upstream: Upstream) -> bool:
    """Whether the backend answers 200 to a cheap question."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            connection = await upstream.pool.connect()
            answer = _Answer()
            connection.send(upstream.probe_head(), b"", answer)
            try:
                return await answer.status == 200
            finally:
                connection.cancel()
    except (TimeoutError, UpstreamError):
        return False


class Prober:
    """Probes every ejected backend when its probe is due, one at a time per backend.

    Of several workers one probes for all; `mine` says whether it is this one.
    """

    def __init__(self, backends: Backends, states: Mapping[str, BackendState], mine: Callable[[float], bool]) -> None:
        self._backends = backends
        self._states = states
        self._mine = mine
        self._running: dict[str, asyncio.Task[None]] = {}

    def sweep(self, now: float) -> None:
        """Start the probes that are due. Called about once a second or more often."""
        if not self._mine(now):
            return
        for name, state in self._states.items():
            upstream = self._backends.get(name)
            if upstream is not None and name not in self._running and state.health.probe_due(now):
                self._running[name] = asyncio.ensure_future(self._probe(name, upstream, state))

    def stop(self) -> None:
        for task in self._running.values():
            task.cancel()

    async def _probe(self, name: str, upstream: Upstream, state: BackendState) -> None:
        try:
            well = await probe(upstream)
            now = asyncio.get_running_loop().time()
            if well:
                state.health.probe_ok(now)
                if state.health.available(now):
                    logger.info(RETURNED, extra={"backend": name})
            else:
                state.health.probe_failed(now)
        finally:
            del self._running[name]
