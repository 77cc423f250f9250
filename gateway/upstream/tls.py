"""TLS towards backends, ended by ourselves, so that a session is resumed.

A handshake without a session costs a signature, a certificate's way over the line and, abroad, time before the first
token. The event loop has no parameter for a session, and a TLS 1.3 server sends its tickets only after the handshake.
So the cryptography is `gateway.tls`: it begins with the session that the pool kept from an earlier connection to the
same origin, and the newest one is handed back once the backend has spoken. A backend that does not resume shakes hands
in full; either way the certificate was verified by this very context for this very name.

To the TCP transport this is the protocol, to the backend's connection it is the transport.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any, cast

from gateway.tls import Records
from gateway.upstream.transport import UpstreamConnection


class TlsTransport(asyncio.Protocol, asyncio.Transport):
    """One connection to a backend behind TLS. The connection hears of it once its handshake is done."""

    def __init__(
        self,
        connection: UpstreamConnection,
        context: ssl.SSLContext,
        host: str,
        session: ssl.SSLSession | None,
        on_session: Callable[[ssl.SSLSession], None],
    ) -> None:
        super().__init__()
        self.connection = connection
        self._protocol: asyncio.Protocol = connection  # who reads; it may lend the reading to another
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._records = Records(context, server_hostname=host, session=session)
        self._on_session: Callable[[ssl.SSLSession], None] | None = on_session
        self._tcp: asyncio.Transport
        self._over = False

    # ---- called by the TCP transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._records.feed(data)
        try:
            if self._records.ready or self._shake_hands():
                self._read()
        except ssl.SSLError as error:
            self._flush()  # the alert that says why
            self._fail(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        if self._records.ready:
            self._protocol.connection_lost(exc)
        elif not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("closed during the TLS handshake"))

    # ---- called by the backend's connection

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        if self._over:
            return
        for data in list_of_data:
            if data:
                self._records.tls.write(data)
        self._flush()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "session_reused":
            return self._records.tls.session_reused
        return self._tcp.get_extra_info(name, default)

    def abort(self) -> None:
        self._over = True
        self._tcp.abort()

    # ---- records

    def _shake_hands(self) -> bool:
        done = self._records.shake_hands()
        self._flush()
        if not done:
            return False
        self.connection.connection_made(self)
        if not self.ready.done():
            self.ready.set_result(None)
        return True

    def _read(self) -> None:
        data, goodbye = self._records.read()
        self._flush()  # answers to changes of keys
        if data:
            if self._on_session is not None:
                self._keep_session(self._on_session)
            self._protocol.data_received(data)
        if goodbye and not self._over:
            self._over = True
            self._tcp.close()

    def _keep_session(self, on_session: Callable[[ssl.SSLSession], None]) -> None:
        """The tickets come before the first answer; a connection gives one to its pool."""
        self._on_session = None
        session = self._records.tls.session
        if session is not None and session.has_ticket:
            on_session(session)

    def _fail(self, error: ssl.SSLError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
        self._tcp.abort()

    def _flush(self) -> None:
        records = self._records.outgoing()
        if records:
            self._tcp.write(records)
