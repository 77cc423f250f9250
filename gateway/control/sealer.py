"""`python -m gateway.control.sealer`: one pass of sealing, in a process of its own that yields to everybody.

Started by the supervisor when there is work (`sealing`), not by people. It takes seconds of a core per 64 MiB, most of
it in Python: in the supervisor it would stand in the way of prices and probes. What it did goes to standard output as
one line of JSON. It may be killed at any moment.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from gateway.clock import wall
from gateway.leash import leave_with_parent
from gateway.ledger.lock import LedgerBusy
from gateway.ledger.sealing import Sealer, Sealing
from gateway.ledger.sealkey import SealKeyError, load_key

_NICE = 19  # only what nobody else wants


def main() -> int:
    """Arguments: the data directory, `plain_s`, and the damaged segments that are known, as JSON."""
    leave_with_parent()
    os.nice(_NICE)
    data_dir = Path(sys.argv[1])
    damaged = {(log, segment) for log, segment in json.loads(sys.argv[3])}
    problem, result = "", Sealing()
    try:
        Sealer(data_dir / "ledger", load_key(data_dir), float(sys.argv[2]), wall).run(damaged, result)
    except (OSError, LedgerBusy, SealKeyError) as error:
        problem = str(error)
    print(json.dumps({**asdict(result), "problem": problem}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
