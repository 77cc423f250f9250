import json
from typing import Any

import orjson
import pytest

from gateway.wire.errors import EventTooLarge
from gateway.wire.openai_stream import StreamTap
from gateway.wire.sse import data_of
from tests.wire.splits import byte_by_byte, in_two
from tests.wire.streams import DONE, STREAMS, WORDS, Stream, event
from tests.wire.taps import SHOWS, Show, agrees_with_a_parse, run, state


@pytest.mark.parametrize("name", STREAMS)
def test_a_backends_stream_is_counted_right(name: str) -> None:
    stream: Stream = STREAMS[name]
    tap, _ = run([stream.raw], stream.choices)
    assert tap.content_events == stream.content_events
    assert tap.reasoning_events == stream.reasoning_events
    assert tap.finish_reasons == stream.finish_reasons
    assert tap.whole is bool(stream.finish_reasons)
    assert tap.done is stream.done
    assert tap.bad_events == 0
    assert (tap.usage or {}).get("completion_tokens") == stream.completion_tokens
    assert tap.usage_flags == ()


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("name", STREAMS)
def test_a_backends_stream_is_read_as_a_parser_reads_it(name: str, show: Show) -> None:
    stream = STREAMS[name]
    agrees_with_a_parse(stream.raw, [stream.raw], stream.choices, show)


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_same_however_it_was_split(name: str, show: Show) -> None:
    stream = STREAMS[name]
    tap, passed = run([stream.raw], stream.choices, show)
    expected = state(tap), passed
    events = [part + b"\n\n" for part in stream.raw.split(b"\n\n")]
    for parts in (byte_by_byte(stream.raw), [b"".join(events[:-1]), events[-1][:-2]], *in_two(stream.raw, 7)):
        tap, passed = run(parts, stream.choices, show)
        assert (state(tap), passed) == expected


@pytest.mark.parametrize("name", [name for name, stream in STREAMS.items() if stream.done])
def test_a_client_that_asked_for_all_gets_every_byte(name: str) -> None:
    stream = STREAMS[name]
    _, passed = run([stream.raw], stream.choices, "all")
    assert b"".join(data for data, _, _ in passed) == stream.raw


@pytest.mark.parametrize("name", STREAMS)
def test_a_client_that_did_not_ask_sees_no_usage(name: str) -> None:
    stream = STREAMS[name]
    _, passed = run([stream.raw], stream.choices, "none")
    shown = b"".join(data for data, _, _ in passed)
    assert b'"usage"' not in shown
    for word in WORDS[:3] if stream.content_events > 3 and name != "tool calls" else []:
        assert json.dumps(word).encode() in shown


def test_usage_is_cut_out_and_every_other_byte_left() -> None:
    with_usage = event({"id": "1", "choices": [{"delta": {"content": "a"}}], "usage": {"completion_tokens": 1}, "x": 2})
    without = b'data: {"id":"1","choices":[{"delta":{"content":"a"}}],"x":2}\n\n'
    assert run([with_usage, with_usage])[1] == [(without, 1, 1), (without, 2, 1)]


def test_running_usage_is_cut_and_the_final_one_left_where_only_that_was_asked_for() -> None:
    stream = STREAMS["vllm, running usage"]
    _, passed = run([stream.raw], show="final")
    chunks = [orjson.loads(data_of(data) or b"") for data, _, _ in passed[:-1]]
    assert [chunk.get("usage") is not None for chunk in chunks] == [False] * (len(chunks) - 2) + [True, True]
    assert passed[-1][0] == DONE


def test_each_passed_event_says_where_the_stream_stands_after_it() -> None:
    stream = STREAMS["vllm, running usage"]
    _, passed = run([stream.raw])
    counts = range(len(WORDS) + 1)
    assert [(events, tokens) for _, events, tokens in passed[:-2]] == [(count, count) for count in counts]


def test_running_usage_of_choices_that_count_by_themselves_is_summed() -> None:
    stream = STREAMS["vllm, two choices"]
    tap, _ = run([stream.raw], choices=2)
    assert tap.running_tokens == stream.content_events


