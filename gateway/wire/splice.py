"""Change members of a JSON object in its raw bytes, and leave every other byte as it came.

A request is forwarded as the client wrote it: re-serialising would change numbers, escapes and order, and cost more. So
the top-level members are found by position and only the values that must change are cut out. The scan runs in the
regular expression engine: one match skips one whole value, nested ones to the depth allowed, and builds nothing.

Inside a string a quote is escaped when one backslash stands before it. Where more than one does (`\\\\"`) nothing
matches, and the bytes are scanned again in a copy in which every escape pair is masked by as many other bytes, so that
positions still hold. Of a large body the inside of long strings is cut out first, found by their quotes alone: a prompt
is most of its request, and looking for the next quote is much faster than any pattern.

The input is taken to be valid JSON (the caller parses it as well, and refuses what does not parse). On anything else
the scan still ends, with one of its own errors or with some positions.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import orjson

DEPTH_MAX = 64
MEMBERS_MAX = 1000  # at the top level; each costs a step here, and megabytes of them would hold everybody up

# Bodies from this size on are scanned without the inside of strings of this length. One quote in so many bytes may be
# looked at for that: in a text with more, the pattern is faster.
LARGE_BYTES = 16_384
_LONG_STRING_BYTES = 1024
_BYTES_PER_QUOTE_MIN = 256
_BACKSLASH = 0x5C

_STRING = rb'"[^"]*+(?:(?<=[^\\]\\)"[^"]*+)*+(?<!\\)"'
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
# All members at once, and a last match without groups for the rest where one is none: it takes whatever there is, so no
# byte is ever passed over.
_every_member = re.compile(
    rb'"([^"\\]*+)("' + _SPACE + rb":" + _SPACE + rb")(" + _VALUE + rb")(" + _SPACE + rb"[,}]" + _SPACE + rb")|(?s:.)++"
).findall
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
    """A copy of the same length whose strings hold no quotes and no backslashes but for escapes of other characters."""
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


def places(raw: bytes, keys: frozenset[bytes], count: int) -> tuple[dict[bytes, tuple[int, int]], int] | None:
    """Where the values of these keys are, and where the last value ends, if `raw` is an object of `count` members whose
    keys have no escapes. None: it is not, or it has to be looked at more closely."""
    if len(raw) >= LARGE_BYTES or count > MEMBERS_MAX:
        return None
    at = 1
    if raw[:2] != b'{"':
        opening = _open(raw)
        if opening is None:
            return None
        at = opening.end()
    found = _every_member(raw, at)
    if len(found) != count or not found or not found[-1][-1]:
        return None
    spans: dict[bytes, tuple[int, int]] = {}
    end = at
    for key, colon, value, closing in found:
        at += 1 + len(key) + len(colon)
        end = at + len(value)
        if key in keys:
            spans[key] = (at, end)
        at = end + len(closing)
    return spans, end


def _shortened(raw: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The text without the inside of long strings; and where, in what is left, how many bytes were cut out."""
    pieces: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    opening, kept_from, kept = -1, 0, 0
    at = raw.find(b'"')
    for _ in range(len(raw) // _BYTES_PER_QUOTE_MIN):
        if at < 0:
            break
        if opening < 0:
            opening = at
        elif raw[at - 1] != _BACKSLASH:
            if at - opening > _LONG_STRING_BYTES:
                pieces.append(raw[kept_from : opening + 1])
                kept += opening + 1 - kept_from
                cuts.append((kept, at - opening - 1))
                kept_from = at
            opening = -1
        elif raw[at - 2] == _BACKSLASH:
            break  # to be masked
        at = raw.find(b'"', at + 1)
    pieces.append(raw[kept_from:])
    return b"".join(pieces), cuts


def _name(raw: bytes) -> str:
    try:
        key = orjson.loads(raw)
    except orjson.JSONDecodeError as malformed:
        raise JsonMalformed("malformed key") from malformed
    return str(key)


def top_level_members(raw: bytes) -> list[Member]:
    """The members of a JSON object in order, duplicates included."""
    text, cuts = (raw, []) if len(raw) < LARGE_BYTES else _shortened(raw)
    found, stuck = _scan(text)
    if stuck >= 0:
        text, cuts = _masked(raw), []
        found, stuck = _scan(text)
    if stuck >= 0:
        raise _why_not(text, stuck)
    if cuts:
        found = [tuple([at + sum(size for where, size in cuts if where <= at) for at in spots]) for spots in found]
    return [
        Member(_name(raw[start:key_end]), start, value_start, value_end, end)
        for start, key_end, value_start, value_end, end in found
    ]


def _scan(text: bytes) -> tuple[list[tuple[int, ...]], int]:
    """Where each member begins, its key ends, its value begins and ends, and it ends; and where the scan got stuck, or
    -1."""
    found: list[tuple[int, ...]] = []
    opening = _open(text)
    if opening is None:
        return found, 0
    at, closing = opening.end(), b","
    if text[at : at + 1] == b"}":
        at, closing = at + 1, b"}"
    while closing == b",":
        match = _member(text, at)
        if match is None:
            return found, at
        found.append((match.start(1), match.end(1), match.start(2), match.end(2), match.start(3)))
        at, closing = match.end(), match.group(3)
        if len(found) > MEMBERS_MAX:
            raise JsonOutOfBounds(f"more than {MEMBERS_MAX} members")
    return found, at if text[at:].strip(b" \t\n\r") else -1


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
