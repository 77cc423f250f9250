"""The composition root of a worker: a snapshot in, every part of the data plane out. The only constructor of them.

The supervisor's parts are few and live in `control.supervisor`; a worker's are many and depend on each other, so they
are put together here, in one readable order.
"""

import asyncio
import resource
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from gateway import data
from gateway.clock import PriceTime, wall
from gateway.config import Limits, Settings
from gateway.control.snapshot import Snapshot
from gateway.edge.admission import Admission
from gateway.edge.connection import ClientConnection
from gateway.edge.desk import Desk
from gateway.edge.endpoints import Endpoints
from gateway.edge.explaining import ExplainRequest, explanation
from gateway.edge.live import Live
from gateway.edge.locate import Locator
from gateway.edge.port import Port
from gateway.edge.proxy import Proxy
from gateway.edge.status import worker_status
from gateway.errors import ApiError
from gateway.ledger.board import Board
from gateway.ledger.export_id import ExportIds
from gateway.ledger.log import LogWriter
from gateway.ledger.recovery import recover
from gateway.ledger.tail import LogLimits
from gateway.telemetry import Counters
from gateway.upstream.probe import Prober


@dataclass(slots=True)
class WorkerParts:
    """Everything a worker is made of."""

    desk: Desk
    proxy: Proxy
    prober: Prober
    tls: ssl.SSLContext | None
    recovered: int

    @property
    def live(self) -> Live:
        return self.desk.live

    @property
    def port(self) -> Port:
        return self.desk.port

    def connection(self) -> ClientConnection:
        """A protocol for a client that has just connected."""
        return ClientConnection(self.port)

    def install(self, snapshot: Snapshot, environ: Mapping[str, str]) -> None:
        """Swap configuration and prices whole; what is under way keeps what it started with."""
        settings = snapshot.settings(environ)
        desk = self.desk
        desk.live.install(settings, snapshot.curves, PriceTime(settings.price_clock, snapshot.anchor))
        desk.admission.install(settings.tenants)
        desk.locator = _locator(settings)
        desk.port.limits = _limits(settings.limits)

    def status(self, now: float) -> dict[str, Any]:
        return worker_status(self.desk, self.proxy, now)

    def explain(self, message: Mapping[str, Any], now: float, wall_s: float) -> dict[str, Any]:
        try:
            request = ExplainRequest.from_json(dict(message["demand"]))
        except ApiError as error:
            return {"error": error.message}
        return explanation(self.live, request, now, wall_s)

    def close(self) -> None:
        """After the last exchange: nothing is under way any more."""
        self.port.stop()
        self.prober.stop()
        self.proxy.flush_refusals()
        self.live.backends.close()
        self.desk.log.close()
        self.desk.board.close()


def build_worker(
    snapshot: Snapshot, environ: Mapping[str, str], log: int, loop: asyncio.AbstractEventLoop, rng: Random
) -> WorkerParts:
    """Put a worker together on log number `log`, and recover what a predecessor left in it.

    Raises:
        ConfigError, LedgerBusy, OSError: it cannot run.
    """
    settings = snapshot.settings(environ)
    limits = _limits(settings.limits)
    directory = settings.gateway.data_dir / "ledger" / str(log)
    log_limits = LogLimits(commit_rows_max=limits.commit_rows_max, commit_ms=limits.commit_ms)
    writer = LogWriter(directory, log, loop, limits=log_limits)
    recovered = recover(writer, wall())
    live = Live(settings, snapshot.curves, PriceTime(settings.price_clock, snapshot.anchor), rng)
    port = Port(limits, loop)
    desk = Desk(
        live=live,
        admission=Admission(settings.tenants, lambda tenant: snapshot.used.get(tenant, 0)),
        locator=_locator(settings),
        log=writer,
        # A slot per exchange; there are never more exchanges than connections.
        board=Board.create(directory / "board", limits.connections_max),
        counters=Counters(),
        port=port,
        ids=ExportIds(rng.getrandbits),
        now=loop.time,
    )
    proxy = Proxy(desk)
    port.open = Endpoints(proxy, lambda: proxy.ready).open
    prober = Prober(live.backends, live.states)
    for sweep in (live.backends.sweep, prober.sweep, proxy.sweep):
        port.on_sweep(sweep)
    return WorkerParts(desk, proxy, prober, _tls(settings), recovered)


def _locator(settings: Settings) -> Locator:
    gateway = settings.gateway
    database = gateway.country_db or data.path("country.mmdb")
    return Locator(database, gateway.trusted_proxies, gateway.destination_header)


def _limits(limits: Limits) -> Limits:
    """The configured limits, with connections bounded by the descriptors there are: two per stream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    descriptors = hard if hard != resource.RLIM_INFINITY else 1_048_576
    return replace(limits, connections_max=min(limits.connections_max, int(descriptors * 0.8) // 2))


def _tls(settings: Settings) -> ssl.SSLContext | None:
    tls = settings.gateway.tls
    if tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(Path(tls.cert), Path(tls.key))
    context.set_alpn_protocols(["http/1.1"])
    return context
