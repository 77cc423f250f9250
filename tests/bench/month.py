"""A month of a busy gateway: its logs, written through the product's own encoder, and what the index makes of them.

    python -m tests.bench.month DIRECTORY ROWS

prints JSON: seconds to write, to fold and to report, and bytes a row. Rows as they come: eight tenants with two keys
each, four models, six sites in five countries, eight destinations, all of them used unequally; energy prices that
change every quarter of an hour; one request in three with an id of its client's; some that were retried, some whose
client left. Two logs, each written by a process of its own; only the sync is left out.
"""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random

from gateway.ledger.entry import Entry
from gateway.ledger.export_id import ExportIds
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.instants import micros
from gateway.ledger.opening import FailedAttempt, Opening
from gateway.ledger.reading import LEDGER_NAME, Reader
from gateway.ledger.segment import segment_numbers, segment_path
from gateway.ledger.settlement import Ending, settle_row
from gateway.ledger.storage import SegmentIO
from gateway.ledger.tail import LogLimits, Tail
from gateway.ledger.terms import Terms, terms_of
from pricing.export import Usage
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices

LOGS = 2
BEGAN_S = 1_793_491_200.0  # 1 November 2026
MONTH_S = 30 * 86_400.0
QUARTER_S = 900.0
COMMIT_RECORDS = 512

TENANTS = tuple(f"tenant-{number}" for number in range(8))
MODELS = ("qwen3-235b", "deepseek-v3.1", "llama-4-maverick", "gpt-oss-120b")
SITES = (
    ("gz-1", "guizhou", "CN"),
    ("nm-1", "inner-mongolia", "CN"),
    ("qc-1", "quebec", "CA"),
    ("no-1", "nordland", "NO"),
    ("tx-1", "texas", "US"),
    ("is-1", "reykjanes", "IS"),
)
DESTINATIONS = ("DE", "FR", "NL", "GB", "ES", "IT", "SG", "JP")
TARIFFS = tuple(Tariff(300_000_000, 30_000_000, 1_200_000_000 + number * 10**6) for number in range(len(TENANTS)))


class Unsynced(SegmentIO):
    def sync(self, descriptor: int) -> None:
        pass


