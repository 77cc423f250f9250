"""HTTP/1.1 heads: strict in, plain out.

Request smuggling lives where two parsers read one head differently. So a head is taken only if it fits one narrow
grammar, checked in a single pass over the bytes (RFC 9112 without its leniencies: no bare LF, no folding, no space
before a colon, no control characters, one space between the parts of the request line, origin-form targets only). Its
fields are then judged: one Host, one length or the coding `chunked`, credentials once. What passes is read by httptools
as well, which has seen more of the world; both must agree to take it. httptools alone is not enough: it bounds nothing
and takes two Hosts or none, `gzip, chunked`, HTTP/1.0 with a transfer coding, absolute-form targets,
`Content-Length: 5 ` and RTSP, and its `should_keep_alive()` forgets `Connection: close` once a message without a body
is complete.

Upgrade is ignored as RFC 9110 allows: the field is taken out before httptools sees it, because it would stop at the
head and give the body up as another protocol's. Java's client sends `Upgrade: h2c` by default.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

import httptools

from gateway.wire.errors import BadRequest, BadResponse

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
FIELD_LINE = TOKEN + rb":[\t -~\x80-\xff]*+\r\n"
_FIELDS = rb"((?:" + FIELD_LINE + rb")*)\r\n"
_fields = re.compile(rb"(" + TOKEN + rb"):[\t ]*+([^\r]*+)\r\n").findall
_REQUEST = re.compile(rb"(" + TOKEN + rb") ([!-~]++) HTTP/([0-9])\.([0-9])\r\n" + _FIELDS).fullmatch
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t -~\x80-\xff]*+))?\r\n" + _FIELDS).fullmatch
_UPGRADE_NAMES = (b"upgrade", b"http2-settings")
_UPGRADE = re.compile(rb"^(?:upgrade|http2-settings):[^\r\n]*+\r\n", re.IGNORECASE | re.MULTILINE).sub
_VERSION = re.compile(rb" HTTP/[0-9](?:\.[0-9])?$").search
_LENGTH = re.compile(rb"[0-9]{1,15}").fullmatch  # 15 digits: exact in a double, in case anyone downstream uses one
_HOST = re.compile(rb"[0-9A-Za-z.\-_~%!$&'()*+;=:\[\]]*+").fullmatch
_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout=([0-9]{1,6})(?:$|[,;\s])", re.IGNORECASE).search

_is_token = re.compile(TOKEN).fullmatch
_is_value = re.compile(rb"[\t -~\x80-\xff]*+").fullmatch
_is_target = re.compile(rb"/[!-~]*+").fullmatch

_FRAMING_FIELDS = (b"content-length", b"transfer-encoding")
_CREDENTIALS = (b"authorization", b"x-api-key")
_MEANT = frozenset((*_FRAMING_FIELDS, *_CREDENTIALS, b"host", b"expect", b"connection", b"keep-alive"))
_LISTENER = object()  # httptools is asked for its opinion only: no callbacks
_LEADING_CRLFS_MAX = 2  # some clients send a CRLF too many after a body (RFC 9112, 2.2)

Field = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class HeadLimits:
    head_bytes_max: int = 16384
    fields_max: int = 100
    line_bytes_max: int = 8190


class RequestHead(NamedTuple):
    method: str
    target: bytes
    path: str  # as sent, not percent-decoded: routing compares exact paths
    query: str
    version: str  # "1.1" or "1.0"
    headers: list[Field]  # names in lower case; not in the repr, credentials are among them
    keep_alive: bool
    content_length: int | None
    chunked: bool
    expect_continue: bool
    host: str

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, by its lower-case name."""
        for known, value in self.headers:
            if known == name:
                return value
        return None

    def __repr__(self) -> str:
        return f"RequestHead({self.method} {self.path} HTTP/{self.version}, {len(self.headers)} fields)"


class ResponseHead(NamedTuple):
    status: int
    reason: str
    headers: list[Field]  # not in the repr
    content_length: int | None  # 0 where the status allows no body
    chunked: bool
    keep_alive: bool
    keep_alive_timeout_s: int | None

    @property
    def is_informational(self) -> bool:
        return self.status < 200

    @property
    def close_delimited(self) -> bool:
        return self.content_length is None and not self.chunked

    def get(self, name: bytes) -> bytes | None:
        for known, value in self.headers:
            if known == name:
                return value
        return None

    def __repr__(self) -> str:
        return f"ResponseHead({self.status} {self.reason}, {len(self.headers)} fields)"


def _start(buffer: bytes | bytearray) -> int:
    start = 0
    while start < 2 * _LEADING_CRLFS_MAX and buffer[start : start + 2] == b"\r\n":
        start += 2
    return start


def head_end(buffer: bytes | bytearray) -> int:
    """The index after the blank line that ends the head, or -1. Leading CRLFs belong to the head.

    A head whose lines end in bare LF ends here too, so that it is refused at once and not when its deadline passes.
    """
    start = _start(buffer)
    strict = buffer.find(b"\n\r\n", start)
    bare = buffer.find(b"\n\n", start, strict if strict >= 0 else len(buffer))
    if bare >= 0:
        return bare + 2
    return strict + 3 if strict >= 0 else -1


