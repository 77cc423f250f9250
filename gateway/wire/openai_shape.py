r"""The hot path of a stream: telling a content event without parsing it, and being certain.

A backend's content events differ in one JSON string. From one parsed event the exact bytes before and after that string
are learned and proved by substitution: with another string in its place the event must parse to the same chunk, that
string apart. From then on an event with the same first and last bytes, whose middle is the inside of a well-formed JSON
string, can only be the same chunk with another text: the grammar leaves no other reading. A quote or a backslash that
could end the string elsewhere is not in the alphabet of the middle; escapes and UTF-8 are matched exactly.

A running usage is a second place that changes. It is allowed where it is a top-level member after the text; its value
is then cut out and parsed alone, which proves it as well.
"""

import re
from collections.abc import Callable
from typing import Any

import orjson

from gateway.wire.openai_answer import REASONING
from gateway.wire.splice import JsonMalformed, JsonTooDeep, top_level_members
from gateway.wire.sse import data_of, data_span

# The inside of a JSON string of at least one character, as orjson takes it: UTF-8 without surrogates or overlong forms,
# and escapes other than those of surrogates. (DEL is left out: no model writes it, and it may be refused some day.)
string_inside = re.compile(
    rb"(?:[ !#-\[\]-~]++"
    rb"|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
    rb'|\\["\\/bfnrt]|\\u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))++'
).fullmatch

_PLACEHOLDER = b"~a~text~of~tokenport~"
_OCCURRENCES_MAX = 8
Path = tuple[str | int, ...]
_PLACES: tuple[Path, ...] = (
    ("delta", "content"),
    *(("delta", key) for key in REASONING),
    ("text",),
    ("delta", "tool_calls", 0, "function", "arguments"),
)


class Shape:
    """What stays the same around the text of a stream's content events."""

    __slots__ = ("forward", "head", "index", "middle", "prefix", "reasoning", "suffix", "tail")

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

    def running(self, event: bytes) -> tuple[int, dict[str, Any]] | None:
        """Where the text ends, and the running usage, of an event that has this shape's first and last bytes."""
        assert self.middle is not None
        end = event.find(self.middle, self.head)
        if end < 0 or not string_inside(event, self.head, end):
            return None
        value = event[end + len(self.middle) : len(event) - self.tail]
        if b"\n" in value or b"\r" in value:
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
                prefix, suffix = event[:start], event[end:]
                if _proved(prefix + _PLACEHOLDER + suffix, chunk, place, text):
                    return _shape(prefix, suffix, chunk, cut, place)
    return None


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
    for quoted in dict.fromkeys((orjson.dumps(text), _ascii(text))):
        at = event.find(quoted)
        while at >= 0 and len(found) < _OCCURRENCES_MAX:
            found.append((at + 1, at + len(quoted) - 1))
            at = event.find(quoted, at + 1)
    return found


def _ascii(text: str) -> bytes:
    escaped = orjson.dumps(text).decode()
    return "".join(each if each < "\x7f" else _escape(each) for each in escaped).encode()


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


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


def _shape(
    prefix: bytes, suffix: bytes, chunk: dict[str, Any], cut: Callable[[bytes], bytes] | None, place: Path
) -> Shape | None:
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
    index = chunk["choices"][0].get("index")
    reasons = [_at(chunk, ("delta", key)) for key in REASONING]
    return Shape(
        prefix,
        suffix,
        middle=middle,
        forward=forward,
        index=index if isinstance(index, int) else 0,
        reasoning=any(isinstance(text, str | list | dict) and text for text in reasons),
    )


def _usage_span(event: bytes) -> tuple[int, int] | None:
    """Where the value of the one usage member lies in an event of one line."""
    span = data_span(event)
    if span is None:
        return None
    try:
        members = [member for member in top_level_members(event[span[0] : span[1]]) if member.key == "usage"]
    except (JsonMalformed, JsonTooDeep):
        return None
    if len(members) != 1:
        return None
    return span[0] + members[0].value_start, span[0] + members[0].value_end
