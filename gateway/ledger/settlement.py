"""From an opening and an ending to the row of the export contract: one terminal record per request.

The one place where rows are made: a request that ends, one that is stopped by a shutdown and one that recovery finds
open all come through here, so all of them are priced alike and can be recomputed alike.
"""

from typing import NamedTuple

import orjson

from gateway.ledger.instants import rfc3339
from gateway.ledger.opening import FailedAttempt, Opening
from pricing.export import ATTEMPT_COSTS, NAMES, Costs, Usage, cost_waste_nano, revenue_nano, settle
from pricing.unit_prices import UnitPrices

Row = dict[str, object]

# Every column in its order, without a value yet: a row begins with it, and one that is forgotten cannot become JSON.
_COLUMNS: Row = dict.fromkeys(NAMES, ...)


class Ending(NamedTuple):
    """How it ended. Usage and backend bytes are those of the serving attempt; times are from admission on."""

    outcome: str
    ended_at_us: int  # wall time
    status: int | None = None
    usage: Usage = Usage()
    delivered_tokens: int = 0
    billed_output_tokens: int = 0
    count_source: str = "counted"
    count_flags: tuple[str, ...] = ()
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    bytes_to_backend: int = 0
    bytes_from_backend: int = 0
    ttft_ms: int | None = None  # None: no content event
    duration_ms: int | None = None
    failed: tuple[FailedAttempt, ...] = ()  # all of them, in order; the opening's are not looked at
    serving: bool = True  # False: every attempt is among the failed
    cause: str = ""  # what ended the serving attempt, if not the end of the answer
    attempt_ttft_ms: int | None = None  # the serving attempt's own times
    attempt_duration_ms: int | None = None
    recovered: bool = False


def settle_row(opening: Opening, ending: Ending) -> Row:
    """The terminal record, its columns in the order of the contract; `seq` and `log` are the log's to set."""
    units = opening.units if ending.serving else UnitPrices()
    usage = ending.usage if ending.serving else Usage()
    to_backend = ending.bytes_to_backend if ending.serving else 0
    from_backend = ending.bytes_from_backend if ending.serving else 0
    costs = settle(units, usage, to_backend, from_backend)
    attempts = [_failed(attempt) for attempt in ending.failed]
    waste = cost_waste_nano(attempts)
    tokens, prices = _tokens(usage), _unit_columns(units)
    sizes: Row = {"bytes_to_backend": to_backend, "bytes_from_backend": from_backend}
    if ending.serving:
        served = _attempt(opening.origin_backend, opening.origin_region, ending.cause, serving=True)
        times = {"ttft_ms": ending.attempt_ttft_ms, "duration_ms": ending.attempt_duration_ms}
        attempts.append({**served, **times, **tokens, **sizes, **prices, **_attempt_costs(costs)})
    revenue = revenue_nano(opening.tariff, usage, ending.billed_output_tokens, ending.ttft_ms is not None)
    return {
        **_COLUMNS,
        **_identity(opening, ending),
        **_place(opening, units, serving=ending.serving),
        **tokens,
        "delivered_tokens": ending.delivered_tokens,
        "billed_output_tokens": ending.billed_output_tokens,
        "count_source": ending.count_source,
        "count_flags": ";".join(ending.count_flags),
        "bytes_from_client": ending.bytes_from_client,
        "bytes_to_client": ending.bytes_to_client,
        **sizes,
        "ttft_ms": ending.ttft_ms,
        "duration_ms": ending.duration_ms,
        "attempts": len(attempts),
        "attempts_json": orjson.dumps(attempts).decode(),
        **costs._asdict(),
        "cost_waste_nano": waste,
        "cost_nano": costs.total_nano + waste,
        "revenue_nano": revenue,
        "currency": opening.currency or None,
        **prices,
        **opening.tariff.columns(),
        "price_version": opening.price_version or None,
        "route_version": opening.route_version or None,
        "edge": opening.edge or None,
        "log": 0,
        "record": _kind(ending),
    }


def _kind(ending: Ending) -> str:
    if ending.recovered:
        return "recovered"
    return "void" if ending.ttft_ms is None and not ending.delivered_tokens else "settled"


def _identity(opening: Opening, ending: Ending) -> Row:
    return {
        "export_id": opening.export_id,
        "request_id": opening.request_id,
        "seq": 0,
        "opened_at": rfc3339(opening.opened_at_us),
        "ended_at": rfc3339(ending.ended_at_us),
        "outcome": ending.outcome,
        "status": ending.status,
        "tenant": opening.tenant or None,
        "key_id": opening.key_id or None,
        "dialect": opening.dialect or None,
        "stream": opening.stream,
        "model": opening.model or None,
        "upstream_model": (ending.serving and opening.upstream_model) or None,
    }


def _place(opening: Opening, units: UnitPrices, *, serving: bool) -> Row:
    return {
        "origin_backend": (serving and opening.origin_backend) or None,
        "origin_region": (serving and opening.origin_region) or None,
        "zone": units.zone or None,
        "origin_country": (serving and opening.origin_country) or None,
        "destination_country": opening.destination_country or None,
        "destination_method": opening.destination_method or None,
        "exported": opening.exported if serving else None,
    }


def _tokens(usage: Usage) -> Row:
    return {
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _unit_columns(units: UnitPrices) -> Row:
    columns: Row = dict(units.columns())
    del columns["zone"]
    return columns


def _failed(attempt: FailedAttempt) -> Row:
    costs = settle(attempt.units, attempt.usage, attempt.bytes_to_backend, attempt.bytes_from_backend)
    return {
        **_attempt(attempt.backend, attempt.region, attempt.cause, serving=False),
        "ttft_ms": attempt.ttft_ms,
        "duration_ms": attempt.duration_ms,
        **_tokens(attempt.usage),
        "bytes_to_backend": attempt.bytes_to_backend,
        "bytes_from_backend": attempt.bytes_from_backend,
        **_unit_columns(attempt.units),
        **_attempt_costs(costs),
    }


def _attempt(backend: str, region: str, cause: str, *, serving: bool) -> Row:
    return {"backend": backend, "region": region, "cause": cause, "serving": serving}


def _attempt_costs(costs: Costs) -> Row:
    return {name: getattr(costs, name) for name in ATTEMPT_COSTS}
