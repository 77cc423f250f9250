"""One worker: the data plane in a process of its own.

start     read the snapshot, open the log (its lock is ours alone), recover what a predecessor left, say ready
accept    when the supervisor says so
drain     unready at once, accept for `accept_s`, let streams end for `drain_s`, end the rest with an error event
orphaned  the supervisor is gone: stop accepting first, end every stream with an error event, be gone within 5 s
"""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from gateway.clock import PriceTime, wall
from gateway.config import ConfigError
from gateway.control.channel import Channel, Message
from gateway.control.snapshot import Snapshot
from gateway.edge.accepting import Accepting
from gateway.edge.metering import Spent
from gateway.edge.plane import DataPlane
from gateway.ledger.lock import LedgerBusy
from gateway.ledger.log import LedgerUnavailable
from gateway.telemetry import LEDGER_BACK, LEDGER_STOPPED

logger = logging.getLogger("tokenport.worker")

# How long the writer gets for the last records when the process ends.
FLUSH_S = 5.0
# Allocations between two looks of the collector at the youngest objects: a few hundred requests.
GC_THRESHOLD = 50_000


class Worker:
    """The process behind one channel, one listening socket and one log."""

    def __init__(self, channel: Channel, listener: socket.socket, build: Callable[[Snapshot], DataPlane]) -> None:
        self._channel = channel
        self._listener = listener
        self._build = build
        self._parts: DataPlane | None = None
        self._accepting: Accepting | None = None
        self._done = asyncio.Event()
        self._ledger_reason = ""
        self._work: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Until drained, stopped or orphaned. Returns the exit status."""
        loop = asyncio.get_running_loop()
        # The supervisor decides when to stop; Ctrl-C reaches the whole process group.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, lambda: self._start(self._drain()))
        reading = asyncio.create_task(self._channel.run(self._heard))
        done = asyncio.create_task(self._done.wait())
        await asyncio.wait({reading, done}, return_when=asyncio.FIRST_COMPLETED)
        if not self._done.is_set():
            logger.error("the supervisor is gone; ending all streams")
            await self._stop()
        for task in self._work:
            task.cancel()
        if self._parts is not None:
            self._parts.close()
        reading.cancel()
        done.cancel()
        return 0

    async def _heard(self, message: Message) -> Any:
        parts = self._parts
        match message["what"]:
            case "install":
                return await self._install(Snapshot.from_message(message))
            case "accept":
                self._accept(Spent.from_message(message["spent"]))
            case "drain":
                self._start(self._drain())
            case "stop":
                self._start(self._stop())
            case "wanted" if parts is not None:
                return parts.wanted(asyncio.get_running_loop().time())
            case "room" if parts is not None:
                parts.price_room(message)
            case "status" if parts is not None:
                return parts.status(asyncio.get_running_loop().time())
            case "explain" if parts is not None:
                return parts.explain(message, asyncio.get_running_loop().time(), wall())
        return None

    async def _install(self, snapshot: Snapshot) -> dict[str, str]:
        if self._parts is None:
            try:
                self._parts = self._build(snapshot)
            except Exception as error:  # whatever it is, it has to be said, or the supervisor waits for ever
                if not isinstance(error, LedgerBusy | LedgerUnavailable | ConfigError | OSError):
                    logger.exception("the worker cannot be put together")
                self._channel.tell("failed", reason=str(error))
                self._done.set()
                return {}
            self._parts.port.on_sweep(self._watch_ledger)
            self._channel.tell("ready", recovered=self._parts.recovered)
        else:
            settings = snapshot.settings(os.environ)
            price_time = PriceTime(settings.price_clock, snapshot.anchor)
            self._parts.install(settings, snapshot.curves, price_time, snapshot.spent)
        live = self._parts.live
        return {"route_version": live.table.version, "price_version": live.book.version}

    def _accept(self, spent: Spent) -> None:
        """Begin; `spent` is what the ledger says now that this worker's log is recovered."""
        parts = self._parts
        if parts is None or self._accepting is not None:
            return
        parts.desk.admission.begin(spent)
        # What is built stays: no later collection walks it, which would hold every stream for some milliseconds. And a
        # request's objects go by their counts; the collector is for the rare cycle, so it looks seldom.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 50)
        parts.port.start()
        self._accepting = Accepting(self._listener, parts.port, parts.connection)
        self._accepting.start()
        parts.proxy.accepting = True

    def _watch_ledger(self, now: float) -> None:
        """Tell the log and the supervisor when the ledger stops taking requests, and when it does again."""
        reason = self._parts.desk.log.reason if self._parts is not None else ""
        if bool(reason) != bool(self._ledger_reason):
            if reason:
                logger.error(LEDGER_STOPPED, extra={"reason": reason})
            else:
                logger.warning(LEDGER_BACK)
            self._channel.tell("ledger", writable=not reason)
        self._ledger_reason = reason

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _drain(self) -> None:
        parts = self._parts
        if parts is None or parts.proxy.draining:
            return
        limits = parts.live.settings.limits
        parts.proxy.draining = True
        await asyncio.sleep(limits.accept_s if parts.proxy.accepting else 0)
        self._close_port()
        await parts.proxy.idle(limits.drain_s)
        await self._stop()

    async def _stop(self) -> None:
        """End what is under way with an error event, now."""
        self._close_port()
        if self._parts is not None:
            self._parts.proxy.stop_all()
            await self._parts.proxy.idle(FLUSH_S / 2)
            await self._parts.port.flushed(FLUSH_S / 2)
        self._done.set()

    def _close_port(self) -> None:
        if self._accepting is not None:
            self._accepting.close()
        if self._parts is not None:
            self._parts.proxy.accepting = False
            self._parts.port.draining = True
            self._parts.port.close_idle()
