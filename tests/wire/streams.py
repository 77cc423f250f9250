"""Streams as real backends write them, with what they carry. Built from parts, so that every byte has a reason."""

import json
from dataclasses import dataclass, field
from typing import Any

Chunk = dict[str, Any]
DONE = b"data: [DONE]\n\n"


def event(
    chunk: Chunk, *, spaced: bool = False, ascii_only: bool = False, end: str = "\n", data: str = "data: "
) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return (data + json.dumps(chunk, separators=separators, ensure_ascii=ascii_only) + end + end).encode()


@dataclass(frozen=True)
class Stream:
    """A stream and its tally: content and reasoning events, finish reasons, the last usage's completion tokens."""

    raw: bytes
    content_events: int
    reasoning_events: int = 0
    finish_reasons: dict[int, str] = field(default_factory=lambda: {0: "stop"})
    completion_tokens: int | None = None
    choices: int = 1
    done: bool = True


def _vllm(delta: Chunk, finish: str | None = None, index: int = 0, **more: Any) -> Chunk:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-3b1f",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": "Qwen/Qwen3-8B",
        "choices": [choice],
        **more,
    }


def _usage(prompt: int, completion: int, **more: Any) -> Chunk:
    total = prompt + completion
    return {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": completion, **more}


WORDS = ["Hello", ",", " world", '! \\ "quoted"', "\n", " é", "你好", "😀", '"},"finish_reason":"stop"}]}', " [DONE]"]


def _vllm_final() -> Stream:
    """usage is null on every chunk once include_usage is set, then comes one chunk with usage and no choices."""
    chunks = [_vllm({"role": "assistant", "content": ""}, usage=None)]
    chunks += [_vllm({"content": word}, usage=None) for word in WORDS]
    chunks += [_vllm({"content": ""}, "stop", usage=None)]
    final = _vllm({}) | {"choices": [], "usage": _usage(9, len(WORDS) + 1, prompt_tokens_details=None)}
    return Stream(b"".join(map(event, [*chunks, final])) + DONE, len(WORDS), completion_tokens=len(WORDS) + 1)


def _vllm_continuous() -> Stream:
    chunks = [_vllm({"role": "assistant", "content": ""}, usage=_usage(9, 0))]
    chunks += [_vllm({"content": word}, usage=_usage(9, count)) for count, word in enumerate(WORDS, 1)]
    chunks += [_vllm({"content": ""}, "length", usage=_usage(9, len(WORDS)))]
    final = _vllm({}) | {"choices": [], "usage": _usage(9, len(WORDS))}
    raw = b"".join(map(event, [*chunks, final])) + DONE
    return Stream(raw, len(WORDS), finish_reasons={0: "length"}, completion_tokens=len(WORDS))


def _vllm_two_choices() -> Stream:
    """Running usage counts each choice by itself."""
    chunks = [_vllm({"role": "assistant", "content": ""}, index=index, usage=_usage(9, 0)) for index in (0, 1)]
    for count, word in enumerate(WORDS, 1):
        chunks += [_vllm({"content": word}, index=index, usage=_usage(9, count)) for index in (0, 1)]
    chunks += [_vllm({"content": ""}, "stop", index, usage=_usage(9, len(WORDS))) for index in (1, 0)]
    raw = b"".join(map(event, chunks)) + DONE
    return Stream(raw, 2 * len(WORDS), finish_reasons={0: "stop", 1: "stop"}, completion_tokens=10, choices=2)


def _llamacpp() -> Stream:
    """The role chunk has content null, `created` moves on, the last chunk brings timings and usage without choices."""

    def chunk(delta: Chunk, created: int, finish: str | None = None, **more: Any) -> Chunk:
        choice = {"finish_reason": finish, "index": 0, "delta": delta}
        head = {"choices": [choice], "created": created, "id": "chatcmpl-Xq0", "model": "qwen3-0.6b"}
        return {**head, "system_fingerprint": "b6812-8a3b1c", "object": "chat.completion.chunk", **more}

    timings = {"prompt_n": 9, "prompt_ms": 31.25, "predicted_n": 11, "predicted_ms": 403.5}
    chunks = [chunk({"role": "assistant", "content": None}, 1767225600)]
    chunks += [chunk({"content": word}, 1767225600 + count // 4) for count, word in enumerate(WORDS)]
    chunks += [chunk({}, 1767225603, "stop")]
    usage = {"completion_tokens": 11, "prompt_tokens": 9, "total_tokens": 20}
    chunks += [chunk({}, 1767225603) | {"choices": [], "usage": usage, "timings": timings}]
    return Stream(b"".join(map(event, chunks)) + DONE, len(WORDS), completion_tokens=11)


def _openai() -> Stream:
    """A random `obfuscation` of every chunk hides its length; `usage` is null but on the last."""

    def chunk(delta: Chunk, padding: str, finish: str | None = None, **more: Any) -> Chunk:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        head = {"id": "chatcmpl-CgT", "object": "chat.completion.chunk", "created": 1767225600, "model": "gpt-5-mini"}
        more = {"usage": None, **more, "obfuscation": padding}
        return {**head, "service_tier": "default", "system_fingerprint": "fp_1", "choices": [choice], **more}

    chunks = [chunk({"role": "assistant", "content": "", "refusal": None}, "Zq8")]
    chunks += [chunk({"content": word}, "aB3xYz91"[count % 5 :]) for count, word in enumerate(WORDS)]
    chunks += [chunk({}, "k2", "stop")]
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 64}}
    chunks += [chunk({}, "") | {"choices": [], "usage": _usage(9, 75, **details)}]
    return Stream(b"".join(map(event, chunks)) + DONE, len(WORDS), completion_tokens=75)


def _tool_calls() -> Stream:
    def call(**function: str) -> Chunk:
        return {"tool_calls": [{"index": 0, "function": function}]}

    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "find", "arguments": ""}}
    chunks = [_vllm({"role": "assistant", "content": None, "tool_calls": [first]})]
    chunks += [_vllm(call(arguments=part)) for part in ['{"', "city", '":"', "Guiyang", '"}']]
    chunks += [_vllm({}, "tool_calls")]
    return Stream(b"".join(map(event, chunks)) + DONE, 6, finish_reasons={0: "tool_calls"})


