"""The chunked decoder against the grammar, with all bytes at hand."""

import re

from gateway.wire.chunked import CHUNK_BYTES_MAX, TRAILER_BYTES_MAX, TRAILER_FIELDS_MAX, ChunkedDecoder
from gateway.wire.errors import BadRequest
from tests.fuzz.inputs import case_of

TOKENS = [
    b"0\r\n\r\n",
    b"\r\n",
    b"1\r\na\r\n",
    b";a=b",
    b"ffff",
    b"0\r\nX-A: b\r\n\r\n",
    b"\n",
    b"00000000000000001\r\n",
]

_size = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t -~\x80-\xff]{0,63})?\r\n").match
_trailer = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n").match

Outcome = tuple[bytes, bytes] | None


def check(data: bytes) -> None:
    """However it is cut, a body is what the grammar says, or no body."""
    case = case_of(data)
    expected = by_grammar(case.whole)
    for reads in (case.reads, [case.whole], [case.whole[at : at + 1] for at in range(len(case.whole))]):
        assert decoded(reads) == expected, (decoded(reads), expected)


def decoded(reads: list[bytes]) -> Outcome:
    """Payload and what follows it; None if the body is broken or does not end."""
    decoder = ChunkedDecoder()
    payload = b""
    try:
        for read in reads:
            for piece in decoder.feed(read):
                assert piece, "an empty piece"
                payload += piece
    except BadRequest as refused:
        if refused.status != 400:
            raise
        return None
    return (payload, decoder.remainder) if decoder.done else None


def by_grammar(raw: bytes) -> Outcome:
    payload, at = b"", 0
    while (match := _size(raw, at)) is not None:
        size, at = int(match.group(1), 16), match.end()
        if (match.group(2) or b"").count(b'"') % 2:
            return None
        if size == 0:
            return _after_trailers(raw, at, payload)
        if size > CHUNK_BYTES_MAX or raw[at + size : at + size + 2] != b"\r\n":
            return None
        payload += raw[at : at + size]
        at += size + 2
    return None


def _after_trailers(raw: bytes, begin: int, payload: bytes) -> Outcome:
    at = begin
    for _ in range(TRAILER_FIELDS_MAX + 1):
        if raw[at : at + 2] == b"\r\n":
            return (payload, raw[at + 2 :]) if at + 2 - begin <= TRAILER_BYTES_MAX else None
        match = _trailer(raw, at)
        if match is None:
            return None
        at = match.end()
    return None
