"""A second attempt beside a first one whose content is late (`hedge_after_ms` of a rule, off by default).

The rival goes to the next best route, out of a budget. Whichever has content first serves; the other is cancelled at
once and written down as a failed attempt with the cause "hedged": it cost something, and is nobody's fault.

    rival       told                          becomes
    connecting  a connection is there         sent, once both attempts are written down
    sent        it has content                the attempt in use; the other one is lost
    any         the attempt in use has        lost
    any         the attempt in use failed     the attempt in use, if another route may answer at all
    any         it failed                     a failed attempt; the one in use goes on
    any         the request is over           lost

There is one opening and one row whatever happens: until the race is decided the rival stands in the opening as the one
that lost.
"""

import asyncio
from abc import abstractmethod

from gateway.edge.course import Leg
from gateway.edge.patience import DUE_NOW, Patience
from gateway.edge.relay import Attempt
from gateway.errors import FirstContentTimeout, StaleConnection, UpstreamError
from gateway.ledger.board import Slot
from gateway.ledger.log import LedgerUnavailable
from gateway.ledger.opening import Opening
from gateway.upstream.backends import Upstream
from gateway.upstream.transport import UpstreamConnection
from routing.retry import RETRIED_KINDS


class Rival:
    """The second attempt, from its decision on."""

    __slots__ = ("attempt", "leg", "task")

    def __init__(self, leg: Leg) -> None:
        self.leg = leg
        self.attempt: Attempt | None = None
        self.task: asyncio.Task[None] | None = None  # connects


class Hedging(Patience):
    """A case that may be asked twice."""

    __slots__ = ("_hedge_timer", "_rival", "_task")

    _task: asyncio.Task[None] | None  # connects, or pauses before another route
    _rival: Rival | None
    _hedge_timer: asyncio.TimerHandle | None

    @abstractmethod
    def _prepare(
        self, connection: UpstreamConnection, upstream: Upstream, opening: Opening, slot: Slot
    ) -> tuple[Attempt, bytes, bytes]:
        """An attempt there, with the head and body of its request."""

    @abstractmethod
    def _send(self, connection: UpstreamConnection) -> None:
        """Send the attempt in use."""

    @abstractmethod
    def _failed(self, error: UpstreamError) -> None:
        """The attempt in use failed."""

    @abstractmethod
    def _broken(self) -> None:
        """A defect of ours."""

    def _arm(self) -> None:
        """Wait for the first content; then the rival goes out. A plain answer comes at its end: nothing is late."""
        after_s = self.course.hedge_after_s() if self.facts.stream else 0.0
        if after_s > 0.0:
            self._hedge_timer = self.desk.port.loop.call_later(after_s, self._hedge)

    def _hedge(self) -> None:
        self._hedge_timer = None
        attempt = self.attempt
        if self.over or (attempt is not None and attempt.ready):
            return
        if attempt is not None:
            self.course.overdue(self.desk.now() - attempt.started_at)
        try:
            leg = self.course.rival()
            if leg is None:
                return
            rival = self._rival = Rival(leg)
            connection = leg.upstream.pool.take_idle()
            if connection is not None:
                self._send_rival(rival, connection)
            else:
                rival.task = self.desk.spawn(self._connect_rival(rival))
        except Exception:
            self._broken()

    async def _connect_rival(self, rival: Rival) -> None:
        try:
            connection = await rival.leg.upstream.pool.connect()
            if rival is self._rival:
                rival.task = None
                self._send_rival(rival, connection)
            else:  # it took the place of the attempt in use meanwhile
                self._task = None
                self._send(connection)
        except UpstreamError as error:
            if rival is self._rival:
                rival.task = None
                self._rival_failed(rival, error)
            else:
                self._task = None
                self._failed(error)
        except Exception:
            self._broken()

    def _send_rival(self, rival: Rival, connection: UpstreamConnection) -> None:
        leg = rival.leg
        attempt, head, body = self._prepare(connection, leg.upstream, leg.opening, Slot(None, 0))
        attempt.bytes_sent = len(head) + len(body)
        try:
            self.course.note_rival(rival.leg, attempt, self.attempt)
        except LedgerUnavailable:
            connection.cancel()
            self._drop_rival()
            return
        rival.attempt = attempt
        connection.send(head, body, attempt)
        self.deadline = DUE_NOW

    def _rival_failed(self, rival: Rival, error: UpstreamError) -> None:
        attempt, rival.attempt = rival.attempt, None
        if isinstance(error, StaleConnection):
            rival.task = self.desk.spawn(self._connect_rival(rival))
            return
        self._rival = None
        self.course.rival_lost(rival.leg, attempt, error)

    def _rival_won(self, rival: Rival) -> None:
        """It has content first.

        Raises:
            LedgerUnavailable: that cannot be written down.
        """
        lost, self.attempt, self._rival = self.attempt, rival.attempt, None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if lost is not None:
            lost.cancel()
        self.course.lost(lost)
        self.course.turn(rival.leg, rival.attempt)

    def _succeed(self, error: UpstreamError) -> bool:
        """The attempt in use failed: its rival takes its place, if this kind of failure allows another route.

        Raises:
            LedgerUnavailable: that cannot be written down.
        """
        rival = self._rival
        if rival is None or error.cause not in RETRIED_KINDS:
            return False
        lost, self.attempt, self._rival = self.attempt, rival.attempt, None
        self._task, rival.task = rival.task, None
        self.course.gave_up(error, lost)
        self.course.turn(rival.leg, rival.attempt)
        self.deadline = DUE_NOW
        return True

    def _drop_rival(self) -> None:
        """It is not needed any more."""
        if self._hedge_timer is not None:
            self._hedge_timer.cancel()
            self._hedge_timer = None
        rival, self._rival = self._rival, None
        if rival is None:
            return
        if rival.task is not None:
            rival.task.cancel()
        if rival.attempt is not None:
            rival.attempt.cancel()
        self.course.rival_lost(rival.leg, rival.attempt)

    def _expire_attempt(self, attempt: Attempt, now: float) -> None:
        super()._expire_attempt(attempt, now)
        rival = self._rival
        if rival is not None and rival.attempt is not None and now >= self._first_due(rival.attempt):
            rival.attempt.give_up(FirstContentTimeout())
