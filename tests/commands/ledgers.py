"""Ledgers as finance meets them: many tenants, places, prices and ends, in several sealed logs."""

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.ledger.instants import parse_us
from gateway.ledger.opening import FailedAttempt
from gateway.ledger.seals import Seal, seal_path, sign
from gateway.ledger.segment import NO_HASH, TERMINAL, Record, segment_numbers, segment_path
from gateway.ledger.tables import SUMS
from gateway.ledger.tail import LogLimits
from pricing.export import Usage
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices
from tests.ledger.exports import ending, opening, row_of, write_log

CONFIGURATION = """
[gateway]
edge = "eu-edge"

[regions]
eu-edge = { country = "DE", power = { price_per_mwh = 60.0 } }

[[backends]]
name = "bought-1"
region = "eu-edge"
url = "http://127.0.0.1:9001/v1"
models = { "m" = "vendor/m-large", "n" = "vendor/n" }
slots = 4
price_per_mtok = { input = 1.0, cached_input = 0.1, output = 4.0 }

[[backends]]
name = "other"
region = "eu-edge"
url = "http://127.0.0.1:9002/v1"
models = { "m" = "m" }
slots = 4
joules_per_token = { prefill = 0.1, decode = 1.0 }

[[routes]]
model = "m"
backends = ["bought-1", "other"]

[[routes]]
model = "n"
backends = ["bought-1"]

[[tenants]]
name = "acme"

[[tenants]]
name = "idle"
"""

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
POWER = UnitPrices("guizhou", 52_000_000, 1200, 404, 250, 1100, 120_000_000)
NEGATIVE = UnitPrices("no2", -12_345_678, 1087, 17, 251, 1103, 0)
BOUGHT = UnitPrices(
    link_nano_per_gb=119_999_999,
    input_nano_per_mtok=140_000_003,
    cached_nano_per_mtok=14_000_001,
    cache_write_nano_per_mtok=175_000_007,
    output_nano_per_mtok=280_000_011,
)
SITES = (
    ("gz-1", "guizhou", "CN", POWER),
    ("no-1", "norway", "NO", NEGATIVE),
    ("bought-1", "quebec", "CA", BOUGHT),
)
# Bounds of October and November in Berlin: a clock change lies within October, so neither begins at a UTC midnight.
BOUNDS = ("2024-09-30T22:00:00Z", "2024-10-31T23:00:00Z", "2024-11-30T23:00:00Z")


def configured(directory: Path) -> list[str]:
    """The option that names a configuration whose data directory is `directory`/var."""
    path = directory / "tokenport.toml"
    path.write_text(CONFIGURATION)
    return ["--config", str(path)]


def varied_rows(chance: Random, count: int) -> Iterator[Record]:
    """Rows from before October until after November, some of them exactly on the bounds of months."""
    bounds = [parse_us(each) for each in BOUNDS]
    on_bounds = [bound + offset for bound in bounds for offset in (-1, 0, 1)]
    between = [chance.randrange(bounds[0] - 10**11, bounds[2] + 10**11) for _ in range(count - len(on_bounds))]
    for number, ended_us in enumerate(sorted([*on_bounds, *between])):
        yield _varied(chance, number, ended_us)


