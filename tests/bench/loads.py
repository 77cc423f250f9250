"""The loads that are measured per unit, with what the product promises of each, and how much of everything is done."""

from dataclasses import dataclass, replace

from tests.bench.load import Run
from tests.bench.stage import AIOHTTP, RELAY, TOKENPORT, Subject

# The supervisor folds what workers wrote once a second.
FOLD_S = 1.2


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    wide_rounds: int  # of the 512 streams, whose lag is compared within a round
    seconds: float  # of a run
    flat_events: int  # of each stream
    first_tokens: int
    first_tokens_after_20_ms: int
    part_s: float
    month_rows: int
    idle_s: float
    streams: int  # held at once
    tls_streams: int
    held_s: float
    among_stalled: int  # streams beside the stalled ones
    stalled: int
    stall_s: float
    answer_tokens: int


WHOLE = Size(
    rounds=5,
    wide_rounds=9,
    seconds=2.0,
    flat_events=6000,
    first_tokens=1000,
    first_tokens_after_20_ms=500,
    part_s=0.4,
    month_rows=400_000,
    idle_s=3.0,
    streams=5000,
    tls_streams=1000,
    held_s=10.0,
    among_stalled=1600,
    stalled=400,
    stall_s=60.0,
    answer_tokens=650_000,
)
QUICK = Size(
    rounds=1,
    wide_rounds=1,
    seconds=0.5,
    flat_events=1000,
    first_tokens=60,
    first_tokens_after_20_ms=30,
    part_s=0.1,
    month_rows=20_000,
    idle_s=0.5,
    streams=500,
    tls_streams=100,
    held_s=1.0,
    among_stalled=80,
    stalled=20,
    stall_s=5.0,
    answer_tokens=65_000,
)


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of work."""

    title: str
    goal: float  # CPU per unit, as a multiple of the bare relay's
    run: Run
    subjects: tuple[str, ...] = (RELAY, AIOHTTP, TOKENPORT)


LOADS = {
    "small": Load("small request, 16 connections", 5.0, Run("small", connections=16, work_behind_s=FOLD_S)),
    "prompt": Load(
        "request of 400 KB, 16 connections",
        2.0,
        Run("small", connections=16, work_behind_s=FOLD_S, prompt_bytes=400_000),
    ),
    "paced": Load("token, 32 streams, 20 ms apart", 1.25, Run("paced", connections=32, gap_s=0.02)),
    "flat": Load("token, 32 streams, flat out", 1.5, Run("flat", connections=32)),
    "wide": Load(
        "token, 512 streams, 50 ms apart",
        1.25,
        Run("paced", connections=512, gap_s=0.05, ramp_s=1.0, timed=True),
        (RELAY, TOKENPORT),
    ),
}


def run_of(load: Load, subject: Subject, size: Size) -> Run:
    """This load on a subject."""
    run = replace(load.run, port=subject.port, pids=subject.pids, seconds=size.seconds)
    if run.kind == "flat":
        return replace(run, events=size.flat_events)
    return run if subject.name == TOKENPORT else replace(run, work_behind_s=0.0)
