"""A ledger as traffic leaves it: many tenants, sites, sizes and outcomes, interleaved, from a seed."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from gateway.ledger.export_id import ExportIds
from gateway.ledger.instants import MICROS
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import Opening
from gateway.ledger.settlement import Ending, settle_row
from gateway.ledger.tail import LogLimits
from pricing.export import Usage

from .exports import BOUGHT, NOW_US, POWER, opening

_SITES = (
    ("gz-1", "guizhou", "CN", POWER),
    ("gz-2", "guizhou", "CN", replace(POWER, energy_nano_per_kwh=61_000_000)),
    ("no-1", "nordland", "NO", replace(POWER, energy_nano_per_kwh=31_400_000, pue_milli=1090)),
    ("api-1", "virginia", "US", BOUGHT),
)
_MODELS = ("qwen3", "glm-4.6", "deepseek-v3.2")
_COUNTRIES = ("DE", "FR", "AT", "PL", "SG")


class _Clock:
    """Wall time that goes on by a second's share per export."""

    def __init__(self, per_s: int) -> None:
        self.us = NOW_US
        self._step_us = MICROS // per_s

    def __call__(self) -> float:
        return self.us / MICROS

    def tick(self) -> None:
        self.us += self._step_us


def write_traffic(
    directory: Path, rows: int, *, per_s: int = 20, limits: LogLimits | None = None, seed: int = 1
) -> None:
    """So many exports in the log in `directory`, up to 16 of them open at a time; the last ones stay without an end if
    there are fewer ends than rows."""
    rng, clock = Random(seed), _Clock(per_s)
    ids = ExportIds(rng.getrandbits)
    writer = LogWriter(directory, int(directory.name), None, limits=limits, now=clock)
    live: list[Opening] = []
    for number in range(rows):
        clock.tick()
        opened = _opening(rng, ids.next(clock())[1], number, clock.us)
        writer.append(opened.entry())
        live.append(opened)
        if len(live) > rng.randrange(16):
            writer.terminal(settle_row(*_ended(rng, live.pop(rng.randrange(len(live))), clock.us)))
        if number % 64 == 0:
            writer.flush()
    for opened in live:
        writer.terminal(settle_row(*_ended(rng, opened, clock.us)))
    writer.close()


def _opening(rng: Random, export_id: str, number: int, now_us: int) -> Opening:
    backend, region, country, units = rng.choice(_SITES)
    tenant = rng.randrange(12)
    return opening(
        number,
        export_id=export_id,
        request_id=f"req_{rng.getrandbits(96):024x}" if rng.random() < 0.5 else "",
        opened_at_us=now_us - rng.randrange(1000),
        tenant=f"tenant-{tenant}",
        key_id=f"k{tenant}",
        model=rng.choice(_MODELS),
        origin_backend=backend,
        origin_region=region,
        origin_country=country,
        destination_country=rng.choice(_COUNTRIES),
        units=units,
        price_version=f"{number // 2000:012x}",
    )


def _ended(rng: Random, opened: Opening, now_us: int) -> tuple[Opening, Ending]:
    output = int(rng.lognormvariate(5.5, 1.0)) + 1
    gone = rng.random() < 0.05
    delivered = rng.randrange(1, output + 1) if gone else output
    prompt = int(rng.lognormvariate(6.5, 1.2)) + 1
    fields: dict[str, Any] = {
        "usage": Usage(prompt, rng.randrange(prompt) if rng.random() < 0.3 else 0, 0, output, 0),
        "delivered_tokens": delivered,
        "billed_output_tokens": delivered,
        "bytes_from_client": prompt * 4 + rng.randrange(500),
        "bytes_to_client": delivered * 350 + rng.randrange(300),
        "bytes_to_backend": prompt * 4 + rng.randrange(600),
        "bytes_from_backend": output * 350 + rng.randrange(300),
        "ttft_ms": 100 + int(rng.expovariate(0.005)),
        "duration_ms": 200 + output * 20 + rng.randrange(200),
    }
    return opened, Ending(
        "client_gone" if gone else "completed",
        now_us,
        status=499 if gone else 200,
        count_source="counted" if gone else "upstream",
        **fields,
    )
