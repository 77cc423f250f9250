"""The hot path: events of a known shape are not parsed, and are read as a parser reads them all the same."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire import openai_shape, openai_stream
from gateway.wire.openai_stream import StreamTap
from gateway.wire.sse import data_of
from tests.wire.documents import TEXT
from tests.wire.splits import reads
from tests.wire.streams import event
from tests.wire.taps import SHOWS, Show, agrees_with_a_parse, run, state


class Counting:
    """orjson that counts."""

    JSONDecodeError = orjson.JSONDecodeError
    dumps = staticmethod(orjson.dumps)

    def __init__(self) -> None:
        self.loads_calls = 0

    def loads(self, raw: bytes) -> Any:
        self.loads_calls += 1
        return orjson.loads(raw)


@pytest.mark.parametrize("text", ["a", 'say "hi"\n', "你好 😀", '\\"},{"finish_reason":"stop"'])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("place", ["content", "reasoning_content", "text", "arguments"])
def test_an_event_of_a_known_shape_is_not_parsed(
    monkeypatch: pytest.MonkeyPatch, place: str, ascii_only: bool, text: str
) -> None:
    def chunk(value: str) -> dict[str, Any]:
        if place == "text":
            return {"choices": [{"index": 0, "text": value}], "usage": None}
        call = {"tool_calls": [{"index": 0, "function": {"arguments": value}}]}
        return {"choices": [{"index": 0, "delta": call if place == "arguments" else {place: value}}], "usage": None}

    calls = Counting()
    monkeypatch.setattr(openai_stream, "orjson", calls)
    monkeypatch.setattr(openai_shape, "orjson", calls)
    tap = StreamTap()
    tap.feed(event(chunk("first"), ascii_only=ascii_only))
    learned = calls.loads_calls
    surrogates = ascii_only and "😀" in text
    for _ in range(10):
        tap.feed(event(chunk(text), ascii_only=ascii_only) * 2)
        tap.feed(event(chunk(text), ascii_only=ascii_only))
    assert (calls.loads_calls > learned) is surrogates
    assert tap.content_events == 31


def test_four_shapes_at_once_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counting()
    monkeypatch.setattr(openai_stream, "orjson", calls)
    tap = StreamTap(choices=4)
    for turn in range(40):
        tap.feed(event({"choices": [{"index": turn % 4, "delta": {"content": str(turn)}}]}))
    assert calls.loads_calls == 4
    assert tap.content_events == 40


def test_shapes_that_never_fit_are_learned_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    monkeypatch.setattr(openai_stream, "learn", lambda *_: learned.append(1))
    tap = StreamTap()
    for turn in range(1000):
        tap.feed(event({"choices": [{"delta": {"content": "a"}}], "obfuscation": str(turn)}))
    assert tap.content_events == 1000
    assert len(learned) < 40


def test_a_text_that_stands_in_other_places_too_is_found_in_the_right_one() -> None:
    stream = [
        event(
            {"id": "a", "content": "a", "choices": [{"a": "a", "delta": {"role": "a", "content": text}}], "usage": "a"}
        )
        for text in ("a", "b", "", "c")
    ]
    tap, passed = run(stream)
    assert tap.content_events == 3
    assert [orjson.loads(data_of(data) or b"")["choices"][0]["delta"]["content"] for data, _, _ in passed] == [
        "a",
        "b",
        "",
        "c",
    ]


def test_a_read_that_ends_a_held_event_is_not_taken_for_a_whole_one() -> None:
    known = event({"choices": [{"delta": {"content": "a"}}]})
    _, passed = run([known, b": note\n", known, known])
    assert [data for data, _, _ in passed] == [known, b": note\n" + known, known]


def test_a_text_like_the_one_put_in_for_learning_changes_nothing() -> None:
    for own in ("~a~text~of~tokenport~", "a~a~text~of~tokenport~b"):
        stream = [
            event({"id": own, "choices": [{"delta": {"content": text}}], "usage": None, "x": own})
            for text in ("first", own, "third")
        ]
        _, passed = run(stream)
        assert [orjson.loads(data_of(data) or b"")["choices"][0]["delta"]["content"] for data, _, _ in passed] == [
            "first",
            own,
            "third",
        ]


def test_choices_that_share_an_event_are_read_as_a_parser_reads_them() -> None:
    content, reasoning = {"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"reasoning": "b"}}
    both = {"index": 0, "delta": {"content": "a", "reasoning_content": "b"}}
    for choices in ([content, reasoning], [both], [content, content]):
        raw = event({"choices": choices}) * 3
        agrees_with_a_parse(raw, [raw], 2, "none")
        assert run([raw])[0].content_events == 3


SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")])
ENDS = st.sampled_from(["\n", "\n", "\r\n", "\r"])
PLACES = ["content", "reasoning_content", "reasoning", "text", "arguments", "refusal"]
ABSENT: Any = object()
RUNNING: Any = {"prompt_tokens": 3, "x": '"}]} "usage"'}
NEGATIVE = {"completion_tokens": -1}


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, int]:
    """A backend that keeps to one way of writing, but for what changes from event to event."""
    choices = draw(st.sampled_from([1, 1, 1, 2]))
    order = draw(st.permutations(["id", "created", "model", "choices", "usage", "obfuscation"]))
    inner = draw(st.permutations(["index", "delta", "text", "logprobs", "finish_reason"]))
    separators, ascii_only = draw(SEPARATORS), draw(st.booleans())
    prefix, end = draw(st.sampled_from(["data: ", "data: ", "data:", "id: 1\ndata: "])), draw(ENDS)
    usages: list[Any] = draw(
        st.sampled_from([[ABSENT], [None], [RUNNING], [RUNNING], [ABSENT, None, RUNNING, 3, NEGATIVE]])
    )
    varying = draw(st.sampled_from([(), (), (), ("created",), ("obfuscation",)]))
    places = [draw(st.sampled_from(PLACES))] * 12 + PLACES
    kinds = ["text"] * 24 + ["role", "finish", "usage", "comment", "bad", "error", "done"]

    def write(chunk: dict[str, Any]) -> bytes:
        text = json.dumps(chunk, separators=separators, ensure_ascii=ascii_only)
        return (prefix + text + end + end).encode()

    def chunk(kind: str, count: int) -> dict[str, Any]:
        text = draw(TEXT) or "a" if kind == "text" else ""
        finish = draw(st.sampled_from(["stop", "length"])) if kind == "finish" else None
        choice = {"index": draw(st.integers(0, choices - 1)), "logprobs": None, "finish_reason": finish}
        choice |= _carrying(draw(st.sampled_from(places)), text)
        fields = {
            "id": "c1",
            "created": 1,
            "model": "m",
            "choices": [{key: choice[key] for key in inner if key in choice}],
        }
        usage = draw(st.sampled_from(usages))
        if usage is not ABSENT:
            fields["usage"] = usage | {"completion_tokens": count} if usage is RUNNING else usage
        fields |= dict.fromkeys(varying, count)
        if kind == "usage":
            fields |= {"choices": [], "usage": {"completion_tokens": count}}
        return (
            {"error": {"message": "boom"}} if kind == "error" else {key: fields[key] for key in order if key in fields}
        )

    parts = []
    for count in range(1, draw(st.integers(4, 16))):
        kind = draw(st.sampled_from(kinds))
        whole = write(chunk(kind, count))
        others = {"comment": f": ping{end}{end}", "done": f"data: [DONE]{end}{end}"}
        parts.append(others[kind].encode() if kind in others else whole[:-9] + whole[-2:] if kind == "bad" else whole)
    return b"".join(parts), choices


def _carrying(place: str, text: str) -> dict[str, Any]:
    if place == "text":
        return {"text": text, "delta": None}
    if place == "arguments":
        return {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}] if text else []}}
    return {"delta": {"role": "assistant", place: text}}


@settings(max_examples=250)
@given(streams(), st.data(), st.sampled_from(SHOWS))
def test_any_stream_is_read_as_a_parser_reads_it(stream: tuple[bytes, int], data: st.DataObject, show: Show) -> None:
    raw, choices = stream
    agrees_with_a_parse(raw, data.draw(reads(raw)), choices, show)


FRAGMENTS = [
    b'"',
    b"\\",
    b'\\"',
    b"\\\\",
    b"\\n",
    b"\\x",
    b"\\u00e9",
    b"\\ud83d\\ude00",
    b"\\ud800",
    b"\\uD7FF",
    b"\\u0000",
]
FRAGMENTS += [
    b"\n",
    b"\r",
    b"\t",
    b"\x00",
    b"\x7f",
    b"\xff",
    b"\xc3\xa9",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\xc0\x80",
]
FRAGMENTS += [
    b"a",
    b" ",
    b"{",
    b"}",
    b"]",
    b",",
    b":",
    b'","role":"x',
    b'"},"finish_reason":"stop","x":{"y":"',
    b"null",
    b"1",
]
FRAGMENTS += [
    b'"}}],"usage":null}\n\ndata: {"choices":[{"delta":{"content":"',
    b'"}}],"usage":{"completion_tokens":',
    b"}",
    b'{"a":1}',
    b'{"a":\n1}',
    b'{"a":\r1}',
]
JUNK = st.lists(st.sampled_from(FRAGMENTS), max_size=5).map(b"".join)
SHAPES = [
    b'data: {"choices":[{"delta":{"content":"@"}}],"usage":null}\n\n',
    b'data: {"usage":null, "choices":[{"finish_reason":null, "delta":{"role":"a", "content":"@"}}]}\r\n\r\n',
    b'data: {"choices":[{"index":0,"text":"@"}]}\n\n',
    b'data: {"choices":[{"delta":{"reasoning":"@","content":""},"index":0}],"usage":{"completion_tokens":#}}\n\n',
    b'data: {"choices":[{"delta":{"content":"@"}}],"usage":#,"x":{}}\n\n',
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_a_line_end_inside_the_usage_breaks_the_event(line_end: bytes) -> None:
    known = SHAPES[3].replace(b"@", b"a").replace(b"#", b"1")
    broken = known.replace(b":1}", b":" + line_end + b"1}")
    tap, passed = run([known, broken, known])
    assert (tap.bad_events, tap.content_events, len(passed)) == (1, 2, 2)
    agrees_with_a_parse(known + broken + known, [known, broken + known], 1, "none")


@settings(max_examples=400)
@given(st.sampled_from(SHAPES), JUNK, JUNK, st.sampled_from(SHOWS))
def test_bytes_that_only_look_like_a_known_shape_are_read_as_a_parser_reads_them(
    shape: bytes, text: bytes, usage: bytes, show: Show
) -> None:
    known = shape.replace(b"@", b"first").replace(b":#}", b":1}").replace(b"#", b'{"completion_tokens":1}')
    event = shape.replace(b"@", text).replace(b"#", usage)
    for parts in ([known, event, known], [known, known + event, event]):
        agrees_with_a_parse(b"".join(parts), parts, 1, show)


@settings(max_examples=250)
@given(streams(), st.data(), st.sampled_from(SHOWS))
def test_a_damaged_stream_is_read_as_a_parser_reads_it(
    stream: tuple[bytes, int], data: st.DataObject, show: Show
) -> None:
    raw, choices = bytearray(stream[0]), stream[1]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b'"', b"\\", b"\n", b"\r", b"{", b"}", b",", b"\xff", b"\x00", b"1", b"\xc3\xa9"])
        )
    damaged = bytes(raw)
    agrees_with_a_parse(damaged, data.draw(reads(damaged)), choices, show)


@settings(max_examples=200)
@given(streams(), st.data(), st.sampled_from(SHOWS))
def test_any_split_gives_the_same_events(stream: tuple[bytes, int], data: st.DataObject, show: Show) -> None:
    raw, choices = stream
    whole, split = run([raw], choices, show), run(data.draw(reads(raw)), choices, show)
    assert (state(whole[0]), whole[1]) == (state(split[0]), split[1])
