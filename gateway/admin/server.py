"""The admin listener: URL -> handler.

    GET  /                    the page                  /sections              its changing part
    GET  /healthz, /readyz    up; may take traffic      /static/...            style, script, icon
    GET  /metrics             Prometheus                /status                JSON of everything live
    GET  /export-volume.json  the page's sums           POST /explain, /reload

Every one of them but the health checks is behind `guard`. The socket comes bound from the supervisor.
"""

import logging
import socket
from importlib.resources import files
from typing import Any

import orjson
from aiohttp import web

from gateway.admin import metrics
from gateway.admin.guard import guard, seal
from gateway.admin.page import Page, Viewer
from gateway.admin.plane import ControlPlane
from gateway.admin.status import status
from gateway.admin.trade import Trade
from gateway.clock import timestamp
from gateway.telemetry import REQUEST_FAILED

logger = logging.getLogger("tokenport.admin")

# A question to `explain` is a few names and numbers.
BODY_BYTES_MAX = 64 * 1024
BACKLOG = 128
# Answers take milliseconds; what is still open when the gateway ends is an idle keep-alive.
SHUTDOWN_S = 2.0
STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class AdminServer:
    """One listener for one control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._page = Page(plane)
        self._totals = metrics.Totals()
        self._static = {name: files("gateway.admin").joinpath("static", name).read_bytes() for name in STATIC}
        self._runner: web.AppRunner | None = None
        self._address = ""

    async def start(self, bound: socket.socket) -> None:
        """Listen on a socket that is bound."""
        runner = web.AppRunner(self._app(), access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        await web.SockSite(runner, bound, backlog=BACKLOG).start()
        self._runner = runner
        host, port = bound.getsockname()[:2]
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def address(self) -> str:
        """Where it listens, as host:port; empty before `start`."""
        return self._address

    async def stop(self) -> None:
        """Stop listening, let answers under way end, close the socket."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _app(self) -> web.Application:
        doors = guard(lambda: self._plane.settings.gateway)
        app = web.Application(middlewares=[_boundary, doors], client_max_size=BODY_BYTES_MAX)
        app.on_response_prepare.append(seal)
        app.add_routes(self.routes())
        return app

    def routes(self) -> list[web.RouteDef]:
        """Everything that is answered here."""
        return [
            web.get("/", self._document),
            web.get("/sections", self._sections),
            web.get("/static/{name}", self._asset),
            web.get("/healthz", self._health),
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics),
            web.get("/status", self._status),
            web.get("/export-volume.json", self._volume),
            web.post("/explain", self._explain),
            web.post("/reload", self._reload),
        ]

    # ---- the page

    async def _document(self, request: web.Request) -> web.Response:
        text = await self._page.document(Viewer.of(request.query.get("tz", "")))
        return web.Response(text=text, content_type="text/html")

    async def _sections(self, request: web.Request) -> web.Response:
        text = await self._page.sections(Viewer.of(request.query.get("tz", "")))
        return web.Response(text=text, content_type="text/html")

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._static:
            raise web.HTTPNotFound
        return web.Response(body=self._static[name], headers={"Content-Type": STATIC[name]})

    # ---- machines

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        ready = self._plane.ready
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = await metrics.scrape(self._plane, self._totals, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status(self, _: web.Request) -> web.Response:
        return _json(await status(self._plane))

    async def _volume(self, request: web.Request) -> web.Response:
        viewer = Viewer.of(request.query.get("tz", ""))
        if viewer.unknown_tz:
            return _error(400, "tz is not a time zone; give one such as UTC or Europe/Berlin")
        trade = await self._page.trade(viewer.tz)
        if trade is None:
            return _error(503, "sums cannot be read; the log of the gateway says why")
        return _json({"tz": viewer.tz.key, **_volume(trade)})

    async def _explain(self, request: web.Request) -> web.Response:
        try:
            demand = orjson.loads(await request.read())
        except ValueError:
            return _error(400, "the body is not JSON")
        if not isinstance(demand, dict):
            return _error(400, "the body is not a JSON object")
        answers = [answer for answer in await self._plane.ask_workers("explain", demand=demand) if answer is not None]
        if not answers:
            return _error(503, "no worker answers")
        # Workers decide alike but for what each has in flight; one of them speaks for all.
        return _json(answers[0], status=400 if "error" in answers[0] else 200)

    async def _reload(self, _: web.Request) -> web.Response:
        problems = await self._plane.reload()
        return _json({"problems": problems}, status=422 if problems else 200)


def _volume(trade: Trade) -> dict[str, Any]:
    """The page's chart as figures."""
    today = trade.today
    return {
        "hours": [timestamp(start) for start in trade.hours],
        "lanes": [
            {"origin_country": lane.origin, "destination_country": lane.destination, "exported_tokens": lane.hours}
            for lane in trade.lanes
        ],
        "delivered_at_home": trade.at_home,
        "delivered_to_unknown": trade.unplaced,
        "today": {
            "requests": today.requests,
            "delivered_tokens": today.tokens,
            "exported_tokens": today.exported,
            "revenue_nano": today.revenue,
            "cost_nano": today.cost,
        },
    }


def _json(content: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content) + b"\n", status=status, content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _json({"error": message}, status)


@web.middleware
async def _boundary(request: web.Request, handler: Any) -> web.StreamResponse:
    """The one place where a failure becomes an answer: JSON, and nothing of its inside."""
    try:
        answer: web.StreamResponse = await handler(request)
    except web.HTTPException as refused:
        answer = _error(refused.status, refused.reason)
        if "Allow" in refused.headers:
            answer.headers["Allow"] = refused.headers["Allow"]
    except Exception:
        logger.exception(REQUEST_FAILED, extra={"path": request.path[:200]})
        answer = _error(500, "the admin port failed; its log says why")
    return answer
