"""Stores that are killed and come back while rows are written: 0 lost, 0 doubled, the order of each log kept.

Two logs are written without a pause. Each store is killed (SIGKILL) at a random moment and started again a moment
later, many times over; half way through, everything that ships is stopped, its cursors are removed, and it begins anew.
"""

import asyncio
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import nats as driver
import orjson
import psycopg

from gateway.config import SinkSettings
from gateway.control.shipping import Shipping
from gateway.ledger.entry import Entry
from gateway.ledger.log import LogWriter
from gateway.ledger.tail import LogLimits
from gateway.shipping import cursor
from tests.ledger.exports import an_end, export_id, row

from .ledgers import log_of
from .servers import Nats, Postgres, wait_until

LOGS = (0, 1)
CATCH_UP_S = 60.0
STREAM = "campaign"


@dataclass
class Load:
    """Rows written to one log, at a pace, until it is told to stop."""

    data_dir: Path
    log: int
    rows_per_s: float
    written: list[str] = field(default_factory=list)
    slowest_s: float = 0.0  # of all durable writes
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        limits = LogLimits(segment_bytes_max=2 * 1024 * 1024)
        writer = LogWriter(log_of(self.data_dir, self.log), self.log, None, limits=limits)
        pattern = row(0)
        at_once = max(1, round(self.rows_per_s / 50))
        for number in count(self.log * 10_000_000):
            each = {**pattern, "export_id": export_id(number)}
            writer.append(Entry.of({"record": "open", "export_id": each["export_id"]}))
            writer.terminal(an_end(each))
            self.written.append(each["export_id"])
            if number % at_once == 0:
                began = time.monotonic()
                writer.flush()
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if self.stop.wait(at_once / self.rows_per_s):
                    break
        writer.close()


@dataclass(frozen=True)
class Result:
    written: dict[int, list[str]]
    in_postgres: dict[int, list[str]]
    in_nats: dict[int, list[str]]
    failures: Counter[str]
    slowest_write_s: float

    def problems(self) -> list[str]:
        """What is not as it must be."""
        return [
            f"{store}, log {log}: {problem}"
            for store, found in (("postgres", self.in_postgres), ("nats", self.in_nats))
            for log in LOGS
            for problem in _differences(self.written[log], found.get(log, []))
        ]


def _differences(written: list[str], found: list[str]) -> Iterator[str]:
    counts = Counter(found)
    lost, doubled = set(written) - counts.keys(), [each for each, times in counts.items() if times > 1]
    if lost:
        yield f"{len(lost)} lost of {len(written)}"
    if doubled:
        yield f"{len(doubled)} doubled"
    if counts.keys() - set(written):
        yield f"{len(counts.keys() - set(written))} invented"
    if not lost and not doubled and found != written:
        yield "in another order"


def run(data_dir: Path, postgres: Postgres, nats: Nats, *, kills: int, rows_per_s: float, seed: int) -> Result:
    """Kill each store so many times under load."""
    rng, url = Random(seed), postgres.database()
    sinks = (
        SinkSettings("pg", "postgres", url),
        SinkSettings("js", "nats", nats.url, stream=STREAM, subject=STREAM),
    )
    loads = [Load(data_dir, log, rows_per_s / len(LOGS)) for log in LOGS]
    writers = [threading.Thread(target=load.run, name=f"load-{load.log}") for load in loads]
    for writer in writers:
        writer.start()
    shipping, failures = Shipping(data_dir), Counter[str]()
    shipping.install(sinks)
    try:
        wait_until(lambda: all(each.rows for each in shipping.conditions()), "the first rows")
        for number in range(kills):
            for store in (postgres, nats):
                store.kill()
                time.sleep(rng.uniform(0.0, 0.4))
                store.start()
                time.sleep(rng.uniform(0.0, 0.4))
            if number == kills // 2:
                failures = _failures(shipping)
                asyncio.run(shipping.stop())
                shutil.rmtree(data_dir / cursor.SINKS_NAME)
                shipping.install(sinks)
    finally:
        for load in loads:
            load.stop.set()
        for writer in writers:
            writer.join()
    # A row is written before it is noted, so what is noted by now is in the logs.
    try:
        wait_until(lambda: all(_caught_up(each) for each in shipping.conditions()), "both to catch up", CATCH_UP_S)
    except AssertionError as error:
        raise AssertionError(f"{error}: {shipping.conditions()}") from None
    failures += _failures(shipping)
    asyncio.run(shipping.stop())
    written = {load.log: load.written for load in loads}
    in_nats = asyncio.run(_in_nats(nats.url))
    return Result(written, _in_postgres(url), in_nats, failures, max(load.slowest_s for load in loads))


def _failures(shipping: Shipping) -> Counter[str]:
    return Counter({each.name: each.failures for each in shipping.conditions()})


def _caught_up(condition: Any) -> bool:
    return condition.reachable is True and condition.lag_rows == 0


def _in_postgres(url: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    with psycopg.connect(url) as connection:
        for log, each in connection.execute("SELECT log, export_id FROM exports ORDER BY log, seq"):
            found.setdefault(log, []).append(each)
    return found


async def _in_nats(url: str) -> dict[int, list[str]]:
    """In the order of the stream."""
    client = await driver.connect(url, allow_reconnect=False)
    found: dict[int, list[str]] = {}
    try:
        context = client.jetstream(timeout=20)
        left = (await context.stream_info(STREAM)).state.messages
        subscription = await context.pull_subscribe(f"{STREAM}.>", stream=STREAM)
        while left:
            for message in await subscription.fetch(min(left, 500), timeout=20):
                told = orjson.loads(message.data)
                found.setdefault(told["log"], []).append(told["export_id"])
                await message.ack()
                left -= 1
    finally:
        await client.close()
    return found
