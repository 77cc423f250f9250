"""From runs to a page: medians over rounds, ratios to the floor within each round, and the text of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench.load import Result
from tests.bench.stage import AIOHTTP, RELAY, TOKENPORT

LOADS = {
    "small": "small request, 16 connections",
    "paced": "token, 32 streams, 20 ms apart",
    "flat": "token, 32 streams, flat out",
}


@dataclass(slots=True)
class Figures:
    """All that was measured, as it came."""

    runs: dict[tuple[str, str], list[Result]] = field(default_factory=dict)  # by load and subject, one per round
    idle_cpu_share: float = 0.0  # of tokenport without traffic
    first_tokens: dict[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    sync_s: Sequence[float] = ()
    decide_us: Sequence[float] = ()
    ledger_us: Sequence[float] = ()

    def add(self, load: str, subject: str, result: Result) -> None:
        self.runs.setdefault((load, subject), []).append(result)

    def micros(self, load: str, subject: str) -> list[float]:
        """CPU microseconds of a unit, round by round."""
        return [sum(run.cpu_s) / run.units * 1e6 for run in self.runs[load, subject]]

    def ratios(self, load: str, subject: str) -> list[float]:
        """To the floor in the same round."""
        pairs = zip(self.micros(load, subject), self.micros(load, RELAY), strict=True)
        return [ours / floor for ours, floor in pairs]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def page(figures: Figures) -> str:
    """Everything as Markdown that reads well in a terminal too."""
    parts = [_cpu_table(figures), _first_token_table(figures), _notes(figures)]
    return "\n\n".join(parts) + "\n"


def _cpu_table(figures: Figures) -> str:
    rows = [["CPU of one ...", "tokenport : relay", "aiohttp : relay", "relay us", "aiohttp us", "tokenport us"]]
    for load, name in LOADS.items():
        ours, theirs = figures.ratios(load, TOKENPORT), figures.ratios(load, AIOHTTP)
        micros = [figures.micros(load, subject) for subject in (RELAY, AIOHTTP, TOKENPORT)]
        spread = f"{median(ours):.2f} ({min(ours):.2f}-{max(ours):.2f})"
        rows.append([name, spread, f"{median(theirs):.2f}", *(f"{median(each):.1f}" for each in micros)])
    return _table(rows)


def _first_token_table(figures: Figures) -> str:
    rows = [
        ["time to first token, ms", "direct p50", "direct p99", "added p50", "added p99", "relay +p50", "relay +p99"]
    ]
    for name, times in figures.first_tokens.items():
        row = [name]
        row += [f"{percentile(times['direct'], share) * 1e3:.2f}" for share in (0.5, 0.99)]
        for subject in (TOKENPORT, RELAY):
            for share in (0.5, 0.99):
                added_s = percentile(times[subject], share) - percentile(times["direct"], share)
                row.append(f"{added_s * 1e3:.2f}")
        rows.append(row)
    return _table(rows)


def _notes(figures: Figures) -> str:
    workers, supervisors = [], []
    for run in figures.runs["small", TOKENPORT]:
        supervisor, *rest = run.cpu_s
        supervisors.append(supervisor / run.units * 1e6)
        workers.append(sum(rest) / run.units * 1e6)
    sync_ms = [percentile(figures.sync_s, share) * 1e3 for share in (0.5, 0.99)]
    return "\n".join(
        [
            f"- of the small request: worker {median(workers):.0f} us, supervisor (fold into the index) "
            f"{median(supervisors):.0f} us",
            f"- one decision among 16 candidates: {median(figures.decide_us):.1f} us; "
            f"the ledger's open and settle at 16 in flight: {median(figures.ledger_us):.1f} us",
            f"- one sync of this disk: p50 {sync_ms[0]:.2f} ms, p99 {sync_ms[1]:.2f} ms",
            f"- tokenport without traffic: {figures.idle_cpu_share * 100:.2f} % of a core",
        ]
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for n, row in enumerate(rows):
        first, *others = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(f"| {' | '.join([first, *others])} |")
        if n == 0:
            lines.append(
                "|" + "|".join("-" * (width + 2 - (at > 0)) + ":" * (at > 0) for at, width in enumerate(widths)) + "|"
            )
    return "\n".join(lines)
