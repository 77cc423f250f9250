import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.openai_answer import (
    ERROR_BYTES_MAX,
    TOKENS_MAX,
    BadAnswer,
    UsageClaims,
    claims,
    hidden_reasoning,
    parse_answer,
    plausible_answer,
    plausible_stream,
    upstream_error,
)

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def test_openai_counts_cached_inside_prompt_and_reasoning_inside_completion() -> None:
    details = {
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert claims(USAGE | details) == UsageClaims(10, 4, 2, 5, 3, ())


@pytest.mark.parametrize(
    ("more", "cached"),
    [
        ({}, None),
        ({"prompt_tokens_details": None}, None),
        ({"prompt_tokens_details": {"cached_tokens": None}}, None),
        ({"prompt_tokens_details": {"cached_tokens": 0}, "prompt_cache_hit_tokens": 4}, 0),
        ({"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6}, 4),
        ({"cached_tokens": 7}, 7),
    ],
)
def test_cached_input_is_found_where_each_backend_puts_it(more: dict[str, Any], cached: int | None) -> None:
    assert claims(USAGE | more) == UsageClaims(10, cached, None, 5, None, ())


def test_no_usage_is_flagged_as_missing() -> None:
    assert claims(None) == UsageClaims(flags=("usage_missing",))
    assert claims({}) == UsageClaims(flags=("input_missing", "output_missing"))


@pytest.mark.parametrize(
    ("changes", "flags", "output"),
    [
        ({"completion_tokens": None}, ("output_missing",), None),
        ({"completion_tokens": -5}, ("output_negative",), None),
        ({"completion_tokens": "5"}, ("output_not_a_number",), None),
        ({"completion_tokens": True}, ("output_not_a_number",), None),
        ({"completion_tokens": 5.0}, ("output_not_a_number",), None),
        ({"completion_tokens": [5]}, ("output_not_a_number",), None),
        ({"completion_tokens": TOKENS_MAX + 1}, ("output_too_large",), None),
        ({"completion_tokens": 0, "total_tokens": 10}, ("output_zero",), 0),
        ({"prompt_tokens": 0, "total_tokens": 5}, ("input_zero",), 5),
        ({"prompt_tokens": "x"}, ("input_not_a_number",), 5),
        ({"total_tokens": 16}, ("total_contradictory",), 5),
        ({"total_tokens": -1}, ("total_negative",), 5),
        ({"total_tokens": None}, (), 5),
        ({"prompt_tokens_details": {"cached_tokens": 11}}, ("cached_above_input",), 5),
        ({"prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 5}}, ("cached_above_input",), 5),
        ({"prompt_tokens_details": {"cached_tokens": "1"}}, ("cached_not_a_number",), 5),
        ({"completion_tokens_details": {"reasoning_tokens": 6}}, ("reasoning_above_output",), 5),
        ({"completion_tokens_details": {"reasoning_tokens": -1}}, ("reasoning_negative",), 5),
    ],
)
def test_a_number_that_cannot_be_is_flagged_and_not_believed(
    changes: dict[str, Any], flags: tuple[str, ...], output: int | None
) -> None:
    found = claims(USAGE | changes)
    assert (found.flags, found.output) == (flags, output)
    assert found.cached is None
    assert found.reasoning is None


NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))
DETAILS = st.one_of(
    NUMBERS,
    st.dictionaries(st.sampled_from(["cached_tokens", "cache_write_tokens", "reasoning_tokens"]), NUMBERS),
)
ANY_USAGE = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": NUMBERS,
        "completion_tokens": NUMBERS,
        "total_tokens": NUMBERS,
        "prompt_tokens_details": DETAILS,
        "completion_tokens_details": DETAILS,
        "prompt_cache_hit_tokens": NUMBERS,
    },
)


@given(ANY_USAGE)
def test_nothing_settled_from_a_claim_can_turn_negative(usage: dict[str, Any]) -> None:
    found = claims(usage)
    for count in (found.input, found.cached, found.cache_write, found.output, found.reasoning):
        assert count is None or (type(count) is int and 0 <= count <= TOKENS_MAX)
    if found.input is not None:
        assert (found.cached or 0) + (found.cache_write or 0) <= found.input
    if found.output is not None:
        assert (found.reasoning or 0) <= found.output


def test_reasoning_is_hidden_only_where_no_event_showed_it() -> None:
    assert hidden_reasoning(40, reasoning_seen=False) == 40
    assert hidden_reasoning(40, reasoning_seen=True) == 0
    assert hidden_reasoning(None, reasoning_seen=False) == 0


@pytest.mark.parametrize(
    ("claimed", "events", "hidden", "per_event", "choices", "max_tokens", "plausible"),
    [
        (None, 10, 0, 4, 1, None, False),
        (10, 10, 0, 4, 1, None, True),
        (9, 10, 0, 4, 1, None, False),
        (40, 10, 0, 4, 1, None, True),
        (41, 10, 0, 4, 1, None, True),
        (42, 10, 0, 4, 1, None, False),
        (43, 10, 0, 4, 3, None, True),
        (44, 10, 0, 4, 3, None, False),
        (10, 10, 0, 1, 1, None, True),
        (11, 10, 0, 1, 1, None, False),
        (110, 10, 100, 1, 1, None, True),
        (109, 10, 100, 1, 1, None, False),
        (12, 10, 0, 4, 1, 12, True),
        (13, 10, 0, 4, 1, 12, False),
        (24, 10, 0, 4, 2, 12, True),
        (25, 10, 0, 4, 2, 12, False),
        (0, 0, 0, 4, 1, None, True),
        (1, 0, 0, 4, 1, None, True),
        (2, 0, 0, 4, 1, None, False),
        (1, 0, 0, 1, 1, None, False),
    ],
)
def test_a_streams_claim_is_weighed_against_its_events(
    claimed: int | None,
    events: int,
    hidden: int,
    per_event: int,
    choices: int,
    max_tokens: int | None,
    plausible: bool,
) -> None:
    assert (
        plausible_stream(
            claimed,
            content_events=events,
            hidden_reasoning=hidden,
            tokens_per_event_max=per_event,
            choices=choices,
            max_tokens=max_tokens,
        )
        is plausible
    )


@pytest.mark.parametrize(
    ("claimed", "content_bytes", "hidden", "choices", "max_tokens", "plausible"),
    [
        (None, 100, 0, 1, None, False),
        (1, 100, 0, 1, None, True),
        (0, 100, 0, 1, None, False),
        (0, 0, 0, 1, None, True),
        (108, 100, 0, 1, None, True),
        (109, 100, 0, 1, None, False),
        (8, 0, 0, 1, None, True),
        (9, 0, 0, 1, None, False),
        (50, 4, 46, 1, None, True),
        (46, 4, 46, 1, None, False),
        (45, 0, 46, 1, None, False),
        (20, 100, 0, 2, 10, True),
        (21, 100, 0, 2, 10, False),
    ],
)
def test_a_whole_answers_claim_is_weighed_against_its_bytes(
    claimed: int | None, content_bytes: int, hidden: int, choices: int, max_tokens: int | None, plausible: bool
) -> None:
    assert (
        plausible_answer(
            claimed, content_bytes=content_bytes, hidden_reasoning=hidden, choices=choices, max_tokens=max_tokens
        )
        is plausible
    )


def answer(*messages: dict[str, Any], finish: Any = "stop", **more: Any) -> bytes:
    choices = [{"index": at, "message": message, "finish_reason": finish} for at, message in enumerate(messages)]
    return orjson.dumps({"id": "1", "object": "chat.completion", "model": "m-1", "choices": choices, **more})


def test_an_answer_is_read_whole() -> None:
    found = parse_answer(answer({"content": "Hé"}, {"content": "you"}, usage=USAGE))
    assert (found.model, found.finish_reasons, found.content_bytes) == ("m-1", ("stop", "stop"), 6)
    assert (found.usage, found.reasoning_seen) == (USAGE, False)


@pytest.mark.parametrize(
    ("message", "content_bytes", "reasoning_seen"),
    [
        ({"content": None}, 0, False),
        ({"content": [{"type": "text", "text": "ab"}, {"type": "image"}]}, 2, False),
        ({"content": "a", "reasoning_content": "think"}, 6, True),
        ({"content": "a", "reasoning": "think", "reasoning_content": "think"}, 6, True),
        ({"content": "a", "reasoning_content": None}, 1, False),
        ({"refusal": "no"}, 2, False),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, {"custom": {"name": "g", "input": "xy"}}]},
            6,
            False,
        ),
        ({"function_call": {"name": "f", "arguments": "{}"}}, 3, False),
        ({"audio": {"data": "AAAA", "transcript": "hm"}}, 2, False),
        ({"content": 5, "tool_calls": [None, {"function": 1}], "audio": []}, 0, False),
    ],
)
def test_all_that_the_model_wrote_counts_as_content(
    message: dict[str, Any], content_bytes: int, reasoning_seen: bool
) -> None:
    found = parse_answer(answer(message))
    assert (found.content_bytes, found.reasoning_seen) == (content_bytes, reasoning_seen)


