"""The splitter and the tap against a reading that parses every event."""

from gateway.wire.errors import EventTooLarge
from gateway.wire.openai_stream import StreamTap
from tests.fuzz.inputs import case_of
from tests.wire.taps import SHOWS, Event, Show, agrees_with_a_parse, each, state

TOKENS = [
    b"data: ",
    b"data:",
    b"\n\n",
    b"\r\n\r\n",
    b"\r\r",
    b"data: [DONE]\n\n",
    b"event: error\n",
    b": ping\n\n",
    b"error: ",
    b'"usage":null',
    b'"usage":{"prompt_tokens":1,"completion_tokens":2}',
    b'"choices":[]',
    b'"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]',
    b'"finish_reason":"stop"',
    b'"delta":{"reasoning_content":"a"}',
    b'"text":"a"',
    b'"index":1',
    b'"error":{"message":"a"}',
    b"\\u0041",
    b"\\ud800",
    b'\\"',
    b"\\\\",
    b"\xef\xbb\xbf",
]
EVENT_BYTES_MAX = 400
BAD_EVENTS_MAX = 3


def check(data: bytes) -> None:
    """The tap agrees with the slow reading, and with itself under bounds however the stream is cut."""
    case = case_of(data)
    choices, show = 1 + case.options % 2, SHOWS[case.options // 2 % 3]
    agrees_with_a_parse(case.whole, case.reads, choices, show)
    outcomes = [bounded(reads, choices, show) for reads in (case.reads, [case.whole])]
    assert None in outcomes or outcomes[0] == outcomes[1], outcomes


def bounded(reads: list[bytes], choices: int, show: Show) -> tuple[object, ...] | None:
    """Where the bounds leave the tap; None beyond them."""
    tap = StreamTap(choices=choices, show=show, event_bytes_max=EVENT_BYTES_MAX, bad_events_max=BAD_EVENTS_MAX)
    passed: list[Event] = []
    try:
        for read in reads:
            passed += each(tap.feed(read))
            if tap.ended:
                break
        else:
            passed += each(tap.finish())
    except EventTooLarge:
        return None
    assert tap.bad_events <= BAD_EVENTS_MAX + 1
    assert all(len(event) <= EVENT_BYTES_MAX for event, _, _ in passed)
    # What lies behind the end depends on the cut, and nobody looks at it.
    return ([event for event, _, _ in passed], tap.ended, None if tap.ended else state(tap))
