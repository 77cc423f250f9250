"""HTTP/1.1 heads as they come in: strictly.

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
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

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
is_authority = re.compile(rb"[0-9A-Za-z.\-_~%!$&'()*+;=:\[\]]*+").fullmatch
_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout=([0-9]{1,6})(?:$|[,;\s])", re.IGNORECASE).search

FRAMING_FIELDS = (b"content-length", b"transfer-encoding")
_CREDENTIALS = (b"authorization", b"x-api-key")
_MEANT = frozenset((*FRAMING_FIELDS, *_CREDENTIALS, b"host", b"expect", b"connection", b"keep-alive"))
_LISTENER = object()  # httptools is asked for its opinion only: no callbacks
_LEADING_CRLFS_MAX = 2  # some clients send a CRLF too many after a body (RFC 9112, 2.2)

Field = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class HeadLimits:
    head_bytes_max: int = 16384
    fields_max: int = 100
    line_bytes_max: int = 8190


class RequestHead:
    """What a request says before its body, but for how long the body is: many requests share one head."""

    __slots__ = (
        "_lines",
        "_lines_of",
        "chunked",
        "expect_continue",
        "facts",
        "headers",
        "host",
        "keep_alive",
        "method",
        "path",
        "query",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        version: str,
        headers: list[Field],
        *,
        keep_alive: bool,
        chunked: bool,
        expect_continue: bool,
        host: str,
    ) -> None:
        self.method = method
        self.target = target
        path, _, query = target.decode("ascii").partition("?")
        self.path = path  # as sent, not percent-decoded: routing compares exact paths
        self.query = query
        self.version = version  # "1.1" or "1.0"
        # All but the content length, names in lower case; not in the repr, credentials are among them.
        self.headers = headers
        self.keep_alive = keep_alive
        self.chunked = chunked
        self.expect_continue = expect_continue
        self.host = host
        # For who reads this head: what it has worked out, so that it does so once. Goes when the head is forgotten.
        self.facts: Any = None
        self._lines = b""
        self._lines_of: Collection[bytes] = ()

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, by its lower-case name."""
        for known, value in self.headers:
            if known == name:
                return value
        return None

    def lines_of(self, names: Collection[bytes]) -> bytes:
        """The fields of these names as lines to be sent on. What was read here is in the grammar of what is written."""
        if names is not self._lines_of:
            self._lines = b"".join([b"%b: %b\r\n" % field for field in self.headers if field[0] in names])
            self._lines_of = names
        return self._lines

    def __repr__(self) -> str:
        return f"RequestHead({self.method} {self.path} HTTP/{self.version}, {len(self.headers)} fields)"


class ResponseHead(NamedTuple):
    """What a response says before its body, but for how long the body is."""

    status: int
    reason: str
    headers: list[Field]  # all but the content length; not in the repr
    chunked: bool
    close_delimited: bool
    keep_alive: bool
    keep_alive_timeout_s: int | None

    @property
    def is_informational(self) -> bool:
        return self.status < 200

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


def parse_request_head(raw: bytes, limits: HeadLimits) -> tuple[RequestHead, int | None]:
    """Read a whole head, up to and including its blank line (see `head_end`), and its content length."""
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
    head = RequestHead(
        method.decode("ascii"),
        target,
        version,
        _shown(fields),
        keep_alive=_persists(meaning, version),
        chunked=chunked,
        expect_continue=expect_continue,
        host=host,
    )
    return head, length


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


def _shown(fields: list[Field]) -> list[Field]:
    """Without trailing space; and without the length, which is told beside the head."""
    return [(name, value.rstrip(b" \t")) for name, value in fields if name != b"content-length"]


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
    if not is_authority(host):
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


def parse_response_head(raw: bytes, head_bytes_max: int = 32768) -> tuple[ResponseHead, int | None]:
    """Read a backend's head, and its content length: 0 where the status allows no body.

    The caller skips heads that are informational and then reads the next one.
    """
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
    close_delimited = length is None and not chunked
    head = ResponseHead(
        status=status,
        reason=(reason or b"").decode("latin-1"),
        headers=_shown(fields),
        chunked=chunked,
        close_delimited=close_delimited,
        keep_alive=keep_alive and not close_delimited,
        keep_alive_timeout_s=int(timeout.group(1)) if timeout else None,
    )
    return head, length


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