def test_a_text_completion_is_an_answer() -> None:
    choices = [{"text": "ab", "index": 0, "finish_reason": "length"}, {"text": "c", "index": 1, "finish_reason": None}]
    found = parse_answer(orjson.dumps({"choices": choices}))
    assert (found.content_bytes, found.finish_reasons, found.usage) == (3, ("length", None), None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        answer({"content": "cut"})[:-1],
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[1]}',
        b'{"choices":{}}',
        b'{"error":{"message":"boom"}}',
    ],
)
def test_what_is_no_answer_is_not_taken_for_one(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_answer(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"error":{"message":"boom","type":"t","code":"c","param":"p"}}',
        b'{"object":"error","message":"boom","type":"t","param":"p","code":"c"}',
        b'[{"error":{"message":"boom","type":"t","code":"c","param":"p"}}]',
    ],
)
def test_an_error_is_found_in_every_wrapping(raw: bytes) -> None:
    assert upstream_error(raw) == {"message": "boom", "type": "t", "code": "c", "param": "p"}


@pytest.mark.parametrize(
    ("raw", "message", "code"),
    [
        (b'{"error":"boom"}', "boom", None),
        (b'{"detail":"boom"}', "boom", None),
        (b'{"detail":[{"loc":["body"],"msg":"bad"}]}', '[{"loc":["body"],"msg":"bad"}]', None),
        (b'{"error":{"message":"boom","code":400}}', "boom", 400),
        (b'{"error":{"message":"boom","code":true,"type":5}}', "boom", None),
        (b"<html><body>502 at 10.0.0.7</body></html>", "the backend gave no reason", None),
        (b"", "the backend gave no reason", None),
        (b"[]", "the backend gave no reason", None),
        (b"5", "the backend gave no reason", None),
    ],
)
def test_an_error_without_the_usual_members_still_says_something(raw: bytes, message: str, code: Any) -> None:
    assert upstream_error(raw) == {"message": message, "type": None, "code": code, "param": None}


