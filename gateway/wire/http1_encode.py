"""HTTP/1.1 heads as they go out: plainly.

Nothing that could end a line early is ever written: names must be tokens and values free of control characters, or a
ValueError is raised. What is known of a head before its request comes (`request_start`) is checked then, and only what
comes later is checked later.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

from gateway.wire.http1 import FRAMING_FIELDS, TOKEN, is_authority

_is_token = re.compile(TOKEN).fullmatch
_is_value = re.compile(rb"[\t -~\x80-\xff]*+").fullmatch
_is_target = re.compile(rb"/[!-~]*+").fullmatch


def _bytes(text: str | bytes) -> bytes:
    return text.encode("ascii") if isinstance(text, str) else text  # UnicodeEncodeError is a ValueError


# Nearly all fields that are sent are the same from request to request; ids go by.
@lru_cache(maxsize=1024)
def _field_line(name: str | bytes, value: str | bytes) -> bytes:
    name, value = _bytes(name), _bytes(value)
    if not _is_token(name) or not _is_value(value):
        raise ValueError(f"header field {name!r} cannot be sent")
    if name.lower() in FRAMING_FIELDS:
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


def sendable(value: str) -> bytes:
    """A value that comes too late to be checked with its head: printable ASCII, or ValueError."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError("a header field's value cannot be sent")
    return value.encode()


def request_start(
    method: str, target: str | bytes, host: str | bytes, fields: Iterable[tuple[str | bytes, str | bytes]]
) -> bytes:
    """A head for a backend but for its framing: more lines may follow. ValueError for what could end a line early."""
    verb, path, authority = _bytes(method), _bytes(target), _bytes(host)
    if not _is_token(verb) or not _is_target(path) or not authority or not is_authority(authority):
        raise ValueError("method, target or host cannot be sent")
    return b"".join([b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (verb, path, authority), *_field_lines(fields)])


def encode_request_head(
    method: str,
    target: str | bytes,
    host: str | bytes,
    fields: Iterable[tuple[str | bytes, str | bytes]],
    *,
    content_length: int | None = None,
    chunked: bool = False,
) -> bytes:
    """A whole head for a backend, as `request_start` begins it: no request field writes a head."""
    start = request_start(method, target, host, fields)
    return b"".join([start, *_framing_lines(content_length, chunked), b"\r\n"])


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
