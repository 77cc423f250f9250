"""One process per log: an exclusive flock on `ledger/K/lock`, which the kernel frees with the process.

Close-on-exec, so that no child keeps a log locked that its parent has lost.
"""

import fcntl
import os
import time
from pathlib import Path

_TRIES = 10  # whoever asks whether the lock is held takes it for a moment
_PAUSE_S = 0.02


class LedgerBusy(Exception):
    """Another process writes this log."""


def take(directory: Path) -> int:
    """The descriptor that holds the lock; closing it gives the lock back. Makes the directory if there is none.

    Raises:
        LedgerBusy: another process holds it.
        OSError: the directory cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            continue
        except OSError:
            os.close(descriptor)
            raise
    os.close(descriptor)
    raise LedgerBusy(f"another process writes the log in {directory}")


def held(directory: Path) -> bool:
    """Whether a process writes the log now."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