def test_an_error_is_cut_and_keeps_no_secret() -> None:
    long = orjson.dumps({"error": {"message": "é" * 5000, "type": "t" * 500, "code": "c" * 500}})
    cut = upstream_error(long)
    total = sum(len(value.encode()) for value in cut.values() if isinstance(value, str))
    assert ERROR_BYTES_MAX - 2 < total <= ERROR_BYTES_MAX
    secret = orjson.dumps({"error": {"message": "key sk-9 at gz-1.example", "code": "sk-9"}})
    assert upstream_error(secret, hide=["sk-9", "gz-1.example", ""]) == {
        "message": "key [hidden] at [hidden]",
        "type": None,
        "code": "[hidden]",
        "param": None,
    }


def test_answers_and_errors_that_nest_deep_break_nothing() -> None:
    text = b"1"
    for _ in range(300):
        text = b'[{"text":' + text + b"}]"
    found = parse_answer(b'{"choices":[{"message":{"content":' + text + b"}}]}")
    assert found.content_bytes == 0
    assert upstream_error(b'{"detail":' + text + b"}")["message"] == "the backend gave no reason"


# Members that count for nothing and make a reader look at every other one.
CLOSER_LOOK_AT_MESSAGE = {"audio": {"id": "x"}}
CLOSER_LOOK_AT_USAGE: dict[str, Any] = {"prompt_tokens_details": {"audio_tokens": 0}}
ANYTHING = st.one_of(NUMBERS, st.text(max_size=4), st.lists(st.text(max_size=2), max_size=2), DETAILS)


@given(st.dictionaries(st.sampled_from([*USAGE, "prompt_cache_hit_tokens", "cached_tokens", "x"]), NUMBERS))
def test_a_plain_usage_is_read_as_any_other(changes: dict[str, Any]) -> None:
    beyond = {"prompt_tokens": TOKENS_MAX, "completion_tokens": 1, "total_tokens": TOKENS_MAX + 1}
    for usage in (USAGE | changes, changes, USAGE, beyond, beyond | changes):
        assert claims(usage) == claims(usage | CLOSER_LOOK_AT_USAGE)


@given(
    st.dictionaries(
        st.sampled_from(
            ["content", "role", "reasoning", "reasoning_content", "refusal", "function_call", "tool_calls"]
        ),
        ANYTHING,
    ),
    st.dictionaries(st.sampled_from(["finish_reason", "text", "index", "logprobs"]), ANYTHING),
    st.dictionaries(st.sampled_from(["model", "usage", "id"]), ANYTHING),
)
def test_a_plain_answer_is_read_as_any_other(
    message: dict[str, Any], choice: dict[str, Any], answer: dict[str, Any]
) -> None:
    def read(message: dict[str, Any]) -> Any:
        whole = {"model": "m", "usage": USAGE} | answer
        whole["choices"] = [{"finish_reason": "stop"} | choice | {"message": message}]
        return parse_answer(json.dumps(whole).replace("NaN", "null").replace("Infinity", "1").encode())

    for each in (message, {"role": "assistant", "content": "Hié"} | message):
        assert read(each) == read(each | CLOSER_LOOK_AT_MESSAGE)
