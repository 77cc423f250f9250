"""What a provider calls the columns of its usage file, and what we call them.

    id            of a request: ours, sent upstream as x-request-id, or the export id
    time          of a request, or the beginning of an hour or day
    end           of that hour or day
    model         the provider's name of it
    requests      how many a line sums up
    input         prompt tokens, cached ones included
    fresh_input   prompt tokens without those read from a cache or written to one; used where there is no `input`
    cached        prompt tokens read from a cache
    cache_write   prompt tokens written to a cache; may be several columns
    output        completion tokens
    cost, currency

Names are compared in lower case with underscores, a leading "usage" left out, so that `usage.prompt_tokens` of a JSON
object and `Prompt Tokens` of a spreadsheet are the same. Where a file has several names of one column, those that come
first here are taken; two of the same standing are a question to the user, not a guess.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# The standings of each of our columns, the best first.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "id": (
        "x_request_id client_request_id export_id",
        "request_id",
        "generation_id completion_id response_id message_id",
        "id",
    ),
    "time": (
        "start_time starting_at bucket_start bucket_start_time window_start period_start",
        "timestamp created_at created request_time usage_time date_time datetime",
        "time hour start_time_iso",
        "date day utc_date date_utc usage_date",
    ),
    "end": ("end_time ending_at bucket_end bucket_end_time window_end period_end",),
    "model": ("model", "model_name model_id", "model_version model_permaslug snapshot_id deployment engine"),
    "requests": ("num_model_requests num_requests request_count n_requests requests", "count calls"),
    "input": (
        "input_tokens prompt_tokens tokens_prompt total_input_tokens total_prompt_tokens n_context_tokens_total",
        "input_token_count prompt_token_count num_prompt_tokens",
        "input prompt",
    ),
    "fresh_input": (
        "uncached_input_tokens input_uncached_tokens input_tokens_no_cache",
        "input_cache_miss_tokens prompt_cache_miss_tokens",
    ),
    "cached": (
        "cached_input_tokens input_cached_tokens cache_read_input_tokens input_tokens_cache_read cached_tokens"
        " tokens_cached n_cached_context_tokens_total",
        "prompt_tokens_details_cached_tokens input_tokens_details_cached_tokens",
        "input_cache_hit_tokens prompt_cache_hit_tokens",
    ),
    "cache_write": (
        "cache_write_tokens cache_write_input_tokens cache_creation_input_tokens input_tokens_cache_write",
    ),
    "output": (
        "output_tokens completion_tokens tokens_completion total_output_tokens n_generated_tokens_total",
        "output_token_count completion_token_count generated_tokens num_completion_tokens",
        "output completion",
    ),
    "cost": ("cost cost_usd total_cost total_cost_usd cost_total", "spend amount_value amount amount_usd"),
    "currency": ("currency cost_currency amount_currency",),
}
# Cache writes by how long they are kept, where there is no column for all of them.
_WRITES = frozenset((
    *("cache_creation_5m_input_tokens", "cache_creation_1h_input_tokens"),
    *("cache_creation_ephemeral_5m_input_tokens", "cache_creation_ephemeral_1h_input_tokens"),
    *("input_tokens_cache_write_5m", "input_tokens_cache_write_1h"),
))  # fmt: skip
# Who writes these has `input_tokens` without them.
_APART = frozenset(("cache_read_input_tokens", "cache_creation_input_tokens"))

OURS = tuple(_NAMES)
_SHOWN_MAX = 40  # of a file's headers, in a message


class UnknownHeaders(ValueError):
    """The file's columns cannot be told; the message lists what was found and what is needed."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where each of our columns is in the file; empty: nowhere."""

    at: Mapping[str, tuple[str, ...]]  # cache_write may be several
    currency: str  # that a header names


def normalised(header: str) -> str:
    snake = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", header.strip())
    return re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_").removeprefix("usage_")


def find_columns(headers: Sequence[str], given: Mapping[str, str]) -> Columns:
    """`given`: what the user says, ours to theirs; it goes before every name known here."""
    names: dict[str, list[str]] = {}
    for header in headers:
        names.setdefault(normalised(header), []).append(header)
    at = {ours: _given(ours, theirs, headers) for ours, theirs in given.items()}
    for ours, standings in _NAMES.items():
        if ours not in at:
            at[ours] = _found(ours, standings, names, headers)
    if not at["cache_write"]:
        at["cache_write"] = tuple(header for name in names for header in names[name] if name in _WRITES)
    if at["input"] and at["fresh_input"] and "input" not in given and "fresh_input" in given:
        at["input"] = ()
    if at["input"] and "input" not in given and _APART & names.keys():
        at["fresh_input"], at["input"] = at["fresh_input"] or at["input"], ()
    if at["input"]:
        at["fresh_input"] = ()
    _check(at, headers)
    cost = normalised(at["cost"][0]) if at["cost"] else ""
    return Columns(at, "USD" if cost.endswith("_usd") else "")


def _given(ours: str, theirs: str, headers: Sequence[str]) -> tuple[str, ...]:
    if ours not in _NAMES:
        raise UnknownHeaders(f"--columns {ours}={theirs}: {ours} is none of ours: {', '.join(OURS)}")
    if theirs and headers.count(theirs) != 1:
        there = "is not" if theirs not in headers else "is more than once"
        raise UnknownHeaders(f"--columns {ours}={theirs}: {theirs} {there} in the file; it has {_list(headers)}")
    return (theirs,) if theirs else ()


def _found(
    ours: str, standings: Iterable[str], names: Mapping[str, Sequence[str]], headers: Sequence[str]
) -> tuple[str, ...]:
    for standing in standings:
        found = [header for name in standing.split() for header in names.get(name, ())]
        if len(found) > 1:
            raise UnknownHeaders(
                f"{ours} may be {' or '.join(found)}: say which with --columns {ours}={found[0]};"
                f" the file has {_list(headers)}"
            )
        if found:
            return (found[0],)
    return ()


def _check(at: Mapping[str, Sequence[str]], headers: Sequence[str]) -> None:
    missing = [] if at["input"] or at["fresh_input"] else ["input (or fresh_input)"]
    missing += [] if at["output"] else ["output"]
    missing += [] if at["id"] or at["time"] else ["id or time"]
    if missing:
        needed = ", ".join(missing)
        raise UnknownHeaders(
            f"no column for {needed}: name it with --columns OURS=THEIRS, ours being {', '.join(OURS)};"
            f" the file has {_list(headers)}"
        )


def _list(headers: Sequence[str]) -> str:
    more = f" and {len(headers) - _SHOWN_MAX} more" if len(headers) > _SHOWN_MAX else ""
    return (", ".join(header[:60] for header in headers[:_SHOWN_MAX]) or "none") + more
