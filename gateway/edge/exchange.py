"""The life of one request, from its body to its row.

    1  read what routing needs of the body
    2  admit: reserve the tenant's limits and budget
    3  place: destination country, and from it a demand
    4  decide, and take the lease in the same tick
    5  claim a board slot, append the open record; its sync runs beside the connect
    6  send; until the first content event a failure may be tried on another route
    7  relay: events go through in the backend's own call
    8  whoever leaves first: the client's leaving cancels the backend, the backend's leaving is told as an error event
    9  on every exit, without awaiting: settle, release, feed the estimates
    10 behind it: the log's writer, the supervisor's index

Steps 1 to 5 are synchronous (`begin`), so that a request that is refused never becomes a task. `run` is the task; it
wakes up three or four times in the life of an answer, never per token.
"""

import asyncio
import logging

from gateway.config import Limits
from gateway.edge.case import Case
from gateway.edge.connection import Field
from gateway.edge.course import Course
from gateway.edge.delivery import Delivery
from gateway.edge.relay import AnswerAttempt, Attempt, StreamAttempt
from gateway.edge.settling import count_answer, opening_of, settle
from gateway.errors import (
    ApiError,
    FirstContentTimeout,
    Refused,
    RequestRejected,
    StaleConnection,
    StreamDeadline,
    UpstreamError,
    UpstreamMalformed,
    UpstreamStall,
)
from gateway.ledger.log import LedgerUnavailable
from gateway.telemetry import REQUEST_FAILED
from gateway.upstream.transport import UpstreamConnection
from gateway.wire.errors import BadRequest
from gateway.wire.openai import Endpoint, error_event, parse_request, shown_usage, upstream_body
from gateway.wire.openai_answer import AnswerFacts, BadAnswer, parse_answer, upstream_error
from gateway.wire.openai_stream import StreamTap

logger = logging.getLogger("tokenport.exchange")

# Silence before a streamed answer is committed with 200, and between heartbeats from then on.
COMMIT_AFTER_S = 10.0
HEARTBEAT_EVERY_S = 15.0
# How long the body of an error status may be silent before its status alone is taken.
ERROR_TEXT_S = 2.0
# Before any content a head changes what is waited for, and an attempt tells nobody of it: how often to look.
LOOK_EVERY_S = 1.0
DEFAULTS = Limits()
# Where an endpoint is, below a backend's base path.
PATHS: dict[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}
EVENT_STREAM = "text/event-stream"
JSON = "application/json"


