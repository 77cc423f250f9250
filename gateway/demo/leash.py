"""Ties a helper process of the demo to the process that started it.

The parent holds the other end of the helper's standard input. When the parent ends, however it ends, the pipe closes
and the helper ends too; no helper outlives a demo that was killed.
"""

import os
import signal
import sys
import threading
from types import FrameType


def leave(_signal: int = 0, _frame: FrameType | None = None) -> None:
    """Ends this process now. Helpers hold nothing that must be written."""
    os._exit(0)


def _leave_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    leave()


def leave_with_parent() -> None:
    """Ends this process on SIGTERM, on SIGINT and at the end of standard input."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    threading.Thread(target=_leave_at_end_of_input, name="leash", daemon=True).start()
