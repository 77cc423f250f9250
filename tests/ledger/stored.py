"""Ledgers as each record version wrote them, kept for ever: what was written once must be read by all that follows.

    python -m tests.ledger.stored

writes the one of this version below `fixtures`, once, when the version is new: with all kinds of records, over three
segments, and with one export that is still open; and beside it what it adds up to.
"""

import json
from pathlib import Path
from typing import Any

from gateway.ledger.entry import Entry
from gateway.ledger.log import LogWriter
from gateway.ledger.opening import FailedAttempt
from gateway.ledger.reading import Reader
from gateway.ledger.segment import RECORD_VERSION
from gateway.ledger.settlement import settle_row
from gateway.ledger.tail import LogLimits
from pricing.export import Usage

from .exports import BOUGHT, NOW_S, ending, opening

FIXTURES = Path(__file__).with_name("fixtures")
OPEN = 9
_REFUSED = {"record": "refused", "minute": "2025-11-24T16:00:00.000000Z", "tenant": "acme", "reason": "budget_exceeded"}
_CUT = {"outcome": "upstream_cut", "count_source": "estimated", "count_flags": ("input_estimated", "usage_early")}
_NEVER_BEGUN = {"outcome": "upstream_refused", "status": 502, "ttft_ms": None, "delivered_tokens": 0, "serving": False}


def fixture(version: int) -> Path:
    """A data directory."""
    return FIXTURES / f"version-{version}"


def expected(version: int) -> dict[str, Any]:
    """What it adds up to."""
    found: dict[str, Any] = json.loads((fixture(version) / "expected.json").read_text())
    return found


def figures(data_dir: Path) -> dict[str, Any]:
    """What a reader says of a data directory, as plain JSON."""
    with Reader(data_dir) as reader:
        rows = list(reader.rows())
        sums = reader.sums(("outcome", "origin_country", "destination_country"), period="hour")
        return {"exports": [row["export_id"] for row in rows], "sums": sums, "refusals": reader.refusals()}


def write(data_dir: Path) -> None:
    directory = data_dir / "ledger" / "0"
    writer = LogWriter(directory, 0, None, limits=LogLimits(segment_bytes_max=12_000), now=lambda: NOW_S)
    failed = FailedAttempt("bought-1", "saxony", "cut", 900, 1500, Usage(100, 0, 0, 7), 512, 2000, BOUGHT)
    for number in range(OPEN):
        opened = opening(number, exported=number % 3 > 0, destination_country="CN" if number % 3 == 0 else "DE")
        writer.append(opened.entry())
        changes: dict[str, object] = {}
        if number == 2:
            opened = opening(number, failed=(failed,))
            writer.append(opened.entry())
            changes = {"failed": (failed,)}
        elif number == 4:
            changes = _CUT
        elif number == 5:
            changes = {**_NEVER_BEGUN, "failed": (failed,), "usage": Usage(), "billed_output_tokens": 0}
        writer.terminal(settle_row(opened, ending(number, **changes)))
        writer.flush()
    writer.append(Entry.of({**_REFUSED, "count": 3}))
    writer.append(opening(OPEN).entry())
    writer.flush()
    writer.close()
    (directory / "lock").unlink()
    (data_dir / "expected.json").write_text(json.dumps(figures(data_dir), indent=1) + "\n")


if __name__ == "__main__":
    target = fixture(RECORD_VERSION)
    assert not target.exists(), f"{target} is there, and is never written again"
    write(target)
