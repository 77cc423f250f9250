"""How long an exchange waits, for whom, and what it says meanwhile.

A deadline is a time in a field, looked at by the port's sweep: an event costs no timer. Waited for are, each with its
own limit: the first content, the next event, the whole stream (by the rule, else by the gateway), a client that takes
nothing, and the commit of what was written down. While a stream's client waits it hears comments, so that nobody on the
way takes silence for death.
"""

import asyncio
from abc import abstractmethod

from gateway.config import Limits
from gateway.edge.caller import Caller
from gateway.edge.case import Case
from gateway.edge.connection import ClientConnection, Field
from gateway.edge.course import DURABLE_S_MAX
from gateway.edge.desk import Desk
from gateway.edge.relay import Attempt
from gateway.errors import FirstContentTimeout, StreamDeadline, UpstreamStall
from gateway.ledger.log import LedgerUnavailable
from gateway.wire.http1 import RequestHead

# Silence before a streamed answer is committed with 200, and between heartbeats from then on.
COMMIT_AFTER_S = 10.0
HEARTBEAT_EVERY_S = 15.0
# How long the body of an error status may be silent before its status alone is taken.
ERROR_TEXT_S = 2.0
# Before any content a head changes what is waited for, and an attempt tells nobody of it: how often to look.
LOOK_EVERY_S = 1.0
DEFAULTS = Limits()
# Most exchanges are over before the next sweep: a deadline is worked out by the first one that finds them.
DUE_NOW = float("-inf")
EVENT_STREAM = "text/event-stream"


class Patience(Case):
    """A case with deadlines. Times are of the loop's clock."""

    __slots__ = ("_paused_at", "_spoke_at", "_unsent_bytes", "commit", "commit_due", "deadline", "over")

    def __init__(
        self,
        desk: Desk,
        connection: ClientConnection,
        head: RequestHead,
        body: bytes,
        caller: Caller,
    ) -> None:
        super().__init__(desk, connection, head, body, caller)
        self.deadline = DUE_NOW
        self.over = False
        self.commit: asyncio.Future[None] | None = None  # what an answer that is ready waits for
        self.commit_due = float("inf")
        self._paused_at: float | None = None
        self._unsent_bytes = 0
        self._spoke_at = 0.0  # when a heartbeat last left

    @abstractmethod
    def client_gone(self) -> None:
        """The client left, or takes nothing any more."""

    @abstractmethod
    def _unrecorded(self, error: LedgerUnavailable) -> None:
        """What was written down did not become durable."""

    @abstractmethod
    def _id_fields(self) -> list[Field]:
        """What every response head carries."""

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

    def expire(self, now: float) -> None:
        """A deadline may have passed: see which, act, and set the next."""
        if self.commit is not None and now >= self.commit_due:
            self._unrecorded(LedgerUnavailable(f"a commit takes longer than {DURABLE_S_MAX:g} s"))
        elif self._paused_at is not None and now < self.admitted_at + self._limit("stream_s"):
            if now >= self._paused_at + self.desk.limits.write_stall_s and not self._progressed(now):
                self.client_gone()
                self.connection.abort()
        elif self.attempt is not None:
            self._expire_attempt(self.attempt, now)
        if self.over:
            return
        if now >= self._heartbeat_due():
            self._heartbeat(now)
        self.deadline = max(self._next_deadline(), now + 0.001)

    def _expire_attempt(self, attempt: Attempt, now: float) -> None:
        if now >= self.admitted_at + self._limit("stream_s"):
            # Also of a reader that is slow but never stops.
            attempt.give_up(StreamDeadline())
        elif not attempt.ready:
            if now >= self._first_due(attempt):
                attempt.give_up(FirstContentTimeout())
            elif self.facts.stream and not attempt.is_error:
                # A site that hangs would look well until its first request is given up.
                self.course.overdue(now - attempt.started_at)
        elif now >= attempt.heard_at + self._limit("gap_s"):
            attempt.give_up(UpstreamStall())

    def _progressed(self, now: float) -> bool:
        """Whether a slow client has taken anything since it was last looked at."""
        unsent_bytes = self.connection.unsent_bytes
        progressed = unsent_bytes < self._unsent_bytes
        self._paused_at, self._unsent_bytes = now, unsent_bytes
        return progressed

    def _heartbeat(self, now: float) -> None:
        if not self.connection.committed:
            if self.course.commit() is not None:
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
        attempt = self.attempt
        heard_at = attempt.heard_at if attempt is not None and attempt.released else 0.0
        return max(self._spoke_at, heard_at) + HEARTBEAT_EVERY_S

    def _next_deadline(self) -> float:
        """The earliest moment at which `expire` could have something to do."""
        due = min(self._heartbeat_due(), self.admitted_at + self._limit("stream_s"))
        if self.commit is not None:
            due = min(due, self.commit_due)
        if self._paused_at is not None:
            return min(due, self._paused_at + self.desk.limits.write_stall_s)
        attempt = self.attempt
        if attempt is None or attempt.over:
            return due
        if not attempt.ready:
            return min(due, self._first_due(attempt), self.desk.now() + LOOK_EVERY_S)
        return min(due, attempt.heard_at + self._limit("gap_s"))

    def _first_due(self, attempt: Attempt) -> float:
        """When an attempt without content is given up. The text of an error is not waited for long.

        A plain answer comes at its end: the default meant for a first token would cut long ones, so before its first
        byte only a limit that was set applies (by the rule, or one other than the default), and then that of gaps.
        """
        if attempt.is_error:
            return attempt.heard_at + ERROR_TEXT_S
        first_content_s = self._limit("first_content_s")
        if self.facts.stream:
            return attempt.started_at + first_content_s
        if attempt.head is not None:
            return attempt.heard_at + self._limit("gap_s")
        rule = self.course.rule
        set_by_rule = rule is not None and rule.first_content_s is not None
        unset = not set_by_rule and first_content_s == DEFAULTS.first_content_s
        return attempt.started_at + (self._limit("stream_s") if unset else first_content_s)

    def _limit(self, name: str) -> float:
        """A deadline of the rule, else of the gateway."""
        own: float | None = getattr(self.course.rule, name)
        return own if own is not None else float(getattr(self.desk.limits, name))