def check_growing_head(buffer: bytes | bytearray, limits: HeadLimits) -> None:
    """Refuse a head that is already too large before its end was seen."""
    start = _start(buffer)
    line_end = buffer.find(b"\n", start)
    if (line_end if line_end >= 0 else len(buffer)) - start > limits.line_bytes_max + 1:
        raise BadRequest(414, "request line too long")
    if len(buffer) > limits.head_bytes_max:
        raise BadRequest(431, "request head too large")


def parse_request_head(raw: bytes, limits: HeadLimits) -> RequestHead:
    """Read a whole head, up to and including its blank line (see `head_end`)."""
    raw = raw[_start(raw) :]
    line_end = raw.find(b"\r\n")
    if (line_end if line_end >= 0 else len(raw)) > limits.line_bytes_max:
        raise BadRequest(414, "request line too long")
    if len(raw) > limits.head_bytes_max:
        raise BadRequest(431, "request head too large")
    if raw.count(b"\n") - 2 > limits.fields_max:
        raise BadRequest(431, "too many header fields")
    match = _REQUEST(raw)
    if match is None:
        raise _why_not(raw[: max(line_end, 0)])
    method, target, major, minor, lines = match.groups()
    if major != b"1" or minor not in b"01":
        raise BadRequest(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if not target.startswith(b"/") or b"#" in target:
        raise BadRequest(400, "the request target must be a path")
    version = "1.1" if minor == b"1" else "1.0"
    fields = _parse_fields(lines)
    meaning = _Meaning(fields)
    length, chunked = _request_framing(meaning, version)
    expect_continue, host = _expects_continue(meaning, version), _host(meaning, version)
    fields = _second_opinion(raw, fields)
    path, _, query = target.decode("ascii").partition("?")
    return RequestHead(
        method=method.decode("ascii"),
        target=target,
        path=path,
        query=query,
        version=version,
        headers=_trimmed(fields),
        keep_alive=_persists(meaning, version),
        content_length=length,
        chunked=chunked,
        expect_continue=expect_continue,
        host=host,
    )


def _why_not(request_line: bytes) -> BadRequest:
    version = _VERSION(request_line)
    if version is not None and version.group() not in (b" HTTP/1.1", b" HTTP/1.0"):
        return BadRequest(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if version is None or request_line.count(b" ") != 2:
        return BadRequest(400, "malformed request line")
    return BadRequest(400, "malformed header field")


def _parse_fields(lines: bytes) -> list[Field]:
    return [(name.lower(), value) for name, value in _fields(lines)]


def _second_opinion(raw: bytes, fields: list[Field]) -> list[Field]:
    """The fields that httptools agrees to take as well: all but an upgrade."""
    kept = [field for field in fields if field[0] not in _UPGRADE_NAMES]
    try:
        httptools.HttpRequestParser(_LISTENER).feed_data(raw if len(kept) == len(fields) else _UPGRADE(b"", raw))
    except (httptools.HttpParserUpgrade, httptools.HttpParserInvalidMethodError) as refused:
        raise BadRequest(405, "method not allowed") from refused
    except httptools.HttpParserError as refused:
        raise BadRequest(400, "malformed request head") from refused
    return kept


def _trimmed(fields: list[Field]) -> list[Field]:
    """Without trailing space."""
    return [(name, value.rstrip(b" \t")) for name, value in fields]


class _Meaning:
    """The fields that mean something to the protocol, each with all its values as sent."""

    __slots__ = ("_values",)

    def __init__(self, fields: list[Field]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            if name in _MEANT:
                self._values.setdefault(name, []).append(value)

    def all(self, name: bytes) -> list[bytes]:
        return self._values.get(name, [])

    def listed(self, name: bytes) -> list[bytes]:
        """The members of a comma-separated list, in lower case."""
        values = self._values.get(name)
        return [part.strip() for part in b",".join(values).lower().split(b",")] if values else []


def _request_framing(meaning: _Meaning, version: str) -> tuple[int | None, bool]:
    for name in _CREDENTIALS:
        if len(meaning.all(name)) > 1:
            raise BadRequest(400, f"repeated {name.decode()}")
    lengths, codings = meaning.all(b"content-length"), meaning.all(b"transfer-encoding")
    if lengths and codings:
        raise BadRequest(400, "both Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or len(codings) > 1:
        raise BadRequest(400, "repeated Content-Length or Transfer-Encoding")
    if codings:
        if version == "1.0":
            raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
        if codings[0].lower() != b"chunked":
            raise BadRequest(501, "the only transfer coding is chunked")
        return None, True
    if not lengths:
        return None, False
    if not _LENGTH(lengths[0]):
        raise BadRequest(400, "malformed Content-Length")
    return int(lengths[0]), False


def _host(meaning: _Meaning, version: str) -> str:
    hosts = [value.rstrip(b" \t") for value in meaning.all(b"host")]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise BadRequest(400, "exactly one Host is required")
    host = hosts[0] if hosts else b""
    if not _HOST(host):
        raise BadRequest(400, "malformed Host")
    return host.decode("ascii")


def _expects_continue(meaning: _Meaning, version: str) -> bool:
    expectations = meaning.listed(b"expect")
    if any(expectation != b"100-continue" for expectation in expectations):
        raise BadRequest(417, "the only expectation met is 100-continue")
    return bool(expectations) and version == "1.1"  # a 1.0 client would take the interim response for the final one


def _persists(meaning: _Meaning, version: str) -> bool:
    options = meaning.listed(b"connection")
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)


def parse_response_head(raw: bytes, head_bytes_max: int = 32768) -> ResponseHead:
    """Read a backend's head. The caller skips heads that are informational and then reads the next one."""
    if len(raw) > head_bytes_max:
        raise BadResponse("response head too large")
    match = _RESPONSE(raw)
    if match is None:
        raise BadResponse("malformed response head")
    minor, code, reason, lines = match.groups()
    status, version = int(code), "1.1" if minor == b"1" else "1.0"
    if status == 101:
        raise BadResponse("protocol switch that nobody asked for")
    fields = _parse_fields(lines)
    meaning = _Meaning(fields)
    length, chunked = _response_framing(meaning, version)
    keep_alive = _persists(meaning, version)
    try:
        httptools.HttpResponseParser(_LISTENER).feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as refused:
        raise BadResponse("malformed response head") from refused
    if status < 200 or status in (204, 304):
        # A body announced where none may be: whether it follows is anyone's guess, so the connection is not used again.
        keep_alive = keep_alive and not chunked and (status == 304 or not length)
        length, chunked = 0, False
    timeout = _KEEP_ALIVE_TIMEOUT(b",".join(meaning.all(b"keep-alive")))
    return ResponseHead(
        status=status,
        reason=(reason or b"").decode("latin-1"),
        headers=_trimmed(fields),
        content_length=length,
        chunked=chunked,
        keep_alive=keep_alive and (chunked or length is not None),
        keep_alive_timeout_s=int(timeout.group(1)) if timeout else None,
    )


def _response_framing(meaning: _Meaning, version: str) -> tuple[int | None, bool]:
    lengths, codings = meaning.all(b"content-length"), meaning.all(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise BadResponse("contradictory Content-Length or Transfer-Encoding")
    if codings:
        if version == "1.0" or codings[0].strip(b" \t").lower() != b"chunked":
            raise BadResponse("transfer coding other than chunked")
        return None, True
    if not lengths:
        return None, False
    if not _LENGTH(lengths[0].strip(b" \t")):
        raise BadResponse("malformed Content-Length")
    return int(lengths[0]), False


def _bytes(text: str | bytes) -> bytes:
    return text.encode("ascii") if isinstance(text, str) else text  # UnicodeEncodeError is a ValueError


# Nearly all fields that are sent are the same from request to request; ids go by.
@lru_cache(maxsize=1024)
def _field_line(name: str | bytes, value: str | bytes) -> bytes:
    name, value = _bytes(name), _bytes(value)
    if not _is_token(name) or not _is_value(value):
        raise ValueError(f"header field {name!r} cannot be sent")
    if name.lower() in _FRAMING_FIELDS:
        raise ValueError(f"{name!r} is written by the encoder")
    return b"%b: %b\r\n" % (name, value)


def _field_lines(fields: Iterable[tuple[str | bytes, str | bytes]]) -> list[bytes]:
    return [_field_line(name, value) for name, value in fields]


def _framing_lines(content_length: int | None, chunked: bool) -> list[bytes]:
    if chunked and content_length is not None:
        raise ValueError("a body is chunked or has a length")
    if content_length is not None:
        return [b"content-length: %d\r\n" % content_length]
    return [b"transfer-encoding: chunked\r\n"] if chunked else []


def encode_request_head(
    method: str,
    target: str | bytes,
    host: str | bytes,
    fields: Iterable[tuple[str | bytes, str | bytes]],
    *,
    content_length: int | None = None,
    chunked: bool = False,
) -> bytes:
    """A head for a backend. ValueError for anything that could end a line early: no request field writes a head."""
    verb, path, authority = _bytes(method), _bytes(target), _bytes(host)
    if not _is_token(verb) or not _is_target(path) or not authority or not _HOST(authority):
        raise ValueError("method, target or host cannot be sent")
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (verb, path, authority)]
    return b"".join([*lines, *_field_lines(fields), *_framing_lines(content_length, chunked), b"\r\n"])


_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def encode_response_head(
    status: int,
    fields: Iterable[tuple[str | bytes, str | bytes]],
    *,
    content_length: int | None = None,
    chunked: bool = False,
    close: bool = False,
) -> bytes:
    """A head for a client. ValueError for control characters in a name or value."""
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is no final status")
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b""))]
    lines += _field_lines(fields)
    lines += _framing_lines(content_length, chunked)
    if close:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
