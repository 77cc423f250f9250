"""TLS of the public port, ended by ourselves: what has left is known to the byte, as on a plain connection.

The event loop's own TLS cannot say what its socket still holds, gives a closing connection 30 s, and hides a client
that shuts its sending side without a goodbye. What was delivered, how long a slow reader is waited for, and when a
client is gone all hang on that. So the cryptography is `gateway.tls`, the TCP transport does the buffering, and a deque
remembers where in the encrypted bytes each record of plain ones ends.

To the TCP transport this is the protocol, to the client's connection it is the transport.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

from gateway.edge.connection import ClientConnection
from gateway.edge.port import Port
from gateway.tls import Records

# The most that fits into one record; only a whole record can be read by the other side.
RECORD_BYTES = 16 * 1024
# The socket is asked what has left once this many ends are remembered.
REMEMBERED_ENDS = 64

Data = bytes | bytearray | memoryview


class TlsConnection(asyncio.Protocol, asyncio.Transport):
    """One client's connection behind TLS. Nobody hears of it before its handshake is done."""

    def __init__(self, client: ClientConnection, context: ssl.SSLContext, port: Port) -> None:
        super().__init__()
        self._client = client
        self._port = port
        self._records = Records(context, server_side=True)
        self._tcp: asyncio.Transport
        self._giving_up: asyncio.TimerHandle
        self._over = False  # our goodbye is said: what still comes is dropped
        self._plain_bytes = 0
        self._record_bytes = 0
        self._sent_bytes = 0  # plain ones, in records that have left whole
        self._ends: deque[tuple[int, int]] = deque()  # of records: in encrypted bytes, in plain ones

    # ---- called by the TCP transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)
        self._port.shaking(1)
        self._giving_up = self._port.loop.call_later(self._port.limits.head_s, self._tcp.abort)

    def data_received(self, data: bytes) -> None:
        if self._over:
            # It bounds what it drops.
            self._client.data_received(data)
            return
        self._records.feed(data)
        try:
            if self._records.ready or self._shake_hands():
                self._read()
        except ssl.SSLError:
            self._flush()  # the alert that says why
            self._tcp.close()

    def eof_received(self) -> bool:
        if self._records.ready:
            self._client.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._giving_up.cancel()
        self._over = True
        if self._records.ready:
            self._client.connection_lost(exc)
        else:
            self._port.shaking(-1)

    def pause_writing(self) -> None:
        self._client.pause_writing()

    def resume_writing(self) -> None:
        self._client.resume_writing()

    # ---- called by the client's connection

    def write(self, data: Data) -> None:
        if self._over:
            return
        if len(data) <= RECORD_BYTES:
            self._write_record(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), RECORD_BYTES):
            self._write_record(view[start : start + RECORD_BYTES])

    def _write_record(self, data: Data) -> None:
        self._records.tls.write(data)
        record = self._records.outgoing()
        self._plain_bytes += len(data)
        self._record_bytes += len(record)
        self._ends.append((self._record_bytes, self._plain_bytes))
        self._tcp.write(record)
        if len(self._ends) > REMEMBERED_ENDS:
            self.get_write_buffer_size()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        """Plain bytes in records that have not left whole."""
        left = self._record_bytes - self._tcp.get_write_buffer_size()
        while self._ends and self._ends[0][0] <= left:
            _, self._sent_bytes = self._ends.popleft()
        return self._plain_bytes - self._sent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tcp.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._say_goodbye()
        self._tcp.write_eof()

    def is_closing(self) -> bool:
        return self._tcp.is_closing()

    def close(self) -> None:
        self._say_goodbye()
        self._tcp.close()

    def abort(self) -> None:
        self._over = True
        self._tcp.abort()

    # ---- records

    def _shake_hands(self) -> bool:
        done = self._records.shake_hands()
        self._flush()
        if not done:
            return False
        self._giving_up.cancel()
        self._port.shaking(-1)
        self._client.connection_made(self)
        return True

    def _read(self) -> None:
        if self._over:
            return
        data, goodbye = self._records.read()
        self._flush()  # answers to changes of keys
        if data:
            self._client.data_received(data)
        if goodbye and not self._over:
            self._client.eof_received()
            self.close()

    def _flush(self) -> None:
        records = self._records.outgoing()
        if records:
            self._record_bytes += len(records)
            self._tcp.write(records)

    def _say_goodbye(self) -> None:
        if not self._over:
            self._over = True
            with suppress(ssl.SSLError):  # the other side's is not waited for
                self._records.tls.unwrap()
            self._flush()
