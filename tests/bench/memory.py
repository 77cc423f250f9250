"""Resident memory of another process."""

import platform
import subprocess
from pathlib import Path

KIB = 1024


def resident_bytes(pid: int) -> int:
    """What of a live process lies in memory, mapped files included."""
    if platform.system() == "Linux":
        return _of_status(pid, "VmRSS")
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    return int(told) * KIB


def shared_bytes(pid: int) -> int:
    """The part of it that is mapped files: libraries, and the pages of the board that were touched. 0: not known."""
    if platform.system() == "Linux":
        return _of_status(pid, "RssFile") + _of_status(pid, "RssShmem")
    return 0


def _of_status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * KIB
    raise ValueError(f"/proc/{pid}/status has no {name}")
