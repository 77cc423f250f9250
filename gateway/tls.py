"""TLS without a socket, for both sides of the gateway: encrypted bytes in, plain ones out, and the other way round.

The event loop's own TLS tells neither what its socket still holds (`edge.tls` counts by that) nor takes a session to
resume (`upstream.tls` saves handshakes by that). So `ssl.SSLObject` does the cryptography, and whoever has the socket
moves the bytes: after every call, what `outgoing` gives is to be sent.
"""

import ssl

READ_BYTES = 256 * 1024


class Records:
    """One connection's TLS."""

    __slots__ = ("_incoming", "_outgoing", "ready", "tls")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname, session=session
        )
        self.ready = False  # the handshake is done

    def feed(self, data: bytes) -> None:
        """Encrypted bytes have come: `shake_hands` until it is done, then `read`."""
        self._incoming.write(data)

    def outgoing(self) -> bytes:
        """Encrypted bytes to be sent."""
        return self._outgoing.read()

    def shake_hands(self) -> bool:
        """Go on with the handshake. Whether it is done.

        Raises:
            ssl.SSLError: it failed; what is outgoing says why.
        """
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.ready = True
        return True

    def read(self) -> tuple[bytes, bool]:
        """All plain bytes that are here, and whether the other side has said its goodbye.

        Raises:
            ssl.SSLError: it does not speak TLS.
        """
        pieces, goodbye = [], False
        try:
            while piece := self.tls.read(READ_BYTES):
                pieces.append(piece)
            goodbye = True
        except ssl.SSLWantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), goodbye
