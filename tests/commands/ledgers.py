"""Ledgers as finance meets them: many tenants, places, prices and ends, in several sealed logs."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.ledger.entry import Entry
from gateway.ledger.instants import MICROS, parse_us
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import FailedAttempt
from gateway.ledger.sealing import Sealer, Sealing
from gateway.ledger.sealkey import sign
from gateway.ledger.seals import Seal, read_seals, seal_path
from gateway.ledger.segment import Record, logs
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

SEALED_AT = "2024-12-01T01:00:00.000000Z"
SEALED_S = parse_us(SEALED_AT) / MICROS
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


def seal_ledger(data_dir: Path, *, but_last: bool = False, plain: bool = True) -> list[Seal]:
    """Seal every segment that has rows, or all but the last of each log, as the gateway does. `plain`: the plain
    files stay. Returns the seals of segments with rows."""
    ledger = data_dir / "ledger"
    if not but_last:
        for log in logs(ledger):
            _close_last_segment(ledger / str(log), log)
    result = Sealing()
    # Whenever a segment was closed, it is too short a time ago for its plain file to go, or long enough.
    Sealer(ledger, KEY, 10**10 if plain else -(10**10), lambda: SEALED_S).run((), result)
    assert result.sealed and not result.damaged
    return [seal for seal in read_seals(ledger) if seal.rows]


def _close_last_segment(directory: Path, log: int) -> None:
    """Begin others behind it: by a refusal long ago, which is in no period."""
    writer = LogWriter(directory, log, None, limits=LogLimits(8, segment_bytes_max=1))
    for _ in range(2):
        told = {"minute": "2001-01-01T00:00:00.000000Z", "tenant": "nobody", "reason": "residency", "count": 1}
        writer.append(Entry.of({"record": "refused", **told}))
        writer.flush()
    writer.close()


def write_seal(data_dir: Path, seal: Seal, **changes: Any) -> None:
    """Put a seal that says something else in the place of one, signed by the same key."""
    members = {each.name: getattr(seal, each.name) for each in fields(seal)}
    for name in ("version", "public_key", "signature"):
        del members[name]
    signed = sign({**members, **changes}, KEY)
    seal_path(data_dir / "ledger" / str(seal.log), seal.segment).write_bytes(signed.encoded() + b"\n")
