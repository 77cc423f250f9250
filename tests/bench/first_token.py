"""Time to first token, one request at a time: directly from the backend, and through what stands before it, in turn.

Bare blocking sockets: nothing of the client lies between the bytes and the clock. Beside it the time of one sync of a
line such as the ledger writes, on the same disk. Prints JSON.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.bench.answers import LAST_CHUNK, Plan, dechunked
from tests.bench.load import WrongBytes
from tests.bench.serving import HOST

EVENTS = 2
WARM_UP = 10
TIMEOUT_S = 10.0
LINE_BYTES = 700
_sync = getattr(os, "fdatasync", os.fsync)


def ask(connection: socket.socket, plan: Plan, request: bytes, payload: bytes) -> float:
    """Seconds from the request to its first content. Reads and checks the rest."""
    started = time.perf_counter()
    connection.sendall(request)
    data = b""
    first_s = 0.0
    while not data.endswith(b"\r\n" + LAST_CHUNK):
        piece = connection.recv(65536)
        if not piece:
            raise WrongBytes("the connection was closed")
        data += piece
        if not first_s and b'"content":" word' in data:
            first_s = time.perf_counter() - started
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or dechunked(body) != payload:
        raise WrongBytes(f"not the stream: {data[:300]!r}")
    return first_s


def first_tokens(ports: Mapping[str, int], requests: int, first_s: float) -> dict[str, list[float]]:
    """Times by name, `requests` of each, in rotating order."""
    plan = Plan(EVENTS, EVENTS, 0.0, first_s)
    request, payload = plan.request(), plan.payload()
    connections = {name: socket.create_connection((HOST, port), TIMEOUT_S) for name, port in ports.items()}
    times: dict[str, list[float]] = {name: [] for name in ports}
    names = list(ports)
    for n in range(requests + WARM_UP):
        for name in names[n % len(names) :] + names[: n % len(names)]:
            took_s = ask(connections[name], plan, request, payload)
            if n >= WARM_UP:
                times[name].append(took_s)
    for connection in connections.values():
        connection.close()
    return times


def syncs(directory: Path, count: int) -> list[float]:
    """Times of writing a line and syncing it."""
    path = directory / "sync"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    times = []
    try:
        for _ in range(count):
            started = time.perf_counter()
            os.write(descriptor, b"x" * LINE_BYTES)
            _sync(descriptor)
            times.append(time.perf_counter() - started)
            time.sleep(0.001)
    finally:
        os.close(descriptor)
        path.unlink()
    return times


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    print(
        json.dumps(
            {
                "at_once": first_tokens(told["ports"], told["requests"], 0.0),
                "after_20_ms": first_tokens(told["ports"], told["requests_after_20_ms"], 0.02),
                "sync": syncs(Path(told["directory"]), told["requests"]),
                "requests": told["requests"] + told["requests_after_20_ms"] + 2 * WARM_UP,
                "tokens": (told["requests"] + told["requests_after_20_ms"] + 2 * WARM_UP) * EVENTS,
            }
        )
    )
