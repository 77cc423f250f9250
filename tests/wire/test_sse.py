import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.errors import EventTooLarge
from gateway.wire.sse import EventSplitter, data_of, data_span, name_of, with_data
from tests.wire.splits import byte_by_byte, in_two, reads


def split(parts: list[bytes], event_bytes_max: int = 1000) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter(event_bytes_max)
    return [event for part in parts for event in splitter.feed(part)], splitter.tail


def naive_split(data: bytes) -> tuple[list[bytes], bytes]:
    """Byte by byte, as the standard reads: a line ends, and if nothing was on it, so does the event."""
    events, start, at, line_start = [], 0, 0, 0
    while at < len(data):
        if data[at : at + 1] not in (b"\r", b"\n"):
            at += 1
            continue
        if data[at:] == b"\r":
            break
        after = at + (2 if data[at : at + 2] == b"\r\n" else 1)
        if at == line_start:
            events.append(data[start:after])
            start = after
        at = line_start = after
    return events, data[start:]


MIXED = (
    b"data: a\n\n: ping\r\n\r\nevent: x\rdata: b\rdata: c\r\rid: 1\r\ndata\n\r\n\n\r\ndata:d\n\r\rdata: tail\r\ndata:"
)
WHOLE = [
    b"data: a\n\n",
    b": ping\r\n\r\n",
    b"event: x\rdata: b\rdata: c\r\r",
    b"id: 1\r\ndata\n\r\n",
    b"\n",
    b"\r\n",
    b"data:d\n\r",
    b"\r",
]


def test_events_end_at_blank_lines_of_any_kind_however_they_were_split() -> None:
    expected = (WHOLE, b"data: tail\r\ndata:")
    assert split([MIXED]) == split(byte_by_byte(MIXED)) == expected
    for parts in in_two(MIXED):
        assert split(parts) == expected


def test_a_read_of_one_whole_event_is_handed_on_as_it_is() -> None:
    event = b'data: {"choices":[]}\n\n'
    splitter = EventSplitter()
    assert splitter.feed(event)[0] is event
    assert splitter.tail == b""


def test_an_event_in_crs_before_one_in_lfs_is_its_own() -> None:
    assert EventSplitter().feed(b"data: a\r\rdata: b\n\n") == [b"data: a\r\r", b"data: b\n\n"]


def test_a_last_cr_waits_for_its_lf() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\r\n\r") == []
    assert splitter.tail == b"data: a\r\n\r"
    assert splitter.feed(b"\ndata: b\r\r") == [b"data: a\r\n\r\n"]
    assert splitter.finish() == [b"data: b\r\r"]
    assert splitter.tail == b""


def test_half_an_event_stays_half_at_the_end() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n") == []
    assert splitter.finish() == []
    assert splitter.tail == b"data: a\n"


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\rx", b""])
def test_an_event_beyond_the_bound_is_refused(end: bytes) -> None:
    for parts in ([b"data: 12345678" + end], byte_by_byte(b"data: 12345678" + end)):
        with pytest.raises(EventTooLarge):
            split(parts, event_bytes_max=13)


def test_an_event_at_the_bound_passes() -> None:
    assert EventSplitter(event_bytes_max=10).feed(b"data: ab\n\ndata: cd\n\n") == [b"data: ab\n\n", b"data: cd\n\n"]


PIECES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"\n\n", b"data: x", b":", b"\x00\xff"]), max_size=14)


@given(PIECES.map(b"".join), st.data())
def test_any_split_gives_what_a_reader_of_single_bytes_gives(stream: bytes, data: st.DataObject) -> None:
    events, tail = split(data.draw(reads(stream)))
    assert (events, tail) == naive_split(stream)
    assert b"".join(events) + tail == stream


@pytest.mark.parametrize(
    ("event", "payload", "span"),
    [
        (b"data: a b\n\n", b"a b", (6, 9)),
        (b"data:a\r\n\r\n", b"a", (5, 6)),
        (b"data:  a\r\r", b" a", (6, 8)),
        (b"data: a\n\r\n", b"a", (6, 7)),
        (b"data: a\r\n\n", b"a", (6, 7)),
        (b"data:\n\n", b"", (5, 5)),
        (b"data: a\ndata:b\r\ndata\n\n", b"a\nb\n", None),
        (b"event: x\ndata: a\n\n", b"a", None),
        (b"data: a\n: c\n\n", b"a", None),
        (b"\xef\xbb\xbfdata: a\n\n", b"a", None),
        (b"data\n\n", b"", None),
        (b": data: a\n\n", None, None),
        (b"database: a\n\n", None, None),
        (b"Data: a\n\n", None, None),
        (b" data: a\n\n", None, None),
        (b"id: 1\n\n", None, None),
        (b"\n", None, None),
    ],
)
def test_the_payload_is_the_data_lines_joined(
    event: bytes, payload: bytes | None, span: tuple[int, int] | None
) -> None:
    assert data_of(event) == payload
    assert data_span(event) == span


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (b"data: a\n\n", b"message"),
        (b"event: error\ndata: a\n\n", b"error"),
        (b"data: a\nevent:error\r\n\r\n", b"error"),
        (b"event: a\nevent: b\n\n", b"b"),
        (b"event\ndata: a\n\n", b"message"),
    ],
)
def test_an_event_has_a_name(event: bytes, name: bytes) -> None:
    assert name_of(event) == name


@pytest.mark.parametrize(
    ("event", "changed"),
    [
        (b"data:  x\r\n\r\n", b"data: {}\r\n\r\n"),
        (b"data:x\n\n", b"data:{}\n\n"),
        (b"\xef\xbb\xbfid: 7\r\ndata: x\r\ndata: y\r\n: c\r\n\r\n", b"id: 7\n: c\ndata: {}\n\n"),
    ],
)
def test_another_payload_leaves_the_rest_of_the_event(event: bytes, changed: bytes) -> None:
    assert with_data(event, b"{}") == changed


def test_a_payload_of_two_lines_becomes_two_data_lines() -> None:
    assert data_of(with_data(b"data: x\ndata: y\n\n", b"{\n}")) == b"{\n}"
