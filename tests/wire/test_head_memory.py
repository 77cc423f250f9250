from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.errors import FramingError
from gateway.wire.http1 import (
    HeadLimits,
    RequestHead,
    ResponseHead,
    check_growing_head,
    head_end,
    parse_request_head,
    parse_response_head,
)
from gateway.wire.http1_memory import (
    REQUEST_BYTES_MAX,
    REQUEST_HEADS_MAX,
    HeadMemory,
    request_heads,
    response_heads,
)

LIMITS = HeadLimits()
LINE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: port.example\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
Read = tuple[Any, int | None, int] | None


def request(length: bytes, *, more: bytes = b"", name: bytes = b"content-length: ") -> bytes:
    return LINE + b"Authorization: Bearer sk-1\r\n" + name + length + b"\r\n" + more + b"\r\n"


def said(head: RequestHead | ResponseHead) -> Any:
    if isinstance(head, ResponseHead):
        return tuple(head)
    return [getattr(head, name) for name in RequestHead.__slots__ if not name.startswith("_")]


def by_memory(memory: HeadMemory[Any], data: bytes) -> Any:
    """What is read, or how it is refused."""
    return _told(lambda: memory.read(data))


def at_length(data: bytes, *, response: bool = False) -> Any:
    """The same without a memory."""

    def read() -> Read:
        end = head_end(data)
        if end < 0:
            if not response:
                check_growing_head(data, LIMITS)
            return None
        head, length = parse_response_head(data[:end]) if response else parse_request_head(data[:end], LIMITS)
        return head, length, end

    return _told(read)


def _told(read: Callable[[], Read]) -> Any:
    try:
        found = read()
    except FramingError as refused:
        return type(refused), getattr(refused, "status", None), refused.reason
    return found if found is None else (said(found[0]), *found[1:])


@pytest.mark.parametrize("name", [b"content-length: ", b"Content-Length: "])
def test_a_head_that_comes_again_is_the_same_object_with_its_own_length(name: bytes) -> None:
    memory = request_heads(LIMITS)
    first = memory.read(request(b"5", name=name) + b"12345")
    again = memory.read(request(b"987654321012345", name=name) + b"rest")
    assert first is not None and again is not None
    assert again[0] is first[0]
    assert (first[1], again[1]) == (5, 987654321012345)
    assert again[2] == len(request(b"987654321012345"))


def test_a_head_without_a_body_comes_again_too() -> None:
    memory = request_heads(LIMITS)
    for raw in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", LINE + b"Transfer-Encoding: chunked\r\n\r\n"):
        first, again = memory.read(raw), memory.read(raw)
        assert first is not None and again is not None
        assert (again[0] is first[0], again[1]) == (True, None)


# What may stand behind the name of the field after a head was taken whose length was spelled well.
LENGTHS = [
    *(b"5", b"0", b"00", b"007", b"123456789012345", b"1234567890123456", b"5 ", b" 5", b"5\t", b"+5", b"-5", b"5,5"),
    *(b"", b" ", b"0x5", b"1_0", b"5 5", b"\xb2", b"5\x00", b"5\rX: y", b"5\nX: y", b"5\n", b"5\r\n content-length: 6"),
    *(b"5\r\ncontent-length: 5", b"5\r\nContent-Length: 6", b"5\r\nCONTENT-LENGTH:6", b"5\r\ncontent-length: "),
    *(b"5\r\nTransfer-Encoding: chunked", b"\r\ncontent-length: 5", b"5\r\n\r\ncontent-length: 6"),
    *(b"5\r\nx: content-length: 6", b"\r\nContent-Length: 6", b"5\r\ncontent-length: x\r\nContent-Length: 6"),
]
NAMES = [b"content-length: ", b"Content-Length: ", b"Content-Length:", b"content-length:  ", b"CONTENT-LENGTH: "]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", LENGTHS)
def test_no_spelling_of_a_length_passes_by_memory_alone(name: bytes, length: bytes) -> None:
    memory = request_heads(LIMITS)
    for known in NAMES:
        memory.read(request(b"9", name=known))
    raw = request(length, name=name) + b"rest"
    for _ in range(2):
        assert by_memory(memory, raw) == at_length(raw)


ODD_LENGTH = st.one_of(
    st.sampled_from(LENGTHS),
    st.integers(0, 10**16).map(lambda number: b"%d" % number),
    st.text("0159 \t+-,\r\nx:", max_size=6).map(str.encode),
)
FIELD_LINE = st.one_of(
    st.tuples(st.sampled_from(NAMES), ODD_LENGTH).map(b"".join),
    st.sampled_from(
        [
            *(b"transfer-encoding: chunked", b"x: y", b"connection: close", b"Upgrade: h2c", b"connection: upgrade"),
            *(b"expect: 100-continue", b"host: b", b"x:content-length: 5", b"x: y\n", b"keep-alive: timeout=5"),
        ]
    ),
)
FIELDS = st.lists(FIELD_LINE, max_size=4).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
REQUEST_LINE = st.sampled_from([LINE, LINE, b"\r\n" + LINE, b"\r\n\r\n" + LINE, b"GET / HTTP/1.0\r\n", b"\r\n", b""])
STATUS_LINE = st.sampled_from([OK, OK, *(b"HTTP/1.1 %d X\r\n" % code for code in (100, 101, 204, 304, 404)), b""])
END = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b""])
REST = st.sampled_from([b"", b"{}", b"\r\n\r\n", b"\r\ncontent-length: 7\r\n\r\n"])


