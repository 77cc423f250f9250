"""CPU time of other processes: user and system time, all threads."""

import platform
import subprocess
import time
from collections.abc import Iterable

# The kernel's number for the CPU clock of a process (see clock_getcpuclockid): exact, where /proc counts in 10 ms.
_SCHEDULED = 2


def cpu_s(pid: int) -> float:
    """Seconds of CPU a live process has used so far."""
    if platform.system() == "Linux":
        return time.clock_gettime((~pid << 3) | _SCHEDULED)
    told = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    seconds = 0.0
    for part in told.strip().split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def cpus_s(pids: Iterable[int]) -> list[float]:
    """Of each of several processes."""
    return [cpu_s(pid) for pid in pids]
