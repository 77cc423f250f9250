import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.errors import BadRequest
from gateway.wire.http1 import HeadLimits, RequestHead, check_growing_head, head_end, parse_request_head

LIMITS = HeadLimits()
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: port.example\r\n"


def parse(raw: bytes, limits: HeadLimits = LIMITS) -> RequestHead:
    assert head_end(raw) == len(raw)
    return parse_request_head(raw, limits)[0]


def of(*lines: bytes) -> bytes:
    return LINE + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def with_fields(*lines: bytes) -> RequestHead:
    return parse(of(*lines))


def said(head: RequestHead) -> dict[str, object]:
    return {name: getattr(head, name) for name in RequestHead.__slots__ if not name.startswith("_")}


def status_of(raw: bytes, limits: HeadLimits = LIMITS) -> int:
    with pytest.raises(BadRequest) as refused:
        parse_request_head(raw, limits)
    return refused.value.status


def test_an_sdk_request_head_is_read_whole() -> None:
    head, length = parse_request_head(
        b"POST /v1/chat/completions?trace=1&x HTTP/1.1\r\nhost: port.example:8080\r\n"
        b"Authorization: Bearer sk-1\r\nContent-Type: application/json \r\nX-Empty:\r\nContent-Length: 12\r\n\r\n",
        LIMITS,
    )
    assert (head.method, head.version) == ("POST", "1.1")
    assert (head.target, head.path, head.query) == (
        b"/v1/chat/completions?trace=1&x",
        "/v1/chat/completions",
        "trace=1&x",
    )
    assert head.host == "port.example:8080"
    assert head.get(b"content-type") == b"application/json"
    assert head.get(b"x-empty") == b""
    assert head.get(b"x-absent") is None
    assert (length, head.chunked, head.keep_alive, head.expect_continue) == (12, False, True, False)


def test_credentials_do_not_show_in_a_repr() -> None:
    assert "sk-secret" not in repr(with_fields(b"Authorization: Bearer sk-secret"))


def test_a_chunked_body_and_an_expectation_are_seen() -> None:
    head, length = parse_request_head(of(b"Transfer-Encoding: chunked", b"Expect: 100-Continue"), LIMITS)
    assert (length, head.chunked, head.expect_continue) == (None, True, True)


