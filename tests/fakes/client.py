"""A raw HTTP client for byte-exact tests: sends what it is given where it is told to split it, and reads strictly.

It works on a bare socket, so nothing is read that the test did not ask for (a slow reader is one that does not call),
and a connection can be shut halfway or reset. Responses are read by their framing to the letter: a chunk that is short
or a length that does not hold is an error here, not a warning.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

READ_BYTES = 65_536
TIMEOUT_S = 15.0
# What ends an event, of the line ends that are in use.
BLANK_LINES = (b"\n\n", b"\r\n\r\n")


class Truncated(Exception):
    """The connection ended inside a response."""


@dataclass(frozen=True, slots=True)
class Head:
    """A response head."""

    status: int
    headers: dict[str, str]  # names in lower case; a repeated one is joined by ", "
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> "Head":
        lines = raw.decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in filter(None, lines[1:]):
            name, _, value = line.partition(":")
            known = headers.get(name.lower())
            headers[name.lower()] = value.strip() if known is None else f"{known}, {value.strip()}"
        version, status = lines[0].split(" ")[:2]
        assert version == "HTTP/1.1", lines[0]
        return cls(int(status), headers, raw)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def headers(self) -> dict[str, str]:
        return self.head.headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error member, in OpenAI's form."""
        return self.json["error"]


class RawClient:
    """One connection."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = b""
        self._eof = False

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, receive_bytes: int = 0) -> AsyncIterator[Self]:
        """Connect to the host and port of a URL. `receive_bytes` bounds the kernel's receive buffer."""
        parts = urlsplit(url)
        with socket.socket() as end:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_bytes:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(loop.sock_connect(end, (parts.hostname, parts.port)), TIMEOUT_S)
            yield cls(end)

    async def send(self, *pieces: bytes) -> None:
        """Send each piece as a write of its own; the loop turns in between, so that the peer may read in between."""
        loop = asyncio.get_running_loop()
        for piece in pieces:
            await asyncio.wait_for(loop.sock_sendall(self._socket, piece), TIMEOUT_S)
            await asyncio.sleep(0)

    def half_close(self) -> None:
        """Shut the sending side."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        """Leave with a FIN (or, with unread bytes, as the kernel pleases)."""
        self._socket.close()

    async def head(self, *, interim: bool = False) -> Head:
        """The next response head. Interim ones (1xx) are skipped unless asked for."""
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end >= 0:
                raw, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
                head = Head.parse(raw)
                if interim or head.status >= 200:
                    return head
            else:
                await self._more()

    async def response(self, *, to_head_request: bool = False) -> Response:
        """The next response, whole."""
        head = await self.head()
        if to_head_request:
            return Response(head, b"")
        return Response(head, b"".join([piece async for piece in self.body(head)]))

    async def body(self, head: Head) -> AsyncIterator[bytes]:
        """The pieces of a body as they come, chunk by chunk."""
        if head.headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in head.headers
            while piece := await self._chunk():
                yield piece
        elif "content-length" in head.headers:
            left = int(head.headers["content-length"])
            while left:
                piece = await self._some(left)
                left -= len(piece)
                yield piece
        else:
            while not self._eof or self._buffer:
                piece, self._buffer = self._buffer, b""
                if piece:
                    yield piece
                elif not await self._read():
                    return

    async def events(self, head: Head) -> AsyncIterator[bytes]:
        """The events of a stream, each with its blank line."""
        held = b""
        async for piece in self.body(head):
            held += piece
            while ends := [at + len(blank) for blank in BLANK_LINES if (at := held.find(blank)) >= 0]:
                event, held = held[: min(ends)], held[min(ends) :]
                yield event
        if held:
            raise Truncated(f"half an event: {held!r}")

    async def rest(self) -> bytes:
        """Everything until the connection ends; a reset ends it too."""
        while await self._read():
            pass
        return self._buffer

    async def ended(self) -> bool:
        """Wait for the end of the connection. False if bytes came instead."""
        return not self._buffer and not await self._read()

    async def _chunk(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._more()
        size = int(self._buffer[:end], 16)
        while len(self._buffer) < end + 2 + size + 2:
            await self._more()
        piece = self._buffer[end + 2 : end + 2 + size]
        assert self._buffer[end + 2 + size : end + 4 + size] == b"\r\n", "a chunk longer than its size"
        self._buffer = self._buffer[end + 4 + size :]
        return piece

    async def _some(self, count: int) -> bytes:
        if not self._buffer:
            await self._more()
        piece, self._buffer = self._buffer[:count], self._buffer[count:]
        return piece

    async def _more(self) -> None:
        if not await self._read():
            raise Truncated(f"the connection ended after {self._buffer[:200]!r}")

    async def _read(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(loop.sock_recv(self._socket, READ_BYTES), TIMEOUT_S)
        except ConnectionResetError:
            data = b""
        self._buffer += data
        self._eof = not data
        return bool(data)


def request(
    method: str = "POST",
    path: str = "/v1/chat/completions",
    *,
    key: str = "",
    fields: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    json_body: Any = None,
    version: str = "1.1",
    host: str = "gateway.test",
) -> bytes:
    """A well-formed request."""
    if json_body is not None:
        body = json.dumps(json_body).encode()
    lines = [f"{method} {path} HTTP/{version}", f"host: {host}"]
    if key:
        lines.append(f"authorization: Bearer {key}")
    lines += [f"{name}: {value}" for name, value in fields]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
