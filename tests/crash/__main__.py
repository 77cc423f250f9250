"""`make crash`: kill -9 at random points under load, of everything, of a worker, of the supervisor. Ends with 1 if one
request was lost or came twice, or a count is wrong.

Visitors, faults and books are those of `make chaos`; only here the gateway dies, and is started again on what it left.
"""

import sys

from tests.chaos.command import arguments_of, run, sayer
from tests.crash.deeds import kills


def main() -> int:
    parser = arguments_of("make crash", __doc__, 100_000)
    parser.add_argument("--kills", type=int, default=None, help="of all kinds; default: one for 500 requests")
    arguments = parser.parse_args()
    count = arguments.requests // 500 if arguments.kills is None else arguments.kills
    return run(arguments, kills(count), sayer("crash"))


if __name__ == "__main__":
    sys.exit(main())
