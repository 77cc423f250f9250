"""What a worker says about itself when the supervisor asks: plain data for the page, metrics and `explain`."""

import os
from typing import Any

from gateway.edge.desk import Desk
from gateway.edge.explaining import decision_facts
from gateway.edge.live import Live
from gateway.edge.metering import Meter
from gateway.edge.proxy import Proxy
from routing.backend import BackendState
from routing.forecast import HOUR_S
from routing.occupancy import FREE


def worker_status(desk: Desk, proxy: Proxy, now: float) -> dict[str, Any]:
    """One worker's live state."""
    live = desk.live
    desk.tally.tell()
    return {
        "log": desk.log.log,
        "pid": os.getpid(),
        "connections": desk.port.connections,
        "in_flight": proxy.in_flight,
        "draining": proxy.draining,
        "ledger": {"writable": desk.log.writable, "reason": desk.log.reason},
        "route_version": live.table.version,
        "price_version": live.book.version,
        "backends": [_backend(live, live.states[name], now) for name in live.table.backends],
        "tenants": [_tenant(name, meter) for name, meter in desk.admission.usage().items()],
        "decisions": [decision_facts(*each) for each in live.decisions],
        **desk.counters.snapshot(),
    }


def _backend(live: Live, state: BackendState, now: float) -> dict[str, Any]:
    backend = live.table.backends[state.name]
    return {
        "name": backend.name,
        "region": backend.region,
        "in_flight": state.inflight,
        "slots": backend.slots,
        "queue_max": backend.queue_max,
        "available": state.health.available(now),
        "barred": state.health.barred(now),
        "ttft_ms": state.ttft.predict(0, now) * 1000,
        "itl_ms": state.itl.value * 1000,
        "slot_per_hour": HOUR_S * live.slot_prices.get(state.name, FREE).at(state.load),
        "tokens_per_event": state.tokens_per_event.value,
    }


def _tenant(name: str, meter: Meter) -> dict[str, Any]:
    budget = meter.budget
    return {
        "name": name,
        "streams": meter.streams,
        "budget": None
        if budget is None
        else {
            "tokens": budget.tokens,
            "period": budget.period,
            "used": budget.used,
            "reserved": budget.reserved,
            "ends": budget.ends or None,
        },
    }
