"""Who comes, how they behave and what they meet: the whole campaign from one seed.

A `Visit` is one client connection; most bring one request, some several. What a visitor does by itself (where it
leaves, how long it pauses) comes from a generator of its own, so that a visit is the same whatever the others do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from tests.chaos.faults import Ending, Fate, draw, whole
from tests.edge.smuggling import REFUSED
from tests.fakes.script import Script

# Manners of a client that stays to the end: whatever its backends do, it gets what its fate says.
STAYING = (
    "patient",
    "session",
    "pipelined",
    "chunked",
    "expecting",
    "one_zero",
    "slow_reader",
    "slow_head",
    "slow_body",
)
LEAVING = ("leaver", "pipelining_leaver", "early_leaver", "stalled")
# No request of these is ever admitted.
REFUSED_MANNERS = ("malformed", "oversize", "unwelcome", "too_slow_head", "too_slow_body", "silent_visitor")

WEIGHTS = {
    "patient": 42,
    "session": 6,
    "pipelined": 5,
    "chunked": 4,
    "expecting": 3,
    "one_zero": 4,
    "slow_reader": 0.7,
    "slow_head": 1,
    "slow_body": 1,
    "leaver": 16,
    "pipelining_leaver": 2,
    "early_leaver": 3,
    "stalled": 0.7,
    "malformed": 6,
    "oversize": 1.5,
    "unwelcome": 4,
    "too_slow_head": 0.5,
    "too_slow_body": 0.5,
    "silent_visitor": 2,
}

# More than our buffer and the kernel's hold for one client, whatever they hold between backend and gateway.
FOR_STALLED = Script(tokens=600, word_bytes_min=30_000)
FOR_SLOW = Script(tokens=500, word_bytes_min=3000)


@dataclass(frozen=True, slots=True)
class Errand:
    """One request of a visit."""

    request_id: str
    fate: Fate


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection."""

    manner: str
    errands: tuple[Errand, ...]
    seed: int
    message: str = ""  # of a malformed one, its name in the corpus


def plan(seed: int, requests: int) -> list[Visit]:
    """The campaign: visits until there are so many requests."""
    rng = Random(seed)
    numbers = iter(range(requests))
    visits = []
    while visit := _visit(rng, numbers):
        visits.append(visit)
    return visits


def _visit(rng: Random, numbers: Iterator[int]) -> Visit | None:
    [manner] = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
    count = rng.randint(2, 5) if manner in ("session", "pipelined", "pipelining_leaver") else 1
    errands = []
    for _, number in zip(range(count), numbers, strict=False):
        errands.append(Errand(f"chaos-{number:06d}", _fate(rng, manner)))
    if not errands:
        return None
    message = rng.choice(list(REFUSED)) if manner == "malformed" else ""
    return Visit(manner, tuple(errands), rng.getrandbits(32), message)


def _fate(rng: Random, manner: str) -> Fate:
    if manner == "stalled":
        return Fate("exact", (FOR_STALLED,), streamed=rng.random() < 0.7, name="megabytes")
    if manner == "slow_reader":
        return Fate("exact", (FOR_SLOW,), name="a megabyte")
    if manner in ("leaver", "pipelining_leaver"):
        return _left(rng)
    if manner not in STAYING:
        return replace(whole(rng), name=manner)
    fate = draw(rng)
    while manner in ("session", "pipelined", "one_zero") and fate.ending is Ending.CUT and not fate.streamed:
        # Its broken end takes the connection with it; to HTTP/1.0 without chunks it cannot even be told.
        fate = draw(rng)
    return fate


def _left(rng: Random) -> Fate:
    """An answer that is still under way when its client leaves."""
    fate = replace(whole(rng), streamed=True)
    script = fate.scripts[0]
    slow = replace(script, event_s=rng.choice((0.002, 0.005)), tokens=max(script.tokens, 4 * script.tokens_per_event))
    return replace(fate, scripts=(slow,), name="left")
