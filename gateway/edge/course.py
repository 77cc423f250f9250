"""Which way one request goes: its decisions, its place on a backend, and what is written down about both.

A course begins with the first decision and turns at every failed attempt. In one tick it decides and takes the lease;
it claims the board slot and appends the open record before anything leaves for a backend. A failed attempt is kept with
its cause and cost, and travels in the next opening, so that a crash loses none of it.
"""

import asyncio
import logging
from typing import NamedTuple

from gateway.edge.desk import Desk
from gateway.edge.explaining import candidate_facts
from gateway.edge.relay import Attempt
from gateway.errors import ApiError, BackendSaturated, Refused, UpstreamError
from gateway.ledger.log import LedgerUnavailable
from gateway.ledger.opening import FailedAttempt, Opening
from gateway.ledger.terms import terms_of
from gateway.telemetry import ATTEMPTS, DECIDED, EJECTED
from gateway.upstream.backends import Upstream
from pricing.book import PriceSlice
from pricing.export import Usage
from routing.backend import BackendState, Lease
from routing.constraint import FAIR_SHARE
from routing.decide import Decision
from routing.demand import Demand
from routing.retry import backoff_s, may_retry

logger = logging.getLogger("tokenport.decisions")

# How long a request waits for its own record. New ones are refused after one second already.
DURABLE_S_MAX = 5.0
HEDGED = "hedged"  # the cause of an attempt that another one was faster than
NO_USAGE = Usage()


class Leg(NamedTuple):
    """One try: its place at a backend, and what is written down about it. Not the decision: its candidates would stay
    as long as the stream."""

    known_s: float
    lease: Lease
    upstream: Upstream
    opening: Opening
    began_at: float


