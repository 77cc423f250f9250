"""The composition root: who is made of what. The only constructor of parts.

serve   -> supervisor: control plane, one process
worker  -> data plane, one process each, started by the supervisor with its channel, the listening socket and a log
"""

import asyncio
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import uvloop

from gateway.clock import PriceTime, wall
from gateway.config import Settings
from gateway.control.channel import Channel
from gateway.control.configuration import Configuration
from gateway.control.snapshot import Snapshot
from gateway.control.supervisor import Supervisor
from gateway.control.worker import Worker
from gateway.edge.admission import Admission
from gateway.edge.desk import Desk
from gateway.edge.endpoints import Endpoints
from gateway.edge.live import Live
from gateway.edge.plane import DataPlane, limits_of, locator_of
from gateway.edge.port import Port
from gateway.edge.proxy import Proxy
from gateway.edge.tally import Tally
from gateway.ledger.board import Board
from gateway.ledger.cells import CELLS_NAME, Cells
from gateway.ledger.export_id import ExportIds
from gateway.ledger.log import LogWriter
from gateway.ledger.recovery import recover
from gateway.ledger.tail import LogLimits
from gateway.telemetry import LEDGER_DAMAGED, Counters, configure_logging
from gateway.upstream.probe import Prober

logger = logging.getLogger("tokenport.app")


def serve(configuration: Configuration, environ: Mapping[str, str], announce: Callable[[str], None]) -> int:
    """Run the supervisor until it is told to stop. Raises StartupError if it cannot start here."""
    configure_logging(sys.stderr)
    return uvloop.run(_supervise(configuration, environ, announce))


async def _supervise(configuration: Configuration, environ: Mapping[str, str], announce: Callable[[str], None]) -> int:
    return await Supervisor(configuration, environ).run(announce)


def build_worker(
    snapshot: Snapshot,
    environ: Mapping[str, str],
    log: int,
    loop: asyncio.AbstractEventLoop,
    rng: Random,
    place: int | None = None,
) -> DataPlane:
    """Put a worker together on log number `log`, and recover what a predecessor left in it. `place` is its own among
    the cells of all workers; without one it has no others.

    Raises:
        ConfigError, LedgerBusy, OSError: it cannot run.
    """
    settings = snapshot.settings(environ)
    cells = Cells.alone() if place is None else Cells.open(settings.gateway.data_dir / CELLS_NAME, place)
    limits = limits_of(settings.limits)
    directory = settings.gateway.data_dir / "ledger" / str(log)
    log_limits = LogLimits(
        commit_rows_max=limits.commit_rows_max,
        commit_ms=limits.commit_ms,
        segment_bytes_max=settings.ledger.segment_bytes_max,
        segment_s_max=settings.ledger.segment_s,
    )
    writer = LogWriter(directory, log, loop, limits=log_limits)
    if writer.found_damage:
        logger.error(LEDGER_DAMAGED, extra={"log": log, "damage": str(writer.found_damage)})
    recovered = recover(writer, wall())
    live = Live(settings, snapshot.curves, PriceTime(settings.price_clock, snapshot.anchor), rng, cells)
    port = Port(limits, loop, live.sharing.workers)
    counters = Counters()
    desk = Desk(
        live=live,
        admission=Admission(settings.tenants, cells, log, loop.time()),
        locator=locator_of(settings),
        log=writer,
        # A slot per exchange; there are never more exchanges than connections.
        board=Board.create(directory / "board", limits.connections_max),
        counters=counters,
        tally=Tally(counters),
        port=port,
        ids=ExportIds(rng.getrandbits),
        now=loop.time,
    )
    proxy = Proxy(desk)
    port.open = Endpoints(proxy, lambda: proxy.ready).open
    prober = Prober(live.backends, live.states, live.sharing.workers.first)
    shared = (live.sharing.sweep, desk.admission.sweep)
    for sweep in (*shared, live.backends.sweep, prober.sweep, proxy.sweep, desk.tally.sweep):
        port.on_sweep(sweep)
    return DataPlane(desk, proxy, prober, _tls(settings), cells, recovered)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    tls = settings.gateway.tls
    if tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(Path(tls.cert), Path(tls.key))
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _work(channel_fd: int, listener_fd: int, place: int, log: int) -> int:
    channel = await Channel.open(socket.socket(fileno=channel_fd))
    listener = socket.socket(fileno=listener_fd)

    def build(snapshot: Snapshot) -> DataPlane:
        return build_worker(snapshot, os.environ, log, asyncio.get_running_loop(), Random(os.urandom(16)), place)

    return await Worker(channel, listener, build).run()


def main() -> int:
    """`python -m gateway.app CHANNEL_FD LISTENER_FD PLACE LOG`: a worker, started by the supervisor, not by people."""
    configure_logging(sys.stderr)
    channel_fd, listener_fd, place, log = map(int, sys.argv[1:5])
    return uvloop.run(_work(channel_fd, listener_fd, place, log))


if __name__ == "__main__":
    sys.exit(main())
