"""Who may ask the admin port, and what every answer says about itself.

Three doors, in this order, for everything but the two health checks:

    host     on loopback, a name we answer to: a page of a stranger that has pointed its own name at 127.0.0.1 (DNS
             rebinding) is turned away. Off loopback a token is required anyway, and names are many
    origin   nothing a browser does for another site, so no stranger's page can reload or explain
    token    if one is configured: as a bearer token, or for browsers as the password of any user
"""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.config import GatewaySettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Answered to anyone, and therefore without details.
OPEN = ("/healthz", "/readyz")
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

# Everything on the page is ours and from this server; nothing is inline, framed or sent elsewhere.
CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "tokenport",
}


async def seal(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on an answer, an error page included. Hook it to `on_response_prepare`."""
    response.headers.update(HEADERS)


def guard(settings: Callable[[], GatewaySettings]) -> Middleware:
    """The doors. Settings are looked at for each request, because a reload may change the token."""

    @web.middleware
    async def doors(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        gateway = settings()
        listen, token = gateway.admin_listen, gateway.admin_token.encode()
        host = _host_name(request.headers.get("Host", ""))
        if listen.loopback and host not in LOOPBACK_HOSTS and host != listen.host.lower():
            return _refusal(
                403, "This address is not served here. Use localhost or the address the gateway listens on."
            )
        if _foreign(request):
            return _refusal(403, "Requests made for other sites are not served.")
        if token and not _knows(request.headers.getall("Authorization", []), token):
            answer = _refusal(401, "A token is needed: as `Authorization: Bearer <token>`, or as the password.")
            answer.headers["WWW-Authenticate"] = 'Basic realm="tokenport admin", charset="UTF-8"'
            return answer
        return await handler(request)

    return doors


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets, in lower case."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def _foreign(request: web.Request) -> bool:
    """Whether a browser asks on behalf of another site. A link or bookmark that leads to the page is not foreign."""
    site = request.headers.get("Sec-Fetch-Site", "")
    if site in ("cross-site", "same-site"):
        return request.method != "GET" or request.headers.get("Sec-Fetch-Mode") != "navigate"
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2].lower() != request.headers.get("Host", "").lower()


def _knows(authorizations: Collection[str], token: bytes) -> bool:
    """Whether the one Authorization header carries the token. Compared in constant time."""
    if len(authorizations) != 1:
        return False
    scheme, _, credentials = next(iter(authorizations)).strip().partition(" ")
    presented = credentials.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            presented = base64.b64decode(presented, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(presented, token)
