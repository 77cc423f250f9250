"""All workers' answers to `status`, merged into one picture.

In flight, streams, reservations and connections add up. Estimates are means: the workers share what they measure, at
their sweeps. What a budget has used every worker tells for all of them; the largest is the newest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

# Of all workers together, as many as one keeps.
DECISIONS_MAX = 200

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BackendNow:
    """A backend as the workers see it."""

    name: str
    region: str
    in_flight: int
    slots: int
    queue_max: int
    workers: int  # that know it
    available_in: int  # of them, that would use it
    barred: tuple[str, ...]  # why the others would not
    ttft_ms: float
    itl_ms: float
    tokens_per_event: float
    slot_per_hour: float  # what a slot is worth to others now

    @property
    def available(self) -> bool:
        return self.available_in > 0


@dataclass(frozen=True, slots=True)
class BudgetNow:
    """A tenant's budget in its current period, in tokens. `ends` is epoch seconds; None before a first request."""

    tokens: int
    period: str
    used: int
    reserved: int
    ends: float | None


@dataclass(frozen=True, slots=True)
class TenantNow:
    name: str
    streams: int
    budget: BudgetNow | None


@dataclass(frozen=True, slots=True)
class WorkerNow:
    log: int
    pid: int
    connections: int
    in_flight: int
    draining: bool
    ledger_writable: bool
    ledger_reason: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """What all workers together are doing."""

    workers: tuple[WorkerNow, ...]
    backends: tuple[BackendNow, ...]
    tenants: tuple[TenantNow, ...]
    decisions: tuple[Status, ...]  # most recent first
    route_versions: tuple[str, ...]  # more than one only while a new one is being installed
    price_versions: tuple[str, ...]

    @property
    def in_flight(self) -> int:
        return sum(worker.in_flight for worker in self.workers)

    @property
    def connections(self) -> int:
        return sum(worker.connections for worker in self.workers)

    @property
    def ledger_reasons(self) -> tuple[str, ...]:
        """Why workers cannot write their logs; empty when all can."""
        return tuple(
            f"log {worker.log}: {worker.ledger_reason or 'not writable'}"
            for worker in self.workers
            if not worker.ledger_writable
        )


def merge(answers: Iterable[Status | None]) -> Fleet:
    """One picture of the answers; a worker that was not yet able to answer (None) takes no part."""
    statuses = sorted((answer for answer in answers if answer is not None), key=lambda status: int(status["log"]))
    decisions = [decision for status in statuses for decision in status["decisions"]]
    decisions.sort(key=lambda decision: float(decision["at"]), reverse=True)
    return Fleet(
        workers=tuple(_worker(status) for status in statuses),
        backends=tuple(_backend(seen) for seen in _by_name(statuses, "backends")),
        tenants=tuple(_tenant(seen) for seen in _by_name(statuses, "tenants")),
        decisions=tuple(decisions[:DECISIONS_MAX]),
        route_versions=_distinct(status["route_version"] for status in statuses),
        price_versions=_distinct(status["price_version"] for status in statuses),
    )


def _by_name(statuses: Sequence[Status], part: str) -> list[list[Status]]:
    """The entries of a part of all statuses, those of one name together, in the order of their first mention."""
    found: dict[str, list[Status]] = {}
    for status in statuses:
        for entry in status[part]:
            found.setdefault(entry["name"], []).append(entry)
    return list(found.values())


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _worker(status: Status) -> WorkerNow:
    ledger = status["ledger"]
    return WorkerNow(
        log=status["log"],
        pid=status["pid"],
        connections=status["connections"],
        in_flight=status["in_flight"],
        draining=status["draining"],
        ledger_writable=ledger["writable"],
        ledger_reason=ledger["reason"],
    )


def _backend(seen: Sequence[Status]) -> BackendNow:
    first = seen[0]
    return BackendNow(
        name=first["name"],
        region=first["region"],
        in_flight=sum(each["in_flight"] for each in seen),
        slots=first["slots"],
        queue_max=first["queue_max"],
        workers=len(seen),
        available_in=sum(1 for each in seen if each["available"]),
        barred=_distinct(each["barred"] for each in seen if each["barred"]),
        ttft_ms=fmean(each["ttft_ms"] for each in seen),
        itl_ms=fmean(each["itl_ms"] for each in seen),
        tokens_per_event=fmean(each["tokens_per_event"] for each in seen),
        slot_per_hour=fmean(each["slot_per_hour"] for each in seen),
    )


def _tenant(seen: Sequence[Status]) -> TenantNow:
    budgets = [each["budget"] for each in seen if each["budget"] is not None]
    budget = None
    if budgets:
        first = budgets[0]
        budget = BudgetNow(
            tokens=first["tokens"],
            period=first["period"],
            used=max(each["used"] for each in budgets),
            reserved=sum(each["reserved"] for each in budgets),
            ends=max((each["ends"] for each in budgets if each["ends"]), default=None),
        )
    return TenantNow(seen[0]["name"], sum(each["streams"] for each in seen), budget)