def test_an_http_1_0_client_is_never_sent_an_interim_response() -> None:
    head = parse(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert (head.version, head.host, head.expect_continue) == ("1.0", "", False)


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        (LINE, b"", True),
        (LINE, b"Connection: close\r\n", False),
        (LINE, b"Connection: keep-alive, Close\r\n", False),
        (LINE, b"Connection: close\r\nConnection: keep-alive\r\n", False),
        (b"GET / HTTP/1.0\r\n", b"", False),
        (b"GET / HTTP/1.0\r\n", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_persistence_follows_version_and_connection_options(line: bytes, fields: bytes, keep_alive: bool) -> None:
    assert parse(line + HOST + fields + b"\r\n").keep_alive is keep_alive


SMUGGLING = {
    "both lengths": (400, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    "both lengths, coding first": (400, b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    "both lengths, the coding unknown": (400, b"Transfer-Encoding: x\r\nContent-Length: 5\r\n"),
    "two equal lengths": (400, b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    "two lengths": (400, b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    "length with a sign": (400, b"Content-Length: +5\r\n"),
    "negative length": (400, b"Content-Length: -5\r\n"),
    "length with a space after": (400, b"Content-Length: 5 \r\n"),
    "length with a tab after": (400, b"Content-Length: 5\t\r\n"),
    "hex length": (400, b"Content-Length: 0x5\r\n"),
    "list of lengths": (400, b"Content-Length: 5,5\r\n"),
    "empty length": (400, b"Content-Length: \r\n"),
    "length with a space inside": (400, b"Content-Length: 5 5\r\n"),
    "length with an underscore": (400, b"Content-Length: 1_0\r\n"),
    "length of sixteen digits": (400, b"Content-Length: 1000000000000000\r\n"),
    "length beyond 64 bits": (400, b"Content-Length: 99999999999999999999\r\n"),
    "two codings": (400, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    "two codings, one identity": (400, b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
    "coding before chunked": (501, b"Transfer-Encoding: gzip, chunked\r\n"),
    "chunked twice": (501, b"Transfer-Encoding: chunked, chunked\r\n"),
    "chunked with a space after": (501, b"Transfer-Encoding: chunked \r\n"),
    "chunked in quotes": (501, b'Transfer-Encoding: "chunked"\r\n'),
    "look-alike coding": (501, b"Transfer-Encoding: xchunked\r\n"),
    "other coding": (501, b"Transfer-Encoding: gzip\r\n"),
    "vertical tab before chunked": (400, b"Transfer-Encoding: \x0bchunked\r\n"),
    "two hosts": (400, b"Host: other.example\r\n"),
    "two equal hosts": (400, b"Host: port.example\r\n"),
    "space before the colon": (400, b"Content-Length : 5\r\n"),
    "tab before the colon": (400, b"Content-Length\t: 5\r\n"),
    "folded field": (400, b"X-A: b\r\n c\r\n"),
    "folded by a tab": (400, b"X-A: b\r\n\tTransfer-Encoding: chunked\r\n"),
    "bare LF after a field": (400, b"X-A: b\nContent-Length: 5\r\n"),
    "bare CR in a value": (400, b"X-A: b\rContent-Length: 5\r\n"),
    "NUL in a value": (400, b"X-A: b\x00c\r\n"),
    "control character in a value": (400, b"X-A: b\x1bc\r\n"),
    "DEL in a value": (400, b"X-A: b\x7fc\r\n"),
    "no colon": (400, b"Content-Length\r\n"),
    "no name": (400, b": chunked\r\n"),
    "name in brackets": (400, b"(X-A): b\r\n"),
    "name beyond ASCII": (400, b"X-\xc3\xa4: b\r\n"),
    "NUL in a name": (400, b"X\x00A: b\r\n"),
    "two authorizations": (400, b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"),
    "two keys": (400, b"X-API-Key: a\r\nx-api-key: a\r\n"),
    "other expectation": (417, b"Expect: 200-ok\r\n"),
    "second expectation": (417, b"Expect: 100-continue, fast\r\n"),
    "empty expectation": (417, b"Expect: \r\n"),
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_a_field_that_two_parsers_could_read_differently_is_refused(name: str) -> None:
    status, fields = SMUGGLING[name]
    assert status_of(LINE + HOST + fields + b"\r\n") == status


REQUEST_LINES = {
    "absolute form": (400, b"GET http://other.example/ HTTP/1.1"),
    "authority form": (400, b"CONNECT other.example:443 HTTP/1.1"),
    "asterisk form": (400, b"OPTIONS * HTTP/1.1"),
    "no leading slash": (400, b"GET v1/models HTTP/1.1"),
    "fragment": (400, b"GET /v1#x HTTP/1.1"),
    "two spaces": (400, b"GET  / HTTP/1.1"),
    "space at the end": (400, b"GET / HTTP/1.1 "),
    "space in the target": (400, b"GET /a b HTTP/1.1"),
    "tab for a space": (400, b"GET\t/ HTTP/1.1"),
    "target beyond ASCII": (400, b"GET /\xff HTTP/1.1"),
    "control character in the target": (400, b"GET /\x01 HTTP/1.1"),
    "no version": (400, b"GET /"),
    "empty": (400, b""),
    "method that is no token": (400, b"G@T / HTTP/1.1"),
    "version 0.9": (505, b"GET / HTTP/0.9"),
    "version 1.2": (505, b"GET / HTTP/1.2"),
    "version 2.0": (505, b"PRI * HTTP/2.0"),
    "version 2": (505, b"GET / HTTP/2"),
    "version of two digits": (400, b"GET / HTTP/01.1"),
    "other protocol": (400, b"DESCRIBE / RTSP/1.0"),
    "unknown method": (405, b"BREW / HTTP/1.1"),
    "method in lower case": (405, b"get / HTTP/1.1"),
    "tunnel to a path": (405, b"CONNECT / HTTP/1.1"),
}


@pytest.mark.parametrize("name", REQUEST_LINES)
def test_a_request_line_is_method_path_and_version_or_refused(name: str) -> None:
    status, line = REQUEST_LINES[name]
    assert status_of(line + b"\r\n" + HOST + b"\r\n") == status


def test_http_1_1_without_host_is_refused() -> None:
    assert status_of(LINE + b"\r\n") == 400


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"a,b", b"a@b", b'a"b', b"a\xff"])
def test_an_odd_host_is_refused(host: bytes) -> None:
    assert status_of(LINE + b"Host: " + host + b"\r\n\r\n") == 400


def test_http_1_0_with_a_transfer_coding_is_refused() -> None:
    assert status_of(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n") == 400


@pytest.mark.parametrize(
    "fields",
    [
        (b"Upgrade: h2c",),
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        (b"upgrade: websocket", b"connection: upgrade"),
    ],
)
def test_an_upgrade_is_ignored_and_the_body_kept(fields: tuple[bytes, ...]) -> None:
    head, length = parse_request_head(of(*fields, b"X-After: 1", b"Content-Length: 5"), LIMITS)
    assert length == 5
    assert head.get(b"x-after") == b"1"
    assert head.get(b"upgrade") is head.get(b"http2-settings") is None
    assert head.keep_alive


def test_a_long_request_line_is_told_apart_from_a_long_head() -> None:
    longest = b"GET /" + b"a" * (LIMITS.line_bytes_max - 14) + b" HTTP/1.1"
    assert parse(longest + b"\r\n" + HOST + b"\r\n").path.endswith("a")
    assert status_of(longest.replace(b"/a", b"/aa", 1) + b"\r\n" + HOST + b"\r\n") == 414
    room = LIMITS.head_bytes_max - len(LINE + HOST + b"X-A: \r\n\r\n")
    assert parse(LINE + HOST + b"X-A: " + b"a" * room + b"\r\n\r\n").get(b"x-a") == b"a" * room
    assert status_of(LINE + HOST + b"X-A: a" + b"a" * room + b"\r\n\r\n") == 431


def test_the_number_of_fields_is_bounded() -> None:
    fields = [b"X-%d: a" % number for number in range(LIMITS.fields_max - 1)]
    assert len(with_fields(*fields).headers) == LIMITS.fields_max
    assert status_of(LINE + HOST + b"".join(each + b"\r\n" for each in [*fields, b"X-One: more"]) + b"\r\n") == 431


def test_a_head_that_grows_too_large_is_refused_before_it_ends() -> None:
    check_growing_head(b"GET /" + b"a" * (LIMITS.line_bytes_max - 5), LIMITS)
    with pytest.raises(BadRequest) as too_long:
        check_growing_head(b"GET /" + b"a" * LIMITS.line_bytes_max, LIMITS)
    check_growing_head(LINE + b"X-A: " + b"a" * 8000, LIMITS)
    with pytest.raises(BadRequest) as too_large:
        check_growing_head(LINE + b"X-A: " + b"a" * LIMITS.head_bytes_max, LIMITS)
    assert (too_long.value.status, too_large.value.status) == (414, 431)


def test_at_most_two_line_ends_may_come_before_a_request() -> None:
    plain = LINE + HOST + b"\r\n"
    assert said(parse(plain)) == said(parse(b"\r\n" + plain)) == said(parse(b"\r\n\r\n" + plain))
    assert status_of(b"\r\n\r\n\r\n" + plain) == 400


def test_the_end_of_a_head_is_found_at_any_read() -> None:
    raw = LINE + HOST + b"\r\n"
    assert [head_end(raw[:size]) for size in range(len(raw))] == [-1] * len(raw)
    assert head_end(raw + b"body\r\n\r\n") == len(raw)
    assert head_end(bytearray(b"\r\n\r\n" + raw + b"x")) == len(raw) + 4
    assert head_end(b"\r\n\r\n") == -1


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\r\nHost: a\n\r\n"])
def test_a_head_in_bare_line_feeds_ends_so_that_it_is_refused_at_once(raw: bytes) -> None:
    assert head_end(raw + b"rest\r\n\r\n") == len(raw)
    assert status_of(raw) == 400


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_in_another_way(garbage: bytes) -> None:
    for raw in (garbage, LINE + garbage + b"\r\n\r\n", LINE + HOST + garbage + b"\r\n\r\n"):
        try:
            head, _ = parse_request_head(raw, LIMITS)
        except BadRequest:
            continue
        assert head.method == "POST"
        assert head.path.startswith("/")


TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1, max_size=20).map(lambda name: "x-" + name)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, blacklist_characters="\x7f"), max_size=40)


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=20))
def test_every_field_arrives_in_order_with_its_bytes(fields: list[tuple[str, str]]) -> None:
    lines = [f"{name}: {value}".encode("latin-1") for name, value in fields]
    expected = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    assert with_fields(*lines).headers[1:] == expected
