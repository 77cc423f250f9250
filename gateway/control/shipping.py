"""The supervisor's side of shipping: a thread for each store of the configuration, started and stopped with it.

Only the holder of the data directory's lock runs it. The event loop never waits for a store: it starts threads, and
looks at what they last said of themselves.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.clock import wall
from gateway.config import SinkSettings
from gateway.shipping.cursor import gateway_id
from gateway.shipping.shipper import Condition, Shipper, Sink
from gateway.shipping.sinks import sink_of

logger = logging.getLogger("tokenport.shipping")

STOP_S = 5.0  # for the batch under way; one that is cut off is delivered again


@dataclass(slots=True)
class _Running:
    settings: SinkSettings
    shipper: Shipper
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None


class Shipping:
    """The stores of one gateway."""

    def __init__(self, data_dir: Path, make: Callable[[SinkSettings, str], Sink] = sink_of) -> None:
        self._data_dir = data_dir
        self._make = make
        self._running: dict[str, _Running] = {}

    def install(self, sinks: Iterable[SinkSettings]) -> None:
        """Ship to these stores from now on. One that stays as it was goes on undisturbed.

        Raises:
            OSError: this gateway has no name to ship under.
        """
        wanted = {sink.name: sink for sink in sinks}
        gone = {name: each for name, each in self._running.items() if wanted.get(name) != each.settings}
        gateway = gateway_id(self._data_dir) if wanted else ""
        for name, each in gone.items():
            each.stop.set()
            del self._running[name]
        for name, settings in wanted.items():
            if name not in self._running:
                before = gone[name].thread if name in gone else None
                self._running[name] = self._start(settings, gateway, before)

    def conditions(self) -> list[Condition]:
        """How each store is doing, in the order of the configuration."""
        return [each.shipper.condition for each in self._running.values()]

    async def stop(self) -> None:
        """Let every store take what is there, for a short while."""
        threads = [each.thread for each in self._running.values() if each.thread is not None]
        self.install(())
        await asyncio.gather(*(asyncio.to_thread(thread.join, STOP_S) for thread in threads))

    def _start(self, settings: SinkSettings, gateway: str, before: threading.Thread | None) -> _Running:
        sink = self._make(settings, gateway)
        shipper = Shipper(settings.name, settings.kind, sink, self._data_dir, settings.batch_rows, wall)
        running = _Running(settings, shipper)

        def ship() -> None:
            if before is not None:
                before.join()  # never two for one store
            shipper.run(running.stop.wait)

        # A daemon: a store that hangs must not hold up the end of the process, which loses nothing.
        running.thread = threading.Thread(target=ship, name=f"ship-{settings.name}", daemon=True)
        running.thread.start()
        return running
