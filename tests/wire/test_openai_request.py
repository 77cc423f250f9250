import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.errors import BadRequest
from gateway.wire.openai import (
    BackendUsage,
    Endpoint,
    RequestFacts,
    error_body,
    error_event,
    models_body,
    parse_request,
    shown_usage,
    upstream_body,
)
from gateway.wire.sse import data_of
from tests.wire.documents import KEYS, VALUES, objects, pairs

CHAT: dict[str, Any] = {"model": "qwen3", "messages": [{"role": "user", "content": "Hi"}]}


def facts(body: dict[str, Any], endpoint: Endpoint = "chat") -> RequestFacts:
    return parse_request(orjson.dumps(body), endpoint)


def refusal(raw: bytes, endpoint: Endpoint = "chat") -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        parse_request(raw, endpoint)
    assert refused.value.status == 400
    return refused.value


def test_the_smallest_request_has_defaults() -> None:
    found = facts(CHAT)
    assert (found.model, found.stream, found.include_usage, found.continuous_usage) == ("qwen3", False, False, False)
    assert (found.max_tokens, found.choices) == (None, 1)


def test_what_routing_needs_is_read() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True, "x": 1}
    found = facts(CHAT | {"stream": True, "stream_options": options, "max_tokens": 50, "n": 3})
    assert (found.stream, found.include_usage, found.continuous_usage) == (True, True, True)
    assert (found.max_tokens, found.choices) == (50, 3)


def test_max_completion_tokens_wins() -> None:
    assert facts(CHAT | {"max_tokens": 50, "max_completion_tokens": 70}).max_tokens == 70
    assert facts(CHAT | {"max_tokens": 50, "max_completion_tokens": None}).max_tokens == 50


def test_null_is_absence() -> None:
    nothing = dict.fromkeys(["stream", "stream_options", "max_tokens", "max_completion_tokens", "n"])
    assert facts(CHAT | nothing).choices == 1


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": "m" * 257}, "model"),
        ({"stream": 1}, "stream"),
        ({"stream": "true"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        (
            {"stream_options": {"include_usage": True, "continuous_usage_stats": "y"}},
            "stream_options.continuous_usage_stats",
        ),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.0}, "n"),
        ({"n": "2"}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 16.0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": {}}, "messages"),
    ],
)
def test_a_wrong_type_is_refused_by_name(changes: dict[str, Any], param: str) -> None:
    assert refusal(orjson.dumps(CHAT | changes)).param == param


def test_a_model_of_the_longest_name_is_taken() -> None:
    assert facts(CHAT | {"model": "é" * 256}).model == "é" * 256


@pytest.mark.parametrize("key", ["model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n"])
@pytest.mark.parametrize("escaped", [False, True])
def test_a_key_that_is_acted_on_may_stand_only_once(key: str, escaped: bool) -> None:
    again = "".join(f"\\u{ord(each):04x}" for each in key) if escaped else key
    value = {"model": '"qwen3"', "stream": "true", "stream_options": "{}"}.get(key, "1")
    raw = "{" + f'"messages":[{{}}],"model":"qwen3","{key}":{value},"{again}":{value}' + "}"
    assert refusal(raw.encode()).param == key


@pytest.mark.parametrize("key", ["include_usage", "continuous_usage_stats"])
def test_a_stream_option_that_is_acted_on_may_stand_only_once(key: str) -> None:
    options = f'"{key}":true,"x":1,"{key}":false'
    raw = '{"messages":[{}],"model":"a","stream_options":{' + options + "}}"
    assert refusal(raw.encode()).param == f"stream_options.{key}"


def test_other_keys_may_stand_twice() -> None:
    raw = b'{"messages":[{"model":"b","n":0}],"model":"a","stop":1,"stop":2,"x":{"n":1,"n":2}}'
    assert parse_request(raw, "chat").model == "a"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"model"',
        b'{"model":"a",}',
        b"{'model':'a'}",
        b'{"model":NaN}',
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
        b'\xef\xbb\xbf{"model":"a"}',
        b'{"model":"a"} {}',
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    assert refusal(raw).param is None


