"""The OpenAI dialect, answer side: whole answers, usage and errors of a backend, taken for what they are: claims.

A usage is believed number by number. One that is missing, negative or not a whole number is None and named in the
flags; parts that exceed their whole are None too, so that nothing settled from a claim can turn negative. Cached input
is part of `prompt_tokens` and reasoning part of `completion_tokens`, as OpenAI counts.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from gateway.wire.splice import too_deep

TOKENS_MAX = 10**12  # beyond it a claim is noise, and would not fit the columns it is summed in
ERROR_BYTES_MAX = 4096
_ERROR_FIELD_BYTES_MAX = 256
_HIDDEN = "[hidden]"
REASONING = ("reasoning_content", "reasoning")  # the names under which servers show it


# Where a usage tells of parts of its counts, and a message of more than its content.
_PARTS = ("prompt_tokens_details", "completion_tokens_details", "prompt_cache_hit_tokens", "cached_tokens")
_MORE = (*REASONING, "refusal", "function_call", "tool_calls", "audio")


class UsageClaims(NamedTuple):
    input: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    output: int | None = None
    reasoning: int | None = None
    flags: tuple[str, ...] = ()


class AnswerFacts(NamedTuple):
    """A non-streaming answer. `usage` None: it carried none."""

    model: str
    finish_reasons: tuple[str | None, ...]
    content_bytes: int
    reasoning_seen: bool
    usage: dict[str, Any] | None


class BadAnswer(ValueError):
    """A body that is no answer: cut, not JSON, or without choices."""


def claims(usage: Mapping[str, Any] | None) -> UsageClaims:
    if usage is None:
        return UsageClaims(flags=("usage_missing",))
    plain = _plain_claims(usage)
    if plain is not None:
        return plain
    flags: list[str] = []
    prompt_details = _details(usage, "prompt_tokens_details")
    output_details = _details(usage, "completion_tokens_details")
    tokens_in = _claim(usage.get("prompt_tokens"), "input", flags, required=True)
    tokens_out = _claim(usage.get("completion_tokens"), "output", flags, required=True)
    cached = _claim(_cached(usage, prompt_details), "cached", flags)
    cache_write = _claim(prompt_details.get("cache_write_tokens"), "cache_write", flags)
    reasoning = _claim(output_details.get("reasoning_tokens"), "reasoning", flags)
    total = _claim(usage.get("total_tokens"), "total", flags)
    if tokens_in is not None and (cached or 0) + (cache_write or 0) > tokens_in:
        flags.append("cached_above_input")
        cached = cache_write = None
    if tokens_out is not None and (reasoning or 0) > tokens_out:
        flags.append("reasoning_above_output")
        reasoning = None
    if None not in (tokens_in, tokens_out, total) and (tokens_in or 0) + (tokens_out or 0) != total:
        flags.append("total_contradictory")
    return UsageClaims(tokens_in, cached, cache_write, tokens_out, reasoning, tuple(flags))


def _plain_claims(usage: Mapping[str, Any]) -> UsageClaims | None:
    """What most usages are: three counts that agree and nothing about parts of them. None: look more closely."""
    tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(tokens_in) is not int or type(tokens_out) is not int or tokens_in <= 0 or tokens_out <= 0:
        return None
    total = usage.get("total_tokens")
    if type(total) is not int or tokens_in + tokens_out != total or total > TOKENS_MAX:
        return None
    if len(usage) > 3 and any(part in usage and usage[part] is not None for part in _PARTS):
        return None
    return UsageClaims(tokens_in, None, None, tokens_out)


def _details(usage: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    details = usage.get(key)
    return details if isinstance(details, dict) else {}


def _cached(usage: Mapping[str, Any], details: Mapping[str, Any]) -> Any:
    """Where OpenAI puts it, else where DeepSeek and Moonshot do."""
    for place, key in (
        (details, "cached_tokens"),
        (usage, "prompt_cache_hit_tokens"),
        (usage, "cached_tokens"),
    ):
        if place.get(key) is not None:
            return place[key]
    return None


def _claim(value: Any, name: str, flags: list[str], *, required: bool = False) -> int | None:
    """A whole number or None. `3.0` is not one: what counts tokens counts in integers, so a float was computed."""
    if value is None:
        if required:
            flags.append(f"{name}_missing")
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        flags.append(f"{name}_not_a_number")
        return None
    if value < 0:
        flags.append(f"{name}_negative")
        return None
    if value > TOKENS_MAX:
        flags.append(f"{name}_too_large")
        return None
    if value == 0 and required:
        flags.append(f"{name}_zero")
    return value


def hidden_reasoning(reasoning: int | None, *, reasoning_seen: bool) -> int:
    """Reasoning tokens that no event showed: they are in the claim and not in what was forwarded."""
    return 0 if reasoning_seen else reasoning or 0


def plausible_stream(
    claimed: int | None,
    *,
    content_events: int,
    hidden_reasoning: int,
    tokens_per_event_max: int,
    choices: int,
    max_tokens: int | None,
) -> bool:
    """Whether an output claim fits what a whole stream showed. Stop tokens may come on top, one per choice."""
    if claimed is None or not _within_request(claimed, choices, max_tokens):
        return False
    stop_tokens = choices if tokens_per_event_max > 1 else 0
    shown = claimed - hidden_reasoning
    return content_events <= shown <= tokens_per_event_max * content_events + stop_tokens


def plausible_answer(
    claimed: int | None,
    *,
    content_bytes: int,
    hidden_reasoning: int,
    choices: int,
    max_tokens: int | None,
) -> bool:
    """Whether an output claim fits a whole non-streaming answer: no token is shorter than a byte, but for a few."""
    if claimed is None or not _within_request(claimed, choices, max_tokens):
        return False
    shown = claimed - hidden_reasoning
    return (1 if content_bytes else 0) <= shown <= content_bytes + 8


def _within_request(claimed: int, choices: int, max_tokens: int | None) -> bool:
    return max_tokens is None or claimed <= choices * max_tokens


def parse_answer(raw: bytes) -> AnswerFacts:
    """Read a non-streaming answer. BadAnswer if it is none, also when the body was cut."""
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError as malformed:
        raise BadAnswer("not JSON") from malformed
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise BadAnswer("no choices")
    plain = _plain_answer(answer, choices[0]) if len(choices) == 1 else None
    return plain if plain is not None else _any_answer(answer, choices)


def _plain_answer(answer: Mapping[str, Any], choice: Any) -> AnswerFacts | None:
    """The facts of what most answers are: one message with text alone. None: look more closely."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or "text" in choice:
        return None
    content = message.get("content")
    if not isinstance(content, str) or any(map(message.get, _MORE)):
        return None
    model, usage, reason = answer.get("model"), answer.get("usage"), choice.get("finish_reason")
    return AnswerFacts(
        model if isinstance(model, str) else "",
        (reason if isinstance(reason, str) and reason else None,),
        len(content) if content.isascii() else len(content.encode()),
        False,
        usage if isinstance(usage, dict) else None,
    )


