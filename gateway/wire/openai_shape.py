r"""The hot path of a stream: telling a content event without parsing it, and being certain.

A backend's content events differ in one JSON string. From one parsed event the exact bytes before and after that string
are learned and proved by substitution: with another string in its place the event must parse to the same chunk, that
string apart. From then on an event with the same first and last bytes, whose middle is the inside of a well-formed JSON
string, can only be the same chunk with another text: the grammar leaves no other reading. A quote or a backslash that
could end the string elsewhere is not in the alphabet of the middle; escapes and UTF-8 are matched exactly.

A running usage is a second place that changes. It is allowed where it is a top-level member after the text; its value
is then cut out and parsed alone, which proves it as well.
"""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

from gateway.wire.openai_answer import REASONING
from gateway.wire.splice import DEPTH_MAX, JsonOutOfBounds, top_level_members
from gateway.wire.sse import data_of, data_span

# The inside of a JSON string of at least one character, as orjson takes it: UTF-8 without surrogates or overlong forms,
# and escapes other than those of surrogates. (DEL is left out: no model writes it, and it may be refused some day.)
string_inside = re.compile(
    rb"(?:[ !#-\[\]-~]++"
    rb"|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
    rb'|\\["\\/bfnrt]|\\u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))++'
).fullmatch

# The part of it that is one byte a character: any two of these in a row are one of these.
plain_text = re.compile(rb"[ !#-\[\]-~]++").fullmatch

# Its alphabet, for who strips a short text of it.
PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')

_PLACEHOLDER = b"~a~text~of~tokenport~"
_OCCURRENCES_MAX = 8
_BRACKETS_MAX = DEPTH_MAX // 2  # in a running usage; one with more is left to the parse, which knows how deep it is
Path = tuple[str | int, ...]
_PLACES: tuple[Path, ...] = (
    ("delta", "content"),
    *(("delta", key) for key in REASONING),
    ("text",),
    ("delta", "tool_calls", 0, "function", "arguments"),
)


def index_of(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def filled(value: Any) -> bool:
    """Whether a member of a delta carries something."""
    return isinstance(value, str | list | dict) and bool(value)


def shows_reasoning(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(filled(delta.get(key)) for key in REASONING)


class Shape:
    """What stays the same around the text of a stream's content events."""

    __slots__ = ("forward", "head", "index", "middle", "plain", "prefix", "reasoning", "suffix", "tail")

    def __init__(
        self,
        prefix: bytes,
        suffix: bytes,
        *,
        middle: bytes | None,
        forward: tuple[bytes, bytes] | None,
        index: int,
        reasoning: bool,
    ) -> None:
        self.prefix = prefix
        self.suffix = suffix
        self.head = len(prefix)
        self.tail = len(suffix)
        self.middle = middle  # between the text and the running usage; None where there is none
        self.forward = forward  # what goes around the text when usage is cut out; None: forward as it came
        self.index = index
        self.reasoning = reasoning
        self.plain = middle is None and forward is None and not reasoning  # forwarded as it came, counted once

    @property
    def joint(self) -> bytes:
        """Between the texts of two events in a row. Put together when asked for: most streams never need it."""
        return self.suffix + self.prefix

    def running(self, event: bytes) -> tuple[int, dict[str, Any]] | None:
        """Where the text ends, and the running usage, of an event that has this shape's first and last bytes."""
        assert self.middle is not None
        end = event.find(self.middle, self.head)
        if end < 0 or not string_inside(event, self.head, end):
            return None
        value = event[end + len(self.middle) : len(event) - self.tail]
        if b"\n" in value or b"\r" in value or value.count(b"{") + value.count(b"[") > _BRACKETS_MAX:
            return None
        try:
            usage = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
        return (end, usage) if isinstance(usage, dict) else None


def learn(event: bytes, chunk: dict[str, Any], cut: Callable[[bytes], bytes] | None) -> Shape | None:
    """The shape of a content event without a finish_reason, given as bytes and parsed. `cut` takes its usage out."""
    for place in _PLACES:
        text = _at(chunk, place)
        if isinstance(text, str) and text:
            for start, end in _occurrences(event, text):
                prefix, suffix = event[:start], _shared(event[end:])
                if _proved(prefix + _PLACEHOLDER + suffix, chunk, place, text):
                    return _shape(prefix, suffix, chunk, cut)
    return None


@lru_cache(maxsize=64)
def _shared(suffix: bytes) -> bytes:
    """These bytes: the same object for all streams of a backend, whose last bytes are alike."""
    return suffix


def _at(chunk: dict[str, Any], place: Path) -> Any:
    value: Any = chunk["choices"][0]
    try:
        for step in place:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return None
    return value


def _occurrences(event: bytes, text: str) -> list[tuple[int, int]]:
    """Where this text stands in quotes, in either of the ways in which encoders write it."""
    found: list[tuple[int, int]] = []
    for quoted in dict.fromkeys((orjson.dumps(text), json.dumps(text).encode())):
        at = event.find(quoted)
        while at >= 0 and len(found) < _OCCURRENCES_MAX:
            found.append((at + 1, at + len(quoted) - 1))
            at = event.find(quoted, at + 1)
    return found


def _proved(changed: bytes, chunk: dict[str, Any], place: Path, text: str) -> bool:
    if changed.count(_PLACEHOLDER) != 1:
        return False
    try:
        other = orjson.loads(data_of(changed) or b"")
        if _at(other, place) != _PLACEHOLDER.decode():
            return False
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return False
    *above, last = place
    _at(other, tuple(above))[last] = text
    return bool(other == chunk)


def _shape(prefix: bytes, suffix: bytes, chunk: dict[str, Any], cut: Callable[[bytes], bytes] | None) -> Shape | None:
    changed = prefix + _PLACEHOLDER + suffix
    forward = None
    if cut is not None:
        before, found, after = cut(changed).partition(_PLACEHOLDER)
        if not found:
            return None
        forward = before, after
    middle = None
    if chunk.get("usage") is not None:
        span = _usage_span(changed)
        if span is None or span[0] < len(prefix):
            return None
        middle, suffix = changed[len(prefix) + len(_PLACEHOLDER) : span[0]], changed[span[1] :]
    choice = chunk["choices"][0]
    return Shape(
        prefix,
        suffix,
        middle=middle,
        forward=forward,
        index=index_of(choice),
        reasoning=shows_reasoning(choice),
    )


def _usage_span(event: bytes) -> tuple[int, int] | None:
    """Where the value of the one usage member lies in an event of one line."""
    span = data_span(event)
    if span is None:
        return None
    try:
        members = [member for member in top_level_members(event[span[0] : span[1]]) if member.key == "usage"]
    except JsonOutOfBounds:
        return None
    if len(members) != 1:
        return None
    return span[0] + members[0].value_start, span[0] + members[0].value_end
