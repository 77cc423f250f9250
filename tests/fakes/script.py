"""What a scripted backend does with one request: plain data, so that it can travel inside the request itself.

A `Script` becomes a list of `Step`s: write these bytes (they hold so many content events and tokens), wait, hold until
released, shut the connection, reset it. What was written is therefore known exactly, whatever happens in between.
Content is numbered words ("t0 t1 t2 "): a token is a word, so a client can count the tokens it received.
"""

import enum
import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

Json = Any
DRIP_S = 0.002  # long enough for what was written to be read by itself
ASKED = "as asked"  # a usage claim that is true


class Do(enum.Enum):
    """What a step does."""

    WRITE = "write"
    WAIT = "wait"
    HOLD = "hold"  # until the test releases the site
    FIN = "fin"
    RESET = "reset"  # once what was written has arrived


class Step(NamedTuple):
    """One thing to do. `events` and `tokens` say how much content the written bytes complete."""

    do: Do
    data: bytes = b""
    events: int = 0
    tokens: int = 0
    seconds: float = 0.0
    usage: Json = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a backend needs to know of a request to answer it."""

    shape: str  # chat | completions
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    choices: int = 1


@dataclass(frozen=True, slots=True)
class Script:
    """An answer, whole and plain unless told otherwise."""

    # What is said.
    tokens: int = 8
    tokens_per_event: int = 1
    reasoning_tokens: int = 0  # the first of the tokens, as reasoning events
    prompt_tokens: int = 12
    cached_tokens: int | None = None
    finish: str | None = "stop"
    done: bool = True
    role_events: int = 1
    after_done: str = ""  # bytes that follow [DONE]
    word_bytes_min: int = 0  # pads every word: large events
    comments: bool = False  # a ": ping" before every content event

    # What is claimed. With "none" nothing is reported, whatever was asked.
    usage: str = "as asked"  # as asked | none | always | continuous
    usage_claim: Json = ASKED  # stands for completion_tokens
    usage_whole: Json = ASKED  # stands for the whole usage member
    usage_times: int = 1
    usage_second: Json = ASKED  # completion_tokens of the last of several
    usage_second_input: Json = ASKED  # and its prompt_tokens
    usage_total: Json = ASKED  # stands for total_tokens
    usage_reasoning: Json = ASKED  # stands for reasoning_tokens
    usage_after: int | None = None  # content events before the final usage; None: it comes behind all of them
    running: tuple[Json, ...] = ()  # completion_tokens of each content event in turn; None: that event has no usage
    usage_null: bool = False  # "usage": null in every other event

    # When.
    head_s: float = 0.0
    first_s: float = 0.0
    event_s: float = 0.0
    hold_before_head: bool = False
    hold_after: int | None = None  # content events

    # How it goes wrong, after so many content events.
    cut_after: int | None = None
    cut: str = "fin"  # fin | rst | clean (whole framing, nothing that ends the answer)
    cut_inside: str = ""  # "" | event | chunk: half of the next event goes out, in whole or in half framing
    error_after: int | None = None
    malformed_after: int | None = None
    malformed: int = 1
    malformed_data: str = '{"id":"x","choices":[{"index":0,"delta":{"content":'
    end: str = ""  # fin | rst: how a whole answer's connection ends, in place of its framing
    drop_reused: bool = False  # a connection that served before is shut without a byte: a stale keep-alive

    # Form.
    status: int = 200
    body: str | None = None  # instead of the answer
    body_cut: int | None = None  # an answer with a length, cut after so many bytes of its body
    body_hold: int | None = None  # an answer with a length, held after so many bytes of its body
    excess: str = ""  # bytes that follow an answer with a length
    drip_bytes: int = 0  # 0: an event in one write; else in pieces of this size, some time apart
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    newline: str = "\n"
    framing: str = "chunked"  # chunked | close, of a stream
    chunk_bytes: int = 0  # 0: a chunk per event; else chunks of this size, blind to events
    close: bool = False
    raw: str | None = None  # exactly these bytes (Latin-1), then FIN; or, with cut "rst", a reset

    def to_json(self) -> str:
        """For the `user` field of a request."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Script":
        return cls(**json.loads(text))

    def changes(self) -> dict[str, Any]:
        """What is not as by default."""
        plain = asdict(Script())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    def word(self, number: int) -> str:
        return f"t{number}".ljust(self.word_bytes_min, "x") + " "

    def answer(self, first: int = 0, count: int | None = None) -> str:
        """The words of the answer, or some of them."""
        last = self.tokens if count is None else min(self.tokens, first + count)
        return "".join(map(self.word, range(first, last)))

    def usage_member(self, output_tokens: int) -> Json:
        """The usage the backend reports when it has made so many tokens."""
        if self.usage_whole != ASKED:
            return self.usage_whole
        claim = output_tokens if self.usage_claim == ASKED else self.usage_claim
        usage: dict[str, Json] = {"prompt_tokens": self.prompt_tokens, "completion_tokens": claim}
        usage["total_tokens"] = self.prompt_tokens + (claim if isinstance(claim, int) else 0)
        if self.usage_total != ASKED:
            usage["total_tokens"] = self.usage_total
        if self.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        reasoning = self.reasoning_tokens or None if self.usage_reasoning == ASKED else self.usage_reasoning
        if reasoning is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        return usage

    def steps(self, question: Question) -> Iterator[Step]:
        """Everything to do, in order."""
        if self.hold_before_head:
            yield Step(Do.HOLD)
        if self.head_s:
            yield Step(Do.WAIT, seconds=self.head_s)
        if self.raw is not None:
            yield Step(Do.WRITE, self.raw.encode("latin-1"))
            yield Step(Do.RESET if self.cut == "rst" else Do.FIN)
        elif self.status != 200 or self.body is not None or not question.stream:
            yield from _Answer(self, question).whole()
        else:
            yield from _Answer(self, question).stream()