def _varied(chance: Random, number: int, ended_us: int) -> Record:
    backend, region, country, units = chance.choice(SITES)
    destination = chance.choice(("DE", "FR", "CN", ""))
    outcome = chance.choice(("completed", "completed", "client_gone", "upstream_cut", "recovered", "drained"))
    failed = tuple(_failed(chance) for _ in range(chance.choice((0, 0, 0, 1, 2))))
    output = chance.randrange(1, 5000)
    whole = outcome == "completed"
    delivered = output if whole else chance.randrange(output)
    serving = chance.random() > 0.05 or not failed
    opened = opening(
        number,
        opened_at_us=ended_us - 10**6,
        tenant=chance.choice(("acme", "globex", "=SUM(A1)", "<b>&co")),
        model=chance.choice(("m", "n", "+m<i>")),
        origin_backend=backend,
        origin_region=region,
        origin_country=country,
        destination_country=destination,
        exported=destination != country if destination else None,
        currency=chance.choice(("USD", "USD", "USD", "EUR")),
        units=units,
        tariff=chance.choice((Tariff(300_000_007, 30_000_001, 1_200_000_011), Tariff())),
        failed=failed,
    )
    ended = ending(
        outcome=outcome if serving else "upstream_refused",
        ended_at_us=ended_us,
        usage=_usage(chance, output),
        delivered_tokens=delivered if serving else 0,
        billed_output_tokens=delivered if serving else 0,
        count_source="upstream" if whole else chance.choice(("continuous", "counted", "estimated")),
        count_flags=chance.choice(((), (), ("usage_missing", "input_estimated"), ("usage_zero",))),
        bytes_to_backend=chance.randrange(10**6),
        bytes_from_backend=chance.randrange(10**6),
        ttft_ms=chance.choice((None, 120)) if serving else None,
        failed=failed,
        serving=serving,
        recovered=outcome == "recovered",
    )
    return row_of(opened, ended)


def _usage(chance: Random, output: int) -> Usage:
    cached, written, fresh = (chance.randrange(3000) for _ in range(3))
    return Usage(cached + written + fresh, cached, written, output, output // 3)


def _failed(chance: Random) -> FailedAttempt:
    backend, region, _, units = chance.choice(SITES)
    usage = chance.choice((Usage(), _usage(chance, chance.randrange(400))))
    return FailedAttempt(backend, region, "upstream_cut", None, 900, usage, 600, 1200, units)


def write_ledger(data_dir: Path, rows: Iterable[Record], *, logs: int = 1, segment_bytes: int = 200_000) -> None:
    """The rows, dealt over so many logs, in segments of about that size."""
    dealt: list[list[Record]] = [[] for _ in range(logs)]
    for number, row in enumerate(rows):
        dealt[number % logs].append(row)
    for log, some in enumerate(dealt):
        write_log(data_dir / "ledger" / str(log), some, limits=LogLimits(8, segment_bytes_max=segment_bytes))


def seal_ledger(data_dir: Path, *, but_last: bool = False) -> list[Seal]:
    """A seal for every segment of every log, or for all but the last; the segments stay as they are."""
    found: list[Seal] = []
    for directory in sorted((data_dir / "ledger").iterdir()):
        if not directory.name.isdigit():
            continue
        numbers = segment_numbers(directory)
        for segment in numbers[:-1] if but_last else numbers:
            seal = seal_of(directory, segment)
            seal_path(directory, segment).write_bytes(seal.encoded() + b"\n")
            found.append(seal)
    return found


def seal_of(directory: Path, segment: int, **changes: Any) -> Seal:
    data = segment_path(directory, segment).read_bytes()
    records = [json.loads(line) for line in data.splitlines()]
    rows = [record for record in records if record["record"] in TERMINAL]
    members: dict[str, Any] = {
        "log": int(directory.name),
        "segment": segment,
        "count": len(records),
        "rows": len(rows),
        **dict.fromkeys(("follows", "first_hash", "last_hash", "previous"), NO_HASH),
        "count_before": records[0]["count"],
        "seq_before": records[0]["seq"],
        "plain_bytes": len(data),
        "sealed_bytes": len(data),
        **dict.fromkeys(("plain_sha256", "sealed_sha256"), sha256(data).hexdigest()),
        "frames": (),
        "first_ended_at": min((row["ended_at"] for row in rows), default=""),
        "last_ended_at": max((row["ended_at"] for row in rows), default=""),
        "sums": _sums(rows),
        "outcomes": {},
        "sealed_at": "2024-12-01T01:00:00.000000Z",
        **changes,
    }
    return sign(members, KEY)


def _sums(rows: Sequence[Record]) -> dict[str, int]:
    sums = {name: sum(row[name] for row in rows) for name in SUMS}
    sums["exported_tokens"] = sum(row["delivered_tokens"] for row in rows if row["exported"])
    return sums
