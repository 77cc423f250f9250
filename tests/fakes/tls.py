"""TLS on both sides of the gateway: certificates of authorities that exist for one test, and a client that decides
which of its records travel together.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trustme

from tests.fakes.client import READ_BYTES, TIMEOUT_S, RawClient

ADDRESS = "127.0.0.1"


class Authority:
    """A certificate authority. Who trusts its file or its contexts trusts what it issued, for the name it is for."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._authority = trustme.CA()
        self.file = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def server_files(self, name: str = ADDRESS) -> dict[str, str]:
        """Certificate and key of a server, as `gateway.tls` takes them."""
        issued = self._authority.issue_cert(name)
        files = {"cert": self._directory / f"{name}.pem", "key": self._directory / f"{name}.key"}
        for pem in issued.cert_chain_pems:
            pem.write_to_path(files["cert"], append=True)
        issued.private_key_pem.write_to_path(files["key"])
        return {use: str(path) for use, path in files.items()}

    def server(self, name: str = ADDRESS) -> ssl.SSLContext:
        """The context of a server of that name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(name).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """The context of a client that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.file))


class TlsClient(RawClient):
    """A raw client behind TLS. Nothing is sent before the test says so, the goodbye (`close_notify`) included."""

    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _tls: ssl.SSLObject

    @classmethod
    @asynccontextmanager
    async def secured(cls, url: str, context: ssl.SSLContext, *, receive_bytes: int = 0) -> AsyncIterator["TlsClient"]:
        """Connect and shake hands."""
        async with cls.connect(url, receive_bytes=receive_bytes) as client:
            await client._shake_hands(context)
            yield client

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._tls.write(piece)
            await super().send(self._outgoing.read())

    async def send_and_leave(self, data: bytes) -> None:
        """The data and the goodbye in one segment."""
        self._tls.write(data)
        await super().send(self._goodbye())

    async def say_goodbye(self) -> None:
        """End the sending side as TLS does."""
        await super().send(self._goodbye())

    def _goodbye(self) -> bytes:
        with suppress(ssl.SSLError):  # the other side's is still to come, perhaps behind unread data
            self._tls.unwrap()
        return self._outgoing.read()

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=ADDRESS)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await super().send(self._outgoing.read())
                await self._receive()
        await super().send(self._outgoing.read())

    async def _read(self) -> bool:
        while True:
            try:
                data = self._tls.read(READ_BYTES)
                break
            except ssl.SSLWantReadError:
                await self._receive()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
                break
        self._buffer += data
        self._eof = not data
        return bool(data)

    async def _receive(self) -> None:
        """Wait for bytes of the socket."""
        raw: Any = b""
        with suppress(ConnectionResetError):
            raw = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, READ_BYTES), TIMEOUT_S)
        if raw:
            self._incoming.write(raw)
        else:
            self._incoming.write_eof()