class Exchange(Case):
    """One request of one client. Told what happens by its connection and by the port's sweep."""

    deadline = float("inf")
    _task: asyncio.Task[None] | None = None
    _running = False
    _paused_at: float | None = None
    _unsent_bytes = 0
    _spoke_at = 0.0  # when a heartbeat last left

    # ---- steps 1 to 5: synchronous

    def begin(self) -> asyncio.Task[None]:
        """Read, admit, place, decide, claim, open; then answer in a task.

        Raises:
            ApiError: the request is refused; nothing is held.
        """
        desk, tenant = self.desk, self.client.tenant
        try:
            self.facts = parse_request(self.body, self.endpoint.shape)
        except BadRequest as error:
            raise ApiError(error.status, error.reason, param=error.param, code="invalid_request") from None
        destination = desk.locator.locate(self.connection.peer, self.head, tenant.country)
        self.demand = desk.demand(self.facts, len(self.body), tenant, destination, self.endpoint.dialect)
        expected = self.demand.input_tokens + round(self.demand.output_tokens)
        self.permit = desk.admission.admit(self.client, expected, self.admitted_at, self.admitted_wall)
        try:
            export_id, opening = opening_of(self, destination)
            self.course = Course(desk, tenant, self.demand, destination, opening)
            self.course.first_route(export_id, len(self.body))
        except BaseException:
            self.permit.settle(0, self.admitted_at)
            raise
        self.delivery = Delivery(self.connection, self.course.slot)
        self.connection.exchange = self
        self.deadline = self._next_deadline()
        self._task = desk.spawn(self._run())
        return self._task

    # ---- steps 6 to 9: the task

    async def _run(self) -> None:
        """Answer, whatever happens; then settle without awaiting."""
        self._running = True
        try:
            if self.outcome:
                self._stopped()
            else:
                await self._answer()
                self.outcome = "completed"
        except asyncio.CancelledError:
            self._stopped()
        except UpstreamError as error:
            self._give_up(error)
        except LedgerUnavailable as error:
            self.outcome = "refused:ledger"
            self._tell(Refused(503, "ledger", f"The export ledger cannot write: {error}.", retry_after_s=2))
        except Exception:
            logger.exception(REQUEST_FAILED, extra={"export_id": self.course.export_id})
            self.outcome = "upstream_error" if self._answering else "upstream_refused"
            self._tell(ApiError(500, "The gateway failed on this request.", type="server_error", code="internal"))
        finally:
            self.deadline = float("inf")
            if self.attempt is not None:
                self.attempt.cancel()
            settle(self)

    async def _answer(self) -> None:
        while True:
            try:
                await self._try_route()
                return
            except UpstreamError as error:
                if self._answering:
                    # Past the commit point nothing is ever sent again.
                    raise
                attempt, self.attempt = self.attempt, None
                pause_s = self.course.next_route(error, attempt)
                await asyncio.gather(asyncio.sleep(pause_s), self.course.durable())

    async def _try_route(self) -> None:
        upstream = self.course.upstream
        body = upstream_body(self.body, self.facts, self.course.opening.upstream_model, upstream.usage)
        head = upstream.request_head(PATHS[self.endpoint.shape], self.head, self.course.opening.request_id, len(body))
        connection = upstream.pool.take_idle() or await upstream.pool.connect()
        try:
            attempt = self._send(connection, head, body)
            await attempt.ready
        except StaleConnection:
            # The commonest fault of healthy servers: once more on a fresh connection, without blame or a new attempt.
            attempt = self._send(await upstream.pool.connect(), head, body)
            await attempt.ready
        await self.course.durable()
        if isinstance(attempt, StreamAttempt):
            await self._stream(attempt)
        elif isinstance(attempt, AnswerAttempt):
            await self._whole(attempt)

    def _send(self, connection: UpstreamConnection, head: bytes, body: bytes) -> Attempt:
        desk, facts, slot = self.desk, self.facts, self.course.slot
        attempt: Attempt
        if facts.stream:
            tap = StreamTap(
                choices=facts.choices,
                show=shown_usage(facts, self.course.upstream.usage),
                event_bytes_max=desk.limits.event_bytes_max,
                bad_events_max=desk.limits.bad_events_max,
            )
            attempt = StreamAttempt(connection, slot, desk.now, tap, self.delivery)
        else:
            attempt = AnswerAttempt(connection, slot, desk.now, self.delivery)
        self.attempt = attempt
        connection.send(head, body, attempt)
        attempt.bytes_sent = connection.bytes_sent
        slot.sent(attempt.bytes_sent)
        self.deadline = self._next_deadline()
        return attempt

    async def _stream(self, attempt: StreamAttempt) -> None:
        self._begin_answer()
        if not self.delivery.committed:
            self.delivery.commit(200, self._fields(EVENT_STREAM))
        attempt.release()
        self.deadline = self._next_deadline()
        await attempt.ended
        attempt.connection.let_end(attempt)
        self.delivery.finish(supply_done=not attempt.tap.done)

    async def _whole(self, attempt: AnswerAttempt) -> None:
        if attempt.complete:
            self.answer = _parsed(attempt)
            self._begin_answer()
            self.counts = count_answer(self, attempt)
            attempt.released = True
            self.delivery.whole(200, self._fields(JSON), attempt.body(), self.counts.delivered)
            return
        # Too large to hold: commit and stream. Cut after this, its framing stays broken, so that it cannot look whole.
        self._begin_answer()
        self.delivery.commit(200, self._fields(JSON))
        attempt.release()
        self.deadline = self._next_deadline()
        await attempt.ended
        self.answer = _parsed(attempt)
        self.delivery.finish()

    def _begin_answer(self) -> None:
        """The commit point: from here on the attempt at hand serves."""
        self.ttft_s = self.desk.now() - self.admitted_at
        self.status = 200
        self.course.slot.mark_first(round(self.ttft_s * 1e6), 200)

    # ---- the other ways out

    @property
    def _answering(self) -> bool:
        return self.attempt is not None and self.attempt.released

    def _stopped(self) -> None:
        """The task was cancelled: by the client's leaving, by a shutdown, or by whoever ended the loop."""
        self.outcome = self.outcome or "drained"
        if self.outcome == "client_gone":
            self.status = 499
        else:
            message = "The gateway is shutting down."
            self._tell(Refused(503, "drained", message, retry_after_s=self.desk.live.rng.randint(1, 5)))

    def _give_up(self, error: UpstreamError) -> None:
        self.failure = error.cause
        if self._answering:
            self.course.blame(error)
            self.outcome = error.outcome
            self._tell(ApiError(502, "The backend ended before the answer was whole.", type="upstream_error"))
            return
        self.outcome = "deadline" if error.give_up == 504 else "upstream_refused"
        self._tell(self._told(error))

    def _told(self, error: UpstreamError) -> ApiError:
        """What a caller hears when no route is left."""
        if isinstance(error, RequestRejected):
            facts = upstream_error(error.body, self.course.upstream.hidden_words)
            code = facts["code"]
            return ApiError(
                error.status,
                facts["message"],
                type=facts["type"] or "invalid_request_error",
                code=str(code) if code is not None else None,
                param=facts["param"],
            )
        if error.give_up == 503:
            return Refused(503, "saturated", "All backends are full; try again shortly.", retry_after_s=2)
        if error.give_up == 504:
            return ApiError(504, "No backend answered in time.", type="upstream_error", code="deadline")
        return ApiError(502, "No backend could answer.", type="upstream_error", code="upstream_refused")

    def _tell(self, error: ApiError) -> None:
        """An error to the client, in the form its answer has by now."""
        connection = self.connection
        if connection.closed:
            return
        if not connection.committed:
            self.status = error.status
            connection.refuse(error, self._id_fields())
        elif self.facts.stream:
            code = self.outcome if self._answering else error.code
            self.delivery.fail(error_event(error.message, error.type, code, error.param, self.course.export_id))
        else:
            connection.abort()

    # ---- told by others

    def client_gone(self) -> None:
        """The client closed, reset, or shut its sending side: not the backend's fault."""
        self.left_with = self.delivery.progress()
        self.stop("client_gone")

    def client_full(self) -> None:
        self._paused_at = self.desk.now()
        self._unsent_bytes = self.connection.unsent_bytes
        self.deadline = min(self.deadline, self._paused_at + self.desk.limits.write_stall_s)
        if self.attempt is not None:
            self.attempt.pause()

    def client_ready(self) -> None:
        self._paused_at = None
        if self.attempt is not None:
            self.attempt.resume()

    def stop(self, outcome: str) -> None:
        """End early, with this outcome unless it has one already."""
        if self.outcome or self._task is None:
            return
        self.outcome = outcome
        # A task cancelled before its first step never enters its `finally`: nothing would be settled.
        if self._running:
            self._task.cancel()

    def expire(self, now: float) -> None:
        """A deadline may have passed: see which, act, and set the next."""
        attempt, limits = self.attempt, self.desk.limits
        if attempt is not None and now >= self.admitted_at + self._limit("stream_s"):
            # Also of a reader that is slow but never stops.
            attempt.give_up(StreamDeadline())
        elif self._paused_at is not None:
            if now >= self._paused_at + limits.write_stall_s and not self._progressed(now):
                self.client_gone()
                self.connection.abort()
                return
        elif attempt is not None:
            if not attempt.ready.done() and now >= self._first_due(attempt):
                attempt.give_up(FirstContentTimeout())
            elif attempt.ready.done() and now >= attempt.touched_at + self._limit("gap_s"):
                attempt.give_up(UpstreamStall())
        if now >= self._heartbeat_due() and not (attempt is not None and attempt.ended.done()):
            # Of what has just ended the task tells, and perhaps with another status.
            self._heartbeat(now)
        self.deadline = max(self._next_deadline(), now + 0.001)

    def _progressed(self, now: float) -> bool:
        """Whether a slow client has taken anything since it was last looked at."""
        unsent_bytes = self.connection.unsent_bytes
        progressed = unsent_bytes < self._unsent_bytes
        self._paused_at, self._unsent_bytes = now, unsent_bytes
        return progressed

    def _heartbeat(self, now: float) -> None:
        if not self.connection.committed:
            if not self.course.is_durable:
                return
            self.status = 200
            self.delivery.commit(200, [("content-type", EVENT_STREAM), *self._id_fields()])
        self.delivery.heartbeat()
        self._spoke_at = now

    def _heartbeat_due(self) -> float:
        """When silence has to be broken; never for an answer that is no stream."""
        if not self.facts.stream or self._paused_at is not None:
            return float("inf")
        if not self.connection.committed:
            return self.admitted_at + COMMIT_AFTER_S
        heard_at = self.attempt.touched_at if self._answering and self.attempt is not None else 0.0
        return max(self._spoke_at, heard_at) + HEARTBEAT_EVERY_S

    def _next_deadline(self) -> float:
        """The earliest moment at which `expire` could have something to do."""
        due = min(self._heartbeat_due(), self.admitted_at + self._limit("stream_s"))
        if self._paused_at is not None:
            return min(due, self._paused_at + self.desk.limits.write_stall_s)
        attempt = self.attempt
        if attempt is None or attempt.ended.done():
            return due
        if not attempt.ready.done():
            return min(due, self._first_due(attempt), self.desk.now() + LOOK_EVERY_S)
        return min(due, attempt.touched_at + self._limit("gap_s"))

    def _first_due(self, attempt: Attempt) -> float:
        """When an attempt without content is given up. The text of an error is not waited for long.

        A plain answer comes at its end: the default meant for a first token would cut long ones, so before its first
        byte only a limit that was set applies (by the rule, or one other than the default), and then that of gaps.
        """
        if attempt.is_error:
            return attempt.touched_at + ERROR_TEXT_S
        first_content_s = self._limit("first_content_s")
        if self.facts.stream:
            return attempt.started_at + first_content_s
        if attempt.head is not None:
            return attempt.touched_at + self._limit("gap_s")
        rule = self.course.decision.rule
        set_by_rule = rule is not None and rule.first_content_s is not None
        unset = not set_by_rule and first_content_s == DEFAULTS.first_content_s
        return attempt.started_at + (self._limit("stream_s") if unset else first_content_s)

    def _limit(self, name: str) -> float:
        """A deadline of the rule, else of the gateway."""
        own: float | None = getattr(self.course.decision.rule, name)
        return own if own is not None else float(getattr(self.desk.limits, name))

    # ---- response fields

    def _id_fields(self) -> list[Field]:
        fields = [("x-tokenport-export-id", self.course.export_id)]
        if self.course.opening.request_id:
            fields.append(("x-request-id", self.course.opening.request_id))
        return fields

    def _fields(self, content_type: str) -> list[Field]:
        opening = self.course.opening
        return [
            ("content-type", content_type),
            ("cache-control", "no-store"),
            *self._id_fields(),
            ("x-tokenport-origin", opening.origin_region),
            ("x-tokenport-backend", opening.origin_backend),
        ]


def _parsed(attempt: AnswerAttempt) -> AnswerFacts | None:
    """The answer's facts; None for one that was too large to keep. UpstreamMalformed if it is no answer."""
    body = attempt.body()
    if not body:
        return None
    try:
        return parse_answer(body)
    except BadAnswer as error:
        raise UpstreamMalformed(str(error)) from None
