"""Usage files as providers write them, of requests that bought-1 served."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from gateway.ledger.instants import MICROS, parse_us, rfc3339
from gateway.ledger.segment import Record
from pricing.export import Usage
from tests.commands.ledgers import BOUGHT
from tests.ledger.exports import ending, opening, row_of

START_US = parse_us("2025-11-24T16:00:00Z")


def bought(number: int, **changes: Any) -> Record:
    """A request that bought-1 served, in its own ten minutes."""
    ended_us = changes.pop("ended_us", START_US + number * 600 * MICROS)
    usage = changes.pop("usage", Usage(1000 + number, 100 + number, 10, 50 + number, 5))
    failed = changes.pop("failed", ())
    fields = {name: changes.pop(name) for name in ("count_source", "count_flags", "outcome") if name in changes}
    serving = changes.pop("serving", True)
    opened = opening(
        number,
        **{
            "opened_at_us": ended_us - MICROS,
            "model": "m",
            "upstream_model": "vendor/m-large",
            "origin_backend": "bought-1",
            "origin_region": "eu-edge",
            "units": BOUGHT,
            "failed": failed,
            **changes,
        },
    )
    end = ending(ended_at_us=ended_us, usage=usage, failed=failed, serving=serving, **fields)
    return row_of(opened, end)


def attempts(rows: Iterable[Record]) -> list[dict[str, Any]]:
    """What bought-1 would have of these, told by the rows themselves."""
    return [
        {**attempt, "id": row["request_id"], "export_id": row["export_id"], "at": row["ended_at"]}
        for row in rows
        for attempt in json.loads(row["attempts_json"])
        if attempt["backend"] == "bought-1"
    ]


ROWS = [bought(number) for number in range(30)]


def as_csv(records: Iterable[Mapping[str, object]]) -> str:
    out = io.StringIO(newline="")
    records = list(records)
    writer = csv.DictWriter(out, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def as_lines(records: Iterable[object]) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)


def plain(rows: Iterable[Record] = ROWS) -> list[dict[str, Any]]:
    """The simplest request log."""
    return [
        {
            "request_id": each["id"],
            "prompt_tokens": each["input_tokens"],
            "cached_tokens": each["cached_input_tokens"],
            "completion_tokens": each["output_tokens"],
        }
        for each in attempts(rows)
    ]


# ---- files as providers write them


def openai_buckets(width_s: int) -> list[dict[str, Any]]:
    buckets: dict[int, list[dict[str, Any]]] = {}
    for each in attempts(ROWS):
        at = parse_us(each["at"]) // MICROS
        buckets.setdefault(at - at % width_s, []).append(each)
    return [
        {
            "object": "bucket",
            "start_time": start,
            "end_time": start + width_s,
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": sum(each["input_tokens"] for each in some),
                    "output_tokens": sum(each["output_tokens"] for each in some),
                    "input_cached_tokens": sum(each["cached_input_tokens"] for each in some),
                    "input_audio_tokens": 0,
                    "num_model_requests": len(some),
                    "api_key_id": None,
                    "model": "vendor/m-large",
                    "batch": None,
                }
                for some in (found[:2], found[2:])  # split, as by key
                if some
            ],
        }
        for start, found in sorted(buckets.items())
    ]


def openai_csv() -> str:
    return as_csv(
        {
            "start_time": bucket["start_time"],
            "end_time": bucket["end_time"],
            "start_time_iso": datetime.fromtimestamp(bucket["start_time"], ZoneInfo("UTC")).isoformat(),
            "end_time_iso": datetime.fromtimestamp(bucket["end_time"], ZoneInfo("UTC")).isoformat(),
            "project_id": "proj_1",
            "num_model_requests": result["num_model_requests"],
            "user_id": "",
            "model": result["model"],
            "input_tokens": result["input_tokens"],
            "output_tokens": result["output_tokens"],
            "input_cached_tokens": result["input_cached_tokens"],
            "input_uncached_tokens": result["input_tokens"] - result["input_cached_tokens"],
            "input_text_tokens": result["input_tokens"],
        }
        for bucket in openai_buckets(3600)
        for result in bucket["results"]
    )


def anthropic_report() -> str:
    data = [
        {
            "starting_at": each["at"][:13] + ":00:00Z",
            "ending_at": rfc3339(parse_us(each["at"][:13] + ":00:00Z") + 3600 * MICROS),
            "results": [
                {
                    "uncached_input_tokens": _fresh(each),
                    "cache_creation": {"ephemeral_1h_input_tokens": 4, "ephemeral_5m_input_tokens": 6},
                    "cache_read_input_tokens": each["cached_input_tokens"],
                    "output_tokens": each["output_tokens"],
                    "server_tool_use": {"web_search_requests": 0},
                    "model": "vendor/m-large",
                    "workspace_id": None,
                }
            ],
        }
        for each in attempts(ROWS)
    ]
    return as_lines([{"data": data[:9], "has_more": False}, {"data": data[9:], "has_more": False}])


def anthropic_console() -> str:
    return as_csv(
        {
            "usage_date_utc": each["at"][:10],
            "model_version": "vendor/m-large",
            "api_key": "k",
            "workspace": "w",
            "usage_input_tokens_no_cache": _fresh(each),
            "usage_input_tokens_cache_write_5m": 6,
            "usage_input_tokens_cache_write_1h": 4,
            "usage_input_tokens_cache_read": each["cached_input_tokens"],
            "usage_output_tokens": each["output_tokens"],
        }
        for each in attempts(ROWS)
    )


def anthropic_answers() -> str:
    """A log of messages: `input_tokens` is without what is cached."""
    return as_lines(
        {
            "x-request-id": each["id"],
            "usage": {
                "input_tokens": _fresh(each),
                "cache_read_input_tokens": each["cached_input_tokens"],
                "cache_creation_input_tokens": 10,
                "output_tokens": each["output_tokens"],
            },
        }
        for each in attempts(ROWS)
    )


def openai_answers() -> str:
    return as_lines(
        {
            "request_id": each["id"],
            "id": "chatcmpl-1",
            "usage": {
                "prompt_tokens": each["input_tokens"],
                "completion_tokens": each["output_tokens"],
                "prompt_tokens_details": {"cached_tokens": each["cached_input_tokens"]},
            },
        }
        for each in attempts(ROWS)
    )


def spend_log() -> str:
    return as_lines(
        {
            "request_id": each["id"],
            "startTime": each["at"],
            "endTime": each["at"],
            "model": "vendor/m-large",
            "prompt_tokens": each["input_tokens"],
            "completion_tokens": each["output_tokens"],
            "spend": each["cost_tokens_nano"] / 1e9,
        }
        for each in attempts(ROWS)
    )


def activity() -> str:
    return as_csv(
        {
            "generation_id": each["export_id"],
            "created_at": each["at"].replace("T", " ")[:-1] + "+00:00",
            "cost_total": f"{each['cost_tokens_nano'] / 1e9:.7f}",
            "tokens_prompt": each["input_tokens"],
            "tokens_completion": each["output_tokens"],
            "tokens_cached": each["cached_input_tokens"],
            "model_permaslug": "vendor/m-large",
        }
        for each in attempts(ROWS)
    )


def spreadsheet() -> str:
    """With a byte order mark, semicolons, grouped digits and names with blanks."""
    lines = ["Request ID;Prompt Tokens;Completion Tokens"]
    lines += [f'{each["id"]};"{each["input_tokens"]:,}";{each["output_tokens"]}.0' for each in attempts(ROWS)]
    return "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"


def _fresh(each: Mapping[str, Any]) -> int:
    return int(each["input_tokens"] - each["cached_input_tokens"] - 10)


FILES: dict[str, tuple[Callable[[], str], str, set[str]]] = {
    "plain": (lambda: as_csv(plain()), "request", {"input", "cached", "output"}),
    "OpenAI usage API, hours": (lambda: as_lines(openai_buckets(3600)), "hour", {"input", "cached", "output"}),
    "OpenAI usage API, days": (lambda: as_lines(openai_buckets(86_400)), "day", {"input", "cached", "output"}),
    "OpenAI usage API, a page": (lambda: as_lines([{"data": openai_buckets(60)}]), "hour", {"cached"}),
    "OpenAI export": (openai_csv, "hour", {"input", "cached", "output"}),
    "Anthropic usage report": (anthropic_report, "hour", {"input", "cached", "cache_write", "output"}),
    "Anthropic export": (anthropic_console, "day", {"input", "cached", "cache_write", "output"}),
    "Anthropic answers": (anthropic_answers, "request", {"input", "cached", "cache_write", "output"}),
    "OpenAI answers": (openai_answers, "request", {"input", "cached", "output"}),
    "spend log": (spend_log, "request", {"input", "output", "cost_nano"}),
    "activity": (activity, "request", {"input", "cached", "output", "cost_nano"}),
    "spreadsheet": (spreadsheet, "request", {"input", "output"}),
}