class _Answer:
    """The bytes of one answer."""

    def __init__(self, script: Script, question: Question) -> None:
        self._script = script
        self._question = question
        self._usage_wanted = script.usage in ("always", "continuous") or (
            script.usage == ASKED and question.include_usage
        )
        self._running = script.usage == "continuous" and question.continuous_usage

    def whole(self) -> Iterator[Step]:
        """An answer in one piece, with its length."""
        script = self._script
        usage, tokens = None, 0
        if script.body is not None:
            body = script.body.encode()
        elif script.status != 200:
            error = {"message": f"scripted {script.status}", "type": "scripted", "code": "scripted", "param": None}
            body = json.dumps({"error": error}).encode()
        else:
            usage, tokens = script.usage_member(script.tokens * self._question.choices), script.tokens
            body = self._completion(usage)
            tokens *= self._question.choices
        fields = {"content-type": script.content_type or "application/json", "content-length": str(len(body))}
        head = _head(script.status, {**fields, **script.headers}, close=script.close)
        if script.body_cut is not None:
            yield Step(Do.WRITE, head + body[: script.body_cut])
            yield Step(Do.RESET if script.cut == "rst" else Do.FIN)
            return
        if script.body_hold is not None:
            yield Step(Do.WRITE, head + body[: script.body_hold])
            yield Step(Do.HOLD)
            head, body = b"", body[script.body_hold :]
        yield Step(Do.WRITE, head + body + script.excess.encode(), tokens=tokens, usage=usage)
        if script.close:
            yield Step(Do.FIN)

    def stream(self) -> Iterator[Step]:
        """An event stream."""
        script = self._script
        fields = {"content-type": script.content_type or "text/event-stream", "cache-control": "no-cache"}
        if script.framing == "chunked":
            fields["transfer-encoding"] = "chunked"
        yield Step(Do.WRITE, _head(200, {**fields, **script.headers}, close=script.close or script.framing == "close"))
        for _ in range(script.role_events):
            for choice in range(self._question.choices):
                yield self._write(self._chunk(choice, {"role": "assistant", "content": ""}, 0))
        if script.first_s:
            yield Step(Do.WAIT, seconds=script.first_s)
        if (yield from self._content()):
            yield from self._ending()

    def _content(self) -> Generator[Step, None, bool]:
        """The content events. The generator's value is whether the answer goes on to its end."""
        script = self._script
        plan = self._events()
        for number in range(len(plan) + 1):
            if script.malformed_after == number:
                for _ in range(script.malformed):
                    yield self._write(self._event(script.malformed_data))
            if script.hold_after == number:
                yield Step(Do.HOLD)
            if script.error_after == number:
                error = {"error": {"message": "scripted failure", "type": "server_error", "code": "scripted"}}
                yield self._write(self._event(json.dumps(error)))
                yield from self._framing_end()
                return False
            if script.cut_after == number:
                yield from self._cut(plan[number][0] if number < len(plan) else self._finish(0))
                return False
            if script.usage_after == number:
                yield from self._usage()
            if number < len(plan):
                if script.comments:
                    yield self._write(f": ping{script.newline * 2}".encode())
                data, tokens, made = plan[number]
                usage = script.usage_member(made) if self._running else None
                yield from self._dripping(self._write(data, 1, tokens, usage))
                if script.event_s:
                    yield Step(Do.WAIT, seconds=script.event_s)
        return True

    def _dripping(self, step: Step) -> Iterator[Step]:
        """A write in its pieces. All of it counts with the first one: the log never says less than was received."""
        size = self._script.drip_bytes
        if not size:
            yield step
            return
        yield step._replace(data=step.data[:size])
        for at in range(size, len(step.data), size):
            yield Step(Do.WAIT, seconds=DRIP_S)
            yield Step(Do.WRITE, step.data[at : at + size])

    def _ending(self) -> Iterator[Step]:
        script = self._script
        if script.finish is not None:
            for choice in range(self._question.choices):
                yield self._write(self._finish(choice))
        if script.usage_after is None:
            yield from self._usage()
        if script.done:
            yield self._write(self._event("[DONE]"))
        if script.after_done:
            yield self._write(script.after_done.encode())
        yield from self._framing_end()

    def _usage(self) -> Iterator[Step]:
        """The final usage, as often as it is told."""
        script = self._script
        if not self._usage_wanted or script.usage == "none":
            return
        usage = script.usage_member(script.tokens * self._question.choices)
        for number in range(script.usage_times):
            if number and script.usage_second != ASKED:
                usage = {**usage, "completion_tokens": script.usage_second}
            if number and script.usage_second_input != ASKED:
                usage = {**usage, "prompt_tokens": script.usage_second_input}
            yield self._write(self._event(json.dumps({**self._base(), "choices": [], "usage": usage})), usage=usage)

    def _framing_end(self) -> Iterator[Step]:
        if self._script.end:
            yield Step(Do.RESET if self._script.end == "rst" else Do.FIN)
            return
        if self._script.framing == "chunked":
            yield Step(Do.WRITE, b"0\r\n\r\n")
        if self._script.framing == "close" or self._script.close:
            yield Step(Do.FIN)

    def _cut(self, following: bytes) -> Iterator[Step]:
        script = self._script
        half = following[: len(following) // 2]
        if script.cut_inside == "event":
            yield self._write(half)
        elif script.cut_inside == "chunk":
            yield Step(Do.WRITE, b"%x\r\n%b" % (len(following), half))
        if script.cut == "clean":
            yield from self._framing_end()
        else:
            yield Step(Do.RESET if script.cut == "rst" else Do.FIN)

    def _events(self) -> list[tuple[bytes, int, int]]:
        """Each content event: its bytes, its tokens, and the tokens made up to it."""
        script = self._script
        found: list[tuple[bytes, int, int]] = []
        made = 0
        for first in range(0, script.tokens, script.tokens_per_event):
            size = min(script.tokens_per_event, script.tokens - first)
            member = "reasoning_content" if first < script.reasoning_tokens else "content"
            for choice in range(self._question.choices):
                made += size
                delta = {member: script.answer(first, size)}
                found.append((self._chunk(choice, delta, self._told(len(found), made)), size, made))
        return found

    def _told(self, number: int, made: int) -> Json:
        """What content event `number` says of how much was made."""
        running = self._script.running
        return running[number] if number < len(running) else made

    def _finish(self, choice: int) -> bytes:
        return self._chunk(choice, {}, self._script.tokens * self._question.choices, self._script.finish)

    def _chunk(self, choice: int, delta: dict[str, str], made: Json, finish: str | None = None) -> bytes:
        body = self._base()
        if self._question.shape == "chat":
            body["choices"] = [{"index": choice, "delta": delta, "finish_reason": finish}]
        else:
            body["choices"] = [{"index": choice, "text": delta.get("content", ""), "finish_reason": finish}]
        if self._running and made is not None:
            body["usage"] = self._script.usage_member(made)
        elif self._script.usage_null:
            body["usage"] = None
        return self._event(json.dumps(body))

    def _completion(self, usage: Json) -> bytes:
        text, body = self._script.answer(), self._base()
        choices: list[Json] = []
        for index in range(self._question.choices):
            choice: dict[str, Json] = {"index": index, "finish_reason": self._script.finish}
            if self._question.shape == "chat":
                choice["message"] = {"role": "assistant", "content": text}
            else:
                choice["text"] = text
            choices.append(choice)
        body["choices"] = choices
        if self._script.usage != "none":
            body["usage"] = usage
        return json.dumps(body).encode()

    def _base(self) -> dict[str, Json]:
        kinds = {"chat": "chat.completion", "completions": "text_completion"}
        kind = kinds[self._question.shape]
        if self._question.stream and self._question.shape == "chat":
            kind += ".chunk"
        return {"id": "scripted-1", "object": kind, "created": 1_700_000_000, "model": self._question.model}

    def _event(self, data: str) -> bytes:
        return f"data: {data}{self._script.newline * 2}".encode()

    def _write(self, data: bytes, events: int = 0, tokens: int = 0, usage: Json = None) -> Step:
        return Step(Do.WRITE, self._framed(data), events, tokens, usage=usage)

    def _framed(self, data: bytes) -> bytes:
        if self._script.framing != "chunked":
            return data
        size = self._script.chunk_bytes or len(data)
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def _head(status: int, fields: Mapping[str, str], *, close: bool) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields.items())]
    if close:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
