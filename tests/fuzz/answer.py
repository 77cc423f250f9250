"""Answers, usage claims and errors of backends: taken or refused, never believed beyond reason."""

from typing import Any

import orjson

from gateway.wire.openai import error_body
from gateway.wire.openai_answer import (
    ERROR_BYTES_MAX,
    TOKENS_MAX,
    BadAnswer,
    claims,
    hidden_reasoning,
    parse_answer,
    plausible_answer,
    upstream_error,
)
from tests.fuzz.inputs import case_of

TOKENS = [
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]',
    b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}',
    b'"prompt_tokens_details":{"cached_tokens":1,"cache_write_tokens":1}',
    b'"completion_tokens_details":{"reasoning_tokens":1}',
    b'"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]',
    b'"error":{"message":"a","type":"b","code":1,"param":"c"}',
    b'"detail":[{"msg":"a"}]',
    b'"audio":{"transcript":"a"}',
    b'"reasoning":"a"',
    b'[{"type":"text","text":"a"}]',
    b"-1",
    b"1e3",
    b"true",
    b"null",
    b"99999999999999999999",
    b"secret.example",
]
SECRET = "secret.example"


def check(data: bytes) -> None:
    """A claim is a whole number within its whole or nothing; an error is short and names nobody."""
    raw = case_of(data).whole
    _check_answer(raw)
    facts = upstream_error(raw, [SECRET, ""])
    told = error_body(facts["message"], facts["type"] or "t", facts["code"], facts["param"])
    error = orjson.loads(told)["error"]
    texts = [value for value in error.values() if isinstance(value, str)]
    assert SECRET not in "\n".join(texts)
    assert sum(len(text.encode()) for text in texts) <= ERROR_BYTES_MAX + 1


def _check_answer(raw: bytes) -> None:
    try:
        answer = parse_answer(raw)
    except BadAnswer:
        _check_claims(_object(raw))
        return
    assert answer.content_bytes >= 0
    assert not answer.reasoning_seen or answer.content_bytes > 0
    assert len(answer.finish_reasons) == len(orjson.loads(raw)["choices"])
    _check_claims(answer.usage)
    told = claims(answer.usage)
    hidden = hidden_reasoning(told.reasoning, reasoning_seen=answer.reasoning_seen)
    if plausible_answer(
        told.output, content_bytes=answer.content_bytes, hidden_reasoning=hidden, choices=1, max_tokens=None
    ):
        assert told.output is not None
        assert 0 <= told.output - hidden <= answer.content_bytes + 8


def _check_claims(usage: dict[str, Any] | None) -> None:
    told = claims(usage)
    numbers = [told.input, told.cached, told.cache_write, told.output, told.reasoning]
    assert all(each is None or (type(each) is int and 0 <= each <= TOKENS_MAX) for each in numbers)
    if told.input is not None:
        assert (told.cached or 0) + (told.cache_write or 0) <= told.input
    if told.output is not None:
        assert (told.reasoning or 0) <= told.output


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
