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

An exchange is moved on by calls alone: of its attempt, of its connection, of the log, of the port's sweep. Where a
backend has a warm connection, a request costs no task. One is needed only to connect, or to pause before another route:

    state        told                                         becomes
    under way    a connection is there                        sent
    sent         it failed                                    under way on another route, or over
    sent         content is here                              waiting for the commit, if that is still under way
    waiting      committed                                    answering; a whole plain answer: over
    answering    it is whole, or failed                       over
    sent         its content is late                          two attempts are under way (`hedging`)
    any          client gone, drained, ledger failed          over
"""

import asyncio
import logging
from collections.abc import Callable

from gateway.edge.connection import Field
from gateway.edge.course import DURABLE_S_MAX, Course
from gateway.edge.delivery import Delivery
from gateway.edge.hedging import Hedging
from gateway.edge.lane import Lane
from gateway.edge.patience import DUE_NOW, EVENT_STREAM
from gateway.edge.relay import AnswerAttempt, Attempt, StreamAttempt
from gateway.edge.settling import answer_bytes_per_token, count_answer, opening_of, settle
from gateway.errors import ApiError, Refused, RequestRejected, StaleConnection, UpstreamError, UpstreamMalformed
from gateway.ledger.board import Slot
from gateway.ledger.log import LedgerUnavailable
from gateway.ledger.opening import Opening
from gateway.telemetry import REQUEST_FAILED
from gateway.upstream.backends import Upstream
from gateway.upstream.transport import UpstreamConnection
from gateway.wire.errors import BadRequest
from gateway.wire.openai import Endpoint, error_event, parse_request, shown_usage, upstream_body
from gateway.wire.openai_answer import AnswerFacts, BadAnswer, parse_answer, upstream_error
from gateway.wire.openai_stream import StreamTap

logger = logging.getLogger("tokenport.exchange")

# Where an endpoint is, below a backend's base path.
PATHS: dict[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}
JSON = "application/json"


class Exchange(Hedging):
    """One request of one client."""

    __slots__ = ("_on_over",)

    # ---- steps 1 to 5

    def begin(self, on_over: Callable[["Exchange"], None]) -> None:
        """Read, admit, place, decide, claim, open; then send. `on_over` is called once it has ended and is settled.

        Raises:
            ApiError: the request is refused; nothing is held.
        """
        desk, caller = self.desk, self.caller
        client, endpoint = caller.client, caller.endpoint
        try:
            self.facts = parse_request(self.body, endpoint.shape)
        except BadRequest as error:
            raise ApiError(error.status, error.reason, param=error.param, code="invalid_request") from None
        destination = caller.destination(desk.locator, self.connection.peer, self.head)
        self.demand = desk.demand(self.facts, self.body_bytes, client.tenant, destination, endpoint.dialect)
        expected = self.demand.input_tokens + round(self.demand.output_tokens)
        self.permit = desk.admission.admit(client, expected, self.admitted_at, self.admitted_wall)
        try:
            export_id, opening = opening_of(self, destination)
            self.course = Course(desk, self.demand, opening)
            self.course.first_route(export_id, self.body_bytes)
        except BaseException:
            self.permit.settle(0, self.admitted_at)
            raise
        self._on_over = on_over
        self._task = self._rival = self._hedge_timer = None
        connection, slot = self.connection, self.course.slot
        self.delivery = Lane(connection, slot, desk.port) if self.facts.stream else Delivery(connection, slot)
        self.connection.exchange = self
        try:
            idle = self.course.upstream.pool.take_idle()
            if idle is not None:
                self._send(idle)
            else:
                self._task = desk.spawn(self._connect())
            self._arm()
        except Exception:
            self._broken()

    # ---- step 6

    async def _connect(self, pause_s: float = 0.0, *, anew: bool = False) -> None:
        """Send on a connection that has to be made first. `anew`: not on one that has idled."""
        try:
            if pause_s > 0.0:
                await asyncio.gather(asyncio.sleep(pause_s), self.course.durable())
            pool = self.course.upstream.pool
            connection = (None if anew else pool.take_idle()) or await pool.connect()
            self._task = None
            self._send(connection)
        except UpstreamError as error:
            self._task = None
            self._failed(error)
        except LedgerUnavailable as error:
            self._task = None
            self._unrecorded(error)
        except Exception:
            self._task = None
            self._broken()

    def _send(self, connection: UpstreamConnection) -> None:
        course = self.course
        attempt, head, body = self._prepare(connection, course.upstream, course.opening, course.slot)
        self.attempt = attempt
        connection.send(head, body, attempt)
        attempt.bytes_sent = connection.bytes_sent
        course.slot.sent(attempt.bytes_sent)
        self.deadline = DUE_NOW

    def _prepare(
        self, connection: UpstreamConnection, upstream: Upstream, opening: Opening, slot: Slot
    ) -> tuple[Attempt, bytes, bytes]:
        desk, facts = self.desk, self.facts
        body = upstream_body(self.body, facts, opening.terms.upstream_model, upstream.usage)
        head = upstream.request_head(PATHS[self.caller.endpoint.shape], self.head, opening.request_id, len(body))
        attempt: Attempt
        if facts.stream:
            tap = StreamTap(
                choices=facts.choices,
                show=shown_usage(facts, upstream.usage),
                event_bytes_max=desk.limits.event_bytes_max,
                bad_events_max=desk.limits.bad_events_max,
            )
            assert isinstance(self.delivery, Lane)
            attempt = StreamAttempt(self, connection, slot, desk.now, tap, self.delivery)
        else:
            per_token = answer_bytes_per_token(self, opening)
            attempt = AnswerAttempt(self, connection, slot, desk.now, self.delivery, per_token)
        return attempt, head, body

    # ---- told by the attempt and by the log

    def attempt_ready(self, attempt: Attempt) -> None:
        """Content is here. It leaves once what was written down about it is durable."""
        rival = self._rival
        if attempt is not self.attempt and (rival is None or attempt is not rival.attempt):
            return
        try:
            if rival is not None and attempt is rival.attempt:
                self._rival_won(rival)
            self._drop_rival()
        except LedgerUnavailable as unavailable:
            self._unrecorded(unavailable)
            return
        self.commit = self.course.commit()
        if self.commit is None:
            self._answer(attempt)
        else:
            self.commit.add_done_callback(self._committed)
            self.commit_due = self.desk.now() + DURABLE_S_MAX

    def _committed(self, commit: asyncio.Future[None]) -> None:
        attempt = self.attempt
        if commit is not self.commit or attempt is None:
            return  # the answer it was for came to nothing
        self.commit = None
        error = commit.exception()
        if isinstance(error, LedgerUnavailable):
            self._unrecorded(error)
        else:
            self._answer(attempt)

    def attempt_over(self, attempt: Attempt) -> None:
        """It is whole, or failed. One with content that waits for its commit is first begun, whatever became of it."""
        rival = self._rival
        if attempt is self.attempt and self.commit is None:
            self._conclude(attempt)
        elif rival is not None and attempt is rival.attempt and attempt.error is not None:
            self._rival_failed(rival, attempt.error)

    def _conclude(self, attempt: Attempt) -> None:
        if attempt.error is None:
            self._finish(attempt)
        else:
            self._failed(attempt.error)

    # ---- step 7

    def _answer(self, attempt: Attempt) -> None:
        """The commit point: from here on this attempt serves, and nothing is ever sent again elsewhere."""
        try:
            if not self.facts.stream:
                assert isinstance(attempt, AnswerAttempt)
                if attempt.complete:
                    self._answer_whole(attempt)
                    return
            self._mark_first(attempt)
            if not self.delivery.committed:
                self.delivery.commit(200, self._fields(EVENT_STREAM if self.facts.stream else JSON))
            self.let_go()
            attempt.release()
            if attempt.over:
                self._conclude(attempt)
            else:
                self.deadline = DUE_NOW
        except Exception:
            self._broken()

    def _answer_whole(self, attempt: AnswerAttempt) -> None:
        try:
            self.answer = _parsed(attempt)
        except UpstreamMalformed as error:
            self._failed(error)
            return
        self._mark_first(attempt)
        self.counts = counts = count_answer(self, attempt)
        attempt.released, estimated = True, counts.source == "estimated"
        if "input_estimated" not in counts.flags:
            self.course.slot.input(counts.usage.input_tokens, counts.usage.cached_input_tokens)
        self.delivery.whole(200, self._fields(JSON), attempt.body(), counts.delivered, estimated=estimated)
        self._complete()

    def _finish(self, attempt: Attempt) -> None:
        """All of an answer that was begun is here."""
        try:
            if self.facts.stream:
                assert isinstance(attempt, StreamAttempt)
                attempt.connection.let_end(attempt)
                self.delivery.finish(supply_done=not attempt.tap.done)
            else:
                assert isinstance(attempt, AnswerAttempt)
                self.answer = _parsed(attempt)
                self.delivery.finish()
            self._complete()
        except UpstreamMalformed as error:
            # Too large to be held, and no answer in the end: its framing stays broken, so that it cannot look whole.
            self._failed(error)
        except Exception:
            self._broken()

    def _mark_first(self, attempt: Attempt) -> None:
        self.ttft_s = self.desk.now() - self.admitted_at
        self.status = 200
        self.course.slot.mark_first(round(self.ttft_s * 1e6), 200)
        if attempt.first_at is not None and self.facts.stream:
            self.course.answered(attempt.first_at - attempt.started_at)

    # ---- steps 8 and 9: the ways out

    @property
    def _answering(self) -> bool:
        return self.attempt is not None and self.attempt.released

    def _complete(self) -> None:
        self.outcome = "completed"
        self._end()

    def _failed(self, error: UpstreamError) -> None:
        """The attempt failed: another one, if nothing has left and one is allowed."""
        try:
            if self._answering:
                self.course.blame(error)
                self.failure, self.outcome = error.cause, error.outcome
                self._tell(ApiError(502, "The backend ended before the answer was whole.", type="upstream_error"))
                self._end()
                return
            self.commit = None
            stale = isinstance(error, StaleConnection)
            if not stale and self._succeed(error):
                return
            attempt, self.attempt = self.attempt, None
            if stale:
                # The commonest fault of healthy servers: on a fresh connection, without blame or a new attempt.
                self._task = self.desk.spawn(self._connect(anew=True))
                return
            self._drop_rival()
            pause_s = self.course.next_route(error, attempt)
            if pause_s is None:
                self._give_up(error)
            else:
                self._task = self.desk.spawn(self._connect(pause_s))
        except LedgerUnavailable as unavailable:
            self._unrecorded(unavailable)
        except Exception:
            self._broken()

    def _give_up(self, error: UpstreamError) -> None:
        """No route is left."""
        self.failure = error.cause
        self.outcome = "deadline" if error.give_up == 504 else "upstream_refused"
        self._tell(self._told(error))
        self._end()

    def _unrecorded(self, error: LedgerUnavailable) -> None:
        """What is not written down is not served."""
        self.outcome = "refused:ledger"
        self._tell(Refused(503, "ledger", f"The export ledger cannot write: {error}.", retry_after_s=2))
        self._end()

    def _broken(self) -> None:
        """A defect of ours."""
        logger.exception(REQUEST_FAILED, extra={"export_id": self.course.export_id})
        if self.over:
            return
        self.outcome = "upstream_error" if self._answering else "upstream_refused"
        self._tell(ApiError(500, "The gateway failed on this request.", type="server_error", code="internal"))
        self._end()

    def stop(self, outcome: str) -> None:
        """End early: the client left, or the gateway stops."""
        if self.over:
            return
        self.outcome = outcome
        if outcome == "client_gone":
            self.status = 499
        else:
            message = "The gateway is shutting down."
            self._tell(Refused(503, "drained", message, retry_after_s=self.desk.live.rng.randint(1, 5)))
        self._end()

    def _end(self) -> None:
        """Settle, once, without awaiting."""
        if self.over:
            return
        self.over = True
        self.deadline = float("inf")
        self.commit = None
        if self._task is not None:
            self._task.cancel()
        if self.attempt is not None:
            self.attempt.cancel()
        self._drop_rival()
        try:
            settle(self)
        except Exception:
            logger.exception(REQUEST_FAILED, extra={"export_id": self.course.export_id})
        finally:
            # It knows its owner: without the circle both go at once, and not when a collection comes.
            self.attempt = None
            self._on_over(self)

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

    def client_gone(self) -> None:
        """The client closed, reset, or shut its sending side: not the backend's fault."""
        if not self.over:
            self.left_with = self.delivery.progress()
            self.stop("client_gone")

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
            ("x-tokenport-origin", opening.terms.origin_region),
            ("x-tokenport-backend", opening.terms.origin_backend),
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
