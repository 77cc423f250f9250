"""`python -m gateway.control.sealer`: one pass of sealing and of letting go, in a process that yields to everybody.

Started by the supervisor when there is work (`sealing`), not by people. It takes seconds of a core per 64 MiB, most of
it in Python: in the supervisor it would stand in the way of prices and probes. What it did goes to standard output as
one line of JSON. It may be killed at any moment.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gateway.clock import wall
from gateway.leash import leave_with_parent
from gateway.ledger.expiry import Expirer, Keep, expirable
from gateway.ledger.index import INDEX_NAME, folded_positions
from gateway.ledger.lock import LedgerBusy
from gateway.ledger.rollups import BadRollups
from gateway.ledger.sealing import Sealer, Sealing
from gateway.ledger.sealkey import SealKeyError, load_key
from gateway.shipping.cursor import taken_by_all

_NICE = 19  # only what nobody else wants


@dataclass(slots=True)
class Pass:
    """What a pass did."""

    sealing: Sealing = field(default_factory=Sealing)
    expired: list[tuple[int, int]] = field(default_factory=list)  # log and segment
    problem: str = ""  # why it did not come to its end


def main() -> int:
    """Arguments: the data directory, and as JSON `plain_s`, `keep_days`, `keep_bytes`, the `damaged` segments that are
    known, and the names of the `sinks` that rows are shipped to."""
    leave_with_parent()
    os.nice(_NICE)
    result = Pass()
    try:
        _run(Path(sys.argv[1]), json.loads(sys.argv[2]), result)
    except (OSError, LedgerBusy, SealKeyError, BadRollups) as error:
        result.problem = str(error)
    print(json.dumps(asdict(result)), flush=True)
    return 0


def _run(data_dir: Path, asked: dict[str, Any], result: Pass) -> None:
    ledger, key = data_dir / "ledger", load_key(data_dir)
    damaged = {(log, segment) for log, segment in asked["damaged"]}
    Sealer(ledger, key, asked["plain_s"], wall).run(damaged, result.sealing)
    keep = Keep(asked["keep_days"], asked["keep_bytes"])
    if not any(keep):
        return
    expirer = Expirer(ledger, key)
    shipped = partial(taken_by_all, data_dir, asked["sinks"])
    for seal in expirable(ledger, keep, wall(), shipped, folded_positions(ledger / INDEX_NAME)):
        expirer.expire(seal)
        result.expired.append((seal.log, seal.segment))


if __name__ == "__main__":
    sys.exit(main())
