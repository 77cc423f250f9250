"""The supervisor's side of the ledger: it folds all logs into the one index and answers questions from it.

SQLite is used from one thread of its own: one connection writes and checkpoints, readers open their own, and the event
loop never waits for a disk.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gateway.clock import wall
from gateway.config import TenantSettings
from gateway.edge.metering import Spent
from gateway.edge.shares import period_bounds
from gateway.ledger import lock
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.lock import LedgerBusy
from gateway.ledger.log import LedgerUnavailable
from gateway.ledger.reading import Reader
from gateway.ledger.recovery import recover_log

logger = logging.getLogger("tokenport.books")

Result = TypeVar("Result")


class Books:
    """Index and readings of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._ledger = data_dir / "ledger"
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="books")
        self._index: Index | None = None
        self._shrinking = True  # a stop may have come before the last step of it
        self._unrecovered: dict[int, str] = {}  # logs without a worker, not looked after yet, and why if it failed

    async def start(self) -> None:
        self._index = await self._run(lambda: Index(self._ledger / INDEX_NAME))

    async def stop(self) -> None:
        """Fold what is there and close."""
        await self.fold()
        index = self._index
        if index is not None:
            await self._run(index.close)
        self._thread.shutdown()

    async def fold(self) -> int:
        """Take new records into the index. Returns how many."""
        index = self._index
        if index is None:
            return 0
        try:
            folded = await self._run(lambda: index.fold(self._ledger))
            if self._shrinking:
                self._shrinking = await self._run(lambda: index.shrink(self._ledger)) > 0
            return folded
        except OSError as error:
            # A full disk stops the index, never the truth; the next fold takes up where this one stopped.
            logger.error("index not folded", extra={"problem": str(error)})
            return 0

    def shrink(self) -> None:
        """Segments are gone: let go of their rows, a step with each fold."""
        self._shrinking = True

    async def sums(
        self, by: Sequence[str], period: str | None, tz: str, start: float | None, end: float | None
    ) -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]]:
            with Reader(self._data_dir) as reader:
                return reader.sums(by, period=period, tz=tz, start=start, end=end)

        return await self._run(read)

    async def spent(self, tenants: Iterable[TenantSettings], logs: Iterable[int], wall_s: float) -> Spent:
        """Tokens (input + billed output) of each tenant with a budget in its current period, by log. `logs` are those
        with workers."""
        limited = [(tenant.name, tenant.budget.period) for tenant in tenants if tenant.budget is not None]

        def read() -> dict[str, dict[str, int]]:
            tokens: dict[str, dict[str, int]] = {}
            with Reader(self._data_dir) as reader:
                found = {
                    period: reader.spent(*period_bounds(period, wall_s)) for period in {each[1] for each in limited}
                }
            for name, period in limited:
                tokens[name] = {str(log): count for log, count in found[period].get(name, {}).items()}
            return tokens

        return Spent(wall_s, tuple(logs), await self._run(read) if limited else {})

    async def recover_others(self, logs: Iterable[int]) -> None:
        """Recover logs that no worker of this configuration will open. One that an orphaned worker still holds is left
        for `recover_released`."""
        others = {int(directory.name) for directory in self._ledger.glob("[0-9]*")} - set(logs)
        self._unrecovered = dict.fromkeys(sorted(others), "")
        await self.recover_released()

    async def recover_released(self) -> None:
        """Recover those of the other logs whose last worker is gone by now: it may have been killed."""
        for log, said in list(self._unrecovered.items()):
            if lock.held(self._ledger / str(log)):
                continue
            try:
                recovered = await self._run(partial(recover_log, self._ledger, log, wall()))
            except LedgerBusy:
                continue
            except LedgerUnavailable as error:
                # The disk may be full. It is tried again as long as this gateway runs, and said once.
                if str(error) != said:
                    logger.error("another log not recovered", extra={"log": log, "problem": str(error)})
                self._unrecovered[log] = str(error)
                continue
            del self._unrecovered[log]
            if recovered:
                logger.warning("recovered records of another log", extra={"log": log, "records": recovered})

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
