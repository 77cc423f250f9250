import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.http1 import HeadLimits, parse_request_head, parse_response_head
from gateway.wire.http1_encode import (
    CONTINUE,
    encode_request_head,
    encode_response_head,
    request_start,
    sendable,
)


def test_a_request_head_comes_back_as_it_was_meant() -> None:
    fields: list[tuple[str | bytes, str | bytes]] = [("authorization", "Bearer sk-1"), (b"x-request-id", b"r-1")]
    raw = encode_request_head("POST", "/v1/chat/completions", "gz-1.example:9001", fields, content_length=17)
    head, length = parse_request_head(raw, HeadLimits())
    assert (head.method, head.path, head.host, length) == (
        "POST",
        "/v1/chat/completions",
        "gz-1.example:9001",
        17,
    )
    assert head.get(b"authorization") == b"Bearer sk-1"
    assert head.get(b"x-request-id") == b"r-1"


def test_a_response_head_comes_back_as_it_was_meant() -> None:
    raw = encode_response_head(200, [("content-type", "text/event-stream")], chunked=True)
    head, _ = parse_response_head(raw)
    assert (head.status, head.reason, head.chunked, head.keep_alive) == (200, "OK", True, True)
    closing, length = parse_response_head(encode_response_head(503, [], content_length=2, close=True))
    assert (closing.status, length, closing.keep_alive) == (503, 2, False)


def test_a_status_without_a_known_reason_can_be_sent() -> None:
    assert encode_response_head(529, [], content_length=0).startswith(b"HTTP/1.1 529 \r\n")


@pytest.mark.parametrize("status", [99, 101, 600])
def test_only_final_statuses_are_encoded(status: int) -> None:
    with pytest.raises(ValueError):
        encode_response_head(status, [])


def test_the_interim_response_is_one() -> None:
    assert parse_response_head(CONTINUE)[0].is_informational


@pytest.mark.parametrize("character", [*map(chr, range(0x20)), "\x7f", "é", "\u2028"])
def test_a_control_character_in_a_value_is_never_sent(character: str) -> None:
    if character == "\t":
        assert b"a: b\tc\r\n" in encode_response_head(200, [("a", "b\tc")])
        return
    with pytest.raises(ValueError):
        encode_response_head(200, [("x-request-id", f"a{character}b")])
    with pytest.raises(ValueError):
        encode_request_head("POST", "/", "host", [("x-request-id", f"a{character}b")])


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "é"])
def test_a_name_that_is_no_token_is_never_sent(name: str) -> None:
    with pytest.raises(ValueError):
        encode_response_head(200, [(name, "x")])


@pytest.mark.parametrize(
    ("method", "target", "host"),
    [
        ("PO ST", "/", "a"),
        ("POST", "/ HTTP/1.1\r\nx: y", "a"),
        ("POST", "/a b", "a"),
        ("POST", "http://other/", "a"),
        ("POST", "", "a"),
        ("POST", "/", ""),
        ("POST", "/", "a\r\nx: y"),
    ],
)
def test_a_request_line_cannot_be_broken_out_of(method: str, target: str, host: str) -> None:
    with pytest.raises(ValueError):
        encode_request_head(method, target, host, [])


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
def test_framing_is_the_encoders_own(name: str) -> None:
    with pytest.raises(ValueError):
        encode_response_head(200, [(name, "5")])
    with pytest.raises(ValueError):
        encode_response_head(200, [], content_length=5, chunked=True)


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=20), max_size=5))
def test_whatever_is_encoded_parses_to_the_same_fields(fields: dict[str, str]) -> None:
    try:
        raw = encode_response_head(200, fields.items(), content_length=0)
    except ValueError:
        return
    expected = [(name.lower().encode(), value.strip(" \t").encode()) for name, value in fields.items()]
    assert parse_response_head(raw)[0].headers == expected


@pytest.mark.parametrize("character", [*map(chr, range(0x20)), "\x7f", "é", "\u2028"])
def test_no_late_value_ends_its_line(character: str) -> None:
    with pytest.raises(ValueError):
        sendable(f"a{character}b")


def test_more_lines_may_follow_the_start_of_a_request() -> None:
    start = request_start("POST", "/v1", "a", [("accept", "b")])
    assert start + b"content-length: 5\r\n\r\n" == encode_request_head(
        "POST", "/v1", "a", [("accept", "b")], content_length=5
    )
