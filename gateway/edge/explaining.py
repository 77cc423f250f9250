"""Why a route is chosen, in money: the answer of `tokenport explain` and of the decision log.

Every candidate is shown with its cost split, or with the constraint that ruled it out, by the same code that decides.
"""

from dataclasses import dataclass
from typing import Any

from gateway.clock import timestamp
from gateway.edge.live import Live
from gateway.errors import ApiError
from routing.candidate import Candidate
from routing.decide import Decision
from routing.demand import Demand

# What a request weighs besides its prompt: head and JSON around it.
REQUEST_OVERHEAD_BYTES = 800
# Epoch seconds of the year 9990: dates end with 9999, and tariffs look some years ahead. And more tokens than any
# context holds.
TIME_MAX_S = 253_086_768_000
TOKENS_MAX = 1_000_000_000
# Bytes of JSON per input token before any was measured.
BYTES_PER_INPUT_TOKEN = 4.0


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """A request that is only asked about. `at` is price time in epoch seconds; None: now."""

    model: str
    tenant: str = ""
    destination: str = ""
    input_tokens: int = 500
    max_tokens: int | None = None
    at: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ExplainRequest":
        """Raises ApiError (400) for what is not of this form."""
        kinds: dict[str, tuple[type, ...]] = {
            "model": (str,),
            "tenant": (str,),
            "destination": (str,),
            "input_tokens": (int,),
            "max_tokens": (int, type(None)),
            "at": (int, float, type(None)),
        }
        for name, value in data.items():
            if name not in kinds or not isinstance(value, kinds[name]) or isinstance(value, bool):
                raise ApiError(400, f"explain: {name} is unknown or has the wrong type.", param=name)
        if "model" not in data:
            raise ApiError(400, "explain: model is missing.", param="model")
        if not 0 <= (data.get("at") or 0) < TIME_MAX_S:
            raise ApiError(400, "explain: at is out of range.", param="at")
        for name in ("input_tokens", "max_tokens"):
            if data.get(name) is not None and not 1 <= data[name] <= TOKENS_MAX:
                raise ApiError(400, f"explain: {name} must be from 1 to {TOKENS_MAX}.", param=name)
        return cls(**data)


def explanation(live: Live, request: ExplainRequest, now: float, wall_s: float) -> dict[str, Any]:
    """The decision for `request` as JSON: a summary in words, the chosen route, every candidate."""
    at = request.at if request.at is not None else live.price_time.at(wall_s)
    demand = _demand(live, request)
    decision, prices = live.explain(demand, now, at)
    chosen = decision.route
    rows = [candidate_facts(candidate, decision) for candidate in decision.candidates]
    return {
        "state": "live",
        "at": timestamp(at),
        "prices_replayed": live.price_time.replayed,
        "currency": live.settings.gateway.currency,
        "route": chosen.name if chosen is not None else None,
        "refusal": decision.refusal,
        "price_version": decision.price_version,
        "route_version": decision.route_version,
        "prices_since": timestamp(prices.since) if prices.since > 0 else None,
        "expected_output_tokens": decision.output_tokens,
        "candidates": rows,
        "summary": _summary(live, request, demand.destination, decision, at),
    }


def _demand(live: Live, request: ExplainRequest) -> Demand:
    tenant = next((each for each in live.settings.tenants if each.name == request.tenant), None)
    per_token = live.input_bytes.predict(request.model, BYTES_PER_INPUT_TOKEN)
    return Demand(
        model=request.model,
        tenant=request.tenant,
        input_tokens=request.input_tokens,
        output_tokens=live.lengths.predict(request.tenant, request.model, request.input_tokens, request.max_tokens),
        request_bytes=REQUEST_OVERHEAD_BYTES + round(request.input_tokens * per_token),
        max_tokens=request.max_tokens,
        destination=request.destination or (tenant.country if tenant else ""),
        deny_origins=tenant.deny_origins if tenant else frozenset(),
        value_per_second=tenant.value_per_second if tenant else 0.0,
    )


def candidate_facts(candidate: Candidate, decision: Decision) -> dict[str, Any]:
    """One candidate: predicted latency, its cost split, and why it was chosen or not."""
    quote, route = candidate.quote, candidate.route
    chosen = decision.best is not None and candidate.name == decision.best.name
    return {
        "backend": route.backend.name,
        "link": route.link.name,
        "region": route.backend.region,
        "ttft_ms": round(candidate.ttft_s * 1000, 3),
        "energy": quote.energy,
        "tokens": quote.tokens,
        "link_cost": quote.link,
        "capacity": quote.capacity,
        "time": quote.time,
        "total": quote.total,
        "verdict": "chosen" if chosen else candidate.excluded or "dearer",
    }


def _summary(live: Live, request: ExplainRequest, destination: str, decision: Decision, at: float) -> list[str]:
    when = timestamp(at) + (" (replayed prices)" if live.price_time.replayed else "")
    currency = live.settings.gateway.currency
    lines = [
        f"model {request.model}, {request.input_tokens} tokens in, about {decision.output_tokens:.0f} out, "
        f"to {destination or 'an unknown country'}, at {when}; money in {currency} per request"
    ]
    if decision.best is None:
        lines.append(f"refused: {decision.refusal}")
    else:
        lines.append(f"route: {decision.best.name}" + (f" ({decision.special})" if decision.special else ""))
    return lines


def decision_facts(at: float, demand: Demand, decision: Decision) -> dict[str, Any]:
    """One decision of the past, as the page shows it. `at` is wall time in epoch seconds."""
    best, second = decision.best, decision.runner_up
    assert best is not None
    route, quote = best.route, best.quote
    return {
        "at": at,
        "tenant": demand.tenant,
        "model": demand.model,
        "destination": demand.destination,
        "backend": route.backend.name,
        "link": route.link.name,
        "region": route.backend.region,
        "total": quote.total,
        "energy": quote.energy,
        "tokens": quote.tokens,
        "link_cost": quote.link,
        "capacity": quote.capacity,
        "time": quote.time,
        "second": second.route.backend.name if second is not None else "",
        "second_total": second.quote.total if second is not None else None,
    }