class Course:
    """The routes of one request, in order. Without another word it is the attempt in use that is spoken of."""

    __slots__ = (
        "_attempt_at",
        "_demand",
        "_desk",
        "_live",
        "_started_at",
        "_tables",
        "_ticket",
        "_tried",
        "failed",
        "known_s",
        "lease",
        "opening",
        "rule",
        "slot",
        "upstream",
    )

    def __init__(self, desk: Desk, demand: Demand, template: Opening) -> None:
        """`template` holds the identity of the request; the course fills in where it goes."""
        self._desk = desk
        self._live = desk.live
        # One version from start to end, whatever is installed meanwhile.
        self._tables = desk.live.tables
        self._demand = demand
        self.opening = template
        self._started_at = desk.now()
        self._attempt_at = self._started_at
        self._tried: tuple[str, ...] = ()
        self._ticket = 0
        self.failed: tuple[FailedAttempt, ...] = ()

    @property
    def export_id(self) -> str:
        return self.opening.export_id

    @property
    def state(self) -> BackendState:
        """Live state of the backend in use."""
        return self._live.states[self.opening.terms.origin_backend]

    def first_route(self, export_id: bytes, body_bytes: int) -> None:
        """Decide, lease, claim, open.

        Raises:
            Refused: no route, no slot, or the ledger cannot write. Nothing is held then.
        """
        decision, prices = self._decide()
        if decision.route is None:
            if decision.refusal == FAIR_SHARE:
                self._live.turned_away(decision, self._demand.tenant)
            raise _refusal(decision.refusal, self._demand, _retry_s(self._desk))
        self._use(self._take(decision, prices))
        try:
            self._open(export_id, body_bytes)
        except BaseException:
            self.lease.release()
            raise
        self._live.retries.started(self._started_at)

    def _open(self, export_id: bytes, body_bytes: int) -> None:
        """Claim a board slot and append the open record, or hold neither."""
        desk = self._desk
        slot = desk.board.claim(export_id, self.opening.to_bytes())
        if slot is None:
            message = "Too many requests are under way; try again shortly."
            raise Refused(503, "overloaded", message, retry_after_s=_retry_s(desk))
        self.slot = slot
        slot.received(body_bytes)
        try:
            self._ticket = desk.log.append(self.opening.entry())
        except LedgerUnavailable as error:
            slot.release()
            message = f"The export ledger cannot write: {error}."
            raise Refused(503, "ledger", message, retry_after_s=_retry_s(desk)) from None

    def next_route(self, error: UpstreamError, attempt: Attempt | None) -> float | None:
        """After a failure before any content: the next route, and seconds to wait before it; None if there is none."""
        now = self._desk.now()
        self.gave_up(error, attempt)
        attempts = len(self.failed)
        if not may_retry(error.cause, attempts, now - self._started_at, self._live.retry_limits):
            return None
        decision, prices = self._decide_again()
        if decision.route is None:
            return None
        if not self._live.retries.try_take(now):
            return None
        self._use(self._take(decision, prices))
        self._note()
        return backoff_s(attempts, self._live.rng, self._live.retry_limits)

    def gave_up(self, error: UpstreamError, attempt: Attempt | None) -> None:
        """The attempt in use failed and serves nothing: keep what it was, blame, give its place back."""
        self.blame(error)
        self.lease.release()
        self.failed += (self._failure(self.opening, self._attempt_at, error.cause, attempt),)

    def _failure(
        self, opening: Opening, began_at: float, cause: str, attempt: Attempt | None, usage: Usage = NO_USAGE
    ) -> FailedAttempt:
        return FailedAttempt(
            backend=opening.terms.origin_backend,
            region=opening.terms.origin_region,
            cause=cause,
            duration_ms=round((self._desk.now() - began_at) * 1000),
            usage=usage,
            bytes_to_backend=attempt.bytes_sent if attempt is not None else 0,
            bytes_from_backend=attempt.bytes_received if attempt is not None else 0,
            units=opening.terms.units,
        )

    # ---- a rival: another route beside the one in use, when its first content is late

    def hedge_after_s(self) -> float:
        """After how long without content this request may be sent a second time; 0: never."""
        rule = self.rule
        if rule is None or rule.hedge_after_s == 0.0:
            return 0.0
        self._live.hedges.started(self._started_at)
        return rule.hedge_after_s

    def rival(self) -> Leg | None:
        """The next best route and a place there, if there is one, and one more attempt in the budget."""
        live = self._live
        if len(self.failed) + 1 >= live.retry_limits.attempts_max:
            return None
        decision, prices = self._decide_again()
        if decision.route is None:
            return None
        return self._take(decision, prices) if live.hedges.try_take(self._desk.now()) else None

    def note_rival(self, leg: Leg, rival: Attempt, attempt: Attempt | None) -> None:
        """Before it leaves: until one of the two has won, the rival is written down as the one that lost.

        Raises:
            LedgerUnavailable: it cannot be written, so it must not leave.
        """
        lost = self._failure(leg.opening, leg.began_at, HEDGED, rival, Usage(leg.opening.input_estimate))
        self.opening = self.opening._replace(failed=(*self.failed, lost))
        self._note()
        if attempt is not None:
            attempt.move(self.slot)

    def rival_lost(self, leg: Leg, rival: Attempt | None, error: UpstreamError | None = None) -> None:
        """It came too late, or failed with this error. One that never left leaves no trace but its failure."""
        leg.lease.release()
        if error is not None:
            self._blame(error, leg.opening.terms.origin_backend)
            self.failed += (self._failure(leg.opening, leg.began_at, error.cause, rival),)
        elif rival is not None:
            self._lost(leg.opening, leg.began_at, rival)

    def lost(self, attempt: Attempt | None) -> None:
        """It came too late: its rival has content. That is no fault."""
        self.lease.release()
        self._lost(self.opening, self._attempt_at, attempt)

    def _lost(self, opening: Opening, began_at: float, attempt: Attempt | None) -> None:
        # It was asked, so it has read the prompt; what it made of it nobody saw.
        usage = Usage(opening.input_estimate) if attempt is not None else NO_USAGE
        self.failed += (self._failure(opening, began_at, HEDGED, attempt, usage),)
        self._desk.counters.add(ATTEMPTS, (opening.terms.origin_backend, HEDGED))

    def turn(self, leg: Leg, attempt: Attempt | None) -> None:
        """The rival takes the place of the attempt in use, which is among the failed by now.

        Raises:
            LedgerUnavailable: it cannot be written down.
        """
        self._use(leg._replace(opening=leg.opening._replace(failed=self.failed)))
        self._note()
        if attempt is not None:
            attempt.move(self.slot)

    # ---- what a backend is held to have done

    def answered(self, ttft_s: float) -> None:
        """The first content is here: at once, because others are being sent there. How much of the prompt was cached is
        told at the end, too late for that."""
        self.state.answered(ttft_s, self._demand.input_tokens, self._desk.now(), self.known_s)

    def overdue(self, waited_s: float) -> None:
        """The first content is not here yet."""
        self.state.overdue(waited_s, self._demand.input_tokens, self._desk.now(), self.known_s)

    def blame(self, error: UpstreamError) -> None:
        """Tell the backend's health what its failure means; some (a rejected request) say nothing about it."""
        self._blame(error, self.opening.terms.origin_backend)

    def _blame(self, error: UpstreamError, backend: str) -> None:
        now, state = self._desk.now(), self._live.states[backend]
        if isinstance(error, BackendSaturated):
            state.health.saturated(now, error.retry_after_s)
        elif error.blame:
            in_service = state.health.available(now)
            state.failed(now, error.cause)
            if in_service and not state.health.available(now):
                logger.warning(EJECTED, extra={"backend": state.name, "cause": error.cause})
        self._desk.counters.add(ATTEMPTS, (backend, error.cause))

    def commit(self) -> asyncio.Future[None] | None:
        """The commit of what was written down about the attempt in use; None once it is on the disk.

        Others may wait for the same one: it is not to be cancelled. It fails with LedgerUnavailable.
        """
        return self._desk.log.wait(self._ticket)

    async def durable(self) -> None:
        """Wait for the commit.

        Raises:
            LedgerUnavailable: it cannot be written.
        """
        commit = self.commit()
        if commit is None:
            return
        try:
            await asyncio.wait_for(asyncio.shield(commit), DURABLE_S_MAX)
        except TimeoutError:
            raise LedgerUnavailable(f"a commit takes longer than {DURABLE_S_MAX:g} s") from None

    def _decide(self) -> tuple[Decision, PriceSlice]:
        desk = self._desk
        now = desk.now()
        wall_s = self.opening.opened_at_us / 1e6 + (now - self._started_at)
        return self._live.decide(self._tables, self._demand, now, wall_s, frozenset(self._tried))

    def _decide_again(self) -> tuple[Decision, PriceSlice]:
        """For one more attempt: the tables are the request's own, and what a reload has removed since is none."""
        while True:
            decision, prices = self._decide()
            route = decision.route
            if route is None or self._live.backends.get(route.backend.name) is not None:
                return decision, prices
            self._tried += (route.backend.name,)

    def _note(self) -> None:
        """Write it down: in the log soon, on the board at once, with nothing counted for it yet."""
        self._ticket = self._desk.log.append(self.opening.entry())
        self.slot.reopen(self.opening.to_bytes())

    def _use(self, leg: Leg) -> None:
        self.known_s, self.lease, self.upstream, self.opening, self._attempt_at = leg

    def _take(self, decision: Decision, prices: PriceSlice) -> Leg:
        """The lease, in the tick of the decision, and the opening that says where the request goes."""
        live, demand, now = self._live, self._demand, self._desk.now()
        self.rule = decision.rule
        fair = self._desk.limits.fair_share
        lease = decision.lease(live.states, now, live.links, tenant=demand.tenant if fair else "")
        route = decision.route
        assert route is not None
        backend = route.backend
        self._tried += (backend.name,)
        ratio = live.states[backend.name].tokens_per_event
        template = self.opening
        asked = template.terms
        terms = terms_of(
            prices.units(backend.name, route.link.name),
            prices.charge(demand.tenant),
            asked.tenant,
            asked.model,
            asked.key_id,
            asked.dialect,
            asked.stream,
            backend.models[demand.model],
            backend.name,
            backend.region,
            backend.country,
            asked.destination_country,
            asked.destination_method,
            (demand.destination != backend.country) if demand.destination else None,
            backend.tokens_per_event_max,
            asked.currency,
            decision.price_version,
            decision.route_version,
            asked.edge,
        )
        opening = template._replace(terms=terms, tokens_per_event_milli=round(ratio.value * 1000), failed=self.failed)
        self._remember(decision)
        known_s = decision.best.known_s if decision.best is not None else 0.0
        return Leg(known_s, lease, live.backends[backend.name], opening, now)

    def _remember(self, decision: Decision) -> None:
        """For the page: the last decisions. For the log: the sampled ones, whole."""
        self._live.decisions.appendleft((self.opening.opened_at_us / 1e6, self._demand, decision))
        best = decision.best
        if decision.candidates and best is not None:
            demand = self._demand
            candidates = [candidate_facts(candidate, decision) for candidate in decision.candidates]
            fields: dict[str, object] = {
                "tenant": demand.tenant,
                "model": demand.model,
                "destination": demand.destination,
            }
            fields |= {"export_id": self.export_id, "route": best.name, "candidates": candidates}
            logger.info(DECIDED, extra=fields)


