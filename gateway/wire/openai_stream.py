"""The OpenAI dialect, stream side: a tap that passes a backend's events on and keeps count of what they carry.

Forwarded are whole events, as they came, but for usage that the client did not ask for: events that carry nothing else
are withheld, and a usage member inside another event is cut out. Withheld are also errors (the relay ends the stream in
its own words), what does not parse, all that follows an end, and a `[DONE]` before every choice has finished: an answer
that is not whole never looks whole.

A content event carries text, reasoning, a refusal, a call or audio, or a finish_reason. `content_events` counts those
that carry more than a bare finish_reason: the events that tokens stand behind.

`running_tokens` is what the backend said at the last of these events; None where that event said nothing that can be.
"""

import math
import sys
from collections.abc import Iterable
from typing import Any

import orjson

from gateway.wire.openai import ShownUsage
from gateway.wire.openai_answer import REASONING, error_facts, upstream_error
from gateway.wire.openai_shape import Shape, filled, index_of, learn, plain_text, shows_reasoning, string_inside
from gateway.wire.openai_usage import Usages
from gateway.wire.splice import JsonOutOfBounds, replace_members, too_deep
from gateway.wire.sse import EVENT_BYTES_MAX, EventSplitter, data_of, field_values, name_of, with_data

# What to forward in one write, and where the stream stands after it: content events, and the running output tokens if
# reported. Of several events of one shape that came in one read: how many bytes each has; None for a single event.
Passed = tuple[bytes, int, int | None, list[int] | None]

_CARRIERS = ("content", *REASONING, "refusal", "tool_calls", "function_call", "audio")
_SHAPES_MAX = 4  # a few choices at once, or content beside reasoning
_PAUSE_MAX = 64  # events between attempts to learn where shapes never fit

_EVENT_END = b"\n\n"
_NONE_FINISHED: dict[int, str] = {}  # of all streams under way; never changed


