"""What follows from a request's head alone, worked out once for all requests that share it.

A client sends the same head over and over: who it is, what it may ask for and where its answer goes are the same each
time. They hang on the head (`RequestHead.facts`), which is forgotten when a configuration is installed.
"""

import re
from dataclasses import dataclass

from gateway.edge.admission import Client
from gateway.edge.locate import Destination, Locator
from gateway.wire.http1 import RequestHead
from gateway.wire.openai import Endpoint

REQUEST_ID_CHARS_MAX = 128
_not_printable = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """An endpoint that generates tokens: its dialect and the shape of its request."""

    dialect: str
    shape: Endpoint


class Caller:
    """An authenticated client at an endpoint."""

    __slots__ = ("_destination", "_peer", "client", "endpoint", "request_id")

    def __init__(self, head: RequestHead, client: Client, endpoint: ApiEndpoint) -> None:
        self.client = client
        self.endpoint = endpoint
        told = (head.get(b"x-request-id") or b"").decode("latin-1")
        self.request_id = _not_printable.sub("", told)[:REQUEST_ID_CHARS_MAX]
        self._peer: str | None = None
        self._destination: Destination

    def destination(self, locator: Locator, peer: str, head: RequestHead) -> Destination:
        """Where its answers go. Remembered for the last peer: behind a balancer there are few, and else one head."""
        if peer != self._peer:
            self._destination = locator.locate(peer, head, self.client.tenant.country)
            self._peer = peer
        return self._destination
