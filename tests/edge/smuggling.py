"""Messages for request smuggling: what two parsers could read differently, and what only looks like it.

All are sent with a good key, and with a good request behind them in the same bytes.
"""

from typing import NamedTuple

from tests.fakes.client import request
from tests.fakes.configurations import KEY
from tests.fakes.script import Script

CHAT = {"model": "m", "messages": [{"role": "user", "content": "count"}], "user": Script(tokens=1).to_json()}
BEHIND = request(key=KEY, fields=[("x-request-id", "behind")], json_body=CHAT)
BODY = request(json_body=CHAT).partition(b"\r\n\r\n")[2]
POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"host: a\r\n"
KEYED = b"authorization: Bearer " + KEY.encode() + b"\r\n"
OPEN = POST + HOST + KEYED
LENGTH = b"content-length: %d\r\n" % len(BODY)
CODING = b"transfer-encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def fields(*lines: bytes) -> bytes:
    """The good head with these fields in the place of its framing, and the good body in chunks."""
    return OPEN + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + CHUNKS


def lengths(*lines: bytes) -> bytes:
    """The same with the body as it is."""
    return OPEN + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + BODY


def chunked(raw: bytes) -> bytes:
    """The good head and these bytes in the place of its chunks."""
    return OPEN + CODING + b"\r\n" + raw


def coding(value: bytes) -> bytes:
    return fields(b"transfer-encoding:" + value)


def length(value: bytes) -> bytes:
    return lengths(b"content-length:" + value)


N = b"%d" % len(BODY)

