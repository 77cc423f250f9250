"""Backend: one OpenAI-compatible server or pool at one site. The configuration, beside what is live about it.

`Backend` is frozen and comes from the configuration. `BackendState` is what we learned and what is in flight; it
survives a reload (`adopt` gives it the new priors) and is changed only by events of requests and probes, never by a
decision. What is in flight is also written where the other workers read it (`cells`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from routing.estimate import BytesPerToken, ItlEstimate, Mean, RatioEstimate, TtftEstimate
from routing.fairness import Holding, Holdings
from routing.health import DEFAULT_LIMITS, Health, HealthLimits
from routing.link import Floats, LinkState


class Integers(Protocol):
    """Where whole numbers are shown: shared memory, or a list."""

    def __setitem__(self, index: int, value: int, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Backend:
    name: str
    region: str
    country: str
    url: str
    models: Mapping[str, str] = field(hash=False)  # public name -> the backend's own name
    slots: int  # requests it runs at once
    queue_max: int  # requests it may hold beyond them
    prefill_tokens_per_s: float = 5000.0
    itl_s: float = 0.03
    context_tokens: int = 131072
    dialects: tuple[str, ...] = ("openai",)
    usage: str = "final"  # final | continuous | none: what it reports while streaming
    tokens_per_event_max: int = 4  # 1: exactly one
    power_cap_w: float = 0.0  # 0: none
    auth: str = "bearer"  # bearer | x-api-key | none | the name of a header
    api_key: str = field(default="", repr=False)
    ca_file: str = ""


class BackendState:
    """What is live about a backend. One per backend and worker."""

    __slots__ = (
        "bytes_out",
        "cell",
        "cells",
        "health",
        "holdings",
        "inflight",
        "inflight_elsewhere",
        "itl",
        "leases",
        "loads",
        "name",
        "power_w",
        "power_w_elsewhere",
        "service",
        "tokens_per_event",
        "ttft",
    )

    def __init__(self, backend: Backend, limits: HealthLimits = DEFAULT_LIMITS) -> None:
        self.name = backend.name
        self.inflight = 0
        self.inflight_elsewhere = 0  # of the other workers, as they publish it
        self.leases = 0  # ever taken
        self.power_w = 0.0  # expected to be drawn by the requests in flight
        self.power_w_elsewhere = 0.0
        # Where the other workers look: `inflight` at `cell` of the first, `power_w` behind it in the second.
        self.cells: Integers = [0]
        self.loads: Floats = [0.0, 0.0]
        self.cell = 0
        self.health = Health(limits)
        self.holdings = Holdings(backend.slots)  # who has its requests in flight
        self.ttft = TtftEstimate(backend.prefill_tokens_per_s, limits.probe_s)
        self.itl = ItlEstimate(backend.itl_s, limits.probe_s)
        self.service = Mean(0.0)  # seconds a slot was held by a whole answer; nothing before the first
        self.tokens_per_event = RatioEstimate(backend.tokens_per_event_max)
        self.bytes_out = BytesPerToken()  # by (dialect, streamed)

    def adopt(self, backend: Backend) -> None:
        """A reload changed the configuration: take what is configured, keep what was measured."""
        self.ttft.prefill_tokens_per_s = backend.prefill_tokens_per_s
        self.itl.adopt(backend.itl_s)
        self.holdings.slots = backend.slots
        if backend.tokens_per_event_max != self.tokens_per_event.tokens_per_event_max:
            self.tokens_per_event = RatioEstimate(backend.tokens_per_event_max)

    @property
    def load(self) -> int:
        """Requests in flight, all workers."""
        return self.inflight + self.inflight_elsewhere

    def full(self, backend: Backend) -> bool:
        return self.load >= backend.slots + backend.queue_max

    def lease(
        self, now: float, *, power_w: float = 0.0, link: LinkState | None = None, mbps: float = 0.0, tenant: str = ""
    ) -> "Lease":
        """A place on the backend (and on the link), to be taken in the same tick as the decision. Without a tenant it
        counts against nobody's share."""
        return Lease(self, now, power_w, link, mbps, self.holdings.take(tenant, now) if tenant else None)

    def answered(
        self, ttft_s: float, fresh_tokens: float, now: float, known_s: float = 0.0, sent_at: float | None = None
    ) -> None:
        """The first content event came: now, unless it was sent at another time than that tells."""
        self.ttft.observe(ttft_s, fresh_tokens, now, known_s, sent_at)

    def tried(self, now: float) -> None:
        """A request is sent to find out whether it is well again."""
        self.ttft.standing.tried(now)
        self.itl.standing.tried(now)

    def overdue(self, waited_s: float, fresh_tokens: float, now: float, known_s: float = 0.0) -> None:
        """The first content has not come yet."""
        self.ttft.overdue(waited_s, fresh_tokens, now, known_s)

    def streamed(self, stream_s: float, output_tokens: int, sent_at: float, now: float) -> None:
        """A whole stream of that many tokens, so long from its first content event to its last."""
        self.itl.observe_stream(stream_s, output_tokens, sent_at, now)

    def served(self, sent_at: float, now: float) -> None:
        """A plain answer came, all at once."""
        self.ttft.served(sent_at, now)

    def succeeded(self, now: float, service_s: float) -> None:
        """A whole answer came, `service_s` after its slot was taken (sending, our estimate of the queue left out)."""
        self.health.succeeded(now)
        self.service.observe(max(service_s, 0.0))

    def failed(self, now: float, cause: str = "") -> None:
        """An attempt failed by the backend's fault, before its first content or after."""
        self.health.failed(now, cause)
        self.ttft.penalise(now)


class Lease:
    """One request's place on a backend. Given back exactly once, whatever the exit; giving back again is harmless."""

    __slots__ = ("_held", "_holding", "_link", "_mbps", "_power_w", "_state", "taken_at")

    def __init__(
        self,
        state: BackendState,
        now: float,
        power_w: float,
        link: LinkState | None,
        mbps: float,
        holding: Holding | None = None,
    ) -> None:
        self._state = state
        self._link = link
        self._power_w = power_w
        self._mbps = mbps
        self._holding = holding
        self._held = True
        self.taken_at = now
        state.inflight += 1
        state.cells[state.cell] = state.inflight
        state.leases += 1
        if power_w:
            state.power_w += power_w
            state.loads[state.cell + 1] = state.power_w
        state.health.tried(now)
        state.ttft.standing.taken(now)
        if link is not None:
            link.take(mbps)

    def release(self) -> None:
        if not self._held:
            return
        self._held = False
        state = self._state
        state.inflight -= 1
        state.cells[state.cell] = state.inflight
        if state.power_w:
            # No drift of float sums past an idle moment.
            state.power_w = max(state.power_w - self._power_w, 0.0) if state.inflight > 0 else 0.0
            state.loads[state.cell + 1] = state.power_w
        if self._link is not None:
            self._link.give_back(self._mbps)
        if self._holding is not None:
            self._holding.held -= 1

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