@given(st.lists(st.tuples(REQUEST_LINE, FIELDS, END, REST).map(b"".join), min_size=1, max_size=8))
def test_with_and_without_memory_any_requests_are_read_alike(stream: list[bytes]) -> None:
    memory = request_heads(LIMITS)
    for data in [*stream, *stream]:
        assert by_memory(memory, data) == at_length(data)


@given(st.lists(st.tuples(STATUS_LINE, FIELDS, END, REST).map(b"".join), min_size=1, max_size=8))
def test_with_and_without_memory_any_responses_are_read_alike(stream: list[bytes]) -> None:
    memory = response_heads(32_768)
    for data in [*stream, *stream]:
        assert by_memory(memory, data) == at_length(data, response=True)


DIGIT = st.text("0123456789", min_size=1, max_size=17).map(str.encode)


@given(FIELDS, FIELDS, DIGIT, st.lists(DIGIT, max_size=4), st.booleans())
def test_a_head_is_read_alike_with_any_digits(
    before: bytes, after: bytes, first: bytes, later: list[bytes], response: bool
) -> None:
    memory: HeadMemory[Any] = response_heads(32_768) if response else request_heads(LIMITS)
    for digits in (first, *later, first):
        for start in (OK, b"HTTP/1.1 204 X\r\n") if response else (LINE,):
            data = start + before + b"content-length: " + digits + b"\r\n" + after + b"\r\nbody"
            assert by_memory(memory, data) == at_length(data, response=response)


def test_a_status_without_a_body_is_read_anew_each_time() -> None:
    memory = response_heads(32_768)
    for digits in (b"0", b"9", b"0"):
        data = b"HTTP/1.1 204 X\r\ncontent-length: " + digits + b"\r\n\r\n"
        assert by_memory(memory, data) == at_length(data, response=True)


@pytest.mark.parametrize("raw", [request(b"5"), LINE + b"\r\n", b"\r\n\r\n" + request(b"5")])
def test_a_head_is_waited_for_until_it_ends(raw: bytes) -> None:
    memory = request_heads(LIMITS)
    memory.read(raw)
    assert all(memory.read(raw[:size]) is None for size in range(len(raw)))


def test_a_head_that_grows_too_large_is_refused_before_it_ends() -> None:
    with pytest.raises(FramingError):
        request_heads(LIMITS).read(LINE + b"X-A: " + b"a" * LIMITS.head_bytes_max)
    memory = response_heads(1024)
    assert memory.read(b"a" * 1024) is None
    with pytest.raises(FramingError):
        memory.read(b"a" * 1025)


def test_a_longer_length_does_not_take_a_head_past_its_bound() -> None:
    room = LIMITS.head_bytes_max - len(request(b"5", more=b"X: \r\n"))
    memory = request_heads(LIMITS)
    assert memory.read(request(b"5", more=b"X: " + b"a" * room + b"\r\n")) is not None
    with pytest.raises(FramingError):
        memory.read(request(b"55", more=b"X: " + b"a" * room + b"\r\n"))


def test_the_oldest_heads_are_forgotten_first() -> None:
    memory = request_heads(LIMITS)
    heads = [memory.read(request(b"5", more=b"X-Id: %d\r\n" % number)) for number in range(REQUEST_HEADS_MAX + 1)]
    kept = [memory.read(request(b"5", more=b"X-Id: %d\r\n" % number)) for number in range(REQUEST_HEADS_MAX, 0, -1)]
    assert [read[0] for read in kept if read] == [read[0] for read in heads[:0:-1] if read]
    gone = memory.read(request(b"5", more=b"X-Id: 0\r\n"))
    assert gone is not None and heads[0] is not None and gone[0] is not heads[0][0]


def test_large_heads_are_forgotten_sooner() -> None:
    size = 12_000
    fits = REQUEST_BYTES_MAX // (size + 200)
    memory = request_heads(LIMITS)

    def read(number: int) -> RequestHead:
        found = memory.read(request(b"5", more=b"X-Id: %d%b\r\n" % (number, b"a" * size)))
        assert found is not None
        return found[0]

    heads = [read(number) for number in range(fits)]
    assert [read(number) for number in range(fits)] == heads
    more = [read(number) for number in range(fits, fits + 20)]
    assert [read(number) for number in range(fits, fits + 20)] == more
    assert read(0) is not heads[0]


def test_what_a_reader_works_out_stays_with_a_head() -> None:
    memory = request_heads(LIMITS)
    first = memory.read(request(b"5"))
    assert first is not None and first[0].facts is None
    first[0].facts = "known"
    again = memory.read(request(b"6"))
    assert again is not None and again[0].facts == "known"


def test_forwarded_fields_are_lines_in_their_order() -> None:
    head, _ = parse_request_head(request(b"5", more=b"Accept: a\r\nX: y\r\nUser-Agent:  b \r\naccept: c\r\n"), LIMITS)
    names = frozenset((b"accept", b"user-agent"))
    assert head.lines_of(names) == head.lines_of(names) == b"accept: a\r\nuser-agent: b\r\naccept: c\r\n"
    assert head.lines_of(frozenset((b"x",))) == b"x: y\r\n"


def test_credentials_do_not_show_in_a_repr() -> None:
    memory = request_heads(LIMITS)
    read = memory.read(request(b"5"))
    assert "sk-1" not in repr(memory) + repr(read)
