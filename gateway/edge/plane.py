"""The data plane of one worker as a whole: what its process holds, swaps and closes. Put together by `gateway.app`."""

import resource
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway import data
from gateway.clock import PriceTime
from gateway.config import Limits, Settings
from gateway.edge.connection import ClientConnection
from gateway.edge.desk import Desk
from gateway.edge.explaining import ExplainRequest, explanation
from gateway.edge.live import Live
from gateway.edge.locate import Locator
from gateway.edge.metering import Spent
from gateway.edge.port import Port
from gateway.edge.proxy import Proxy
from gateway.edge.status import worker_status
from gateway.edge.tls import TlsConnection
from gateway.errors import ApiError
from gateway.ledger.cells import Cells
from gateway.upstream.probe import Prober
from pricing.energy import PriceCurve
from routing.occupancy import SlotPrice
from routing.shadow import LinePrice


@dataclass(slots=True)
class DataPlane:
    """Everything a worker is made of."""

    desk: Desk
    proxy: Proxy
    prober: Prober
    tls: ssl.SSLContext | None
    cells: Cells
    recovered: int

    @property
    def live(self) -> Live:
        return self.desk.live

    @property
    def port(self) -> Port:
        return self.desk.port

    def connection(self) -> ClientConnection | TlsConnection:
        """A protocol for a client that has just connected."""
        client = ClientConnection(self.port)
        return client if self.tls is None else TlsConnection(client, self.tls, self.port)

    def install(
        self, settings: Settings, curves: Mapping[str, PriceCurve], price_time: PriceTime, spent: Spent
    ) -> None:
        """Swap configuration and prices whole; what is under way keeps what it started with."""
        desk = self.desk
        locator = locator_of(settings)  # what may fail comes before anything is swapped
        self.cells.claim("tenant", (tenant.name for tenant in settings.tenants))
        desk.live.install(settings, curves, price_time)
        desk.admission.install(settings.tenants, spent, desk.now())
        desk.locator = locator
        desk.port.install(limits_of(settings.limits))

    def status(self, now: float) -> dict[str, Any]:
        return worker_status(self.desk, self.proxy, now)

    def explain(self, message: Mapping[str, Any], now: float, wall_s: float) -> dict[str, Any]:
        try:
            request = ExplainRequest.from_json(dict(message["demand"]))
        except ApiError as error:
            return {"error": error.message}
        return explanation(self.live, request, now, wall_s)

    def wanted(self, now: float) -> dict[str, Any]:
        """What was asked for since the last time, and what may not be used now: what prices of room are made from."""
        live = self.live
        kinds = live.wanted.take().items()
        return {
            "kinds": [[*key[:3], sorted(key.deny_origins), key.value_per_second, [*sums]] for key, sums in kinds],
            "out": [name for name, state in live.states.items() if not state.health.available(now)],
            "itl_s": {name: state.itl.value for name, state in live.states.items()},
            "down": [name for name, link in live.links.items() if not link.up],
        }

    def price_room(self, message: Mapping[str, Any]) -> None:
        """Prices by load, as the supervisor sends them."""
        self.live.price_room(
            {name: SlotPrice(first, tuple(prices)) for name, (first, prices) in message["slots"].items()},
            {name: LinePrice(tuple(prices)) for name, prices in message["lines"].items()},
        )

    def close(self) -> None:
        """After the last exchange: nothing is under way any more."""
        self.port.stop()
        self.prober.stop()
        self.proxy.flush_refusals()
        self.live.backends.close()
        self.desk.log.close()
        self.desk.board.close()
        self.cells.close()


def locator_of(settings: Settings) -> Locator:
    """The country database and the proxies to trust, as configured."""
    gateway = settings.gateway
    database = gateway.country_db or data.path("country.mmdb")
    return Locator(database, gateway.trusted_proxies, gateway.destination_header)


def limits_of(limits: Limits) -> Limits:
    """The configured limits, with connections bounded by the descriptors there are: two per stream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    descriptors = hard if hard != resource.RLIM_INFINITY else 1_048_576
    return replace(limits, connections_max=min(limits.connections_max, int(descriptors * 0.8) // 2))
