"""What must hold before the demo starts, each failure one line that says what to do about it."""

import importlib.util
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.config.sections import SPEED_MAX

MEMORY_MIN_BYTES = 1_000_000_000  # the model server grows to 0.5 GB with every slot busy; the rest is the gateway's


class NotReadyError(Exception):
    """The demo cannot start; the text is one line for a person."""


def require_speed(speed: float) -> None:
    if not 0 < speed <= SPEED_MAX:
        raise NotReadyError(f"--speed {speed:g} cannot be played: choose a number above 0, at most {SPEED_MAX}")


def require_ports(ports: Mapping[str, int], host: str = "127.0.0.1") -> None:
    """Every port can be bound. Keys are the options that choose them."""
    for option, port in ports.items():
        if not 0 < port < 65536:
            raise NotReadyError(f"{option} {port} is not a port: choose one from 1 to 65535")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not hold a port
            try:
                probe.bind((host, port))
            except OSError as error:
                raise NotReadyError(
                    f"port {port} cannot be used ({error.strerror}): end what listens there, "
                    f"or choose another with {option}"
                ) from None
    if len(set(ports.values())) < len(ports):
        raise NotReadyError(f"{' and '.join(ports)} name the same port: choose two")


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that can be had without swapping, a container's limit included. None where the system does not say."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None  # not Linux; macOS grows its swap, so a start is not refused there
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    try:
        limit = int((root / "sys/fs/cgroup/memory.max").read_text())
        used = int((root / "sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no such group, or "max": no limit
        return available
    return limit - used if available is None else min(available, limit - used)


def require_memory(available_bytes: int | None) -> None:
    if available_bytes is not None and available_bytes < MEMORY_MIN_BYTES:
        raise NotReadyError(
            f"{available_bytes / 1e9:.1f} GB of memory is available and the demo needs "
            f"{MEMORY_MIN_BYTES / 1e9:.0f} GB: end other programs"
        )


def require_packages(names: Iterable[str] = ("xllamacpp",)) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise NotReadyError(f'the package {name} is missing: pip install "tokenport[demo]"')