def _any_answer(answer: Mapping[str, Any], choices: list[Any]) -> AnswerFacts:
    if not all(isinstance(choice, dict) for choice in choices):
        raise BadAnswer("no choices")
    reasons = (choice.get("finish_reason") for choice in choices)
    messages = [choice["message"] for choice in choices if isinstance(choice.get("message"), dict)]
    model, usage = answer.get("model"), answer.get("usage")
    return AnswerFacts(
        model=model if isinstance(model, str) else "",
        finish_reasons=tuple(reason if isinstance(reason, str) and reason else None for reason in reasons),
        content_bytes=sum(map(_message_bytes, messages)) + sum(_text_bytes(choice.get("text")) for choice in choices),
        reasoning_seen=any(_text_bytes(message.get(key)) for message in messages for key in REASONING),
        usage=usage if isinstance(usage, dict) else None,
    )


def _message_bytes(message: Mapping[str, Any]) -> int:
    """Bytes of what the model wrote: content, reasoning (once where it stands twice), refusal, calls, audio's text."""
    count = max(_text_bytes(message.get(key)) for key in REASONING)
    count += _text_bytes(message.get("content")) + _text_bytes(message.get("refusal"))
    calls = [message.get("function_call")]
    if isinstance(message.get("tool_calls"), list):
        calls += [
            call.get("function") or call.get("custom") for call in message["tool_calls"] if isinstance(call, dict)
        ]
    for call in calls:
        if isinstance(call, dict):
            count += sum(_text_bytes(call.get(key)) for key in ("name", "arguments", "input"))
    audio = message.get("audio")
    return count + (_text_bytes(audio.get("transcript")) if isinstance(audio, dict) else 0)


def _text_bytes(content: Any) -> int:
    if isinstance(content, str):
        return len(content.encode())
    if not isinstance(content, list):
        return 0
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return sum(len(text.encode()) for text in texts if isinstance(text, str))


def upstream_error(raw: bytes, hide: Iterable[str] = ()) -> dict[str, Any]:
    """A backend's error as message, type, code and param, at most 4 KiB of it, without the words to hide.

    Backends wrap errors in many ways: `{"error": {...}}`, `{"error": "..."}`, `{"object": "error", ...}`,
    `{"detail": ...}`, or a proxy's HTML, of which nothing is shown.
    """
    try:
        body = None if too_deep(raw) else orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    return error_facts(body, hide)


def error_facts(body: Any, hide: Iterable[str] = ()) -> dict[str, Any]:
    """As `upstream_error`, of parsed JSON that is not too deep."""
    if isinstance(body, list) and body:
        body = body[0]  # as Google's endpoint wraps it
    error = body.get("error") or body if isinstance(body, dict) else body
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {}
    message = error.get("message") or error.get("detail")
    if message is not None and not isinstance(message, str):
        message = orjson.dumps(message).decode()
    words = [word for word in hide if word]
    code = error.get("code")
    facts: dict[str, Any] = {key: _short(error.get(key), words) for key in ("type", "param")}
    facts["code"] = code if isinstance(code, int) and not isinstance(code, bool) else _short(code, words)
    room = ERROR_BYTES_MAX - sum(len(value) for value in facts.values() if isinstance(value, str))
    facts["message"] = _cut(_without(message or "the backend gave no reason", words), room)
    return facts


def _short(value: Any, words: Iterable[str]) -> str | None:
    return _cut(_without(value, words), _ERROR_FIELD_BYTES_MAX) if isinstance(value, str) else None


def _without(text: str, words: Iterable[str]) -> str:
    for word in words:
        text = text.replace(word, _HIDDEN)
    return text


def _cut(text: str, bytes_max: int) -> str:
    return text.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")
