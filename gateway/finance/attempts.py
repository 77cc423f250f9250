"""What we have of a provider's usage: every attempt at its backend, whatever became of it.

A provider bills what it generated, so the attempts that failed there or lost against another backend count as well as
the one that served. Attempts are elements of a row's `attempts_json`; a row may hold none of a backend, or several.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from gateway.ledger.instants import parse_us
from gateway.ledger.segment import Record

EXACT = frozenset(("upstream", "continuous", "counted"))


class Ours(NamedTuple):
    """An attempt. Tokens are those it made; the cost is that of tokens bought, at the unit prices of its time."""

    export_id: str
    request_id: str  # what the backend was told as x-request-id; empty if the client named none
    ended_us: int
    model: str  # as the backend calls it
    input: int
    cached: int
    cache_write: int
    output: int
    cost_nano: int
    currency: str
    estimated: bool
    ended_as: str  # outcome of the request, or why the attempt failed


def attempts_at(rows: Iterable[Record], backend: str, models: Mapping[str, str]) -> Iterator[Ours]:
    """`models`: public name -> the backend's own, for attempts that did not serve: their rows name another's."""
    name = json.dumps(backend)
    for row in rows:
        if name not in row["attempts_json"]:
            continue
        for attempt in json.loads(row["attempts_json"]):
            if attempt["backend"] == backend:
                yield _ours(row, attempt, models)


def _ours(row: Record, attempt: Record, models: Mapping[str, str]) -> Ours:
    public = str(row["model"])
    served = attempt["serving"] is True
    # The source of a count is told of the answer; what a failed attempt made nobody saw, but for one that never got
    # to the model.
    return Ours(
        export_id=row["export_id"],
        request_id=row["request_id"] or "",
        ended_us=parse_us(row["ended_at"]),
        model=str(row["upstream_model"] if served and row["upstream_model"] else models.get(public, public)),
        input=attempt["input_tokens"],
        cached=attempt["cached_input_tokens"],
        cache_write=attempt["cache_write_tokens"],
        output=attempt["output_tokens"],
        cost_nano=attempt["cost_tokens_nano"],
        currency=row["currency"] or "",
        estimated=not served or row["count_source"] not in EXACT or "input_estimated" in (row["count_flags"] or ""),
        ended_as=row["outcome"] if served else attempt["cause"] or "failed",
    )
