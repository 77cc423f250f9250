"""Warm connections to one backend.

Taking an idle connection is synchronous; only a new one is awaited. Idle connections are kept for less time than
servers keep theirs (4 s, because common servers close after 5, or what the backend's `Keep-Alive` says), and the
youngest is used first, so that a quiet pool shrinks from its old end. Names are resolved off the path and again every
30 s; a changed address drains the pool made for the old one.

A request seldom waits for a connect: whoever takes one of the last idle connections has another made in its place. A
backend without requests gets none. Behind TLS a new connection resumes the session of an earlier one.
"""

import asyncio
import socket
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.errors import ConnectFailed, ConnectTimeout
from gateway.upstream.tls import TlsTransport
from gateway.upstream.transport import UpstreamConnection
from gateway.wire.http1_memory import response_heads

IDLE_S = 4.0
RESOLVE_EVERY_S = 30.0
# Idle connections kept per backend: above this a burst is over and the sockets are worth more than the handshakes.
IDLE_MAX = 256


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a backend listens, taken apart once when the configuration is read."""

    scheme: str
    host: str
    port: int
    base_path: str
    ca_file: str = ""

    @classmethod
    def of(cls, url: str, ca_file: str = "") -> "Origin":
        """Of a URL such as https://host:8000/v1."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname or "", port, parts.path.rstrip("/"), ca_file)

    @property
    def authority(self) -> str:
        """The Host field: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def tls(self) -> ssl.SSLContext | None:
        """Verified TLS, always: there is no way to switch it off."""
        if self.scheme != "https":
            return None
        return ssl.create_default_context(cafile=self.ca_file or None)


class Pool:
    """Connections to one origin. All methods belong to the event loop's thread."""

    def __init__(self, origin: Origin, *, connect_s: float, head_bytes_max: int, spares: int = 0) -> None:
        """`spares`: how many connections idle at least, while the backend is in use."""
        self.origin = origin
        self._connect_s = connect_s
        self._heads = response_heads(head_bytes_max)
        self._tls = origin.tls()
        self._spares = spares
        self._session: ssl.SSLSession | None = None
        self._making: asyncio.Task[None] | None = None  # a spare, one at a time
        self._idle: deque[UpstreamConnection] = deque()
        self._on_idle = self._keep  # one for all connections
        self._addresses: list[tuple[str, int]] = []
        self._resolved_at = float("-inf")
        self._resolving: asyncio.Task[None] | None = None
        self._closed = False

    def take_idle(self) -> UpstreamConnection | None:
        """The most recently used idle connection, or None."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_until > now:
                self._make_spare()
                return connection
            connection.cancel()
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises:
            ConnectTimeout: not there within connect_s, name resolution and TLS included.
            ConnectFailed: refused, unreachable, unknown name, certificate not verified.
        """
        try:
            async with asyncio.timeout(self._connect_s):
                connection = await self._connect()
        except TimeoutError:
            raise ConnectTimeout(f"no connection within {self._connect_s:g} s") from None
        except (OSError, ssl.SSLError) as error:
            raise ConnectFailed(str(error)) from None
        self._make_spare()
        return connection

    async def _connect(self) -> UpstreamConnection:
        last: OSError | None = None
        for host, port in await self._resolve():
            try:
                return await self._connect_to(host, port)
            except OSError as error:
                last = error
        raise last or OSError(f"no address for {self.origin.host}")

    async def _connect_to(self, host: str, port: int) -> UpstreamConnection:
        loop, connection = asyncio.get_running_loop(), UpstreamConnection(self._heads, self._on_idle)
        context = self._tls
        if context is None:
            await loop.create_connection(lambda: connection, host, port)
            return connection
        name, session = self.origin.host, self._session
        _, tls = await loop.create_connection(
            lambda: TlsTransport(connection, context, name, session, self._remember), host, port
        )
        try:
            await tls.ready
        except BaseException:
            tls.abort()
            raise
        return connection

    def _remember(self, session: ssl.SSLSession) -> None:
        self._session = session

    def _make_spare(self) -> None:
        """The backend is in use: have a connection made if too few are idle."""
        if len(self._idle) < self._spares and self._making is None and not self._closed:
            self._making = asyncio.ensure_future(self._spare())

    async def _spare(self) -> None:
        made = False
        # If it comes to nothing, a request will find out and say so.
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._connect_s):
                self._keep(await self._connect())
            made = True
        self._making = None
        if made:
            self._make_spare()

    def sweep(self, now: float) -> None:
        """Close what has idled too long. Called about once a second."""
        while self._idle and (self._idle[0].closed or self._idle[0].idle_until <= now):
            self._idle.popleft().cancel()

    def close(self) -> None:
        """Close the idle connections; those in use end with their exchanges."""
        self._closed = True
        self.close_idle()
        for task in (self._resolving, self._making):
            if task is not None:
                task.cancel()

    def _keep(self, connection: UpstreamConnection) -> None:
        timeout_s = connection.keep_alive_timeout_s
        # One second less than the backend promises: the close may already be on its way.
        keep_s = IDLE_S if timeout_s is None else max(0.0, timeout_s - 1.0)
        if self._closed or len(self._idle) >= IDLE_MAX or keep_s == 0.0:
            connection.cancel()
            return
        connection.idle_until = asyncio.get_running_loop().time() + keep_s
        connection.idled = True
        self._idle.append(connection)

    async def _resolve(self) -> list[tuple[str, int]]:
        if self._literal():
            return [(self.origin.host, self.origin.port)]
        if not self._addresses:
            await self._look_up()
        elif asyncio.get_running_loop().time() - self._resolved_at > RESOLVE_EVERY_S and self._resolving is None:
            self._resolving = asyncio.ensure_future(self._refresh())
        return self._addresses

    async def _refresh(self) -> None:
        try:
            await self._look_up()
        except OSError:
            # The old addresses stay in use; the next connect tries the name again.
            self._resolved_at = asyncio.get_running_loop().time()
        finally:
            self._resolving = None

    async def _look_up(self) -> None:
        infos = await asyncio.get_running_loop().getaddrinfo(
            self.origin.host, self.origin.port, type=socket.SOCK_STREAM
        )
        addresses = list(dict.fromkeys((str(info[4][0]), int(info[4][1])) for info in infos))
        if self._addresses and addresses != self._addresses:
            self.close_idle()
        self._addresses, self._resolved_at = addresses, asyncio.get_running_loop().time()

    def close_idle(self) -> None:
        """Drop idle connections only: their address is no longer the backend's."""
        while self._idle:
            self._idle.popleft().cancel()

    def _literal(self) -> bool:
        try:
            ip_address(self.origin.host)
        except ValueError:
            return False
        return True