class Traffic:
    """The records of one log, by a seed."""

    def __init__(self, log: int, rows: int) -> None:
        self._log = log
        self._rows = rows
        self._rng = Random(log)
        self._ids = ExportIds(self._rng.getrandbits)
        self._quarter = -1
        self._units: list[UnitPrices] = []
        self._version = ""
        self.now_s = BEGAN_S

    def records(self) -> Iterator[Entry]:
        """Opens and ends, one after the other."""
        for seq in range(self._rows):
            self.now_s = BEGAN_S + MONTH_S * seq / self._rows
            terms = self._terms()
            _, export_id = self._ids.next(self.now_s)
            own_id = f"req_{self._rng.getrandbits(64):016x}" if self._rng.random() < 1 / 3 else ""
            opening = Opening(export_id, micros(self.now_s), terms, own_id, 40)
            yield opening.entry()
            end = settle_row(opening, self._ending(terms))
            end.number(seq, self._log)
            yield end

    def _few(self, count: int) -> int:
        """A number below `count`, the small ones more often."""
        chance = self._rng.random()
        return int(chance * chance * count)

    def _terms(self) -> Terms:
        quarter = int(self.now_s / QUARTER_S)
        if quarter != self._quarter:
            prices = Random(quarter)  # the same for all logs
            self._quarter, self._version = quarter, f"{prices.getrandbits(48):012x}"
            self._units = [
                UnitPrices(region, prices.randrange(20_000_000, 100_000_000), 1200, 404, 250, 1100, 120_000_000)
                for _, region, _ in SITES
            ]
        site, tenant = self._few(len(SITES)), self._few(len(TENANTS))
        model, destination = MODELS[self._few(len(MODELS))], DESTINATIONS[self._few(len(DESTINATIONS))]
        backend, region, country = SITES[site]
        who = (TENANTS[tenant], model, f"{tenant:06x}{self._few(2):06x}", "openai", self._rng.random() < 0.9)
        where = (f"vendor/{model}", backend, region, country, destination, "address", destination != country)
        versions = ("EUR", self._version, "b1946ac92492", "eu-edge")
        return terms_of(self._units[site], TARIFFS[tenant], *who, *where, 4, *versions)

    def _ending(self, terms: Terms) -> Ending:
        chance = self._rng.random
        output, prompt = int(20 + chance() * chance() * 2000), int(50 + chance() * chance() * 8000)
        cached = int(prompt * chance()) if chance() < 0.3 else 0
        first_ms, sent = int(80 + chance() * 500), 4 * prompt + 300
        took_ms, left = first_ms + output * 25, chance() < 0.03
        failed: tuple[FailedAttempt, ...] = ()
        if chance() < 0.02:
            failed = (FailedAttempt("tx-1", "texas", "connect_failed", None, 41, Usage(), sent, 0, terms.units),)
        return Ending(
            outcome="client_gone" if left else "completed",
            ended_at_us=micros(self.now_s + took_ms / 1000) + self._rng.randrange(1000),
            status=499 if left else 200,
            usage=Usage(prompt, cached, 0, output),
            delivered_tokens=output,
            billed_output_tokens=output,
            count_source="counted" if left else "upstream",
            bytes_from_client=4 * prompt,
            bytes_to_client=350 * output,
            bytes_to_backend=sent,
            bytes_from_backend=350 * output + 200,
            ttft_ms=first_ms,
            duration_ms=took_ms,
            failed=failed,
            attempt_ttft_ms=first_ms - 1,
            attempt_duration_ms=took_ms - 1,
        )


def write_log(directory: Path, log: int, rows: int) -> None:
    """The month of one log, in closed segments and a last one that is open."""
    directory.mkdir(parents=True)
    traffic = Traffic(log, rows)
    tail = Tail(directory, log, LogLimits(), Unsynced(), lambda: traffic.now_s)
    records = traffic.records()
    while batch := list(islice(records, COMMIT_RECORDS)):
        tail.commit(batch)
    tail.close()


def measure(data_dir: Path, rows: int) -> dict[str, float]:
    """Write, fold, ask."""
    ledger, found = data_dir / LEDGER_NAME, {"rows": float(rows)}
    before = time.perf_counter()
    with ProcessPoolExecutor(LOGS, mp_context=get_context("spawn")) as processes:
        writing = [processes.submit(write_log, ledger / str(log), log, rows // LOGS) for log in range(LOGS)]
        for each in writing:
            each.result()
    found["write_s"] = time.perf_counter() - before
    sizes = [
        segment_path(ledger / str(log), n).stat().st_size
        for log in range(LOGS)
        for n in segment_numbers(ledger / str(log))
    ]
    found["log_bytes"] = sum(sizes) / rows
    index, before, cpu = Index(ledger / INDEX_NAME), time.perf_counter(), time.process_time()
    index.fold(ledger)
    found["fold_s"], found["fold_cpu_s"] = time.perf_counter() - before, time.process_time() - cpu
    index.close()
    found["index_bytes"] = (ledger / INDEX_NAME).stat().st_size / rows
    by = ("origin_country", "destination_country", "tenant", "model")
    for name, tz in (("report_s", "UTC"), ("report_elsewhere_s", "Asia/Kathmandu")):
        with Reader(data_dir) as reader:
            before = time.perf_counter()
            sums = reader.sums(by, "month", tz, BEGAN_S - MONTH_S, BEGAN_S + 2 * MONTH_S)
            found[name] = time.perf_counter() - before
            if sum(each["requests"] for each in sums) != rows // LOGS * LOGS:
                raise SystemExit("the report does not have all rows")
    found["groups"] = float(len(sums))
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
