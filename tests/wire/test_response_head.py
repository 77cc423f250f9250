import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.errors import BadResponse
from gateway.wire.http1 import ResponseHead, parse_response_head

OK = b"HTTP/1.1 200 OK\r\n"


def parse(*lines: bytes, status_line: bytes = OK) -> tuple[ResponseHead, int | None]:
    return parse_response_head(status_line + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def with_fields(*lines: bytes, status_line: bytes = OK) -> ResponseHead:
    return parse(*lines, status_line=status_line)[0]


def test_a_streaming_servers_head_is_read_whole() -> None:
    head, length = parse(
        b"date: Mon, 02 Jan 2026 00:00:00 GMT",
        b"server: uvicorn",
        b"Content-Type: text/event-stream; charset=utf-8 ",
        b"Transfer-Encoding: chunked",
        b"Keep-Alive: timeout=5, max=100",
    )
    assert (head.status, head.reason) == (200, "OK")
    assert head.get(b"content-type") == b"text/event-stream; charset=utf-8"
    assert (length, head.chunked, head.close_delimited) == (None, True, False)
    assert (head.keep_alive, head.keep_alive_timeout_s) == (True, 5)
    assert not head.is_informational


@pytest.mark.parametrize(
    ("value", "timeout_s"), [(b"timeout=5", 5), (b"max=5;timeout=7", 7), (b"max=3", None), (b"timeout=x", None)]
)
def test_the_idle_time_a_server_announces_is_kept(value: bytes, timeout_s: int | None) -> None:
    assert with_fields(b"Keep-Alive: " + value, b"Content-Length: 0").keep_alive_timeout_s == timeout_s


def test_a_body_without_length_ends_with_the_connection() -> None:
    head = with_fields(b"Content-Type: text/event-stream")
    assert head.close_delimited
    assert not head.keep_alive


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n", [], True),
        (b"HTTP/1.1 200 OK\r\n", [b"Connection: Close"], False),
        (b"HTTP/1.0 200 OK\r\n", [], False),
        (b"HTTP/1.0 200 OK\r\n", [b"Connection: keep-alive"], True),
        (b"HTTP/1.1 200 OK\r\n", [b"Connection: Upgrade", b"Upgrade: h2,h2c"], True),
    ],
)
def test_persistence_follows_version_and_connection_options(line: bytes, fields: list[bytes], keep_alive: bool) -> None:
    head, length = parse(*fields, b"Content-Length: 3", status_line=line)
    assert (head.keep_alive, length) == (keep_alive, 3)


@pytest.mark.parametrize("line", [b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n", b"HTTP/1.1 200 Gr\xfc\xdfe\r\n"])
def test_a_reason_may_be_missing_or_odd(line: bytes) -> None:
    assert with_fields(b"Content-Length: 0", status_line=line).status == 200


@pytest.mark.parametrize("code", [100, 102, 103])
def test_an_interim_head_is_told_from_the_final_one(code: int) -> None:
    head, length = parse_response_head(b"HTTP/1.1 %d Wait\r\n\r\n" % code)
    assert head.is_informational
    assert length == 0


@pytest.mark.parametrize(
    ("code", "fields", "keep_alive"),
    [
        (204, [], True),
        (304, [], True),
        (304, [b"Content-Length: 9"], True),
        (204, [b"Content-Length: 9"], False),
        (204, [b"Transfer-Encoding: chunked"], False),
    ],
)
def test_a_status_without_a_body_has_none_whatever_is_announced(
    code: int, fields: list[bytes], keep_alive: bool
) -> None:
    head, length = parse(*fields, status_line=b"HTTP/1.1 %d X\r\n" % code)
    assert (length, head.chunked, head.close_delimited) == (0, False, False)
    assert head.keep_alive is keep_alive


BAD = {
    "both lengths": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "odd length": OK + b"Content-Length: +5\r\n\r\n",
    "list of lengths": OK + b"Content-Length: 5, 5\r\n\r\n",
    "other coding": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "coding before chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "two codings": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "protocol switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "other protocol": b"RTSP/1.0 200 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "status beyond 599": b"HTTP/1.1 999 OK\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "bare LF": OK + b"A: b\nC: d\r\n\r\n",
    "only bare LF": b"HTTP/1.1 200 OK\nA: b\n\n",
    "folded field": OK + b"A: b\r\n c\r\n\r\n",
    "space before the colon": OK + b"A : b\r\n\r\n",
    "control character": OK + b"A: \x00\r\n\r\n",
    "no head at all": b"\x15\x03\x01\x00\x02\x02\x16",
    "unfinished": OK + b"A: b\r\n",
    "empty": b"",
    "too large": OK + b"A: " + b"a" * 32768 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_a_head_that_cannot_be_trusted_is_the_backends_fault(name: str) -> None:
    with pytest.raises(BadResponse):
        parse_response_head(BAD[name])


def test_the_bound_of_a_head_is_an_argument() -> None:
    raw = OK + b"Content-Length: 0\r\n\r\n"
    assert parse_response_head(raw, len(raw))[0].status == 200
    with pytest.raises(BadResponse):
        parse_response_head(raw, len(raw) - 1)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_in_another_way(garbage: bytes) -> None:
    for raw in (garbage, OK + garbage + b"\r\n\r\n", OK + garbage):
        try:
            head, _ = parse_response_head(raw)
        except BadResponse:
            continue
        assert head.status == 200 or raw is garbage
