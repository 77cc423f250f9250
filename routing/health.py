"""Outlier ejection and return. Events in, verdicts out.

A site is ejected after five failures in a row, or when more than half of at least twenty outcomes of the last ten
seconds failed, or at once when it refuses our credentials. There are two ways back:

- probed: two good probes in a row, then a slow start. The probe should carry the site's credentials and touch what
  serves.
- not probed (the site cannot be, or nobody does): after 30 s x n, n the number of ejections, at most 300 s, it is
  half-open: one request at a time may try it; a success starts the slow start, a failure ejects again with the next
  n.

A site that fails in part, less than that but more than retries can hide, is *doubted*: its share of the traffic drops
to nothing at every failure and grows back within fifteen seconds, slowly first, so that a few requests find out
whether it still fails.

No setting says which: a probe verdict keeps the site out for another 30 s, so where probes come (every 5 s) they
alone decide, and where they stop coming the clock takes over. An ejection is a verdict about the site; saturation
(429 or 503 with Retry-After) is not: the site cools off for as long as it asked, without blame. A client that leaves
is no event at all.

Several workers are one: each shows its verdict, and takes over one that is newer than its own (`adopt`). So a site that
one ejected is out for all, and what one tries or probes, the others need not.

Reading never writes: half-open and slow start are computed from the times of events. Nearly always nothing at all is
wrong, and a reader in a hurry sees that in one comparison: after `clear_after` a site is not barred and has its full
weight.
"""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from routing.window import Window

CREDENTIALS: Final = (
    "credentials"  # 401, 402, 403: the cause that ejects at once, and such a site never serves as the last
)
NEVER: Final = float("-inf")

EJECTED: Final = "ejected"
COOLING: Final = "cooling"


@dataclass(frozen=True, slots=True)
class HealthLimits:
    eject_failures: int = 5  # in a row
    eject_share: float = 0.5  # of the outcomes of the window, exceeded
    eject_outcomes_min: int = 20  # fewer say nothing about a share
    window_s: float = 10.0
    eject_s: float = 30.0  # times the number of ejections, where nobody probes
    eject_s_max: float = 300.0  # also how long a site must stay well for its ejections to be forgotten
    probe_s: float = 5.0
    probes_good: int = 2
    slow_start_s: float = 10.0
    slow_start_weight: float = 0.1  # what the slow start begins with
    doubt_share: float = 0.2  # of the outcomes of the window, exceeded: what the budget of retries can make good
    doubt_failures_min: int = 3  # fewer are an accident
    doubt_s: float = 15.0
    cool_s: float = 1.0  # when a busy site does not say for how long


DEFAULT_LIMITS = HealthLimits()


class Verdict(NamedTuple):
    """What a worker holds of a site, and since when."""

    decided_at: float
    ejected_at: float  # minus infinity: not ejected
    ejections: int
    credentials: bool  # whether they are the cause
    good_probes: int
    probed_at: float
    tried_at: float
    returned_at: float
    cool_until: float


