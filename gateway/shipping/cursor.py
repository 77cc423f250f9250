"""What is kept beside the logs: how far each store has come, and the name under which this gateway ships.

    sinks/NAME.json   {"sink": NAME, "positions": {"K": [segment, offset]}}, replaced whole after each batch
    gateway.id        made once; rows of many gateways lie in one store, and this tells them apart

A cursor may lag behind what its store has, never run ahead of it: whatever lies before it may go.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

import orjson

from gateway.ledger.following import Position

SINKS_NAME = "sinks"
GATEWAY_ID_NAME = "gateway.id"


def load(data_dir: Path, sink: str) -> dict[int, Position]:
    """The positions of a store by log; none if there is no file, or one that cannot be read."""
    try:
        found = orjson.loads(_path(data_dir, sink).read_bytes())
        positions = {int(log): Position(segment, offset) for log, (segment, offset) in found["positions"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    sound = all(type(number) is int and number >= 0 for position in positions.values() for number in position)
    return positions if sound and found.get("sink") == sink else {}


def save(data_dir: Path, sink: str, positions: Mapping[int, Position]) -> None:
    """Durable when it returns."""
    path = _path(data_dir, sink)
    path.parent.mkdir(exist_ok=True)
    told = {"sink": sink, "positions": {str(log): list(position) for log, position in sorted(positions.items())}}
    _replace(path, orjson.dumps(told) + b"\n")


def taken_by_all(data_dir: Path, sinks: Iterable[str], log: int) -> Position | None:
    """Up to where every one of these stores has taken a log; None if there are no stores, and nothing is waited for."""
    return min((load(data_dir, sink).get(log, Position(0, 0)) for sink in sinks), default=None)


def gateway_id(data_dir: Path) -> str:
    """The name of this data directory. The caller holds its lock."""
    path = data_dir / GATEWAY_ID_NAME
    try:
        found = path.read_text("ascii").strip()
    except FileNotFoundError:
        found = uuid4().hex
        _replace(path, found.encode() + b"\n")
    except UnicodeDecodeError:
        found = ""
    if not found.isalnum():
        raise OSError(f"{path} holds no name: put back what it held, or remove it to ship under a new one")
    return found


def _path(data_dir: Path, sink: str) -> Path:
    return data_dir / SINKS_NAME / f"{sink}.json"


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
