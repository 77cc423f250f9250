"""`make chaos`: the fault campaign at length. Ends with 1 if anything was not as it must be."""

import sys

from tests.chaos.command import arguments_of, run, sayer
from tests.chaos.deeds import kill_worker, reload


def main() -> int:
    parser = arguments_of("make chaos", __doc__, 10_000)
    parser.add_argument("--kills", type=int, default=None, help="of workers; default: one for 1,500 requests")
    parser.add_argument("--reloads", type=int, default=None, help="of the configuration; default: one for 800 requests")
    arguments = parser.parse_args()
    kills = arguments.requests // 1500 if arguments.kills is None else arguments.kills
    reloads = arguments.requests // 800 if arguments.reloads is None else arguments.reloads
    return run(arguments, [(kill_worker, kills), (reload, reloads)], sayer("chaos"))


if __name__ == "__main__":
    sys.exit(main())