class Health:
    __slots__ = (
        "_failed",
        "_good_probes",
        "_in_a_row",
        "_limits",
        "_probed_at",
        "_total",
        "_tried_at",
        "cause",
        "clear_after",
        "cool_until",
        "decided_at",
        "doubted_at",
        "ejected_at",
        "ejections",
        "returned_at",
    )

    def __init__(self, limits: HealthLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._total = Window(limits.window_s)
        self._failed = Window(limits.window_s)
        self._in_a_row = 0
        self._good_probes = 0
        self._probed_at = NEVER
        self._tried_at = NEVER  # when a half-open site was last given a request
        self.ejected_at: float | None = None  # None: not ejected. Half-open is still ejected, past `ejected_until`
        self.ejections = 0
        self.cause = ""  # of the last ejection
        self.cool_until = NEVER
        self.returned_at = NEVER
        self.doubted_at = NEVER
        self.clear_after = NEVER  # infinity while ejected
        self.decided_at = NEVER  # when anything of it last changed that others should know

    # Verdicts

    @property
    def ejected_until(self) -> float:
        """When the site becomes half-open; minus infinity if it is not ejected."""
        if self.ejected_at is None:
            return NEVER
        limits = self._limits
        hold_s = min(limits.eject_s_max, limits.eject_s * self.ejections)
        return max(self.ejected_at + hold_s, self._probed_at + limits.eject_s)

    def barred(self, now: float) -> str:
        """Why the site gets no requests now: "", "ejected" or "cooling"."""
        if self.ejected_at is not None and (
            now < self.ejected_until or now < self._tried_at + self._limits.eject_s
        ):  # the second: half-open, and another request is trying it
            return EJECTED
        return COOLING if now < self.cool_until else ""

    def available(self, now: float) -> bool:
        return not self.barred(now)

    def weight(self, now: float) -> float:
        """The share of its traffic the site may have: grows to 1 over the slow start after a return, and after a
        doubt."""
        limits = self._limits
        doubted_s = now - self.doubted_at
        if doubted_s < limits.doubt_s:
            return min((max(doubted_s, 0.0) / limits.doubt_s) ** 3, self._slow_start(now))
        return self._slow_start(now)

    def _slow_start(self, now: float) -> float:
        limits = self._limits
        since_s = now - self.returned_at
        if since_s >= limits.slow_start_s:
            return 1.0
        return limits.slow_start_weight + (1.0 - limits.slow_start_weight) * max(since_s, 0.0) / limits.slow_start_s

    def probe_due(self, now: float) -> bool:
        """Only an ejected site is probed; `probe_s` between two verdicts, the first `probe_s` after the ejection."""
        if self.ejected_at is None:
            return False
        return now >= max(self.ejected_at, self._probed_at) + self._limits.probe_s

    # Among workers

    def verdict(self) -> Verdict:
        ejected_at = NEVER if self.ejected_at is None else self.ejected_at
        return Verdict(
            self.decided_at,
            ejected_at,
            self.ejections,
            self.cause == CREDENTIALS,
            self._good_probes,
            self._probed_at,
            self._tried_at,
            self.returned_at,
            self.cool_until,
        )

    def adopt(self, verdict: Verdict) -> None:
        """Another worker's, if it is newer."""
        if verdict.decided_at <= self.decided_at:
            return
        ejected_at = None if verdict.ejected_at == NEVER else verdict.ejected_at
        if ejected_at != self.ejected_at:
            self.ejected_at, self.ejections = ejected_at, verdict.ejections
            self.cause = "" if ejected_at is None else CREDENTIALS if verdict.credentials else "elsewhere"
            self._restart()
        self._good_probes, self._probed_at = verdict.good_probes, verdict.probed_at
        self._tried_at, self.returned_at = verdict.tried_at, verdict.returned_at
        self.cool_until = max(self.cool_until, verdict.cool_until)
        self.decided_at = verdict.decided_at
        self._foresee()

    # Events

    def succeeded(self, now: float) -> None:
        """A whole answer came. From a site that is out (a stream older than its ejection) it changes nothing."""
        if self.ejected_at is not None:
            if now < self.ejected_until:
                return
            self._back(now)
        self._in_a_row = 0
        self._total.add(now)

    def failed(self, now: float, cause: str = "") -> None:
        """An attempt failed by the site's fault."""
        if self.ejected_at is not None:
            if now >= self.ejected_until:
                self._eject(now, cause)
            elif cause == CREDENTIALS:
                self.cause, self.decided_at = CREDENTIALS, now
            return
        self._in_a_row += 1
        self._total.add(now)
        self._failed.add(now)
        limits = self._limits
        outcomes, failures = self._total.count(now), self._failed.count(now)
        if (
            cause == CREDENTIALS
            or self._in_a_row >= limits.eject_failures
            or (outcomes >= limits.eject_outcomes_min and failures > limits.eject_share * outcomes)
        ):
            self._eject(now, cause)
        elif self._doubtful(now, outcomes, failures):
            self.doubted_at = now
            self._foresee()

    def saturated(self, now: float, retry_after_s: float | None = None) -> None:
        """The site says it is busy. It is believed, up to the longest ejection, and not blamed."""
        limits = self._limits
        wait_s = limits.cool_s if retry_after_s is None else min(max(retry_after_s, 0.0), limits.eject_s_max)
        self.cool_until = max(self.cool_until, now + wait_s)
        self.decided_at = now
        self._foresee()

    def tried(self, now: float) -> None:
        """A request was sent there. Called with every lease; matters while half-open only."""
        if self.ejected_at is not None:
            self._tried_at = self.decided_at = now

    def probe_ok(self, now: float) -> None:
        if self.ejected_at is None:
            return
        self._probed_at = self.decided_at = now
        self._good_probes += 1
        if self._good_probes >= self._limits.probes_good:
            self._back(now)

    def probe_failed(self, now: float) -> None:
        """Says nothing about a site that serves: only customers' requests eject."""
        if self.ejected_at is not None:
            self._probed_at = self.decided_at = now
            self._good_probes = 0

    def _doubtful(self, now: float, outcomes: int, failures: int) -> bool:
        limits = self._limits
        if failures <= limits.doubt_share * outcomes:
            return False
        if now < self.doubted_at + limits.doubt_s:
            return True
        # One that fails whole is for the ejection, which comes as fast; unless it came back from one lately.
        return failures >= limits.doubt_failures_min and (failures < outcomes or not self._long_well(now))

    def _long_well(self, now: float) -> bool:
        """Whether its ejections are forgotten."""
        return self.ejected_at is None and now - self.returned_at >= self._limits.eject_s_max

    def _eject(self, now: float, cause: str) -> None:
        self.ejections = 1 if self._long_well(now) else self.ejections + 1
        self.ejected_at = self.decided_at = now
        self.cause = cause
        self._restart()

    def _back(self, now: float) -> None:
        self.ejected_at = None
        self.returned_at = self.decided_at = now
        self.cause = ""
        self._restart()

    def _restart(self) -> None:
        self._in_a_row = 0
        self._good_probes = 0
        self._probed_at = NEVER
        self._tried_at = NEVER
        self.doubted_at = NEVER  # what follows an ejection or a return is stricter
        self._total.clear()
        self._failed.clear()
        self._foresee()

    def _foresee(self) -> None:
        well_at = math.inf if self.ejected_at is not None else self.returned_at + self._limits.slow_start_s
        self.clear_after = max(self.cool_until, well_at, self.doubted_at + self._limits.doubt_s)
