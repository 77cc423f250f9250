"""All that was measured, and what is made of it: medians over rounds, and ratios to the floor within each round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.held import Held
from tests.bench.load import Result
from tests.bench.stage import RELAY

KIB = 1024


@dataclass(slots=True)
class Figures:
    """As it came. What was not measured is empty."""

    runs: dict[tuple[str, str], list[Result]] = field(default_factory=dict)  # by load and subject, one per round
    workers: dict[tuple[str, str], list[Result]] = field(
        default_factory=dict
    )  # by load and their number, one per round
    shares: list[Sequence[float]] = field(default_factory=list)  # of two workers in a closed loop, one pair per round
    held: dict[str, tuple[int, Held]] = field(default_factory=dict)  # by kind, with how many of them
    idle_cpu_share: float = 0.0  # of tokenport without traffic
    first_tokens: dict[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    sync_s: Sequence[float] = ()
    decide_us: Sequence[float] = ()
    ledger: Mapping[str, Sequence[float]] = field(default_factory=dict)  # by subject, one per round
    month: Mapping[str, float] = field(default_factory=dict)

    def add(self, load: str, subject: str, result: Result) -> None:
        self.runs.setdefault((load, subject), []).append(result)

    def add_workers(self, load: str, number: str, result: Result) -> None:
        self.workers.setdefault((load, number), []).append(result)

    def micros(self, load: str, subject: str) -> list[float]:
        """CPU microseconds of a unit, round by round."""
        return [micros(run) for run in self.runs[load, subject]]

    def ratios(self, load: str, subject: str) -> list[float]:
        """To the floor in the same round."""
        return ratios(self.micros(load, subject), self.micros(load, RELAY))

    def lags_ms(self, load: str, subject: str) -> list[float]:
        return [run.lag_p95_s * 1e3 for run in self.runs[load, subject]]

    def per_stream_kib(self, kind: str) -> float:
        """What each of those held added to resident memory."""
        count, held = self.held[kind]
        return (held.during - held.before) / count / KIB


def micros(run: Result) -> float:
    return sum(run.cpu_s) / run.units * 1e6


def ratios(ours: Sequence[float], floor: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ours, floor, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
