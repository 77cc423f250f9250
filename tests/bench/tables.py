"""The figures as Markdown that reads well in a terminal too: each beside its floor and its goal."""

from collections.abc import Iterator, Sequence
from statistics import median

from tests.bench.figures import KIB, Figures, micros, percentile, ratios
from tests.bench.loads import LOADS
from tests.bench.stage import AIOHTTP, RELAY, TOKENPORT

FIRST_TOKEN_GOALS_MS = {"at once": 1.0, "after 20 ms": 0.5}
WORKERS_GOAL = 1.15
LEDGER_GOAL_US, RATE_GOAL = 16.0, 20_000
STREAM_GOAL_KIB, STALLED_GOAL_KIB, LAG_GOAL_S = 8, 384, 1.0
NOTHING = "-"

Rows = list[list[str]]


def page(figures: Figures) -> str:
    """All tables that have something in them."""
    tables = (_cpu(figures), _lag(figures), _first_tokens(figures), _memory(figures), _workers(figures))
    tables += (_ledger(figures), _rates(figures), _month(figures))
    parts = [table(rows) for rows in tables if len(rows) > 1]
    notes = list(_notes(figures))
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"


def _cpu(figures: Figures) -> Rows:
    rows = [
        ["CPU of one ...", "tokenport : relay", "goal", "aiohttp : relay", "relay us", "aiohttp us", "tokenport us"]
    ]
    for name, load in LOADS.items():
        if (name, TOKENPORT) not in figures.runs:
            continue
        row = [load.title, spread(figures.ratios(name, TOKENPORT)), f"{load.goal:g}"]
        row.append(f"{median(figures.ratios(name, AIOHTTP)):.2f}" if AIOHTTP in load.subjects else NOTHING)
        for subject in (RELAY, AIOHTTP, TOKENPORT):
            there = subject in load.subjects
            row.append(f"{median(figures.micros(name, subject)):.1f}" if there else NOTHING)
        rows.append(row)
    return rows


def _lag(figures: Figures) -> Rows:
    rows = [["a token's way, p95, ms", "relay", "tokenport", "tokenport : relay", "tokenport - relay", "goal"]]
    if ("wide", TOKENPORT) in figures.runs:
        floor, ours = figures.lags_ms("wide", RELAY), figures.lags_ms("wide", TOKENPORT)
        more = [one - other for one, other in zip(ours, floor, strict=True)]
        row = ["512 streams, 50 ms apart", f"{median(floor):.2f}", f"{median(ours):.2f}"]
        rows.append([*row, spread(ratios(ours, floor)), spread(more), "x 2 or + 1 ms"])
    return rows


def _first_tokens(figures: Figures) -> Rows:
    rows = [
        [
            "time to first token, ms",
            "direct p50",
            "direct p99",
            "added p50",
            "added p99",
            "goal of p99",
            "relay +p50",
            "relay +p99",
            "one sync p50",
            "p99",
        ]
    ]
    for name, times in figures.first_tokens.items():
        row = [f"backend answers {name}"]
        row += [f"{percentile(times['direct'], share) * 1e3:.2f}" for share in (0.5, 0.99)]
        for subject in (TOKENPORT, RELAY):
            for share in (0.5, 0.99):
                added_s = percentile(times[subject], share) - percentile(times["direct"], share)
                row.append(f"{added_s * 1e3:.2f}")
            if subject == TOKENPORT:
                row.append(f"{FIRST_TOKEN_GOALS_MS[name]:g}")
        rows.append([*row, *(f"{percentile(figures.sync_s, share) * 1e3:.2f}" for share in (0.5, 0.99))])
    return rows


