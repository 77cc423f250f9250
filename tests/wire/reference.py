"""The tap as one would write it without caring for speed: all bytes at hand, every event parsed.

It shares no code with the tap: events are split line by line, and usage is cut by a search for the member's text.
"""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

CARRIERS = ("content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call", "audio")


@dataclass
class Tally:
    forwarded: list[tuple[bytes, Any]] = field(default_factory=list)  # the event, and its parsed payload as shown
    content_events: int = 0
    reasoning_events: int = 0
    finish_reasons: dict[int, str] = field(default_factory=dict)
    started: bool = False
    done: bool = False
    failed: bool = False
    bad_events: int = 0
    usage: dict[str, Any] | None = None
    usage_events: int = 0
    tokens: list[int | None] = field(default_factory=list)  # running, after each forwarded event


def read(raw: bytes, choices: int, show: str) -> Tally:
    tally = Tally()
    running: int | None = None
    believed = True  # until it goes backwards
    for event in _events(raw):
        payload = _payload(event)
        if not payload:
            if re.search(rb"(?m)^error(?::|$)", event.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n")):
                tally.failed = True
                break
            tally.forwarded.append((event, None))
            tally.tokens.append(running)
            continue
        if payload.startswith(b"[DONE]"):
            tally.done = True
            if len(tally.finish_reasons) == choices:
                tally.forwarded.append((event, None))
                tally.tokens.append(running)
            break
        chunk = _chunk(payload)
        if chunk is None:
            tally.bad_events += 1
            continue
        named_error = _name(event) == b"error" and not chunk.get("choices")
        if chunk.get("error") or chunk.get("object") == "error" or named_error:
            tally.failed = True
            break
        before = tally.content_events
        finishes = _count(tally, chunk, choices)
        usage = chunk.get("usage")
        told = None
        if isinstance(usage, dict):
            tally.usage = usage
            tally.usage_events += not chunk.get("choices")
            tokens = usage.get("completion_tokens")
            if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= 10**12:
                told = tokens
        if told is not None and not chunk.get("choices"):
            running = told
        elif told is not None:
            believed = believed and (running is None or told >= running)
            running = told if believed else None
        elif tally.content_events > before:
            # What was said before it does not hold for it.
            running = None
        if isinstance(usage, dict) and not chunk.get("choices") and show == "none":
            continue
        hidden = show == "none" or (
            show == "final" and usage is not None and not finishes and bool(chunk.get("choices"))
        )
        if hidden:
            chunk = {key: value for key, value in chunk.items() if key != "usage"}
        tally.forwarded.append((event, chunk))
        tally.tokens.append(running)
    return tally


def _events(raw: bytes) -> list[bytes]:
    events, current = [], b""
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)", raw):
        current += line
        if not line.strip(b"\r\n"):
            events.append(current)
            current = b""
    return events


def _payload(event: bytes) -> bytes | None:
    lines = re.split(rb"\r\n|\r|\n", event.removeprefix(b"\xef\xbb\xbf"))
    data = [line[5:].removeprefix(b" ") for line in lines if line == b"data" or line.startswith(b"data:")]
    return b"\n".join(data) if data else None


def _name(event: bytes) -> bytes:
    name = b""
    for line in re.split(rb"\r\n|\r|\n", event.removeprefix(b"\xef\xbb\xbf")):
        if line == b"event" or line.startswith(b"event:"):
            name = line[6:].removeprefix(b" ")
    return name


def _chunk(payload: bytes) -> dict[str, Any] | None:
    try:
        text = payload.decode("utf-8")
        chunk = parsed(text)
        if "\\u" in text:
            json.loads(text, object_pairs_hook=_without_lone_surrogates)
    except (ValueError, RecursionError):
        return None
    if not isinstance(chunk, dict) or _deeper(chunk, 64):
        return None
    choices = chunk.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return None
    return chunk


def parsed(text: str | bytes) -> Any:
    """JSON, its numbers read as everywhere else."""
    return json.loads(text, parse_constant=_refuse, parse_int=_number, parse_float=_number)


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(each, levels - 1) for each in inner)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _without_lone_surrogates(pairs: list[tuple[str, Any]]) -> Any:
    """Also in what a later member of the same name replaces."""
    json.dumps(pairs, ensure_ascii=False).encode()
    return pairs


def _number(text: str) -> int | float:
    """A whole number is exact within 64 bits and a float beyond them, and none is infinite."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    whole = int(text) if text.removeprefix("-").isdigit() else None
    return whole if whole is not None and -(2**63) <= whole < 2**64 else value


def _filled(value: Any) -> bool:
    return isinstance(value, str | list | dict) and len(value) > 0


def _count(tally: Tally, chunk: dict[str, Any], choices: int) -> bool:
    carries = reasons = finishes = False
    for choice in chunk.get("choices") or []:
        delta = choice.get("delta") if isinstance(choice.get("delta"), dict) else {}
        carries |= _filled(choice.get("text")) or any(_filled(delta.get(key)) for key in CARRIERS)
        reasons |= _filled(delta.get("reasoning")) or _filled(delta.get("reasoning_content"))
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            finishes = True
            index = choice.get("index") if isinstance(choice.get("index"), int) else 0
            if 0 <= index < choices:
                tally.finish_reasons.setdefault(index, reason)
    tally.content_events += carries
    tally.reasoning_events += reasons
    tally.started |= carries or finishes
    return finishes
