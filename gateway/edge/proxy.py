"""All exchanges of a worker: their beginning, and their end when the gateway stops.

The life of a single one is `exchange`. A refusal before it began is told here, and counted: one record a second,
tenant and reason, never one per request.
"""

import asyncio
import logging
from collections.abc import Iterable

from gateway.clock import wall
from gateway.edge.admission import Client
from gateway.edge.caller import Caller
from gateway.edge.connection import ClientConnection
from gateway.edge.desk import Desk
from gateway.edge.exchange import Exchange
from gateway.errors import ApiError, Refused
from gateway.ledger.log import LedgerUnavailable
from gateway.ledger.refusals import Refusals
from gateway.telemetry import BAD_KEYS, REFUSALS, REQUEST_FAILED
from gateway.wire.http1 import RequestHead

logger = logging.getLogger("tokenport.proxy")


# Refusals reach the ledger this often; its index sums them by minute.
REFUSALS_EVERY_S = 1.0


class Proxy:
    """The worker's requests."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._exchanges: set[Exchange] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._refusals = Refusals()
        self._flush_at = 0.0
        self.accepting = False
        self.draining = False

    @property
    def in_flight(self) -> int:
        return len(self._exchanges)

    @property
    def ready(self) -> bool:
        """Whether a balancer should send traffic here."""
        return self.accepting and not self.draining and self._desk.log.writable

    def authenticate(self, head: RequestHead) -> Client:
        """The caller, or ApiError 401."""
        try:
            return self._desk.admission.authenticate(head)
        except ApiError:
            self._desk.counters.add(BAD_KEYS)
            raise

    def check_accepting(self, client: Client) -> None:
        """Refuse before a body is read what could not be served: 503 with the reason."""
        reason = self._desk.log.reason
        if self.accepting and not reason:
            return
        retry_after_s = self._desk.live.rng.randint(1, 5)
        if not self.accepting:
            refused = Refused(503, "draining", "The gateway is shutting down.", retry_after_s=retry_after_s)
        else:
            message = f"The export ledger cannot write: {reason}."
            refused = Refused(503, "ledger", message, retry_after_s=retry_after_s)
        self._count(refused, client)
        raise refused

    def models(self, client: Client) -> Iterable[str]:
        """Public names of the models this gateway routes."""
        return self._desk.live.table.models()

    def begin(self, connection: ClientConnection, head: RequestHead, body: bytes, caller: Caller) -> None:
        """Take a whole request: refuse it at once, or send it on its way."""
        try:
            # Asked once more: a body may have been long on its way.
            self.check_accepting(caller.client)
        except Refused as refused:
            connection.refuse(refused)
            return
        exchange = Exchange(self._desk, connection, head, body, caller)
        try:
            exchange.begin(self._over)
        except ApiError as error:
            if isinstance(error, Refused):
                self._count(error, caller.client)
            connection.refuse(error)
            return
        except Exception:
            logger.exception(REQUEST_FAILED)
            message = "The gateway failed on this request."
            connection.refuse(ApiError(500, message, type="server_error", code="internal"))
            return
        if not exchange.over:
            self._exchanges.add(exchange)
            self._empty.clear()
            self._desk.port.watch(exchange)

    async def idle(self, timeout_s: float) -> None:
        """Wait until nothing is under way, at most so long."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            logger.info("streams are still open", extra={"in_flight": self.in_flight})

    def stop_all(self) -> None:
        """End every answer with an error event."""
        for exchange in list(self._exchanges):
            exchange.stop("drained")

    def sweep(self, now: float) -> None:
        """Share the backends anew, and write down the refusals of the last second: a flood becomes one record a second
        and reason."""
        self._desk.live.sweep(now, self._desk.admission.elsewhere())
        if now >= self._flush_at:
            self._flush_at = now + REFUSALS_EVERY_S
            self.flush_refusals()

    def flush_refusals(self) -> None:
        try:
            self._refusals.flush(round(wall() * 1e6), self._desk.log.append, everything=True)
        except LedgerUnavailable:
            # They stay counted and are tried again at the next sweep.
            return

    def _over(self, exchange: Exchange) -> None:
        self._desk.port.unwatch(exchange)
        self._exchanges.discard(exchange)
        if not self._exchanges:
            self._empty.set()

    def _count(self, refused: Refused, client: Client) -> None:
        self._desk.counters.add(REFUSALS, (refused.reason,))
        self._refusals.add(round(wall() * 1e6), client.tenant.name, refused.reason)
