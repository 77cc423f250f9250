"""Change members of a JSON object in its raw bytes, and leave every other byte as it came.

A request is forwarded as the client wrote it: re-serialising would change numbers, escapes and order, and cost more. So
the top-level members are found by position and only the values that must change are cut out. The scan runs in the
regular expression engine: one match skips one whole value, nested ones to the depth allowed, and builds nothing.

Inside a string a quote counts as escaped when a backslash stands before it. That is wrong only where a backslash is
itself escaped just before a quote (`\\\\"`); bytes that contain this are scanned in a copy in which every escape pair
is masked by as many other bytes, so that positions still hold.

The input is taken to be valid JSON (the caller parses it as well, and refuses what does not parse). On anything else
the scan still ends, with one of its own errors or with some positions.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import orjson

DEPTH_MAX = 64
MEMBERS_MAX = 1000  # at the top level; each costs a step here, and megabytes of them would hold everybody up

_STRING = rb'"[^"]*+(?:(?<=\\)"[^"]*+)*+"'
_SCALAR = rb'[^"\[\]{},:\s]++'
_SPACE = rb"[ \t\n\r]*+"


def _nested(levels: int) -> bytes:
    inner = rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+"
    for _ in range(levels - 1):
        inner = rb'(?:[^"\[\]{}]++|' + _STRING + rb"|[\[{]" + inner + rb"[\]}])*+"
    return rb"[\[{]" + inner + rb"[\]}]"


_VALUE = _STRING + rb"|" + _SCALAR + rb"|" + _nested(DEPTH_MAX - 1)
_open = re.compile(_SPACE + rb"\{" + _SPACE).match
_member = re.compile(
    rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE + rb"(" + _VALUE + rb")" + _SPACE + rb"([,}])" + _SPACE
).match
_key = re.compile(_STRING + _SPACE + rb":" + _SPACE + rb"[\[{]").match
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class JsonMalformed(ValueError):
    """Not a JSON object."""


class JsonOutOfBounds(ValueError):
    """Nested deeper than DEPTH_MAX, or with more than MEMBERS_MAX members."""


class Member(NamedTuple):
    key: str
    start: int  # of the key's opening quote
    value_start: int
    value_end: int
    end: int  # of the comma or closing brace that follows


def _masked(raw: bytes) -> bytes:
    """A copy of the same length whose strings hold no backslash before a quote unless that quote is escaped."""
    if b'\\\\"' not in raw:
        return raw
    return raw.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def depth(raw: bytes) -> int:
    """How deep a JSON text nests, up to DEPTH_MAX + 1: each pass takes the innermost pairs away."""
    text = raw.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    brackets = b"".join(text.split(b'"')[::2]).translate(_TO_SQUARE, _NO_BRACKETS)
    for levels in range(DEPTH_MAX + 1):
        outer = brackets.replace(b"[]", b"")
        if len(outer) == len(brackets):
            return levels
        brackets = outer
    return DEPTH_MAX + 1


def too_deep(raw: bytes) -> bool:
    """Whether a JSON text nests deeper than DEPTH_MAX; most hold too few brackets for it."""
    return raw.count(b"[") + raw.count(b"{") > DEPTH_MAX and depth(raw) > DEPTH_MAX


def _name(raw: bytes) -> str:
    try:
        key = orjson.loads(raw)
    except orjson.JSONDecodeError as malformed:
        raise JsonMalformed("malformed key") from malformed
    return str(key)


def top_level_members(raw: bytes) -> list[Member]:
    """The members of a JSON object in order, duplicates included."""
    text = _masked(raw)
    opening = _open(text)
    if opening is None:
        raise JsonMalformed("not an object")
    members: list[Member] = []
    at, closing = opening.end(), b","
    if text[at : at + 1] == b"}":
        at, closing = at + 1, b"}"
    while closing == b",":
        match = _member(text, at)
        if match is None:
            raise _why_not(text, at)
        start, value_start, end = match.start(1), match.start(2), match.start(3)
        members.append(Member(_name(raw[start : match.end(1)]), start, value_start, match.end(2), end))
        at, closing = match.end(), match.group(3)
        if len(members) > MEMBERS_MAX:
            raise JsonOutOfBounds(f"more than {MEMBERS_MAX} members")
    if raw[at:].strip(b" \t\n\r"):
        raise JsonMalformed("something follows the object")
    return members


def _why_not(text: bytes, at: int) -> ValueError:
    if _key(text, at) is not None and depth(text) > DEPTH_MAX:
        return JsonOutOfBounds(f"nesting deeper than {DEPTH_MAX}")
    return JsonMalformed("not an object")


def replace_members(
    raw: bytes,
    values: Mapping[str, bytes],
    *,
    remove: Collection[str] = (),
    members: Iterable[Member] | None = None,
) -> bytes:
    """Give members new raw values, or take members away; a key that was absent is added at the end.

    Duplicates are treated alike. `members` saves the scan where `top_level_members(raw)` is at hand.
    """
    found = top_level_members(raw) if members is None else list(members)
    kept = [member for member in found if member.key not in remove]
    pieces: list[bytes] = []
    at = 0
    for index, member in enumerate(found):
        if member.key in remove:
            if kept and member.start < kept[-1].start:
                pieces.append(raw[at : member.start])
                at = found[index + 1].start
        elif member.key in values:
            pieces += (raw[at : member.value_start], values[member.key])
            at = member.value_end
    present = {member.key for member in kept}
    added = [orjson.dumps(key) + b":" + value for key, value in values.items() if key not in present]
    tail_start, tail_end = _tail(raw, found, kept)
    pieces.append(raw[at:tail_start])
    if added:
        pieces.append((b"," if kept else b"") + b",".join(added))
    pieces.append(raw[tail_end:])
    return b"".join(pieces)


def _tail(raw: bytes, found: list[Member], kept: list[Member]) -> tuple[int, int]:
    """Where the last kept member ends, and where what follows all members begins."""
    if not found:
        inside = raw.index(b"{") + 1
        return inside, inside
    start = kept[-1].value_end if kept else found[0].start
    return start, found[-1].value_end
