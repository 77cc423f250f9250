"""The control plane: one process that carries no customer traffic.

It holds the data directory's lock, binds the public socket, starts the workers and replaces a dead one, keeps prices
fresh, reloads the configuration, folds the logs into the index, has what is closed sealed, ships the logs to other
stores, and serves the admin port. What it decides reaches the workers as whole snapshots over their channels.

    start     lock, bind, read prices, start workers; listen once the first worker has recovered its log
    reload    SIGHUP or a changed file: validate first, swap whole; a bad file keeps what is in force
    stop      SIGTERM or Ctrl-C: unready at once, accept for a while, let streams end; a second one goes at once
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.admin.server import AdminServer
from gateway.clock import PriceTime, wall
from gateway.config import ConfigError, Settings
from gateway.control.books import Books
from gateway.control.channel import ChannelClosed, Message
from gateway.control.configuration import Configuration
from gateway.control.planner import Planner
from gateway.control.prices import Prices
from gateway.control.processes import BACKLOG, StartupError, WorkerProcess, bind, lock_directory
from gateway.control.sealing import Sealings
from gateway.control.shipping import Shipping
from gateway.control.snapshot import Snapshot
from gateway.edge.metering import Spent
from gateway.ledger import lock
from gateway.ledger.cells import CELLS_NAME, Cells
from gateway.ledger.sealkey import SealKeyError, load_or_make_key
from pricing.book import PriceBook

logger = logging.getLogger("tokenport.supervisor")

FOLD_EVERY_S = 1.0
# A worker that dies at once is started again more and more slowly.
RESTART_S_MAX = 5.0


class Supervisor:
    """One running gateway."""

    def __init__(self, configuration: Configuration, environ: Mapping[str, str]) -> None:
        self._configuration = configuration
        self._environ = environ
        self._workers: dict[int, WorkerProcess] = {}
        self._keepers: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._listening = False
        self._logs: tuple[int, ...] = ()
        self._failure = ""
        self._anchor = wall()
        self.started_at = wall()

    @property
    def settings(self) -> Settings:
        return self._configuration.settings

    @property
    def price_time(self) -> PriceTime:
        return PriceTime(self.settings.price_clock, self._anchor)

    async def run(self, announce: Callable[[str], None]) -> int:
        """Serve until told to stop. `announce` gets lines for the person at the terminal.

        Raises:
            StartupError: cannot start here.
        """
        gateway = self.settings.gateway
        held = lock_directory(gateway.data_dir)
        listener: socket.socket | None = None
        try:
            listener = await bind(gateway.listen, "gateway.listen")
            self.prices = Prices(self.settings, self._prices_changed)
            await self.prices.start()
            self.planner = Planner(self)
            self.books = Books(gateway.data_dir)
            self.seals = Sealings(gateway.data_dir, lambda: self.settings, self.books.shrink)
            try:
                load_or_make_key(gateway.data_dir)
                await self.books.start()
            except SealKeyError as error:
                raise StartupError(str(error)) from None
            except OSError as error:
                raise StartupError(f"gateway.data_dir: cannot use {gateway.data_dir}: {error}") from None
            self.shipping = Shipping(gateway.data_dir)
            self._ship()
            admin = AdminServer(self)
            await admin.start(await bind(gateway.admin_listen, "gateway.admin_listen"))
            self._handle_signals()
            await self._start_workers(listener)
            scheme = "http" if gateway.tls is None else "https"
            announce(f"tokenport is ready on {scheme}://{_shown(listener)} (page: http://{admin.address})")
            await self._work(listener, announce)
            await admin.stop()
            await self.prices.stop()
            await self.shipping.stop()
            await self.books.stop()
            return 0
        finally:
            for worker in self._workers.values():
                worker.kill()
            if listener is not None:
                listener.close()
            os.close(held)

    # ---- what the admin port asks

    def workers(self) -> list[WorkerProcess]:
        return list(self._workers.values())

    @property
    def ready(self) -> bool:
        serving = any(worker.ready.is_set() and worker.writable for worker in self._workers.values())
        return self._listening and not self._stopping.is_set() and serving

    async def ask_workers(self, what: str, **fields: Any) -> list[Any]:
        """Every worker's answer; one that is gone or silent is left out."""
        answers = await asyncio.gather(
            *(worker.channel.ask(what, **fields) for worker in self.workers() if worker.ready.is_set()),
            return_exceptions=True,
        )
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def tell_workers(self, what: str, **fields: Any) -> None:
        for worker in self.workers():
            if worker.ready.is_set():
                worker.channel.tell(what, **fields)

    @property
    def book(self) -> PriceBook:
        return self.prices.book

    async def reload(self) -> list[str]:
        """Read the configuration again. Returns the problems; with any, what was in force stays."""
        # One at a time: a signal and a changed file may come together.
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> list[str]:
        try:
            changed = self._configuration.reload(self._environ)
        except ConfigError as error:
            for problem in error.problems:
                logger.error("configuration not taken: %s", problem)
            return list(error.problems)
        if changed:
            await self.prices.install(self.settings)
            self._ship()
            problems = await self._install()
            if problems:
                return problems
            logger.info("configuration reloaded")
        return []

    # ---- workers

    async def _start_workers(self, listener: socket.socket) -> None:
        count = self.settings.gateway.workers or os.cpu_count() or 1
        ledger = self.settings.gateway.data_dir / "ledger"
        logs: list[int] = []
        number = 0
        while len(logs) < count:
            # An orphaned worker may hold its log for some seconds more.
            if not lock.held(ledger / str(number)):
                logs.append(number)
            number += 1
        await self.books.recover_others(logs)
        self._logs = tuple(logs)
        self._cells = self._shared_cells(count)
        ready = asyncio.Event()
        for place, log in enumerate(logs):
            task = asyncio.create_task(self._keep_worker(place, log, listener, ready))
            self._keepers.add(task)
            task.add_done_callback(self._keepers.discard)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({waiting, *self._keepers}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise StartupError(f"no worker could start: {self._failure}")
        self._listening = True

    def _shared_cells(self, workers: int) -> Cells:
        settings = self.settings
        names = len(settings.tenants) + len(settings.backends) + len(settings.links)
        try:
            return Cells.create(settings.gateway.data_dir / CELLS_NAME, workers, names)
        except OSError as error:
            raise StartupError(f"gateway.data_dir: no room for the cells of {workers} workers: {error}") from None

    async def _keep_worker(self, place: int, log: int, listener: socket.socket, ready: asyncio.Event) -> None:
        """Run a worker on this log, and another after it, until the gateway stops."""
        pause_s = 0.1
        while not self._stopping.is_set():
            try:
                worker = await WorkerProcess.start(place, log, listener, self._heard)
            except OSError as error:
                # No memory or descriptors for a process now: later there may be.
                logger.error("worker not started", extra={"log": log, "problem": str(error)})
                await asyncio.sleep(RESTART_S_MAX)
                continue
            self._workers[log] = worker
            worker.channel.tell("install", **(await self._snapshot()).to_message())
            accepting = asyncio.create_task(self._accept(worker, listener, ready))
            status = await worker.ended()
            accepting.cancel()
            del self._workers[log]
            self._cells.bury(place)
            if self._stopping.is_set():
                return
            if not ready.is_set() and self._failure:
                # It never served and says why: trying again would only say it again.
                return
            logger.error("worker ended; starting another", extra={"log": log, "status": status})
            if time.monotonic() - worker.started_at > 10:
                pause_s = 0.1
            await asyncio.sleep(pause_s)
            pause_s = min(RESTART_S_MAX, pause_s * 2)

    async def _accept(self, worker: WorkerProcess, listener: socket.socket, ready: asyncio.Event) -> None:
        """Once a worker has recovered its log, traffic may come."""
        await worker.ready.wait()
        spent = await self._spent()
        try:
            listener.listen(BACKLOG)
        except OSError as error:
            logger.error("gateway.listen: %s", error.strerror)
            self.stop_now()
            return
        worker.channel.tell("accept", spent=spent.to_message())
        worker.channel.tell("room", **self.planner.message())
        ready.set()

    async def _heard(self, worker: WorkerProcess, message: Message) -> None:
        if message["what"] == "ready":
            worker.ready.set()
        elif message["what"] == "ledger":
            worker.writable = message["writable"]
        elif message["what"] == "failed":
            self._failure = message["reason"]
            logger.error("worker cannot go on: %s", self._failure)

    async def _spent(self) -> Spent:
        return await self.books.spent(self.settings.tenants, self._logs, wall())

    async def _snapshot(self) -> Snapshot:
        spent, configuration = await self._spent(), self._configuration
        return Snapshot(configuration.text, configuration.directory, self._anchor, self.prices.curves, spent)

    async def _install(self) -> list[str]:
        """Hand what is in force to every worker. Returns who did not take it: it serves on with what it had."""
        problems: list[str] = []
        message = (await self._snapshot()).to_message()
        for worker in self.workers():
            if not worker.ready.is_set():
                # Still starting, which may take long: it reads this before it accepts.
                worker.channel.tell("install", **message)
                continue
            try:
                taken = await worker.channel.ask("install", **message)
            except ChannelClosed:
                # It has died; the next one begins with this.
                continue
            except TimeoutError:
                taken = None
            if not taken:
                problems.append(f"the worker of log {worker.log} did not take the configuration; its log says why")
                logger.error("worker did not take the configuration", extra={"log": worker.log})
        return problems

    def _ship(self) -> None:
        try:
            self.shipping.install(self.settings.sinks)
        except OSError as error:
            # Rows wait in the logs; what is served does not depend on it.
            logger.error("nothing is shipped", extra={"problem": str(error)})

    async def _prices_changed(self) -> None:
        await self._install()

    # ---- running and stopping

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        # Explicitly: a process started in the background inherits an ignored SIGINT.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.reload()))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._keepers.add(task)
        task.add_done_callback(self._keepers.discard)

    def stop(self) -> None:
        """Drain; called again, stop at once."""
        if self._stopping.is_set():
            self._stop_now.set()
        self._stopping.set()

    def stop_now(self) -> None:
        self._stopping.set()
        self._stop_now.set()

    async def _work(self, listener: socket.socket, announce: Callable[[str], None]) -> None:
        folding = asyncio.create_task(self._fold())
        sealing = asyncio.create_task(self.seals.run())
        watching = asyncio.create_task(self._watch())
        planning = asyncio.create_task(self.planner.run())
        await self._stopping.wait()
        watching.cancel()
        planning.cancel()
        announce("stopping: streams may end by themselves; press Ctrl-C again to stop at once")
        await self._drain(listener)
        folding.cancel()
        sealing.cancel()
        await asyncio.wait({sealing})

    async def _drain(self, listener: socket.socket) -> None:
        limits = self.settings.limits
        for worker in self.workers():
            worker.channel.tell("drain")
        # Nobody may wait in a backlog that no worker takes from any more.
        closing = asyncio.get_running_loop().call_later(limits.accept_s, listener.close)
        ended = asyncio.ensure_future(asyncio.gather(*(worker.process.wait() for worker in self.workers())))
        now = asyncio.ensure_future(self._stop_now.wait())
        deadline_s = limits.accept_s + limits.drain_s + limits.exit_s
        either: set[asyncio.Future[Any]] = {ended, now}
        await asyncio.wait(either, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        listener.close()
        if not ended.done():
            for worker in self.workers():
                worker.channel.tell("stop")
            await asyncio.wait({ended}, timeout=limits.exit_s)
        now.cancel()
        for worker in self.workers():
            worker.kill()
        await ended

    async def _fold(self) -> None:
        while True:
            try:
                await self.books.recover_released()
                await self.books.fold()
            except Exception:
                # The index is a view: whatever ails it, the gateway serves on, and the next fold tries again.
                logger.exception("index not folded")
            await asyncio.sleep(FOLD_EVERY_S)

    async def _watch(self) -> None:
        """A changed configuration file is read without being told."""
        while True:
            await asyncio.sleep(1.0)
            if self._configuration.changed_on_disk():
                try:
                    await self.reload()
                except Exception:
                    logger.exception("reload failed; what was in force stays")


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