def test_running_usage_that_counts_all_choices_is_not_summed() -> None:
    events = [
        event({"choices": [{"index": count % 2, "delta": {"content": "a"}}], "usage": {"completion_tokens": count}})
        for count in range(1, 9)
    ]
    assert run(events, choices=2)[0].running_tokens == 8


def test_an_event_without_tokens_does_not_tell_one_kind_of_count_from_the_other() -> None:
    def chunk(index: int, text: str, tokens: int) -> bytes:
        return event(
            {"choices": [{"index": index, "delta": {"content": text}}], "usage": {"completion_tokens": tokens}}
        )

    totals = [chunk(0, "a", 1), chunk(1, "", 1), chunk(1, "b", 2), chunk(0, "", 2), chunk(0, "c", 3)]
    assert run(totals, choices=2)[0].running_tokens == 3


def test_events_before_the_first_content_do_not_start_the_answer() -> None:
    tap = StreamTap()
    role = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    assert tap.feed(b": ping\n\n" + role) == [(b": ping\n\n", 0, None, None), (role, 0, None, None)]
    assert not tap.started
    tap.feed(event({"choices": [{"index": 0, "delta": {"content": " "}}]}))
    assert tap.started


def test_a_bare_finish_reason_is_content_without_tokens() -> None:
    tap, passed = run([event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})])
    assert (tap.started, tap.whole, tap.content_events, len(passed)) == (True, True, 0, 1)


@pytest.mark.parametrize("reason", ["", None, False, 7])
def test_only_a_word_is_a_finish_reason(reason: object) -> None:
    tap, _ = run([event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})])
    assert not tap.whole
    assert not tap.started


def test_an_answer_is_whole_when_every_choice_asked_for_has_finished() -> None:
    tap = StreamTap(choices=2)
    for index, whole in ((0, False), (0, False), (2, False), (-1, False), (1, True)):
        tap.feed(event({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}))
        assert tap.whole is whole


def test_done_before_the_end_of_the_answer_is_withheld() -> None:
    tap, passed = run([event({"choices": [{"delta": {"content": "a"}}]}), DONE])
    assert (tap.done, tap.whole) == (True, False)
    assert DONE not in [data for data, _, _ in passed]


def test_nothing_follows_done() -> None:
    finish = event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    more = event({"choices": [{"delta": {"content": "more"}}]})
    for before in ([finish + DONE + more], [finish, DONE], [more, more, finish, DONE]):
        tap, passed = run([*before, more, more + more])
        assert passed[-1][0] == DONE
        assert tap.content_events == before.count(more)


ERRORS = {
    "openai": b'data: {"error":{"message":"boom","type":"server_error","code":"x","param":null}}\n\n',
    "vllm, older": b'data: {"object":"error","message":"boom","type":"server_error","param":null,"code":"x"}\n\n',
    "named event": b'event: error\ndata: {"message":"boom","type":"server_error","code":"x"}\n\n',
    "llama.cpp, older": b'error: {"code":"x","message":"boom","type":"server_error"}\n\n',
    "with choices": b'data: {"choices":[],"error":{"message":"boom","type":"server_error","code":"x"}}\n\n',
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_event_is_kept_for_the_relay_and_ends_the_stream(name: str) -> None:
    content = event({"choices": [{"delta": {"content": "a"}}]})
    tap, passed = run([content, ERRORS[name], content])
    assert tap.error == {"message": "boom", "type": "server_error", "code": "x", "param": None}
    assert passed == [(content, 1, None)]
    assert (tap.content_events, tap.done, tap.whole) == (1, False, False)


@pytest.mark.parametrize("error", [None, "", False, {}, []])
def test_an_empty_error_member_is_no_error(error: object) -> None:
    tap, passed = run([event({"choices": [{"delta": {"content": "a"}}], "error": error})])
    assert tap.error is None
    assert len(passed) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"1",
        b'{"choices":{"a":1}}',
        b'{"choices":[1]}',
        b'{"choices":"ab"}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"a":1}{"b":2}',
    ],
)
def test_an_event_that_does_not_parse_is_dropped_and_counted(payload: bytes) -> None:
    content = event({"choices": [{"delta": {"content": "a"}}]})
    tap, passed = run([content, b"data: " + payload + b"\n\n", content])
    assert (tap.bad_events, tap.content_events, len(passed)) == (1, 2, 2)