def test_the_number_of_members_has_a_bound() -> None:
    members = ",".join(f'"x{number}":1' for number in range(1000))
    assert "more than 1000 members" in refusal(('{"model":"a","messages":[1],' + members + "}").encode()).reason
    options = '{"model":"a","messages":[1],"stream_options":{' + members + ',"y":1}}'
    assert "more than 1000 members" in refusal(options.encode()).reason


def test_depth_has_a_bound() -> None:
    def nested(levels: int) -> bytes:
        return b'{"model":"a","messages":' + b"[" * levels + b"1" + b"]" * levels + b"}"

    assert parse_request(nested(63), "chat").model == "a"
    assert "deeper than 64" in refusal(nested(64)).reason
    refusal(nested(500_000))


@pytest.mark.parametrize(
    ("prompt", "choices"), [("Hi", 2), (["Hi"], 2), (["a", "b"], 4), ([1, 2, 3], 2), ([[1, 2], [3]], 4)]
)
def test_every_prompt_of_a_completion_has_its_choices(prompt: Any, choices: int) -> None:
    assert facts({"model": "a", "prompt": prompt, "n": 2}, "completions").choices == choices


@pytest.mark.parametrize("prompt", [None, "", [], {}, 5])
def test_a_completion_needs_a_prompt(prompt: Any) -> None:
    assert refusal(orjson.dumps({"model": "a", "prompt": prompt}), "completions").param == "prompt"


def test_the_size_of_the_input_is_that_of_text_and_tools() -> None:
    plain = facts(CHAT).prompt_bytes
    assert plain == len(b'[{"role":"user","content":"Hi"}]')
    assert facts(CHAT | {"tools": [1234], "user": "x" * 900}).prompt_bytes == plain + len(b"[1234]")


def test_media_are_not_text() -> None:
    def with_image(size: int) -> int:
        parts = [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * size}},
            {"type": "input_audio", "input_audio": {"data": "A" * size, "format": "wav"}},
        ]
        return facts(CHAT | {"messages": [{"role": "user", "content": parts}]}).prompt_bytes

    assert with_image(1_000_000) == with_image(10) < 300


def test_token_ids_count_as_the_text_they_stand_for() -> None:
    assert facts({"model": "a", "prompt": [123456] * 100}, "completions").prompt_bytes == 400
    assert facts({"model": "a", "prompt": [[123456] * 50, [7] * 50]}, "completions").prompt_bytes == pytest.approx(
        400, 4
    )


RAW = (
    b'{ "stream" : true,"model":"qwen3", "messages":[{"role":"user","content":"\\u00e9 \\"model\\":1.50"}],"seed":1e2 }'
)


def test_a_body_that_needs_no_change_is_forwarded_as_it_is() -> None:
    raw = orjson.dumps(CHAT)
    assert upstream_body(raw, facts(CHAT), "qwen3", "continuous") is raw
    asked = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    raw = orjson.dumps(asked)
    assert upstream_body(raw, facts(asked), "qwen3", "final") is raw


def test_only_model_and_stream_options_change() -> None:
    changed = upstream_body(RAW, parse_request(RAW, "chat"), "Qwen/Qwen3-8B", "final")
    model = RAW.replace(b'"qwen3"', b'"Qwen/Qwen3-8B"')
    assert changed == model.replace(b'"seed":1e2', b'"seed":1e2,"stream_options":{"include_usage":true}')


@pytest.mark.parametrize("usage", ["final", "continuous", "none"])
def test_a_whole_answer_is_not_asked_for_stream_usage(usage: BackendUsage) -> None:
    raw = RAW.replace(b"true", b"false")
    changed = upstream_body(raw, parse_request(raw, "chat"), "b", usage)
    assert changed == raw.replace(b'"qwen3"', b'"b"')