LENGTHS = {
    "length, then chunked": (400, fields(LENGTH[:-2], CODING[:-2])),
    "chunked, then length": (400, fields(CODING[:-2], LENGTH[:-2])),
    "length, then another coding": (400, fields(LENGTH[:-2], b"transfer-encoding: gzip")),
    "length of nothing, then chunked": (400, fields(b"content-length: 0", CODING[:-2])),
    "two lengths": (400, lengths(LENGTH[:-2], b"content-length: 0")),
    "two equal lengths": (400, lengths(LENGTH[:-2], LENGTH[:-2])),
    "two lengths in other cases": (400, lengths(LENGTH[:-2], b"CONTENT-LENGTH: " + N)),
    "list of equal lengths": (400, length(b" " + N + b", " + N)),
    "list of lengths": (400, length(b" 0, " + N)),
    "list with one length": (400, length(b" " + N + b",")),
    "signed": (400, length(b" +" + N)),
    "negative": (400, length(b" -1")),
    "hexadecimal": (400, length(b" 0x5")),
    "bare hexadecimal": (400, length(b" a5")),
    "space behind": (400, length(b" " + N + b" ")),
    "tab behind": (400, length(b" " + N + b"\t")),
    "space inside": (400, length(b" 1 0")),
    "underscore inside": (400, length(b" 1_0")),
    "quoted": (400, length(b' "' + N + b'"')),
    "fraction": (400, length(b" " + N + b".0")),
    "exponent": (400, length(b" 1e2")),
    "not ASCII digits": (400, length(b" \xb2")),
    "empty": (400, length(b"")),
    "blank": (400, length(b"  ")),
    "sixteen digits": (400, length(b" 1000000000000000")),
    "beyond 64 bits": (400, length(b" 18446744073709551621")),
    "beyond 32 bits": (413, length(b" 4294967301")),
    "vertical tab before": (400, length(b" \x0b" + N)),
    "NUL behind": (400, length(b" " + N + b"\0")),
}
CODINGS = {
    "two equal codings": (400, fields(CODING[:-2], CODING[:-2])),
    "two codings, one identity": (400, fields(b"transfer-encoding: identity", CODING[:-2])),
    "chunked, then identity": (400, fields(CODING[:-2], b"Transfer-Encoding: identity")),
    "gzip, chunked": (501, coding(b" gzip, chunked")),
    "chunked, chunked": (501, coding(b" chunked, chunked")),
    "chunked, identity": (501, coding(b" chunked, identity")),
    "identity, chunked": (501, coding(b" identity, chunked")),
    "identity": (501, coding(b" identity")),
    "gzip": (501, coding(b" gzip")),
    "xchunked": (501, coding(b" xchunked")),
    "chunkedx": (501, coding(b" chunkedx")),
    "chun ked": (501, coding(b" chun ked")),
    "quoted": (501, coding(b' "chunked"')),
    "parameter": (501, coding(b" chunked;q=1")),
    "list with one coding": (501, coding(b" chunked,")),
    "list with a blank": (501, coding(b" , chunked")),
    "space behind": (501, coding(b" chunked ")),
    "tab behind": (501, coding(b" chunked\t")),
    "empty": (501, coding(b"")),
    "vertical tab before": (400, coding(b" \x0bchunked")),
    "form feed before": (400, coding(b" \x0cchunked")),
    "NUL behind": (400, coding(b" chunked\0")),
    "folded": (400, fields(b"transfer-encoding:", b" chunked")),
    "in HTTP/1.0": (400, b"POST /v1/chat/completions HTTP/1.0\r\n" + HOST + KEYED + CODING + b"\r\n" + CHUNKS),
    "in HTTP/1.0 that would go on": (
        400,
        b"POST /v1/chat/completions HTTP/1.0\r\nconnection: keep-alive\r\n" + KEYED + CODING + b"\r\n" + CHUNKS,
    ),
}
NAMES = {
    "space before the colon of a length": (400, lengths(b"content-length : " + N)),
    "tab before the colon of a length": (400, lengths(b"content-length\t: " + N)),
    "space before the colon of a coding": (400, fields(b"transfer-encoding : chunked")),
    "space before the name": (400, fields(b"x: y", b" transfer-encoding: chunked")),
    "space before the first name": (400, POST + b" " + HOST + KEYED + CODING + b"\r\n" + CHUNKS),
    "NUL in a name": (400, fields(b"transfer-encoding\0: chunked")),
    "no-break space in a name": (400, lengths(b"content-length\xa0: " + N)),
    "control character in a name": (400, lengths(b"content-length\x01: " + N)),
    "slash in a name": (400, lengths(b"content/length: " + N)),
    "no name": (400, lengths(b": x")),
    "no colon": (400, lengths(b"content-length")),
    "folded value": (400, lengths(b"x: y", b" z", LENGTH[:-2])),
    "folded length": (400, lengths(b"content-length:", b"\t" + N)),
}
LINES = {
    "bare LF before a coding": (400, OPEN + LENGTH + b"x: y\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS),
    "bare CR before a coding": (400, OPEN + LENGTH + b"x: y\rtransfer-encoding: chunked\r\n\r\n" + CHUNKS),
    "bare CR at the end of a value": (400, OPEN + b"x: y\r\r\n" + LENGTH + b"\r\n" + BODY),
    "bare LF at the end of the head": (400, OPEN + LENGTH + b"\n" + BODY),
    "bare LF and CRLF at the end of the head": (400, OPEN + LENGTH[:-2] + b"\n\r\n" + BODY),
    "LF only": (400, (OPEN + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY),
    "CR only": (400, (OPEN + LENGTH).replace(b"\r\n", b"\r") + b"\r\n\r\n" + BODY),
    "NUL in a value": (400, lengths(b"x: y\0z", LENGTH[:-2])),
    "escape in a value": (400, lengths(b"x: y\x1bz", LENGTH[:-2])),
    "three line ends before the request": (400, b"\r\n\r\n\r\n" + lengths(LENGTH[:-2])),
    "line break in the target": (400, b"GET /healthz\r\nx: y HTTP/1.1\r\n" + HOST + b"\r\n"),
    "bare CR in the target": (400, b"GET /healthz\rx: y HTTP/1.1\r\n" + HOST + b"\r\n"),
    "bare LF in the target": (400, b"GET /healthz\nx: y HTTP/1.1\r\n" + HOST + b"\r\n"),
    "request inside the target": (400, b"GET /healthz HTTP/1.1\r\nPOST /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"),
    "NUL in the target": (400, b"GET /healthz\0 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "two spaces": (400, b"GET  /healthz HTTP/1.1\r\n" + HOST + b"\r\n"),
    "tab for a space": (400, b"GET\t/healthz HTTP/1.1\r\n" + HOST + b"\r\n"),
    "space behind the version": (400, b"GET /healthz HTTP/1.1 \r\n" + HOST + b"\r\n"),
    "space before the method": (400, b" GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"),
    "HTTP/0.9": (400, b"GET /healthz\r\n\r\n"),
    "HTTP/0.9 by name": (505, b"GET /healthz HTTP/0.9\r\n\r\n"),
    "no version": (400, b"GET /healthz\r\n" + HOST + b"\r\n"),
    "HTTP/1.1 in lower case": (400, b"GET /healthz http/1.1\r\n" + HOST + b"\r\n"),
    "HTTP/1.10": (400, b"GET /healthz HTTP/1.10\r\n" + HOST + b"\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "TLS to a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n"),
    "absolute target": (400, b"GET http://a/healthz HTTP/1.1\r\n" + HOST + b"\r\n"),
    "absolute target elsewhere": (400, b"GET http://other/healthz HTTP/1.1\r\n" + HOST + b"\r\n"),
    "authority for a target": (400, b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "asterisk for a target": (400, b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"),
    "fragment in the target": (400, b"GET /healthz#x HTTP/1.1\r\n" + HOST + b"\r\n"),
}
WHO = {
    "no host": (400, POST + KEYED + LENGTH + b"\r\n" + BODY),
    "two hosts": (400, lengths(b"host: b", LENGTH[:-2])),
    "two equal hosts": (400, lengths(b"host: a", LENGTH[:-2])),
    "two hosts in one": (400, POST + b"host: a, b\r\n" + KEYED + LENGTH + b"\r\n" + BODY),
    "host with a user": (400, POST + b"host: b@a\r\n" + KEYED + LENGTH + b"\r\n" + BODY),
    "host with a path": (400, POST + b"host: a/b\r\n" + KEYED + LENGTH + b"\r\n" + BODY),
    "host with a space": (400, POST + b"host: a b\r\n" + KEYED + LENGTH + b"\r\n" + BODY),
    "two equal authorizations": (400, lengths(KEYED[:-2], LENGTH[:-2])),
    "two authorizations": (400, lengths(b"Authorization: Bearer x", LENGTH[:-2])),
    "two api keys": (400, POST + HOST + b"x-api-key: a\r\nX-Api-Key: b\r\n" + LENGTH + b"\r\n" + BODY),
    "other expectation": (417, lengths(b"expect: 200-ok", LENGTH[:-2])),
    "two expectations": (417, lengths(b"expect: 100-continue, x", LENGTH[:-2])),
}
CHUNKED = {
    "no size": (400, chunked(b"\r\n{}\r\n0\r\n\r\n")),
    "signed size": (400, chunked(b"+2\r\n{}\r\n0\r\n\r\n")),
    "negative size": (400, chunked(b"-1\r\n{}\r\n0\r\n\r\n")),
    "prefixed size": (400, chunked(b"0x2\r\n{}\r\n0\r\n\r\n")),
    "underscore in the size": (400, chunked(b"0_2\r\n{}\r\n0\r\n\r\n")),
    "space before the size": (400, chunked(b" 2\r\n{}\r\n0\r\n\r\n")),
    "space behind the size": (400, chunked(b"2 \r\n{}\r\n0\r\n\r\n")),
    "space before an extension": (400, chunked(b"2 ;a=b\r\n{}\r\n0\r\n\r\n")),
    "size of seventeen digits": (400, chunked(b"00000000000000002\r\n{}\r\n0\r\n\r\n")),
    "size beyond 64 bits": (400, chunked(b"10000000000000002\r\n{}\r\n0\r\n\r\n")),
    "size of 64 bits": (400, chunked(b"ffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
    "size beyond 32 bits": (400, chunked(b"100000002\r\n{}\r\n0\r\n\r\n")),
    "bare LF behind the size": (400, chunked(b"2\n{}\r\n0\r\n\r\n")),
    "bare CR behind the size": (400, chunked(b"2\r{}\r\n0\r\n\r\n")),
    "bare LF behind the last size": (400, chunked(b"2\r\n{}\r\n0\n\r\n")),
    "no line end behind a chunk": (400, chunked(b"2\r\n{}0\r\n\r\n")),
    "bare LF behind a chunk": (400, chunked(b"2\r\n{}\n0\r\n\r\n")),
    "two bytes for the line end behind a chunk": (400, chunked(b"2\r\n{}xx0\r\n\r\n")),
    "chunk longer than its size": (400, chunked(b"2\r\n{}}\r\n0\r\n\r\n")),
    "long extension": (400, chunked(b"2;" + b"e" * 64 + b"\r\n{}\r\n0\r\n\r\n")),
    "long quoted extension": (400, chunked(b'2;a="' + b"e" * 64 + b'"\r\n{}\r\n0\r\n\r\n')),
    "long extension of the last chunk": (400, chunked(b"2\r\n{}\r\n0;" + b"e" * 64 + b"\r\n\r\n")),
    "bare LF in an extension": (400, chunked(b"2;a\nb\r\n{}\r\n0\r\n\r\n")),
    "bare CR in an extension": (400, chunked(b"2;a\rb\r\n{}\r\n0\r\n\r\n")),
    "line end in a quoted extension": (400, chunked(b'2;a="\r\n{}\r\n0\r\n\r\n"\r\n{}\r\n0\r\n\r\n')),
    "NUL in an extension": (400, chunked(b"2;a\0\r\n{}\r\n0\r\n\r\n")),
    "bare LF behind a trailer": (400, chunked(b"2\r\n{}\r\n0\r\nx: y\n\r\n")),
    "folded trailer": (400, chunked(b"2\r\n{}\r\n0\r\nx: y\r\n z\r\n\r\n")),
    "space before the colon of a trailer": (400, chunked(b"2\r\n{}\r\n0\r\nx : y\r\n\r\n")),
    "trailers that do not end": (400, chunked(b"2\r\n{}\r\n0\r\nx: y\r\n")),
    "no last chunk": (400, chunked(b"2\r\n{}\r\n")),
}
REFUSED = {
    f"{kind}: {name}": case
    for kind, table in {
        "length": LENGTHS,
        "coding": CODINGS,
        "name": NAMES,
        "line": LINES,
        "who": WHO,
        "chunk": CHUNKED,
    }.items()
    for name, case in table.items()
}


class Taken(NamedTuple):
    """What is in order: the statuses of all answers, the last to the request behind, and whose bodies arrive."""

    raw: bytes
    statuses: tuple[int, ...] = (200, 200)
    arrived: int = 2


TAKEN = {
    "chunked, in another case": Taken(fields(b"Transfer-Encoding: Chunked")),
    "chunks without a space before the value": Taken(coding(b"chunked")),
    "size with zeros before it": Taken(chunked(b"0000%x\r\n%b\r\n000\r\n\r\n" % (len(BODY), BODY))),
    "short quoted extension": Taken(chunked(b'%x;a="b c"\r\n%b\r\n0;x\r\n\r\n' % (len(BODY), BODY))),
    "trailers with framing": Taken(
        chunked(CHUNKS[:-2] + b"content-length: 5\r\ntransfer-encoding: gzip\r\nhost: b\r\n\r\n")
    ),
    "a request inside a body": Taken(chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BEHIND), BEHIND)), (400, 200), 1),
    "an upgrade with a body": Taken(
        lengths(b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABk", LENGTH[:-2])
    ),
    "an upgrade with chunks": Taken(fields(b"connection: upgrade", b"upgrade: websocket", CODING[:-2])),
    "framing named as an option of the connection": Taken(
        lengths(b"connection: content-length, transfer-encoding, authorization", LENGTH[:-2])
    ),
    "an underscore for a dash": Taken(lengths(b"transfer_encoding: chunked", LENGTH[:-2])),
    "other fields that end in a length": Taken(lengths(b"x-content-length: 1", b"content-lengths: 2", LENGTH[:-2])),
    "line ends encoded in the target": Taken(b"GET /healthz%0d%0ax:%20y HTTP/1.1\r\n" + HOST + b"\r\n", (404, 200), 1),
    "a body behind GET": Taken(b"GET /healthz HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY, (200, 200), 1),
    "two line ends before the request": Taken(b"\r\n\r\n" + lengths(LENGTH[:-2])),
    "two sorts of credentials": Taken(lengths(b"x-api-key: " + KEY.encode(), LENGTH[:-2]), (401, 200), 1),
    "two keys in one": Taken(
        POST + HOST + b"authorization: Bearer x, Bearer " + KEY.encode() + b"\r\n" + LENGTH + b"\r\n" + BODY,
        (401, 200),
        1,
    ),
}
