"""Ties a helper process to the process that started it.

The parent holds the other end of the helper's standard input. When the parent ends, however it ends, the pipe closes
and the helper ends too; no helper outlives a gateway or a demo that was killed.

Ctrl-C reaches every process of a terminal's group. A helper leaves it to its parent, which ends in its own order: were
the demo's model gone before its gateway, answers in flight would be written down as cut by their backend. Started by
hand, a helper obeys.
"""

import os
import signal
import sys
import threading
from types import FrameType


def leave(_signal: int = 0, _frame: FrameType | None = None) -> None:
    """Ends this process now. Whatever a helper writes may be cut anywhere."""
    os._exit(0)


def _leave_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    leave()


def leave_with_parent() -> None:
    """Ends this process on SIGTERM and at the end of standard input; on SIGINT only if that is a terminal."""
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave if sys.stdin.isatty() else signal.SIG_IGN)
    threading.Thread(target=_leave_at_end_of_input, name="leash", daemon=True).start()
