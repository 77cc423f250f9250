"""The operator's page: one document, rendered here, complete without a script.

`document` is the whole page. `sections` is its changing part alone, which the page's own script fetches every two
seconds; the outlines of the world, the largest part, stay where they are. Both are made by the same templates.
"""

import json
import logging
import shlex
import sqlite3
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.admin import figures, trade_views, views
from gateway.admin.fleet import merge
from gateway.admin.outlook import Outlook
from gateway.admin.plane import ControlPlane
from gateway.admin.status import VERSION
from gateway.admin.trade import Money, Trade, TradeDesk
from gateway.admin.world import HEIGHT, WIDTH, World
from gateway.clock import wall
from routing.estimate import BYTES_PER_OUTPUT_TOKEN

logger = logging.getLogger("tokenport.admin")

# Offered in the page's choice of time zones; any IANA name may be typed.
ZONES = ("UTC", "Europe/Berlin", "Asia/Shanghai", "Asia/Singapore", "Australia/Sydney", "America/New_York")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: the time zone they asked for, and whether there is one of that name."""

    tz: ZoneInfo
    unknown_tz: str = ""

    @classmethod
    def of(cls, tz: str) -> "Viewer":
        found = figures.zone(tz) if tz else figures.UTC
        return cls(found) if found is not None else cls(figures.UTC, tz[: figures.ZONE_CHARS_MAX])


class Page:
    """Renders for one control plane; remembers pictures and sums that do not change between two looks."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._world = World.load()
        self._trade = TradeDesk()
        self._outlook = Outlook()
        environment = Environment(
            loader=PackageLoader("gateway", "admin/templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._document = environment.get_template("page.html")
        self._sections = environment.get_template("sections.html")

    async def document(self, viewer: Viewer) -> str:
        return self._document.render(await self._content(viewer))

    async def sections(self, viewer: Viewer) -> str:
        return self._sections.render(await self._content(viewer))

    async def trade(self, tz: ZoneInfo) -> Trade | None:
        """The ledger's figures; None while it cannot be read."""
        currency = self._plane.settings.gateway.currency
        try:
            return await self._trade.trade(self._plane.books, currency, tz, wall())
        except (OSError, sqlite3.Error) as error:
            logger.error("sums not read", extra={"problem": str(error)})
            return None

    async def _content(self, viewer: Viewer) -> dict[str, Any]:
        plane, tz = self._plane, viewer.tz
        fleet = merge(await plane.ask_workers("status"))
        trade = await self.trade(tz)
        # One moment for everything that follows; nothing below waits.
        wall_s = wall()
        at = plane.price_time.at(wall_s)
        notices = list(views.notices(plane, fleet, at, tz))
        if trade is None:
            notices.insert(0, views.Notice("alert", "Sums cannot be read.", "The log of the gateway says why."))
        return {
            "version": VERSION,
            "edge": plane.settings.gateway.edge,
            "currency": plane.settings.gateway.currency,
            "ready": plane.ready,
            "uptime": figures.span(max(0.0, wall_s - plane.started_at)),
            "now": figures.second(wall_s, tz),
            "tz": tz.key,
            "unknown_tz": viewer.unknown_tz,
            "zones": ZONES,
            "notices": notices,
            "fleet": fleet,
            "replayed": plane.price_time.replayed,
            "price_now": figures.date_and_hour(at, tz),
            "prices": views.price_views(plane, self._outlook, at, tz),
            "links": views.link_views(plane),
            "route_costs": views.route_costs(plane, plane.prices.book.at(at)),
            "bytes_per_token": f"{BYTES_PER_OUTPUT_TOKEN:.0f}",
            "backends": views.backend_views(plane, fleet),
            "planner_problem": plane.planner.problem,
            "decisions": views.decision_views(plane, fleet, tz),
            "tenants": views.tenant_views(fleet, tz),
            "feeds": views.feed_views(plane, wall_s),
            "sinks": views.sink_views(plane, wall_s, tz),
            "first_request": _first_request(plane),
            **self._figures(trade, tz),
        }

    def _figures(self, trade: Trade | None, tz: ZoneInfo) -> dict[str, Any]:
        """What the ledger adds. Without it the sections say so."""
        makers = self._makers()
        shown = trade if trade is not None else Trade(Money(), (), (), 0, 0, (), ())
        edge = self._plane.settings.regions[self._plane.settings.gateway.edge]
        world = self._world
        return {
            "headline": trade_views.headline(shown.today) if trade is not None else None,
            "volume": trade_views.volume(shown, tz),
            "elsewhere": trade_views.elsewhere(shown),
            "spreads": trade_views.spreads(shown),
            "lost": trade_views.lost(shown),
            "other_currencies": shown.other_currencies,
            "map": trade_views.world_map(world, shown, makers, edge.country) if world is not None else None,
            "land": world.land if world is not None else "",
            "map_size": (WIDTH, HEIGHT),
        }

    def _makers(self) -> list[str]:
        """Countries in which a backend stands."""
        settings = self._plane.settings
        return sorted({settings.regions[backend.region].country for backend in settings.backends})


def _first_request(plane: ControlPlane) -> str:
    """A command that makes the first export."""
    gateway = plane.settings.gateway
    scheme = "https" if gateway.tls is not None else "http"
    model = plane.settings.rules[0].model if plane.settings.rules else "MODEL"
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    return (
        f"curl -N {scheme}://{gateway.listen}/v1/chat/completions \\\n"
        '  -H "Authorization: Bearer $TOKENPORT_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(json.dumps(body))}"
    )
