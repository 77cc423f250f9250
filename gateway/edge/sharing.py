"""What the workers know of backends and links together: in flight, verdicts and the main estimates, through the cells.

In flight and the power and traffic expected of it are shown with every lease. Nobody looks at sixteen backends of seven
workers before every decision: what the others have is looked at every few milliseconds, and afresh for the one backend
that was chosen. If that one is fuller than it seemed, or there is none, all are, and the decision is made again. So a
cap is passed by no more than the requests that other workers place in the same microseconds: one each.

A verdict (ejected, half-open, cooling, returned) goes from sweep to sweep, the newest wins. One worker probes for all.
A request that tries a half-open site says so at once, and whoever is about to do the same looks first.

Estimates are shared as what was observed: every worker shows the count and the sum of its own observations, and takes
over by how much the others' have grown, at their mean, as if it had made them. So eight workers know as much as one.
"""

from collections.abc import Mapping

from gateway.ledger.cells import FIRST, IN_FLIGHT, LOAD, Cells, Row, Workers
from routing.backend import BackendState
from routing.constraint import SATURATED
from routing.decide import Decision
from routing.estimate import Mean
from routing.health import Verdict
from routing.link import LinkState

# Of a backend's row: pairs of a count and a sum, then the verdict.
_TTFT, _ITL, _SERVICE, _PENALTIES = FIRST, FIRST + 2, FIRST + 4, FIRST + 6
_DECIDED_AT, _EJECTED_AT, _EJECTIONS, _FLAGS = FIRST + 7, FIRST + 8, FIRST + 9, FIRST + 10
_PROBED_AT, _TRIED_AT, _RETURNED_AT, _COOL_UNTIL = FIRST + 11, FIRST + 12, FIRST + 13, FIRST + 14
_NEWS = FIRST + 15  # how much was ever observed: nothing new, nothing to do


# Between two looks at everything, per cell that is looked at; a look takes a microsecond or less of that.
LOOK_EACH_S = 0.0005


class _Sums:
    """What was last seen of one worker's observations of one backend."""

    __slots__ = ("base", "counts", "news", "penalties", "sums")

    def __init__(self, base: int) -> None:
        self.base = base
        self.counts = [0, 0, 0]
        self.sums = [0.0, 0.0, 0.0]
        self.penalties = 0
        self.news = 0

    def grown(self, row: Row, which: int, cell: int) -> tuple[int, float]:
        """How many observations are new, and their mean. A successor counts from nothing again."""
        count, total = row.ints[self.base + cell], row.floats[self.base + cell + 1]
        if count < self.counts[which]:
            self.counts[which], self.sums[which] = 0, 0.0
        new = count - self.counts[which]
        if new <= 0:
            return 0, 0.0
        mean = (total - self.sums[which]) / new
        self.counts[which], self.sums[which] = count, total
        return new, max(mean, 0.0)


