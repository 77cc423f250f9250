"""May this be tried again? Bounds on what retries can do to a system that is already in trouble.

Three bounds, all of which must agree. The kind of failure says whether another route could answer at all
(`may_retry`); an attempt count and a deadline bound one request; the budget bounds all requests together. Without a
budget, an outage of one site multiplies the load on the others exactly when they have least to spare. With a share of
20 % the amplification is at most 1.2; the floor lets a small gateway, whose 20 % would be less than one retry, still
fail over whole.

Hedging, a second attempt beside a late first one, has a budget of its own of the same kind: it loads the sites when
they are slow, which may be because they are loaded.

The caller takes from the budget only when it will really send again.
"""

from dataclasses import dataclass
from random import Random

from routing.window import Window

# How an attempt can fail so that another route may still answer, before anything reached the client.
RETRIED_KINDS = frozenset(
    {
        "connect",  # no connection, or no TLS
        "reset",  # connection lost before a response
        "bad_head",  # not an HTTP response, or one beyond our bounds
        "status",  # 408, 425, 5xx and other answers that speak of the site
        "saturated",  # 429, 503, 529: the site is busy
        "credentials",  # 401, 402, 403: our account there, not the customer's
        "redirect",  # 3xx is never followed
        "late",  # no first content in time
        "cut",  # ended before it was whole
        "stall",  # silent for longer than the gap allowed
        "error_event",  # the backend reported an error inside the stream
        "malformed",  # too many events nobody can parse
    }
)
# The others end the request: the backend refused this very request (400, 404, 413, 422), the client has gone, the
# deadline has passed, the gateway drains. They and every unknown word are not retried.


@dataclass(frozen=True, slots=True)
class RetryLimits:
    share: float = 0.2  # of the starts of the window
    retries_min: int = 32  # always allowed per window
    window_s: float = 10.0
    attempts_max: int = 3
    elapsed_s_max: float = 120.0
    backoff_s_min: float = 0.025
    backoff_s_max: float = 0.25


DEFAULT_LIMITS = RetryLimits()


class RetryBudget:
    """Retries of a window: at most a share of its starts, and a floor."""

    __slots__ = ("_limits", "_retries", "_starts")

    def __init__(self, limits: RetryLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._starts = Window(limits.window_s)
        self._retries = Window(limits.window_s)

    def adopt(self, limits: RetryLimits) -> None:
        """Take these from now on; the window is no part of the configuration."""
        self._limits = limits

    def started(self, now: float) -> None:
        """A request sent its first attempt."""
        self._starts.add(now)

    def try_take(self, now: float) -> bool:
        """Take one retry if there is one; the taker is then expected to retry."""
        allowed = max(self._limits.retries_min, int(self._limits.share * self._starts.count(now)))
        if self._retries.count(now) >= allowed:
            return False
        self._retries.add(now)
        return True


def may_retry(kind: str, attempts: int, elapsed_s: float, limits: RetryLimits = DEFAULT_LIMITS) -> bool:
    """Whether a request that made `attempts` attempts in `elapsed_s` may make one more after a failure of this kind."""
    return kind in RETRIED_KINDS and attempts < limits.attempts_max and elapsed_s < limits.elapsed_s_max


def backoff_s(attempt: int, rng: Random, limits: RetryLimits = DEFAULT_LIMITS) -> float:
    """How long to wait before retry number `attempt` (from 1). Jittered, so that requests that failed together part
    ways."""
    ceiling_s = min(limits.backoff_s_max, limits.backoff_s_max / 2 * max(attempt, 1))
    return rng.uniform(min(limits.backoff_s_min, ceiling_s), ceiling_s)