def _memory(figures: Figures) -> Rows:
    rows = [["memory of a worker", "resident", "goal", "of it mapped", "longest lag", "goal"]]
    for kind, title in (("plain", "streams"), ("tls", "streams behind TLS")):
        if kind in figures.held:
            count, held = figures.held[kind]
            mapped_kib = (held.shared_during - held.shared_before) / count / KIB
            goal = f"{STREAM_GOAL_KIB} KiB" if kind == "plain" else NOTHING
            row = [f"{count} {title}, each", f"{figures.per_stream_kib(kind):.1f} KiB", goal, f"{mapped_kib:.1f} KiB"]
            rows.append([*row, f"{held.lag_s * 1e3:.0f} ms", f"{LAG_GOAL_S * 1e3:.0f} ms"])
    if "stalled" in figures.held:
        count, held = figures.held["stalled"]
        row = [
            f"{count} stalled readers, each",
            f"{figures.per_stream_kib('stalled'):.0f} KiB",
            f"{STALLED_GOAL_KIB} KiB",
        ]
        rows.append([*row, NOTHING, f"{held.lag_s * 1e3:.0f} ms", NOTHING])
    for kind, title in (("answer", "after an answer of {} tokens"), ("prompts", "after {} prompts of 15 MiB")):
        if kind in figures.held:
            count, held = figures.held[kind]
            grown = f"{(held.after - held.before) / KIB / KIB:+.1f} MiB"
            rows.append([title.format(count), grown, "flat", NOTHING, NOTHING, NOTHING])
    return rows


def _workers(figures: Figures) -> Rows:
    rows = [["CPU of one ...", "two workers : one", "goal", "one us", "two us", "share of a worker", "goal"]]
    for name in dict.fromkeys(load for load, _ in figures.workers):
        one, two = ([micros(run) for run in figures.workers[name, number]] for number in ("one", "two"))
        row = [
            LOADS[name].title,
            spread(ratios(two, one)),
            f"{WORKERS_GOAL:g}",
            f"{median(one):.1f}",
            f"{median(two):.1f}",
        ]
        if name == "small":
            shares = [share * 100 for shares in figures.shares for share in shares]
            row += [f"{min(shares):.0f}-{max(shares):.0f} %", "40-60 %"]
        else:
            row += [NOTHING, NOTHING]
        rows.append(row)
    return rows


def _ledger(figures: Figures) -> Rows:
    rows = [["the ledger, CPU of a request", "durable", "memory", "durable - memory", "goal", "unsynced", "floor"]]
    if figures.ledger:
        found = figures.ledger
        more = [one - other for one, other in zip(found["durable"], found["memory"], strict=True)]
        row = ["16 in flight, us", *(f"{median(found[name]):.1f}" for name in ("durable", "memory"))]
        row += [spread(more), f"{LEDGER_GOAL_US:g}", *(f"{median(found[name]):.1f}" for name in ("unsynced", "floor"))]
        rows.append(row)
    return rows


def _rates(figures: Figures) -> Rows:
    rows = [["a second of ...", "CPU", "the clock", "goal"]]
    for name, title in (("rate", "durable exports on one log"), ("fold", "rows folded into the index")):
        if figures.ledger:
            per_cpu, by_clock = (median(figures.ledger[key]) for key in (f"{name}_cpu", name))
            rows.append([title, f"{per_cpu:,.0f}", f"{by_clock:,.0f}", f"{RATE_GOAL:,}"])
    return rows


def _month(figures: Figures) -> Rows:
    rows = [["a month", "log", "index", "folded a second of CPU", "month report", "goal"]]
    if found := figures.month:
        sizes = [f"{found[name]:.0f} B a row" for name in ("log_bytes", "index_bytes")]
        folded = f"{found['rows'] / found['fold_cpu_s']:,.0f}"
        row = [f"{found['rows']:,.0f} rows", *sizes, folded, f"{found['report_s']:.2f} s", "1 s of 10 million"]
        rows.append(row)
    return rows


def _notes(figures: Figures) -> Iterator[str]:
    if ("small", TOKENPORT) in figures.runs:
        runs = figures.runs["small", TOKENPORT]
        workers = median(sum(run.cpu_s[1:]) / run.units * 1e6 for run in runs)
        supervisor = median(run.cpu_s[0] / run.units * 1e6 for run in runs)
        yield f"- of the small request: worker {workers:.0f} us, supervisor (fold into the index) {supervisor:.0f} us"
    if figures.decide_us:
        yield f"- one decision among 16 candidates: {median(figures.decide_us):.1f} us"
        yield f"- tokenport without traffic: {figures.idle_cpu_share * 100:.2f} % of a core"


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the largest behind it."""
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row holds the titles; numbers stand at the right."""
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