class _SharedBackend:
    """One backend's row beside its live state."""

    __slots__ = ("_others", "_row", "_shown_at", "state")

    def __init__(self, state: BackendState, row: Row) -> None:
        self.state = state
        self._row = row
        self._others = [_Sums(base) for base in row.elsewhere]
        self._shown_at = 0.0
        for sums in self._others:  # what they measured a worker that is new learns; what failed long ago is forgotten
            sums.penalties = row.ints[sums.base + _PENALTIES]
        state.cells, state.loads, state.cell = row.ints, row.floats, row.here + IN_FLIGHT
        self._adopt(row.here)  # a predecessor's verdict

    def show(self) -> None:
        state, row = self.state, self._row
        ints, floats, here = row.ints, row.floats, row.here
        self._show_mean(here + _TTFT, state.ttft.overhead)
        self._show_mean(here + _ITL, state.itl)
        self._show_mean(here + _SERVICE, state.service)
        ints[here + _PENALTIES] = state.ttft.penalties
        ints[here + _NEWS] = state.ttft.overhead.seen + state.itl.seen + state.service.seen + state.ttft.penalties
        floats[here + LOAD] = state.power_w
        if state.health.decided_at > self._shown_at:
            self.show_verdict()

    def show_verdict(self) -> None:
        """Without a time while it is written: nobody takes half of it."""
        row = self._row
        ints, floats, here = row.ints, row.floats, row.here
        verdict = self.state.health.verdict()
        floats[here + _DECIDED_AT] = 0.0
        floats[here + _EJECTED_AT] = verdict.ejected_at
        ints[here + _EJECTIONS] = verdict.ejections
        ints[here + _FLAGS] = 2 * verdict.good_probes + verdict.credentials
        floats[here + _PROBED_AT] = verdict.probed_at
        floats[here + _TRIED_AT] = verdict.tried_at
        floats[here + _RETURNED_AT] = verdict.returned_at
        floats[here + _COOL_UNTIL] = verdict.cool_until
        floats[here + _DECIDED_AT] = self._shown_at = verdict.decided_at

    def take_over(self, now: float) -> None:
        """What the others show."""
        state, row = self.state, self._row
        self.look()
        for sums in self._others:
            news = row.ints[sums.base + _NEWS]
            if news == sums.news:
                continue
            sums.news = news
            count, mean = sums.grown(row, 0, _TTFT)
            penalties = row.ints[sums.base + _PENALTIES]
            failed = max(penalties - sums.penalties, 0)
            sums.penalties = penalties
            if count or failed:
                state.ttft.absorb(count, mean, failed, now)
            state.itl.absorb(*sums.grown(row, 1, _ITL))
            state.service.absorb(*sums.grown(row, 2, _SERVICE))
        self.adopt()

    def look(self) -> bool:
        """What is in flight elsewhere at this moment. Whether it has changed."""
        state, row = self.state, self._row
        inflight, power_w = row.sum_elsewhere(IN_FLIGHT), row.load_elsewhere()
        changed = inflight != state.inflight_elsewhere or power_w != state.power_w_elsewhere
        state.inflight_elsewhere, state.power_w_elsewhere = inflight, power_w
        return changed

    def adopt(self) -> None:
        """The newest verdict of the others."""
        for base in self._row.elsewhere:
            self._adopt(base)

    def _adopt(self, base: int) -> None:
        ints, floats, health = self._row.ints, self._row.floats, self.state.health
        decided_at = floats[base + _DECIDED_AT]
        if decided_at == 0.0 or decided_at <= health.decided_at:
            return
        verdict = Verdict(
            decided_at,
            floats[base + _EJECTED_AT],
            ints[base + _EJECTIONS],
            bool(ints[base + _FLAGS] & 1),
            ints[base + _FLAGS] >> 1,
            floats[base + _PROBED_AT],
            floats[base + _TRIED_AT],
            floats[base + _RETURNED_AT],
            floats[base + _COOL_UNTIL],
        )
        if floats[base + _DECIDED_AT] == decided_at:
            health.adopt(verdict)

    def _show_mean(self, at: int, mean: Mean) -> None:
        self._row.floats[at + 1] = mean.seen_sum
        self._row.ints[at] = mean.seen


class Sharing:
    """One worker's side of what all workers know."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._backends: dict[str, _SharedBackend] = {}
        self._links: dict[str, tuple[LinkState, Row]] = {}
        self.workers = Workers(cells)
        self.alone = self.workers.alone
        self._looked_at = 0.0
        self._look_s = 0.0

    def claim(self, backends: Mapping[str, object], links: Mapping[str, object]) -> None:
        """Have a row for each of these. Raises CellsFull."""
        self._cells.claim("backend", backends)
        self._cells.claim("link", links)

    def install(self, states: Mapping[str, BackendState], links: Mapping[str, LinkState]) -> None:
        """Share these too."""
        for name, state in states.items():
            if name not in self._backends:
                self._backends[name] = _SharedBackend(state, self._cells.row("backend", name))
        for name, link in links.items():
            if name not in self._links:
                row = self._cells.row("link", name)
                link.loads, link.cell = row.floats, row.here + LOAD
                self._links[name] = link, row
        self._look_s = LOOK_EACH_S * len(self._backends) * (self._cells.places - 1)

    def sweep(self, now: float) -> None:
        self.workers.beat(now)
        for backend in self._backends.values():
            backend.show()
            if not self.alone:
                backend.take_over(now)
        if not self.alone:
            self._look_at_links()

    def look(self, now: float) -> None:
        """Before a decision: at everything, unless that was just done."""
        if now - self._looked_at >= self._look_s:
            self._looked_at = now
            self._look()

    def is_stale(self, decision: Decision, now: float) -> bool:
        """Look at the chosen backend afresh, or at everything if nothing could be chosen. Whether so much has changed
        that it is to be decided again; then everything is looked at."""
        route = decision.route
        if route is None:
            return decision.refusal == SATURATED and self._look()
        backend = self._backends[route.backend.name]
        state = backend.state
        if state.health.ejected_at is not None:
            backend.adopt()
            if not decision.special and state.health.barred(now):
                return True
            # Said before it is done: the next one to look is too late to try it as well.
            state.health.tried(now)
            backend.show_verdict()
        changed = backend.look()
        if decision.power_w > 0.0 or decision.mbps > 0.0:
            return self._look() or changed
        if changed and state.load >= route.backend.slots:
            self._look()
            return True
        return False

    def _look(self) -> bool:
        """At everything. Whether anything has changed."""
        looked = [backend.look() for backend in self._backends.values()]
        return self._look_at_links() or any(looked)

    def _look_at_links(self) -> bool:
        changed = False
        for link, row in self._links.values():
            mbps = row.load_elsewhere()
            changed = changed or mbps != link.mbps_elsewhere
            link.mbps_elsewhere = mbps
        return changed
