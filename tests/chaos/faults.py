"""What backends do in the campaign, and what a patient client must get for it.

Every fault is drawn with a random generator, so that a seed says all of it. A `Fate` names the scene (a model with
backends of its own), one script per attempt and the ending.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.fakes.script import Script


class Ending(enum.Enum):
    """What a client that stays gets."""

    WHOLE = "whole"
    CUT = "cut"  # content, then an error event, or broken framing where the answer is no stream
    FAILED = "failed"  # no content, a status
    EITHER = "either"  # whole, or no backend in service


# Scenes whose backends are only slow or broken within one request, by what they report.
PLAIN_SCENES = ("exact", "running", "loose")
SAID_STATUSES = (400, 404, 413, 422)


@dataclass(frozen=True, slots=True)
class Fate:
    """One request's backends and its ending. `outcomes` are the row's; empty: the ending says it."""

    scene: str
    scripts: tuple[Script, ...]
    ending: Ending = Ending.WHOLE
    streamed: bool = True
    shape: str = "chat"
    choices: int = 1
    outcomes: tuple[str, ...] = ("completed",)
    statuses: tuple[int, ...] = (200,)
    name: str = "whole"
    include_usage: bool = False

    @property
    def content_tokens(self) -> int:
        """What the serving script says of content before it goes wrong, in one choice."""
        script = self.serving
        faults = (script.cut_after, script.error_after, script.malformed_after, script.hold_after)
        events = min((at for at in faults if at is not None), default=script.tokens)
        return min(events * script.tokens_per_event, script.tokens)

    @property
    def serving(self) -> Script:
        """The script of the attempt that ends it."""
        return self.scripts[-1]


Draw = Callable[[Random], Fate]


def _size(rng: Random, per_event: int = 1) -> int:
    events = rng.choice((1, 2, 3, 5, 9, 20))
    return max(1, events * per_event - rng.randrange(per_event))


def _answer(rng: Random, scene: str) -> Script:
    """A whole answer of this scene, in one of the forms in which backends write it."""
    per_event = rng.randint(1, 4) if scene == "loose" else 1
    tokens = _size(rng, per_event)
    return Script(
        tokens=tokens,
        tokens_per_event=per_event,
        prompt_tokens=rng.randint(1, 3000),
        usage="continuous" if scene == "running" else "as asked",
        event_s=rng.choice((0.0, 0.0, 0.001)),
        first_s=rng.choice((0.0, 0.0, 0.01)),
        role_events=rng.choice((0, 1, 1, 2)),
        comments=rng.random() < 0.1,
        chunk_bytes=rng.choice((0, 0, 0, 0, 1000, 50)),
        newline="\r\n" if rng.random() < 0.1 else "\n",
        usage_null=scene != "running" and rng.random() < 0.1,
        finish=rng.choice(("stop", "length", "tool_calls")),
        close=rng.random() < 0.05,
        drop_reused=rng.random() < 0.05,
    )


def whole(rng: Random) -> Fate:
    """A good answer: streamed or not, in both shapes, perhaps of several choices."""
    scene = rng.choice(PLAIN_SCENES)
    choices = 2 if rng.random() < 0.1 and scene == "exact" else 1
    return Fate(
        scene,
        (_answer(rng, scene),),
        streamed=rng.random() < 0.75,
        shape=rng.choice(("chat", "chat", "completions")),
        choices=choices,
        include_usage=rng.random() < 0.3,
    )


def odd(rng: Random) -> Fate:
    """A good answer whose form is odd, or whose end is missing after all that makes it whole."""
    fate = whole(rng)
    fate = replace(fate, streamed=True, name="odd")
    script = fate.scripts[0]
    half = script.tokens // 2 // script.tokens_per_event * script.tokens_per_event
    reasoning = half if fate.shape == "chat" else 0
    forms = (
        replace(script, done=False),
        replace(script, done=False, end="fin"),
        replace(script, end="fin"),
        replace(script, end="rst"),
        replace(script, framing="close", chunk_bytes=0),
        replace(script, framing="close", chunk_bytes=0, done=False),
        replace(script, drip_bytes=rng.choice((40, 90)), tokens=min(script.tokens, 4), chunk_bytes=0),
        replace(script, malformed_after=0, malformed=rng.randint(1, 3)),
        replace(script, malformed_after=1, malformed=rng.randint(1, 3), malformed_data=rng.choice(UNPARSABLE)),
        replace(script, after_done=": bye\n\n" if script.framing == "close" else ""),
        replace(script, reasoning_tokens=reasoning),
        replace(script, word_bytes_min=rng.choice((3_000, 40_000)), tokens=min(script.tokens, 4), chunk_bytes=0),
    )
    return replace(fate, scripts=(rng.choice(forms),))


UNPARSABLE = (
    '{"id":"x","choices":[{"index":0,"delta":{"content":',
    "nonsense",
    '{"choices":{"a":1}}',
    "[1]",
    '"text"',
    '{"a":' + "[" * 70 + "]" * 70 + "}",
)
CLAIMS: tuple[object, ...] = (0, -5, "many", 10**6, 10**15, None, 2.5, True)
USAGES: tuple[object, ...] = ({}, [], "x", None, 7, {"total_tokens": 3}, {"completion_tokens": {"a": 1}})


def lying(rng: Random) -> Fate:
    """A good answer with a usage that is missing or cannot be."""
    scene = rng.choice(("exact", "exact", "loose"))
    script = _answer(rng, scene)
    forms = (
        replace(script, usage="none"),
        replace(script, usage_claim=rng.choice(CLAIMS)),
        replace(script, usage_whole=rng.choice(USAGES)),
        replace(script, usage_claim=0, usage_times=2),
        replace(script, usage_times=2, usage_second=rng.choice((0, 1, script.tokens + 1, "two"))),
        replace(script, cached_tokens=rng.choice((0, 5, 10**9))),
    )
    return Fate(scene, (rng.choice(forms),), streamed=rng.random() < 0.7, name="lying usage")


def _cut_script(rng: Random, script: Script, at: int) -> tuple[Script, str]:
    """The script ending early after so many events, and the outcome after content."""
    cut = rng.choice(("fin", "rst", "clean"))
    inside = rng.choice(("", "event", "chunk" if cut != "clean" else "event"))
    script = replace(script, drop_reused=False)
    forms = (
        (replace(script, cut_after=at, cut=cut, cut_inside=inside, chunk_bytes=0), "upstream_cut"),
        (replace(script, cut_after=at, framing="close", chunk_bytes=0), "upstream_cut"),
        (replace(script, error_after=at), "upstream_error"),
        (
            replace(script, malformed_after=at, malformed=rng.randint(4, 6), malformed_data=rng.choice(UNPARSABLE)),
            "upstream_malformed",
        ),
    )
    return rng.choice(forms)


def cut(rng: Random) -> Fate:
    """Content, and then a fault."""
    scene = rng.choice(PLAIN_SCENES)
    script = _answer(rng, scene)
    if scene == "running" and rng.random() < 0.2:
        script = replace(script, usage_claim=rng.choice((0, -5, 10**6, "many")))
    events = -(-script.tokens // script.tokens_per_event)
    at = rng.randint(1, events)
    if at == events and rng.random() < 0.3:
        broken, outcome = replace(script, finish=None, done=rng.random() < 0.5, usage="none"), "upstream_cut"
    else:
        broken, outcome = _cut_script(rng, script, at)
    return Fate(scene, (broken,), Ending.CUT, outcomes=(outcome,), name=f"cut: {outcome}")


BAD_HEADS = (
    "",
    "HTTP/1.1 200 OK\r\ncontent-",
    "SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
    "HTTP/2 200\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
)


def _refusing(rng: Random) -> tuple[Script, int]:
    """A script that gives no content, and the status if nobody does better."""
    broken = rng.choice((500, 502, 418, 204, 301, 302, 307, 308))
    location = {"location": "http://127.0.0.1:1/v1"} if 300 <= broken < 400 else {}
    late = rng.choice((408, 425, 504))
    first_cut, _ = _cut_script(rng, Script(tokens=3), 0)
    forms = (
        (Script(status=broken, headers=location, body="" if broken == 204 else None), 502),
        (Script(status=late), 504),
        (Script(raw=rng.choice(BAD_HEADS), cut=rng.choice(("fin", "rst"))), 502),
        (Script(headers={"x-padding": "p" * 40_000}), 502),
        (Script(content_type="text/html", body="<h1>welcome</h1>"), 502),
        (first_cut, 502),
    )
    return rng.choice(forms)


def failing(rng: Random) -> Fate:
    """A fault before any content: once, twice, or wherever it is tried."""
    scene = rng.choice(PLAIN_SCENES)
    refusing, status = _refusing(rng)
    streamed = rng.random() < 0.7 or refusing.cut_after is not None or refusing.error_after is not None
    streamed = streamed or refusing.malformed_after is not None
    good = _answer(rng, scene)
    times = rng.choice((1, 1, 2, 3))
    if times < 3:
        return Fate(scene, (*(refusing,) * times, good), streamed=streamed, name="failed over")
    return Fate(
        scene,
        (refusing,),
        Ending.FAILED,
        streamed=streamed,
        outcomes=("upstream_refused", "deadline"),
        statuses=(status,),
        name="failed everywhere",
    )


def rejected(rng: Random) -> Fate:
    """The request is wrong everywhere: told as it is, tried once."""
    status = rng.choice(SAID_STATUSES)
    return Fate(
        rng.choice(PLAIN_SCENES),
        (Script(status=status),),
        Ending.FAILED,
        streamed=rng.random() < 0.7,
        outcomes=("upstream_refused",),
        statuses=(status,),
        name="rejected",
    )


def torn(rng: Random) -> Fate:
    """A plain answer that is not whole: never handed on, tried elsewhere."""
    good = _answer(rng, "exact")
    broken = rng.choice(
        (
            Script(body_cut=rng.choice((0, 30)), cut=rng.choice(("fin", "rst"))),
            Script(body='{"choices":[{"message":{"content":"t0 '),
            Script(body='{"choices":[]}'),
            Script(body="[" * 100_000),
            Script(headers={"content-length": "60"}),
        )
    )
    if rng.random() < 0.7:
        return Fate("exact", (broken, good), streamed=False, name="torn once")
    statuses, outcomes = (502,), ("upstream_refused",)
    return Fate("exact", (broken,), Ending.FAILED, False, outcomes=outcomes, statuses=statuses, name="torn everywhere")


def excessive(rng: Random) -> Fate:
    """A plain answer with bytes behind its length: whole, and its connection is not used again."""
    script = replace(_answer(rng, "exact"), excess="HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", close=False)
    return Fate("exact", (script,), streamed=False, name="excess")


def long(rng: Random) -> Fate:
    """A plain answer that is too large to be held; or an event that is beyond the bound."""
    large = Script(tokens=300, word_bytes_min=5000)
    kind = rng.randrange(3)
    if kind == 0:
        return Fate("exact", (large,), streamed=False, name="long")
    if kind == 1:
        script = replace(large, body_cut=rng.randint(1_100_000, 1_400_000), cut=rng.choice(("fin", "rst")))
        return Fate("exact", (script,), Ending.CUT, False, outcomes=("upstream_cut",), name="long and cut")
    script = Script(tokens=2, word_bytes_min=1_100_000)
    outcomes, statuses = ("upstream_refused",), (502,)
    return Fate("exact", (script,), Ending.FAILED, outcomes=outcomes, statuses=statuses, name="huge event")


def silent(rng: Random) -> Fate:
    """Silence for longer than the rule of its scene allows."""
    good = Script(tokens=3)
    kind = rng.randrange(4)
    if kind == 0:
        return Fate("silent", (rng.choice((Script(hold_before_head=True), Script(hold_after=0))), good), name="silent")
    if kind == 1:
        script = Script(hold_before_head=True) if rng.random() < 0.5 else Script(hold_after=0)
        outcomes, statuses = ("deadline",), (504,)
        return Fate("silent", (script,), Ending.FAILED, outcomes=outcomes, statuses=statuses, name="silent everywhere")
    if kind == 2:
        script = Script(tokens=5, hold_after=rng.randint(1, 5))
        return Fate("silent", (script,), Ending.CUT, outcomes=("upstream_stall",), name="stalled")
    script = Script(tokens=5, hold_after=None, body_hold=rng.choice((0, 20)))
    return Fate("silent", (script, good), streamed=False, name="silent body")


def saturated(rng: Random) -> Fate:
    """Full for a while, with and without a word on how long; or a key that is not taken, which bars the backend."""
    scene = rng.choice(("full", "full", "locked"))
    status = rng.choice((429, 503, 529) if scene == "full" else (401, 402, 403))
    after = rng.choice(({}, {"retry-after": "0"}, {"retry-after": "1"}, {"retry-after": "soon"}))
    refusing, good = Script(status=status, headers=after), Script(tokens=3)
    scripts = (refusing, good) if rng.random() < 0.7 else (refusing, refusing, good)
    return Fate(
        scene,
        scripts,
        Ending.EITHER,
        streamed=rng.random() < 0.7,
        outcomes=("completed", "upstream_refused"),
        statuses=(200, 502, 503),
        name=scene,
    )


def unreachable(rng: Random) -> Fate:
    """A backend that takes no connection, with and without another."""
    good = Script(tokens=3)
    if rng.random() < 0.7:
        return Fate("half_dead", (good,), streamed=rng.random() < 0.7, name="connection refused")
    outcomes, statuses = ("upstream_refused",), (502,)
    return Fate("dead", (good,), Ending.FAILED, outcomes=outcomes, statuses=statuses, name="refused everywhere")


# How often each is drawn. Those that take seconds are few.
FAULTS: tuple[tuple[float, Draw], ...] = (
    (30, whole),
    (14, odd),
    (7, lying),
    (16, cut),
    (16, failing),
    (4, rejected),
    (4, torn),
    (1.5, excessive),
    (0.7, long),
    (3.5, silent),
    (3, saturated),
    (2, unreachable),
)


def draw(rng: Random) -> Fate:
    """Any of them."""
    [chosen] = rng.choices([each for _, each in FAULTS], [weight for weight, _ in FAULTS])
    return chosen(rng)
