import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.chunked import (
    CHUNK_BYTES_MAX,
    EXTENSION_BYTES_MAX,
    LAST_CHUNK,
    TRAILER_BYTES_MAX,
    TRAILER_FIELDS_MAX,
    ChunkedDecoder,
    chunk,
)
from gateway.wire.errors import BadRequest, BadResponse, FramingError
from tests.wire.splits import byte_by_byte, in_two, reads

BODY = b"4\r\nWiki\r\n7;a=b;c\r\npedia i\r\nB\r\nn \r\nchunks.\r\n0000;last\r\nX-Sum: 1\r\nX-Two: \r\n\r\n"
PAYLOAD = b"Wikipedia in \r\nchunks."


def decode(parts: list[bytes]) -> tuple[bytes, bool, bytes]:
    decoder = ChunkedDecoder()
    payload = b"".join(piece for part in parts for piece in decoder.feed(part))
    return payload, decoder.done, decoder.remainder


def test_the_payload_is_the_same_however_the_body_was_split() -> None:
    expected = (PAYLOAD, True, b"GET / next")
    whole = BODY + b"GET / next"
    assert decode([whole]) == decode(byte_by_byte(whole)) == expected
    for parts in in_two(whole):
        assert decode(parts) == expected


def test_a_body_is_not_done_before_its_last_byte() -> None:
    for size in range(len(BODY)):
        assert not decode([BODY[:size]])[1]


def test_a_read_that_is_one_chunk_gives_its_payload() -> None:
    decoder = ChunkedDecoder()
    for size in (1, 9, 10, 15, 16, 255, 300, 2047, 2048, 70_000):
        assert decoder.feed(chunk(b"x" * size)) == [b"x" * size]
    assert decoder.feed(b"A\r\n0123456789\r\n") == [b"0123456789"]
    assert decoder.feed(LAST_CHUNK) == []
    assert decoder.done


def test_a_read_inside_a_chunk_is_not_copied() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"100000\r\n")
    data = b"y" * 65536
    assert decoder.feed(data)[0] is data


def test_payload_that_looks_like_a_chunk_is_payload() -> None:
    for parts in ([b"10\r\n", b"5\r\nhello\r\n"], [b"10\r\nx", b"5\r\nhello\r\n"], [b"10\r\nxyz", b"5\r\nhello\r\n"]):
        assert decode(parts) == (parts[0][4:] + parts[1], False, b"")


def test_an_empty_chunk_is_never_written() -> None:
    with pytest.raises(ValueError):
        chunk(b"")


LONGEST = b";" + b"e" * (EXTENSION_BYTES_MAX - 1)
BAD = {
    "no digits": b"\r\nabc\r\n",
    "sign": b"+5\r\nhello\r\n",
    "minus": b"-5\r\nhello\r\n",
    "prefix": b"0x5\r\nhello\r\n",
    "underscore": b"1_0\r\n",
    "space before": b" 5\r\nhello\r\n",
    "space after": b"5 \r\nhello\r\n",
    "tab after": b"5\t\r\nhello\r\n",
    "not hex": b"5g\r\nhello\r\n",
    "seventeen digits": b"00000000000000005\r\nhello\r\n",
    "bare LF after the size": b"5\nhello\r\n",
    "bare CR after the size": b"5\rhello\r\n",
    "bare LF after the payload": b"5\r\nhello\n5\r\nhello\r\n",
    "bare CR after the payload": b"5\r\nhello\r5\r\n",
    "payload longer than its size": b"5\r\nhello!\r\n",
    "size beyond the bound": b"%x\r\n" % (CHUNK_BYTES_MAX + 1),
    "size of sixteen digits": b"ffffffffffffffff\r\n",
    "long extension": b"5" + LONGEST + b"e\r\nhello\r\n",
    "endless extension": b"5;" + b"e" * 500,
    "open quote in an extension": b'5;a="\r\nhello\r\n',
    "LF in an extension": b"5;a\nb\r\nhello\r\n",
    "NUL in an extension": b"5;a\x00\r\nhello\r\n",
    "endless size": b"0" * 500,
    "trailer without a colon": b"0\r\nnonsense\r\n\r\n",
    "trailer with a space before the colon": b"0\r\nA : b\r\n\r\n",
    "folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "bare LF in trailers": b"0\r\nA: b\n\r\n",
    "bare LF after trailers": b"0\r\nA: b\r\n\n",
    "too many trailers": b"0\r\n" + b"A: b\r\n" * (TRAILER_FIELDS_MAX + 1) + b"\r\n",
    "trailers too large": b"0\r\n" + (b"A: " + b"b" * 4000 + b"\r\n") * 3,
    "endless trailer": b"0\r\nA: " + b"b" * TRAILER_BYTES_MAX,
}


@pytest.mark.parametrize("name", BAD)
def test_a_chunk_that_two_parsers_could_read_differently_is_refused(name: str) -> None:
    for parts in ([BAD[name]], byte_by_byte(BAD[name])):
        with pytest.raises(BadRequest) as refused:
            decode(parts)
        assert refused.value.status == 400


def test_extensions_and_trailers_to_their_bounds_are_dropped() -> None:
    trailers = b"A: b\r\n" * TRAILER_FIELDS_MAX
    body = b"5" + LONGEST + b"\r\nhello\r\n0" + LONGEST + b"\r\n" + trailers + b"\r\n"
    assert decode([body]) == decode(byte_by_byte(body)) == (b"hello", True, b"")


def test_the_same_fault_in_a_backends_body_is_the_backends() -> None:
    decoder = ChunkedDecoder(BadResponse)
    with pytest.raises(BadResponse) as refused:
        decoder.feed(b"nonsense\r\n")
    assert isinstance(refused.value, FramingError)
    assert refused.value.reason == "malformed chunk size"


def test_what_follows_a_body_is_kept_for_the_next_message() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\n\r\nGET /")
    assert decoder.feed(b" HTTP/1.1") == []
    assert decoder.remainder == b"GET / HTTP/1.1"


SIZES = st.sampled_from([b"%x", b"%X", b"00%x"])
EXTENSIONS = st.sampled_from([b"", b";", b";a", b';a="b c"'])


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), SIZES, EXTENSIONS), max_size=8), st.data())
def test_any_payload_survives_any_chunking_and_any_split(
    pieces: list[tuple[bytes, bytes, bytes]], data: st.DataObject
) -> None:
    body = b"".join(form % len(part) + extension + b"\r\n" + part + b"\r\n" for part, form, extension in pieces)
    body += LAST_CHUNK + b"rest"
    payload = b"".join(part for part, _, _ in pieces)
    assert decode(data.draw(reads(body))) == (payload, True, b"rest")


@given(st.binary(max_size=60), st.data())
def test_no_bytes_decode_differently_when_split(garbage: bytes, data: st.DataObject) -> None:
    garbage = b"3\r\nabc\r\n" + garbage
    outcomes = []
    for parts in ([garbage], data.draw(reads(garbage))):
        try:
            outcomes.append(decode(parts))
        except BadRequest as refused:
            outcomes.append((refused.reason.encode(), False, b""))
    assert outcomes[0] == outcomes[1]
