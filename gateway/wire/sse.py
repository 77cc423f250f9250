"""Server-sent events as bytes: where each ends, and what it carries (HTML Living Standard, 9.2.6).

Lines end in LF, CRLF or CR, mixed as the sender likes; a blank line ends an event. Events are handed on exactly as
received, their blank line included, so that forwarding them changes nothing, and the same bytes give the same events
however they were split. For that, a CR that ends the bytes so far waits for the next one, which may be its LF; `finish`
ends the wait.
"""

import re

from gateway.wire.errors import EventTooLarge

EVENT_BYTES_MAX = 1 << 20

_CR = 0x0D
_BOM = b"\xef\xbb\xbf"
_blank_line = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)").search
_line_end = re.compile(rb"\r\n|\n|\r").match
_lines = re.compile(rb"\r\n|\n|\r").split
_LINE_ENDS = (b"\n", b"\r\n", b"\r")
_EVENT_ENDS = frozenset(first + second for first in _LINE_ENDS for second in _LINE_ENDS) - {b"\r\n"}


class EventSplitter:
    """Feed it reads, it gives back whole events."""

    __slots__ = ("_event_bytes_max", "carry")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self.carry = bytearray()  # the unfinished event; for reading only
        self._event_bytes_max = event_bytes_max

    @property
    def tail(self) -> bytes:
        """The unfinished event."""
        return bytes(self.carry)

    def feed(self, data: bytes) -> list[bytes]:
        if not self.carry:
            if data.endswith(b"\n\n") and data.find(b"\n") == len(data) - 2 > 0 and b"\r" not in data:
                if len(data) > self._event_bytes_max:
                    raise EventTooLarge("event too large")
                return [data]  # one whole event of one line: what a streaming server's write usually is
            events, rest = self._split(data, 0)
            self.carry += data[rest:]
        else:
            seen = len(self.carry)
            self.carry += data
            events, rest = self._split(self.carry, max(seen - 3, 0))
            del self.carry[:rest]
        if len(self.carry) > self._event_bytes_max:
            raise EventTooLarge("event too large")
        return events

    def finish(self) -> list[bytes]:
        """At the end of the stream: the event whose last CR waited for its LF in vain. A half one stays the tail."""
        whole = bytes(self.carry)
        end = _line_end(whole) or _blank_line(whole)
        if end is None or end.end() != len(whole):
            return []
        self.carry.clear()
        return [whole]

    def _split(self, data: bytes | bytearray, scanned: int) -> tuple[list[bytes], int]:
        """The whole events, and where the unfinished one begins. No blank line begins before `scanned`."""
        end_of_event = _event_end if b"\r" in data else _event_end_without_cr
        events: list[bytes] = []
        at = 0
        while True:
            end = end_of_event(data, at, max(at, scanned))
            if end < 0:
                return events, at
            if end - at > self._event_bytes_max:
                raise EventTooLarge("event too large")
            events.append(bytes(data[at:end]))
            at = end


def _event_end(data: bytes | bytearray, at: int, scanned: int) -> int:
    """The index after the event that begins here, or -1 while it, or a CR's LF, is yet to come."""
    match = _line_end(data, at) or _blank_line(data, scanned)
    if match is None or (match.end() == len(data) and data[-1] == _CR):
        return -1
    return match.end()


def _event_end_without_cr(data: bytes | bytearray, at: int, scanned: int) -> int:
    if data.startswith(b"\n", at):
        return at + 1
    blank_line = data.find(b"\n\n", scanned)
    return blank_line + 2 if blank_line >= 0 else -1


def data_span(event: bytes) -> tuple[int, int] | None:
    """Where the payload lies in an event that is a single `data` line and nothing else."""
    if not event.startswith(b"data:"):
        return None
    end = event.find(b"\n")
    if b"\r" in event:
        carriage_return = event.find(b"\r", 0, end if end >= 0 else len(event))
        end = carriage_return if carriage_return >= 0 else end
    if event[end:] not in _EVENT_ENDS:
        return None
    return (6 if event.startswith(b" ", 5) else 5), end


def data_of(event: bytes) -> bytes | None:
    """The payload of an event: its data lines, joined by LF. None if it has none: a comment, a blank line, an id."""
    span = data_span(event)
    if span is not None:
        return event[span[0] : span[1]]
    values = field_values(event, b"data")
    return b"\n".join(values) if values else None


def with_data(event: bytes, payload: bytes) -> bytes:
    """The event with another payload. All else stays as it came where the payload is one line; else lines end in LF."""
    span = data_span(event)
    if span is not None and b"\n" not in payload:
        return event[: span[0]] + payload + event[span[1] :]
    others = [line for line in _lines(event.removeprefix(_BOM)) if line and line.partition(b":")[0] != b"data"]
    return b"\n".join([*others, *(b"data: " + line for line in payload.split(b"\n")), b"", b""])


def name_of(event: bytes) -> bytes:
    """The event's name: `message` unless it says otherwise."""
    values = field_values(event, b"event")
    return (values[-1] if values else b"") or b"message"


def field_values(event: bytes, field: bytes) -> list[bytes]:
    """The values of all lines of one field."""
    values = []
    for line in _lines(event.removeprefix(_BOM)):
        name, _, value = line.partition(b":")
        if name == field:
            values.append(value[1:] if value.startswith(b" ") else value)
    return values