@pytest.mark.parametrize(("levels", "bad"), [(63, 0), (64, 1), (1000, 1), (100_000, 1)])
def test_an_event_that_nests_too_deep_is_dropped_and_counted(levels: int, bad: int) -> None:
    deep = b'data: {"usage":null,"choices":[{"delta":{"content":"a"}}],"x":' + b"[" * levels + b"]" * levels + b"}\n\n"
    for show in SHOWS:
        tap, passed = run([deep, deep], show=show)
        assert (tap.bad_events, tap.content_events, len(passed)) == (2 * bad, 2 - 2 * bad, 2 - 2 * bad)


def test_an_event_of_too_many_members_to_cut_is_dropped_and_counted() -> None:
    wide = event(
        {"choices": [{"delta": {"content": "a"}}], "usage": None} | {f"x{number}": 1 for number in range(1000)}
    )
    assert [len(run([wide, wide], show=show)[1]) for show in SHOWS] == [0, 2, 2]
    assert run([wide, wide])[0].bad_events == 2
    running = wide.replace(b'"usage":null', b'"usage":{"completion_tokens":1}')
    assert [len(run([running, running], show=show)[1]) for show in SHOWS] == [0, 0, 2]


def test_running_usage_that_nests_too_deep_is_dropped_and_counted() -> None:
    known = event({"choices": [{"delta": {"content": "a"}}], "usage": {"completion_tokens": 1}})
    for levels in (10, 62, 63, 500):
        deep = known.replace(b":1}", b":1," + b'"x":' + b"[" * levels + b"]" * levels + b"}")
        agrees_with_a_parse(known + deep + known, [known, deep, known], 1, "none")


def test_an_event_in_several_data_lines_is_one_event() -> None:
    lines = b'data: {"choices":[{"delta":{"content":\r\ndata:"a"}}],\r\nid: 5\r\ndata: "usage":null}\r\n\r\n'
    tap, passed = run([lines, lines])
    assert tap.content_events == 2
    assert orjson.loads(data_of(passed[1][0]) or b"") == {"choices": [{"delta": {"content": "a"}}]}
    assert passed[1][0].startswith(b"id: 5\n")
    assert run([lines], show="all")[1] == [(lines, 1, None)]


def test_an_event_beyond_the_bound_is_refused_on_either_path() -> None:
    def content(text: str) -> bytes:
        return event({"choices": [{"delta": {"content": text}}]})

    bound = len(content("abcde"))
    tap = StreamTap(event_bytes_max=bound)
    assert [len(tap.feed(content(text))) for text in ("a", "abc", "abcde")] == [1, 1, 1]
    with pytest.raises(EventTooLarge):
        tap.feed(content("abcdef"))


FINAL = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}
FINISH = {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("chunks", "flags"),
    [
        ([FINISH, FINAL], ()),
        ([FINISH, FINAL, FINAL], ("usage_doubled",)),
        ([FINISH, FINAL, FINAL | {"usage": {"completion_tokens": 6}}], ("usage_contradictory",)),
        ([FINISH | {"usage": {"completion_tokens": 6}}, FINAL], ("usage_contradictory",)),
        ([FINISH | {"usage": {"completion_tokens": 5}}, FINAL], ()),
        ([FINISH | {"usage": {"completion_tokens": count}} for count in (3, 2)], ("usage_decreasing",)),
    ],
)
def test_usage_that_contradicts_itself_is_flagged(chunks: list[dict[str, Any]], flags: tuple[str, ...]) -> None:
    assert run([event(chunk) for chunk in chunks])[0].usage_flags == flags


@pytest.mark.parametrize("tokens", [None, True, -1, 3.0, "3"])
def test_running_usage_that_is_no_count_moves_nothing(tokens: object) -> None:
    tap, _ = run([event({"choices": [{"delta": {"content": "a"}}], "usage": {"completion_tokens": tokens}})] * 3)
    assert tap.running_tokens is None
    assert tap.usage == {"completion_tokens": tokens}


def test_the_model_that_answered_is_known() -> None:
    assert run([STREAMS["llama.cpp"].raw])[0].model == "qwen3-0.6b"