def _retry_s(desk: Desk) -> int:
    """Retry-After with jitter, so that refused clients do not come back together."""
    return desk.live.rng.randint(1, 5)


def _refusal(reason: str, demand: Demand, retry_after_s: int) -> ApiError:
    """What a caller is told when no route may serve it. A request that could never be served is no refusal of ours."""
    where = demand.destination or "an unknown country"
    match reason:
        case "unknown_model":
            message = f"There is no model {demand.model!r} here."
            return ApiError(404, message, code="model_not_found", param="model")
        case "no_rule":
            return Refused(403, reason, f"No route serves {demand.model!r} to {where}.", type="permission_error")
        case "residency":
            message = f"deny_origins leaves no route for {demand.model!r} to {where}."
            return Refused(403, reason, message, type="permission_error")
        case "destination_unknown":
            message = (
                "deny_origins applies and the destination country is unknown; declare it with the tenant's country."
            )
            return Refused(403, reason, message, type="permission_error")
        case "context_length":
            message = f"About {demand.input_tokens} input tokens are more than any backend for {demand.model!r} takes."
            return ApiError(400, message, code="context_length_exceeded", param="messages")
        case "dialect":
            message = f"No backend for {demand.model!r} speaks this API."
            return ApiError(404, message, code=reason, param="model")
        case "fair_share":
            message = f"This tenant has its share of the backends for {demand.model!r}; the rest is kept for others."
            return Refused(503, reason, message, retry_after_s=retry_after_s)
        case "ttft_slo":
            message = f"A first token of {demand.model!r} would come too late: all queues are too long."
            return Refused(503, reason, message, retry_after_s=retry_after_s)
    message = f"No backend can take {demand.model!r} now."
    return Refused(503, reason or "unavailable", message, retry_after_s=retry_after_s)
