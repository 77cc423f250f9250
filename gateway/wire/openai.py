"""The OpenAI dialect, request side: what routing needs of a body, the body as a backend gets it, and errors.

The body is parsed once to be judged and is then forwarded as raw bytes, changed at `model` and `stream_options` only.
What the gateway acts on must be of the right type and stand there once: with a key twice, the gateway and the backend
could each act on another value. All else is the backend's business.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import orjson

from gateway.wire.errors import BadRequest
from gateway.wire.splice import JsonOutOfBounds, Member, places, replace_members, top_level_members

Endpoint = Literal["chat", "completions"]
Span = tuple[int, int]
BackendUsage = Literal["final", "continuous", "none"]
ShownUsage = Literal["none", "final", "all"]

MODEL_CHARS_MAX = 256
CHOICES_MAX = 128
_TOKEN_ID_BYTES = 4  # what one token id of a ready-made prompt stands for: about the length of a token in text
_ACTED_ON = frozenset(("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n"))
_INPUT = {"chat": (b"messages", b"tools", b"functions"), "completions": (b"prompt",)}
_PLACED = frozenset((b"model", b"stream_options", *_INPUT["chat"], *_INPUT["completions"]))
_ACTED_ON_IN_OPTIONS = frozenset(("include_usage", "continuous_usage_stats"))


class RequestFacts(NamedTuple):
    model: str
    stream: bool
    include_usage: bool  # the client asked for the final usage of a stream
    continuous_usage: bool  # and for the running one
    max_tokens: int | None  # per choice
    choices: int  # answers that must finish: n, for each prompt
    prompt_bytes: int  # raw JSON of what becomes input; media are not text and do not count
    # Places in the body, so that it is scanned once: of two values, and of the end of the last member's.
    model_span: Span
    options_span: Span | None
    members_end: int


def parse_request(raw: bytes, endpoint: Endpoint) -> RequestFacts:
    """Judge a body. BadRequest 400 with the member that is wrong."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as malformed:
        raise BadRequest(400, f"the body is not valid JSON: {malformed.msg}") from malformed
    if not isinstance(body, dict):
        raise BadRequest(400, "the body must be a JSON object")
    spans, members_end, prompt_bytes = _placed(raw, endpoint, len(body))
    stream = "stream" in body and _boolean(body, "stream")
    include_usage = continuous_usage = False
    if body.get("stream_options") is not None:
        include_usage, continuous_usage = _options(raw, body["stream_options"], spans[b"stream_options"])
    prompts, correction = _chat_prompt(body) if endpoint == "chat" else _completions_prompt(body)
    max_tokens = _positive(body, "max_tokens") if "max_tokens" in body else None
    if "max_completion_tokens" in body:
        max_completion_tokens = _positive(body, "max_completion_tokens")
        max_tokens = max_tokens if max_completion_tokens is None else max_completion_tokens
    n = _positive(body, "n", CHOICES_MAX) if "n" in body else None
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MODEL_CHARS_MAX:
        raise BadRequest(400, f"model must be a string of 1 to {MODEL_CHARS_MAX} characters", "model")
    return RequestFacts(
        sys.intern(model),  # there are few, and every stream keeps one
        stream,
        include_usage,
        continuous_usage,
        max_tokens,
        (n or 1) * prompts,
        max(prompt_bytes + correction, 1),
        spans[b"model"],
        spans.get(b"stream_options"),
        members_end,
    )


def _placed(raw: bytes, endpoint: Endpoint, count: int) -> tuple[dict[bytes, Span], int, int]:
    """Where the values are that are read or replaced, where the last one ends, and how long those of the input are.

    An object of as many members as its parse has keys has no key twice.
    """
    quick = places(raw, _PLACED, count)
    if quick is not None:
        spans, end = quick
        input_bytes = 0
        for key in _INPUT[endpoint]:
            if key in spans:
                start, stop = spans[key]
                input_bytes += stop - start
        return spans, end, input_bytes
    members = _members(raw)
    _refuse_duplicates(members, _ACTED_ON, "")
    spans = {member.key.encode(): (member.value_start, member.value_end) for member in members}
    inputs = [member for member in members if member.key.encode() in _INPUT[endpoint]]
    end = members[-1].value_end if members else 0
    return spans, end, sum(member.value_end - member.value_start for member in inputs)


def _options(raw: bytes, options: Any, span: Span) -> tuple[bool, bool]:
    """Whether the client asked for a stream's final usage, and for the running one."""
    if not isinstance(options, dict):
        raise BadRequest(400, "stream_options must be an object", "stream_options")
    start, end = span
    _refuse_duplicates(_members(raw[start:end]), _ACTED_ON_IN_OPTIONS, "stream_options.")
    include_usage = _boolean(options, "include_usage", "stream_options.")
    return include_usage, include_usage and _boolean(options, "continuous_usage_stats", "stream_options.")


