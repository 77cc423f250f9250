"""What the public port answers: URL -> handler.

Every endpoint is authenticated before its body is read, except those named in `PUBLIC`. gateway/README.md lists what an
API dialect needs besides its endpoints in `API`.
"""

from collections.abc import Callable

from gateway.edge.admission import Client
from gateway.edge.caller import ApiEndpoint, Caller
from gateway.edge.connection import ClientConnection
from gateway.edge.proxy import Proxy
from gateway.errors import ApiError
from gateway.wire.http1 import RequestHead
from gateway.wire.openai import models_body

OnBody = Callable[[bytes], None]


API = {
    "/v1/chat/completions": ApiEndpoint("openai", "chat"),
    "/v1/completions": ApiEndpoint("openai", "completions"),
}
MODELS = "/v1/models"
# Answered without a key, and therefore without details.
PUBLIC = ("/healthz", "/readyz")

METHODS = {**dict.fromkeys(API, ("POST",)), **dict.fromkeys((MODELS, *PUBLIC), ("GET", "HEAD"))}


class Endpoints:
    """The port's way in. `open` is called with each request's head."""

    def __init__(self, proxy: Proxy, ready: Callable[[], bool]) -> None:
        self._proxy = proxy
        self._ready = ready

    def open(self, connection: ClientConnection, head: RequestHead) -> OnBody:
        """Say who takes the body of this request.

        Raises:
            ApiError: 404, 405, 415, 401, in this order; or 503 while draining.
        """
        caller: Caller | None = head.facts
        if caller is not None:
            return self._taker(connection, head, caller)
        methods = METHODS.get(head.path)
        if methods is None:
            raise ApiError(404, f"There is no {head.path[:200]} here.", code="not_found")
        if head.method not in methods:
            allow = {"allow": ", ".join(methods)}
            raise ApiError(405, f"{head.path} takes {' or '.join(methods)}.", code="method_not_allowed", headers=allow)
        if head.path in PUBLIC:
            return lambda _: self._health(connection, head.path)
        endpoint = API.get(head.path)
        if endpoint is not None:
            _check_content(head)
        client = self._proxy.authenticate(head)
        if endpoint is None:
            return lambda _: self._models(connection, client)
        caller = head.facts = Caller(head, client, endpoint)
        return self._taker(connection, head, caller)

    def _taker(self, connection: ClientConnection, head: RequestHead, caller: Caller) -> OnBody:
        self._proxy.check_accepting(caller.client)
        return lambda body: self._proxy.begin(connection, head, body, caller)

    def _health(self, connection: ClientConnection, path: str) -> None:
        well = path == "/healthz" or self._ready()
        body = b'{"status":"ok"}' if well else b'{"status":"unavailable"}'
        connection.respond(200 if well else 503, [("content-type", "application/json")], body)

    def _models(self, connection: ClientConnection, client: Client) -> None:
        body = models_body(self._proxy.models(client))
        connection.respond(200, [("content-type", "application/json")], body)


def _check_content(head: RequestHead) -> None:
    if head.get(b"content-encoding") not in (None, b"identity"):
        raise ApiError(415, "Compressed request bodies are not taken; send plain JSON.", code="unsupported_encoding")
    content_type = (head.get(b"content-type") or b"application/json").split(b";")[0].strip().lower()
    if content_type != b"application/json":
        raise ApiError(415, "Send the request as application/json.", code="unsupported_media_type")
