"""The judging and the splicing of request bodies against a plain parse."""

import json
from typing import Any, get_args

import orjson

from gateway.wire.errors import BadRequest
from gateway.wire.openai import BackendUsage, Endpoint, RequestFacts, parse_request, shown_usage, upstream_body
from gateway.wire.splice import JsonMalformed, JsonOutOfBounds, top_level_members
from tests.fuzz.inputs import case_of

TOKENS = [
    b'"model":',
    b'"model":"m"',
    b'"stream":true',
    b'"stream_options":{"include_usage":true}',
    b'"stream_options":null',
    b'"continuous_usage_stats":true',
    b'"messages":[{"role":"user","content":"a"}]',
    b'"prompt":["a",[1]]',
    b'"max_tokens":5',
    b'"n":2',
    b"\\u006d",
    b'\\\\"',
    b'\\"',
    b"{}",
    b"[]",
    b"null",
    b"1e5",
    b"\xef\xbb\xbf",
]
USAGES: tuple[BackendUsage, ...] = get_args(BackendUsage)
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
UPSTREAM_MODEL = 'ups"tream\\é'

Members = list[tuple[str, Any]]


def check(data: bytes) -> None:
    """A body that is taken means the same to a parser, and leaves changed in two members only."""
    case = case_of(data)
    endpoint, usage = ENDPOINTS[case.options % 2], USAGES[case.options // 2 % 3]
    raw = case.whole
    try:
        facts = parse_request(raw, endpoint)
    except BadRequest as refused:
        if refused.status != 400:
            raise
        _scan(raw)
        return
    _agrees(raw, facts)
    for model in (UPSTREAM_MODEL, facts.model):
        _spliced(raw, facts, model, usage, endpoint)


def _scan(raw: bytes) -> None:
    """The scan of anything ends, in one of its own ways."""
    try:
        top_level_members(raw)
    except (JsonMalformed, JsonOutOfBounds):
        return


def _agrees(raw: bytes, facts: RequestFacts) -> None:
    body = orjson.loads(raw)
    options = body.get("stream_options") or {}
    assert facts.model == body["model"]
    assert facts.stream is bool(body.get("stream"))
    assert facts.include_usage is bool(options.get("include_usage"))
    assert [member.key for member in top_level_members(raw)] == [key for key, _ in parsed(raw)]
    start, end = facts.model_span
    assert orjson.loads(raw[start:end]) == facts.model
    assert facts.choices >= 1
    assert facts.prompt_bytes >= 1


def _spliced(raw: bytes, facts: RequestFacts, model: str, usage: BackendUsage, endpoint: Endpoint) -> None:
    out = upstream_body(raw, facts, model, usage)
    expected = [(key, model if key == "model" else value) for key, value in parsed(raw)]
    if facts.stream and usage != "none":
        given = [value for key, value in expected if key == "stream_options"]
        options = dict(given[0] or ()) if given else {}
        options["include_usage"] = True
        if usage == "continuous":
            options["continuous_usage_stats"] = True
        expected = [(key, options if key == "stream_options" else value) for key, value in expected]
        if not any(key == "stream_options" for key, _ in expected):
            expected.append(("stream_options", options))
    got = parsed(out)
    assert _unordered(got) == _unordered(expected), (got, expected)
    again = parse_request(out, endpoint)
    assert (again.model, again.stream, again.choices) == (model, facts.stream, facts.choices)
    assert shown_usage(facts, usage) in ("none", "final", "all")


def _unordered(members: Members) -> Members:
    """The options' own members in any order."""
    return [(key, dict(value) if key == "stream_options" and value else value) for key, value in members]


def parsed(raw: bytes) -> Members:
    """The outermost members in order, duplicates and all; numbers as they are spelt."""
    found: Members = json.loads(raw, object_pairs_hook=lambda pairs: pairs, parse_int=str, parse_float=str)
    return found
