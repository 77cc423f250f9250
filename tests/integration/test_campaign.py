"""Two thousand streams, a fifth left by their clients, one in twenty cut by its backend: every token has its place.

Three kinds of backend stand behind the gateway: one whose every event is one token, one that reports running usage, and
one that puts up to four tokens into an event and reports usage at the end. What they wrote is compared with what the
ledger says of every single request.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.backend import Served
from tests.fakes.configurations import KEY
from tests.fakes.gateway import Row
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, Stream, streams
from tests.integration.recomputation import differences
from tests.integration.stage import staged

REQUESTS = 2000
SEED = 20_261_124
SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {},
    "running": {"usage": "continuous"},
    "loose": {"tokens_per_event_max": 4},
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What is planned for one request."""

    ask: Ask
    left_by_client: bool
    cut_by_backend: bool


def fates(rng: random.Random) -> list[Fate]:
    """A fifth of the requests left at a random event, five in a hundred cut at a random event, the rest whole."""
    kinds = ["left"] * (REQUESTS // 5) + ["cut"] * (REQUESTS // 20)
    kinds += ["whole"] * (REQUESTS - len(kinds))
    rng.shuffle(kinds)
    return [_fate(rng, number, kind) for number, kind in enumerate(kinds)]


def _fate(rng: random.Random, number: int, kind: str) -> Fate:
    model = rng.choice(list(SETTINGS))
    per_event = rng.randint(1, 4) if model == "loose" else 1
    events = rng.randint(2, 36)
    tokens = events * per_event - rng.randrange(per_event)
    cut = rng.choice(("fin", "rst", "clean"))
    script = Script(
        tokens=tokens,
        tokens_per_event=per_event,
        usage="continuous" if model == "running" else "as asked",
        # An answer that is written at once would be over before its client leaves.
        event_s=rng.choice((0.002, 0.005) if kind == "left" else (0.0, 0.001, 0.004)),
        done=rng.random() < 0.9,
        comments=rng.random() < 0.2,
        chunk_bytes=rng.choice((0, 0, 0, 50)),
        prompt_tokens=rng.randint(1, 2000),
        cut_after=rng.randrange(events) if kind == "cut" else None,
        cut=cut,
        # Whole framing inside a chunk would be a stall, not a cut.
        cut_inside=rng.choice(("", "event", "" if cut == "clean" else "chunk")),
    )
    leave_after = rng.randint(1, events) if kind == "left" else None
    ask = Ask(
        model=model,
        script=script,
        request_id=f"request-{number:04d}",
        leave_after=leave_after,
        leave=rng.choice(("reset", "close", "half_close")),
        members={"stream_options": {"include_usage": True}} if rng.random() < 0.3 else {},
    )
    return Fate(ask, kind == "left", kind == "cut")


def contradictions(fate: Fate, seen: Stream, row: Row, written: Served) -> list[str]:
    """What the row, the client and the backend say against each other."""
    found = [f"costs: {differences(row)}"] if differences(row) else []
    delivered, billed, exact = row["delivered_tokens"], row["billed_output_tokens"], row["count_source"] != "estimated"
    if billed > delivered or delivered > row["output_tokens"]:
        found.append("billed <= delivered <= generated")
    if exact and not seen.tokens <= delivered <= written.tokens:
        found.append(f"received {seen.tokens} <= delivered {delivered} <= written {written.tokens}")
    if fate.left_by_client:
        if row["outcome"] not in ("client_gone", "completed"):
            found.append(f"outcome {row['outcome']} of a client that left")
        return found
    if exact and not delivered == billed == written.tokens:
        found.append(f"delivered {delivered}, billed {billed}, written {written.tokens}")
    if fate.cut_by_backend:
        if seen.looks_whole or row["outcome"] not in ("upstream_cut", "upstream_refused"):
            found.append(f"outcome {row['outcome']} of a cut")
    elif not (seen.done and seen.framed and row["outcome"] == "completed" and exact):
        found.append(f"outcome {row['outcome']} ({row['count_source']}) of a whole answer")
    return found


async def test_every_request_of_a_campaign_has_one_row_and_every_token_is_accounted_for(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    planned = fates(rng)
    limits = {"retries_min": 10_000, "eject_failures": 10_000, "eject_share": 1.0}
    async with staged(tmp_path, dict.fromkeys(SETTINGS, 1), settings=SETTINGS, limits=limits) as stage:
        seen = await streams(stage.gateway.url, KEY, [fate.ask for fate in planned], at_once=64)
        rows = await stage.gateway.rows(REQUESTS, timeout_s=30)
        verified = await stage.gateway.verify()
        log = {entry.request_id: entry for entry in stage.scripted.log}
    assert sorted(row["request_id"] for row in rows) == sorted(fate.ask.request_id for fate in planned)
    assert len({row["export_id"] for row in rows}) == REQUESTS
    assert [row["seq"] for row in sorted(rows, key=lambda row: int(row["seq"]))] == list(range(REQUESTS))
    by_request = {row["request_id"]: row for row in rows}
    found = {
        fate.ask.request_id: wrong
        for fate, got in zip(planned, seen, strict=True)
        if (wrong := contradictions(fate, got, by_request[fate.ask.request_id], log[fate.ask.request_id]))
    }
    assert found == {}
    assert verified.status == 0, verified.stdout
    # The plan was carried out: leavers left in the middle, cuts cut.
    assert sum(row["outcome"] == "client_gone" for row in rows) > REQUESTS // 5 * 0.6
    assert sum(row["outcome"] == "upstream_cut" for row in rows) > REQUESTS // 20 * 0.8