def _sglang() -> Stream:
    """Chunks name reasoning_content and matched_stop even where they are null."""

    def chunk(content: str | None, finish: str | None = None, role: str | None = None) -> Chunk:
        delta = {"role": role, "content": content, "reasoning_content": None, "tool_calls": None}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "matched_stop": None}
        head = {"id": "a81c", "object": "chat.completion.chunk", "created": 1767225600, "model": "default"}
        return {**head, "choices": [choice], "usage": None}

    chunks = [chunk("", role="assistant"), *map(chunk, WORDS), chunk(None, "stop")]
    final = chunk(None) | {"choices": [], "usage": _usage(9, 11, reasoning_tokens=0)}
    return Stream(b"".join(map(event, [*chunks, final])) + DONE, len(WORDS), completion_tokens=11)


def _deepseek() -> Stream:
    """Reasoning comes first, in a member of its own; usage rides on the finishing chunk; keep-alives are comments."""

    def chunk(delta: Chunk, finish: str | None = None, **more: Any) -> Chunk:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        head = {"id": "77be", "object": "chat.completion.chunk", "created": 1767225600, "model": "deepseek-reasoner"}
        return {**head, "system_fingerprint": "fp_ds", "choices": [choice], **more}

    chunks = [chunk({"role": "assistant", "content": None, "reasoning_content": ""})]
    chunks += [chunk({"content": None, "reasoning_content": word}) for word in WORDS[:4]]
    chunks += [chunk({"content": word, "reasoning_content": None}) for word in WORDS]
    usage = _usage(9, 14, prompt_cache_hit_tokens=4, prompt_cache_miss_tokens=5)
    chunks += [chunk({"content": "", "reasoning_content": None}, "stop", usage=usage)]
    raw = b": keep-alive\n\n" * 2 + b"".join(map(event, chunks)) + DONE
    return Stream(raw, 4 + len(WORDS), reasoning_events=4, completion_tokens=14)


def _completions() -> Stream:
    def chunk(text: str, finish: str | None = None) -> Chunk:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "choices": [choice], "model": "m"}

    return Stream(b"".join(map(event, [*map(chunk, WORDS), chunk("", "stop")])) + DONE, len(WORDS))


def _odd_framing() -> Stream:
    """Permuted keys, spaces, CRLF, CR, no space after the colon, ids, ASCII escapes: all that JSON and SSE allow."""

    def chunk(delta: Chunk, finish: str | None = None) -> Chunk:
        return {"usage": None, "choices": [{"finish_reason": finish, "delta": delta, "index": 0}], "model": "m"}

    words = [event(chunk({"content": word}), spaced=True, ascii_only=True, end="\r\n") for word in WORDS]
    words += [event(chunk({"content": word}), end="\r", data="data:") for word in WORDS]
    words += [b"id: 7\n" + event(chunk({"content": word}), spaced=True) for word in WORDS]
    finish = event(chunk({}, "stop"), end="\r\n")
    return Stream(b"\xef\xbb\xbf" + b"".join(words) + finish + b"data: [DONE]\r\n\r\n", 3 * len(WORDS))


def _cut() -> Stream:
    """Ends without a finish_reason, in the middle of an event, though the connection closes in good order."""
    raw = _vllm_final().raw
    return Stream(raw[: raw.index(b'"content":" world"') + 10], 2, finish_reasons={}, done=False)


STREAMS = {
    "vllm, final usage": _vllm_final(),
    "vllm, running usage": _vllm_continuous(),
    "vllm, two choices": _vllm_two_choices(),
    "llama.cpp": _llamacpp(),
    "openai": _openai(),
    "tool calls": _tool_calls(),
    "sglang": _sglang(),
    "deepseek": _deepseek(),
    "completions": _completions(),
    "odd framing": _odd_framing(),
    "cut": _cut(),
}
