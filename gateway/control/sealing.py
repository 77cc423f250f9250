"""The supervisor's side of sealing: it looks for closed segments, lets a child process seal them, and says how it went.
The same child lets go what is older, or more, than is to be kept (`expiry`).

What was found damaged is named once and not looked at again until the next start.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.clock import wall
from gateway.config import Settings
from gateway.ledger.instants import MICROS, parse_us
from gateway.ledger.sealing import DamagedSegment, due
from gateway.ledger.seals import BadSeal, read_seal, seal_numbers
from gateway.ledger.segment import logs, sealed_path
from gateway.telemetry import SEGMENT_DAMAGED

logger = logging.getLogger("tokenport.sealing")

SEAL_EVERY_S = 15.0  # what is closed waits at most so long; a look costs a listing of the logs
EXPIRE_EVERY_S = 600.0  # where not all is kept; a look reads all seals
PASS_S_MAX = 3600.0  # a pass is killed then, and the next one goes on where it was


@dataclass(frozen=True, slots=True)
class SealsNow:
    """What is sealed."""

    segments: int = 0
    sealed_bytes: int = 0
    last_sealed_at: float | None = None  # epoch seconds
    damaged: tuple[DamagedSegment, ...] = ()
    problem: str = ""  # why the last pass did not come to its end


class Sealings:
    """Keeps the closed segments of one data directory sealed."""

    def __init__(self, data_dir: Path, settings: Callable[[], Settings], expired: Callable[[], None]) -> None:
        """`expired` is called when segments are gone."""
        self._data_dir = data_dir
        self._ledger = data_dir / "ledger"
        self._settings = settings
        self._expired = expired
        self._expire_at = 0.0
        self._damaged: dict[tuple[int, int], DamagedSegment] = {}
        self.now = SealsNow()

    async def run(self) -> None:
        """Until cancelled; a pass that is under way then is killed."""
        while True:
            try:
                await self._look()
            except Exception:
                # Nothing is lost by sealing later: the plain files stay.
                logger.exception("segments not sealed")
            await asyncio.sleep(SEAL_EVERY_S)

    async def _look(self) -> None:
        settings = self._settings()
        ledger = settings.ledger
        problem = ""
        expires = bool(ledger.keep_days or ledger.keep_bytes) and wall() >= self._expire_at
        if expires or await asyncio.to_thread(due, self._ledger, ledger.plain_s, wall(), frozenset(self._damaged)):
            self._expire_at = wall() + EXPIRE_EVERY_S
            problem = await self._pass(settings)
            if problem and problem != self.now.problem:
                logger.error("segments not sealed", extra={"problem": problem})
        self.now = await asyncio.to_thread(self._count, problem)

    async def _pass(self, settings: Settings) -> str:
        """Seal what there is, and let go. Returns why not all of it could be."""
        asked = {name: getattr(settings.ledger, name) for name in ("plain_s", "keep_days", "keep_bytes")}
        asked |= {"damaged": list(self._damaged), "sinks": [sink.name for sink in settings.sinks]}
        arguments = str(self._data_dir), json.dumps(asked)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.control.sealer", *arguments),
            stdin=asyncio.subprocess.PIPE,  # it ends with us
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert child.stdout is not None
            said = await asyncio.wait_for(child.stdout.read(), PASS_S_MAX)
            await child.wait()
        except TimeoutError:
            return f"a pass took longer than {PASS_S_MAX:g} s"
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                await asyncio.shield(child.wait())
        if not said:
            return f"the sealing process ended with status {child.returncode}"
        return self._took(json.loads(said))

    def _took(self, result: dict[str, Any]) -> str:
        for log, segment in result["sealing"]["sealed"]:
            logger.info("segment sealed", extra={"log": log, "segment": segment})
        for log, segment in result["expired"]:
            logger.info("segment expired: its rows are gone, its sums are kept", extra={"log": log, "segment": segment})
        if result["expired"]:
            self._expired()
        for found in (DamagedSegment(*each) for each in result["sealing"]["damaged"]):
            self._damaged[found.log, found.segment] = found
            logger.error(
                SEGMENT_DAMAGED,
                extra={"log": found.log, "segment": found.segment, "line": found.line, "problem": found.problem},
            )
        return str(result["problem"])

    def _count(self, problem: str) -> SealsNow:
        segments = sealed_bytes = 0
        last: float | None = None
        for directory in (self._ledger / str(log) for log in logs(self._ledger)):
            numbers = seal_numbers(directory)
            segments += len(numbers)
            for segment in numbers:
                with suppress(FileNotFoundError):
                    sealed_bytes += sealed_path(directory, segment).stat().st_size
            with suppress(BadSeal, OSError, ValueError):
                at = parse_us(read_seal(directory, numbers[-1]).sealed_at) / MICROS if numbers else None
                last = at if last is None or (at is not None and at > last) else last
        return SealsNow(segments, sealed_bytes, last, tuple(self._damaged.values()), problem)
