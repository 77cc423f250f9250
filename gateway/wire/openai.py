"""The OpenAI dialect, request side: what routing needs of a body, the body as a backend gets it, and errors.

The body is parsed once to be judged and is then forwarded as raw bytes, changed at `model` and `stream_options` only.
What the gateway acts on must be of the right type and stand there once: with a key twice, the gateway and the backend
could each act on another value. All else is the backend's business.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import orjson

from gateway.wire.errors import BadRequest
from gateway.wire.splice import JsonOutOfBounds, Member, replace_members, top_level_members

Endpoint = Literal["chat", "completions"]
BackendUsage = Literal["final", "continuous", "none"]
ShownUsage = Literal["none", "final", "all"]

MODEL_CHARS_MAX = 256
CHOICES_MAX = 128
_TOKEN_ID_BYTES = 4  # what one token id of a ready-made prompt stands for: about the length of a token in text
_ACTED_ON = frozenset(("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n"))
_ACTED_ON_IN_OPTIONS = frozenset(("include_usage", "continuous_usage_stats"))


class RequestFacts(NamedTuple):
    model: str
    stream: bool
    include_usage: bool  # the client asked for the final usage of a stream
    continuous_usage: bool  # and for the running one
    max_tokens: int | None  # per choice
    choices: int  # answers that must finish: n, for each prompt
    prompt_bytes: int  # raw JSON of what becomes input; media are not text and do not count
    members: tuple[Member, ...] = ()  # positions in the body, so that it is scanned once


def parse_request(raw: bytes, endpoint: Endpoint) -> RequestFacts:
    """Judge a body. BadRequest 400 with the member that is wrong."""
    body, members = _parse_object(raw)
    _refuse_duplicates(members, _ACTED_ON, "")
    stream = _boolean(body, "stream")
    options = body.get("stream_options")
    include_usage = continuous_usage = False
    if options is not None:
        if not isinstance(options, dict):
            raise BadRequest(400, "stream_options must be an object", "stream_options")
        inner = _members(_value(raw, members, "stream_options"))
        _refuse_duplicates(inner, _ACTED_ON_IN_OPTIONS, "stream_options.")
        include_usage = _boolean(options, "include_usage", "stream_options.")
        continuous_usage = include_usage and _boolean(options, "continuous_usage_stats", "stream_options.")
    prompts, prompt_bytes = _chat_prompt(body) if endpoint == "chat" else _completions_prompt(body)
    prompt_bytes += sum(
        member.value_end - member.value_start
        for member in members
        if member.key in (("messages", "tools", "functions") if endpoint == "chat" else ("prompt",))
    )
    max_tokens = _positive(body, "max_tokens")
    max_completion_tokens = _positive(body, "max_completion_tokens")
    n = _positive(body, "n", CHOICES_MAX)
    return RequestFacts(
        model=_model(body),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous_usage,
        max_tokens=max_tokens if max_completion_tokens is None else max_completion_tokens,
        choices=(n or 1) * prompts,
        prompt_bytes=max(prompt_bytes, 1),
        members=tuple(members),
    )


def _parse_object(raw: bytes) -> tuple[dict[str, Any], list[Member]]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as malformed:
        raise BadRequest(400, f"the body is not valid JSON: {malformed.msg}") from malformed
    if not isinstance(body, dict):
        raise BadRequest(400, "the body must be a JSON object")
    return body, _members(raw)


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


def _value(raw: bytes, members: Iterable[Member], key: str) -> bytes:
    return next(raw[member.value_start : member.value_end] for member in members if member.key == key)


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MODEL_CHARS_MAX:
        raise BadRequest(400, f"model must be a string of 1 to {MODEL_CHARS_MAX} characters", "model")
    return model


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


def upstream_body(raw: bytes, facts: RequestFacts, upstream_model: str, usage: BackendUsage) -> bytes:
    """The client's body as a backend gets it: its own name for the model, and usage always asked for."""
    values: dict[str, bytes] = {}
    if upstream_model != facts.model:
        values["model"] = orjson.dumps(upstream_model)
    if facts.stream and usage != "none":
        wanted = {"include_usage": b"true"}
        if usage == "continuous":
            wanted["continuous_usage_stats"] = b"true"
        if not (facts.include_usage and (usage == "final" or facts.continuous_usage)):
            given = next(
                (raw[m.value_start : m.value_end] for m in facts.members if m.key == "stream_options"), b"null"
            )
            values["stream_options"] = replace_members(b"{}" if given == b"null" else given, wanted)
    return replace_members(raw, values, members=facts.members) if values else raw


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