@pytest.mark.parametrize(
    ("given", "usage", "sent"),
    [
        (None, "final", {"include_usage": True}),
        ({}, "final", {"include_usage": True}),
        ({"include_usage": False, "x": [1]}, "final", {"include_usage": True, "x": [1]}),
        ({"include_usage": None}, "continuous", {"include_usage": True, "continuous_usage_stats": True}),
        (
            {"include_usage": True, "x": 2},
            "continuous",
            {"include_usage": True, "continuous_usage_stats": True, "x": 2},
        ),
        (
            {"continuous_usage_stats": False, "include_usage": True},
            "continuous",
            {"continuous_usage_stats": True, "include_usage": True},
        ),
        ({"include_usage": False, "x": 1}, "none", {"include_usage": False, "x": 1}),
        (None, "none", None),
    ],
)
def test_usage_is_always_asked_for_and_other_options_kept(given: Any, usage: BackendUsage, sent: Any) -> None:
    body = CHAT | {"stream": True, "stream_options": given}
    changed = upstream_body(orjson.dumps(body), facts(body), "qwen3", usage)
    assert list(orjson.loads(changed)) == list(body)
    assert orjson.loads(changed)["stream_options"] == sent


@pytest.mark.parametrize(
    ("options", "usage", "shown"),
    [
        ({}, "final", "none"),
        ({"include_usage": False}, "continuous", "none"),
        ({"include_usage": True}, "final", "all"),
        ({"include_usage": True}, "none", "all"),
        ({"include_usage": True}, "continuous", "final"),
        ({"include_usage": True, "continuous_usage_stats": True}, "continuous", "all"),
        ({"continuous_usage_stats": True}, "continuous", "none"),
    ],
)
def test_a_client_is_shown_only_the_usage_it_asked_for(options: Any, usage: BackendUsage, shown: str) -> None:
    assert shown_usage(facts(CHAT | {"stream": True, "stream_options": options}), usage) == shown


OTHERS = st.lists(
    st.tuples(KEYS.filter(lambda key: key not in ("model", "stream", "stream_options", "n", "messages")), VALUES),
    max_size=4,
)


@given(OTHERS, st.data())
def test_a_body_in_any_spelling_differs_upstream_only_where_it_must(
    others: list[tuple[str, Any]], data: st.DataObject
) -> None:
    members = data.draw(st.permutations([*CHAT.items(), ("stream", True), ("stream_options", {"x": 1}), *others]))
    raw = data.draw(objects(members)).encode()
    changes = {"model": "b", "stream_options": {"x": 1, "include_usage": True, "continuous_usage_stats": True}}
    changed = upstream_body(raw, parse_request(raw, "chat"), "b", "continuous")
    assert pairs(changed) == [(key, changes.get(key, value)) for key, value in members]


@given(st.binary(max_size=60))
def test_no_bytes_make_the_parser_fail_in_another_way(garbage: bytes) -> None:
    for raw in (garbage, b'{"model":"a","messages":[' + garbage + b"]}"):
        try:
            parse_request(raw, "chat")
        except BadRequest:
            continue
        assert json.loads(raw)["model"] == "a"


def test_an_error_is_what_sdks_raise_on() -> None:
    assert orjson.loads(error_body("No.", "invalid_request_error", "bad_request", "n")) == {
        "error": {"message": "No.", "type": "invalid_request_error", "code": "bad_request", "param": "n"}
    }
    event = error_event("Cut.", "upstream_error", "upstream_cut", export_id="0199")
    assert event.endswith(b"\n\n") and event.count(b"\n") == 2
    assert orjson.loads(data_of(event) or b"") == {
        "error": {
            "message": "Cut.",
            "type": "upstream_error",
            "code": "upstream_cut",
            "param": None,
            "export_id": "0199",
        }
    }


def test_an_error_message_never_breaks_out_of_its_line() -> None:
    assert error_event('a\r\n\r\ndata: "b"', "t", "c").count(b"\n") == 2


def test_models_are_listed_by_their_public_names() -> None:
    listed = orjson.loads(models_body(["qwen3", "llama"]))
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["qwen3", "llama"])
    assert {model["object"] for model in listed["data"]} == {"model"}
