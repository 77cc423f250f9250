"""`python -m tests.shipping`: the long form of the campaign of kills."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.shipping import campaign, servers


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.shipping", description="Stores that are killed while rows are shipped."
    )
    parser.add_argument("--kills", type=int, default=10, help="of each store (default: 10)")
    parser.add_argument("--rate", type=float, default=1000.0, help="rows a second (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, servers.postgres() as postgres, servers.nats() as nats:
        result = campaign.run(
            Path(directory), postgres, nats, kills=arguments.kills, rows_per_s=arguments.rate, seed=arguments.seed
        )
    rows = sum(map(len, result.written.values()))
    print(f"{rows} rows, {arguments.kills} kills of each store, failures seen: {dict(result.failures)}")
    print(f"slowest durable write meanwhile: {result.slowest_write_s * 1000:.1f} ms")
    for problem in result.problems():
        print(f"PROBLEM: {problem}")
    if not result.problems():
        print("0 lost, 0 doubled, order kept, in PostgreSQL and in NATS")
    return 1 if result.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