def _members(raw: bytes) -> list[Member]:
    try:
        return top_level_members(raw)
    except JsonOutOfBounds as beyond:
        raise BadRequest(400, f"the body is beyond bounds: {beyond}") from beyond


def _refuse_duplicates(members: Iterable[Member], keys: frozenset[str], where: str) -> None:
    seen: set[str] = set()
    for member in members:
        if member.key in seen and member.key in keys:
            raise BadRequest(400, f"{where}{member.key} is given more than once", where + member.key)
        seen.add(member.key)


def _boolean(body: Mapping[str, Any], key: str, where: str = "") -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(400, f"{where}{key} must be true or false", where + key)
    return bool(value)


def _positive(body: Mapping[str, Any], key: str, most: int | None = None) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        bounds = "of at least 1" if most is None else f"from 1 to {most}"
        raise BadRequest(400, f"{key} must be a whole number {bounds}", key)
    return value


def _chat_prompt(body: Mapping[str, Any]) -> tuple[int, int]:
    """How many prompts, and by how many bytes the raw JSON overstates their text."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest(400, "messages must be a non-empty list", "messages")
    media_bytes = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            media_bytes += sum(_media_bytes(part) for part in content)
    return 1, -media_bytes


def _media_bytes(part: object) -> int:
    """An image, sound or file in the body is megabytes of base64 and a few hundred tokens."""
    if not isinstance(part, dict):
        return 0
    carriers = (part.get(kind) for kind in ("image_url", "video_url", "audio_url", "input_audio", "file"))
    values = [value for carrier in carriers if isinstance(carrier, dict) for value in carrier.values()]
    return sum(len(value) for value in values if isinstance(value, str))


def _completions_prompt(body: Mapping[str, Any]) -> tuple[int, int]:
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list) or not prompt:
        raise BadRequest(400, "prompt must be a non-empty string or list", "prompt")
    if isinstance(prompt, str):
        return 1, 0
    if isinstance(prompt[0], int):
        return 1, len(prompt) * _TOKEN_ID_BYTES - len(orjson.dumps(prompt))
    ids = [each for each in prompt if isinstance(each, list)]
    return len(prompt), sum(len(each) * _TOKEN_ID_BYTES - len(orjson.dumps(each)) for each in ids)


_FINAL = {"include_usage": b"true"}
_CONTINUOUS = {"include_usage": b"true", "continuous_usage_stats": b"true"}


def upstream_body(raw: bytes, facts: RequestFacts, upstream_model: str, usage: BackendUsage) -> bytes:
    """The client's body as a backend gets it: its own name for the model, and usage always asked for."""
    pieces: list[tuple[Span, bytes]] = []
    if upstream_model != facts.model:
        pieces.append((facts.model_span, orjson.dumps(upstream_model)))
    if facts.stream and usage != "none":
        wanted = _CONTINUOUS if usage == "continuous" else _FINAL
        if facts.options_span is None:
            end = facts.members_end
            pieces.append(((end, end), b',"stream_options":' + replace_members(b"{}", wanted)))
        elif not (facts.include_usage and (usage == "final" or facts.continuous_usage)):
            start, end = facts.options_span
            given = raw[start:end]
            pieces.append((facts.options_span, replace_members(b"{}" if given == b"null" else given, wanted)))
    return _respelled(raw, pieces) if pieces else raw


def _respelled(raw: bytes, pieces: list[tuple[Span, bytes]]) -> bytes:
    parts: list[bytes] = []
    at = 0
    for (start, end), new in sorted(pieces):
        parts += (raw[at:start], new)
        at = end
    parts.append(raw[at:])
    return b"".join(parts)


def shown_usage(facts: RequestFacts, usage: BackendUsage) -> ShownUsage:
    """What of a stream's usage its client sees: nothing it did not ask for, and no running usage that only we asked."""
    if not facts.include_usage:
        return "none"
    return "final" if usage == "continuous" and not facts.continuous_usage else "all"


def error_body(
    message: str, type: str, code: str | int | None, param: str | None = None, export_id: str | None = None
) -> bytes:
    error: dict[str, Any] = {"message": message, "type": type, "code": code, "param": param}
    if export_id is not None:
        error["export_id"] = export_id
    return orjson.dumps({"error": error})


def error_event(
    message: str, type: str, code: str | int | None, param: str | None = None, export_id: str | None = None
) -> bytes:
    """What ends a stream that is not whole. SDKs raise on it, and raise nothing when a stream just stops."""
    return b"data: " + error_body(message, type, code, param, export_id) + b"\n\n"


DONE_EVENT = b"data: [DONE]\n\n"
KEEP_ALIVE_COMMENT = b": keep-alive\n\n"


def models_body(names: Iterable[str]) -> bytes:
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "tokenport"} for name in names]
    return orjson.dumps({"object": "list", "data": data})