class StreamTap:
    """One answer's stream. Feed it reads; forward what it passes; read the tally at any time."""

    __slots__ = (
        "_attempts",
        "_bad_events_max",
        "_choices",
        "_event_bytes_max",
        "_learned_at",
        "_missed",
        "_newest",
        "_pause",
        "_shapes",
        "_show",
        "_splitter",
        "_usages",
        "bad_events",
        "content_events",
        "done",
        "ended",
        "error",
        "finish_reasons",
        "model",
        "reasoning_events",
        "running_tokens",
        "started",
    )

    def __init__(
        self,
        *,
        choices: int = 1,
        show: ShownUsage = "none",
        event_bytes_max: int = EVENT_BYTES_MAX,
        bad_events_max: float = math.inf,
    ) -> None:
        self.content_events = 0
        self.reasoning_events = 0
        self.started = False  # a content event was seen, be it a bare finish_reason
        self.finish_reasons = _NONE_FINISHED
        self.done = False  # [DONE] was seen
        self.error: dict[str, Any] | None = (
            None  # of an error event, in the backend's words: message, type, code, param
        )
        self.bad_events = 0
        self.model = ""
        self.running_tokens: int | None = None
        self._choices = choices
        self._show = show
        self._splitter = EventSplitter(event_bytes_max)
        self._bad_events_max = bad_events_max
        self.ended = False  # [DONE] or an error event was seen: nothing after it is passed
        self._event_bytes_max = event_bytes_max
        self._shapes: tuple[Shape, ...] = ()  # the last learned first
        self._newest: Shape | None = None  # while the stream goes on
        self._learned_at = 0  # content events when a shape was last learned
        self._attempts = 0  # in a row whose shapes were never hit
        self._missed = 0
        self._pause = 1
        self._usages = Usages(choices)

    @property
    def whole(self) -> bool:
        """Every choice asked for has finished."""
        return len(self.finish_reasons) >= self._choices

    @property
    def usage(self) -> dict[str, Any] | None:
        """The last one, running or final."""
        return self._usages.last

    @property
    def usage_events(self) -> int:
        """Events that carry usage alone."""
        return self._usages.finals

    @property
    def usage_flags(self) -> tuple[str, ...]:
        """What is wrong with the usages of this stream, beyond what each says by itself."""
        return self._usages.flags(self.content_events)

    @property
    def tail(self) -> bytes:
        """An unfinished event: never forwarded."""
        return self._splitter.tail

    def usual(self, event_bytes: int) -> Shape | None:
        """The shape that the next event most likely has, if nothing of it is here yet and its text tells all about it:
        it has no running usage, and up to so many bytes it is not too large."""
        shape = self._newest
        if shape is None or shape.middle is not None or self._splitter.carry or event_bytes > self._event_bytes_max:
            return None
        return shape

    def counted(self, events: int, shape: Shape) -> None:
        """Take in events of this shape that were told and forwarded past this tap."""
        self.content_events += events
        if shape.reasoning:
            self.reasoning_events += events

    def feed(self, data: bytes) -> list[Passed]:
        """What may be forwarded of the events that end in this read."""
        newest = self._newest
        if newest is not None and not self._splitter.carry and len(data) <= self._event_bytes_max:
            # One read, one event of the shape last learned: it needs no splitter to know that it is whole.
            if newest.plain:
                # Spelt out, for most tokens come this way.
                if (
                    data.startswith(newest.prefix)
                    and data.endswith(newest.suffix)
                    and string_inside(data, newest.head, len(data) - newest.tail)
                ):
                    self.content_events += 1
                    return [(data, self.content_events, self.running_tokens, None)]
            else:
                shown = self._fitted(newest, data)
                if shown is not None:
                    return [(shown, self.content_events, self.running_tokens, None)]
            if newest.joint in data:
                return self._feed_many(newest, data)
        elif newest is not None and newest.joint in data:
            return self._feed_many(newest, data)
        return self._take(self._splitter.feed(data))

    def _feed_many(self, shape: Shape, data: bytes) -> list[Passed]:
        """A read of many events: what was begun before, then a row of one shape, then what is unfinished."""
        splitter = self._splitter
        passed: list[Passed] = []
        if splitter.carry:
            begun = data.find(_EVENT_END) + len(_EVENT_END)
            passed = self._take(splitter.feed(data[:begun]))
            data = data[begun:]
            if splitter.carry or self.ended or self._newest is not shape:
                return passed + self._take(splitter.feed(data))
        end = data.rfind(_EVENT_END) + len(_EVENT_END)
        row = self._row(shape, data[:end])
        if row is None:
            return passed + self._take(splitter.feed(data))
        passed.append(row)
        if end < len(data):
            passed += self._take(splitter.feed(data[end:]))
        return passed

    def _row(self, shape: Shape, data: bytes) -> Passed | None:
        """Whole events that all have this shape, told by the texts between them. None: they have not.

        The texts are of an alphabet that neither ends a string nor begins an escape, so the bytes can only be these
        events: the first bytes, a text, the last bytes, over and over.
        """
        if shape.middle is not None or not (data.startswith(shape.prefix) and data.endswith(shape.suffix)):
            return None
        texts = data[shape.head : len(data) - shape.tail].split(shape.joint)
        if not plain_text(b"".join(texts)) or b"" in texts:
            return None
        sizes = list(map(len, texts))
        if max(sizes) + shape.head + shape.tail > self._event_bytes_max:
            return None
        self.content_events += len(texts)
        if shape.reasoning:
            self.reasoning_events += len(texts)
        around = shape.head + shape.tail
        if shape.forward is not None:
            before, after = shape.forward
            data = before + (after + before).join(texts) + after
            around = len(before) + len(after)
        return data, self.content_events, self.running_tokens, [size + around for size in sizes]

    def finish(self) -> list[Passed]:
        """The backend's body has ended."""
        return self._take(self._splitter.finish())

    def _take(self, events: Iterable[bytes]) -> list[Passed]:
        passed: list[Passed] = []
        for event in events:
            if self.ended:
                break
            shown = None
            for shape in self._shapes:
                shown = self._fitted(shape, event)
                if shown is not None:
                    break
            else:
                shown = self._read(event)
            if shown is not None:
                passed.append((shown, self.content_events, self.running_tokens, None))
        return passed

    def _fitted(self, shape: Shape, event: bytes) -> bytes | None:
        """Count an event that has this shape and give what of it is forwarded. None: it has not, nothing is counted."""
        if not (event.startswith(shape.prefix) and event.endswith(shape.suffix)):
            return None
        end = len(event) - shape.tail
        if shape.middle is not None:
            running = shape.running(event)
            if running is None:
                return None
            end, usage = running
            self._take_usage(usage, shape.index, carries=True)
        elif not string_inside(event, shape.head, end):
            return None
        elif self.running_tokens is not None:
            self._outrun()
        self.content_events += 1
        if shape.reasoning:
            self.reasoning_events += 1
        if shape.forward is None:
            return event
        before, after = shape.forward
        return before + event[shape.head : end] + after

    def _read(self, event: bytes) -> bytes | None:
        """Parse one event, count it, and say what of it is forwarded."""
        payload = data_of(event)
        if not payload:
            return self._read_without_data(event)
        if payload.startswith(b"[DONE]"):
            self.done = True
            self._end()
            return event if self.whole else None
        chunk = _parse(payload)
        if chunk is None:
            self._drop()
            return None
        choices = chunk.get("choices") or []
        if chunk.get("error") or chunk.get("object") == "error" or (not choices and name_of(event) == b"error"):
            self.error = error_facts(chunk)
            self._end()
            return None
        if not self.model and isinstance(chunk.get("model"), str):
            self.model = sys.intern(chunk["model"])  # the same for thousands of streams
        return self._read_chunk(event, chunk, choices)

    def _read_without_data(self, event: bytes) -> bytes | None:
        """A comment or a blank line; or, from old builds of llama.cpp, an error in a field of that name."""
        errors = field_values(event, b"error")
        if not errors:
            return event
        self.error = upstream_error(errors[0])
        self._end()
        return None

    def _drop(self) -> None:
        """Count an event that cannot be read. One too many ends the stream, whatever the same read still holds."""
        self.bad_events += 1
        if self.bad_events > self._bad_events_max:
            self._end()

    def _end(self) -> None:
        """Nothing that follows is looked at."""
        self.ended = True
        self._newest = None

    def _read_chunk(self, event: bytes, chunk: dict[str, Any], choices: list[dict[str, Any]]) -> bytes | None:
        carries = any(_carries(choice) for choice in choices)
        finished = [choice for choice in choices if _reason(choice)]
        usage = chunk.get("usage")
        running = bool(choices) and usage is not None and not finished
        cuts = "usage" in chunk and (self._show == "none" or (self._show == "final" and running))
        shown: bytes | None = event
        if not choices and isinstance(usage, dict):
            shown = None if self._show == "none" else event
        elif cuts:
            try:
                shown = _without_usage(event)
            except JsonOutOfBounds:
                self._drop()
                return None
        if isinstance(usage, dict):
            self._take_usage(usage, index_of(choices[0]) if choices else None, carries=carries)
        elif carries:
            self._outrun()
        if carries:
            self.content_events += 1
            self.reasoning_events += any(shows_reasoning(choice) for choice in choices)
        for choice in finished:
            if 0 <= index_of(choice) < self._choices:
                self.finish_reasons = {index_of(choice): _reason(choice), **self.finish_reasons}
        self.started = self.started or carries or bool(finished)
        if carries and not finished and len(choices) == 1:
            self._learn(event, chunk, cuts=cuts)
        return shown

    def _take_usage(self, usage: dict[str, Any], index: int | None, *, carries: bool) -> None:
        """Note a usage: of one choice's event, or of none, which is final."""
        self.running_tokens = self._usages.take(usage, index, self.content_events, carries=carries)
        if self._newest is not None and self._newest.middle is None:
            # What is like the events before has no usage: it must not be passed on with this one's.
            self._newest = None

    def _outrun(self) -> None:
        """A content event without a count."""
        if self.running_tokens is not None:
            self.running_tokens = None
            self._usages.outrun()

    def _learn(self, event: bytes, chunk: dict[str, Any], *, cuts: bool) -> None:
        """Learn this event's shape; where shapes keep missing, try less and less often."""
        self._missed += 1
        if self._missed < self._pause:
            return
        hit = self.content_events - self._learned_at > self._missed
        self._attempts = 1 if hit else self._attempts + 1
        self._pause = min(2 ** max(self._attempts - _SHAPES_MAX, 0), _PAUSE_MAX)
        self._missed, self._learned_at = 0, self.content_events
        shape = learn(event, chunk, _without_usage if cuts else None)
        if shape is not None:
            self._shapes = (shape, *self._shapes[: _SHAPES_MAX - 1])
            self._newest = shape


def _parse(payload: bytes) -> dict[str, Any] | None:
    """The chunk, whose choices are a list of objects if it has any. None: this is no chunk."""
    try:
        chunk = None if too_deep(payload) else orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    choices = (chunk.get("choices") or []) if isinstance(chunk, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return None
    return chunk


def _reason(choice: dict[str, Any]) -> str:
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) else ""


def _carries(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if isinstance(delta, dict) and any(filled(delta.get(key)) for key in _CARRIERS):
        return True
    return filled(choice.get("text"))


def _without_usage(event: bytes) -> bytes:
    """The event without its usage member, every other byte of its payload untouched."""
    payload = data_of(event)
    assert payload is not None
    return with_data(event, replace_members(payload, {}, remove=("usage",)))
