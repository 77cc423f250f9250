"""`tokenport simulate`: what a routing policy would cost in a described world. Simulated, and labelled so."""

import csv
import json
import sys
from argparse import Namespace
from dataclasses import asdict

from gateway.commands.output import fail, print_rows
from gateway.ledger.formats import csv_cell
from gateway.rehearsal import Rehearsal, RehearsalError, rehearse


def run(arguments: Namespace) -> int:
    try:
        rehearsal = rehearse(arguments.scenario, arguments.assignments, arguments.policy)
    except RehearsalError as error:
        return fail(str(error))
    speed = rehearsal.requests / max(rehearsal.elapsed_s, 1e-9)
    print(
        f"{rehearsal.requests:,} requests replayed in {rehearsal.elapsed_s:.1f} s ({speed:,.0f} a second); "
        f"assignments in {arguments.assignments}",
        file=sys.stderr,
    )
    if not rehearsal.planned:
        print(
            "no planner (scipy is not installed): prices of room come from the online correction alone", file=sys.stderr
        )
    _print(rehearsal, arguments.format)
    violations = rehearsal.outcome.violations.total
    if violations:
        return fail(f"{violations} violations: this result is not valid", status=1)
    return 0


def _print(rehearsal: Rehearsal, form: str) -> None:
    figures = _figures(rehearsal)
    if form == "json":
        json.dump(figures, sys.stdout, indent=2)
        print()
    elif form == "csv":
        flat = {name: value for name, value in figures.items() if not isinstance(value, dict)}
        for name, values in figures.items():
            if isinstance(values, dict):
                flat |= {f"{name}_{key}": value for key, value in values.items()}
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(flat)
        writer.writerow(map(csv_cell, flat.values()))
    else:
        _print_for_people(rehearsal)


def _figures(rehearsal: Rehearsal) -> dict[str, object]:
    outcome, yardsticks = rehearsal.outcome, rehearsal.yardsticks
    return {
        "simulated": True,
        "scenario": rehearsal.scenario,
        "policy": rehearsal.policy,
        "planned": rehearsal.planned,
        "requests": outcome.requests,
        "rejected": outcome.rejected,
        "total_usd": outcome.total_usd,
        "energy_usd": outcome.energy_usd,
        "tokens_usd": outcome.tokens_usd,
        "link_gb_usd": outcome.link_gb_usd,
        "link_p95_usd": outcome.link_p95_usd,
        "latency_usd": outcome.latency_usd,
        "reject_usd": outcome.reject_usd,
        "flat_usd": outcome.flat_usd,
        "ttft_mean_ms": outcome.ttft_mean_s * 1000,
        "wait_mean_ms": outcome.wait_mean_s * 1000,
        "slo_misses": outcome.slo_misses,
        "slo_miss_pct": outcome.slo_miss_pct,
        "hit_pct": outcome.hit_pct,
        "bound_usd": yardsticks.bound_usd,
        "nearest_usd": yardsticks.nearest_usd,
        "nearest_slo_miss_pct": yardsticks.nearest_slo_miss_pct,
        "regret_pct": _percent(rehearsal.regret),
        "captured_saving_pct": _percent(rehearsal.captured_saving),
        "served": dict(outcome.served_by),
        "violations": {**asdict(outcome.violations), "total": outcome.violations.total},
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _print_for_people(rehearsal: Rehearsal) -> None:
    outcome, yardsticks = rehearsal.outcome, rehearsal.yardsticks
    print(f"Simulated: scenario {rehearsal.scenario}, policy {rehearsal.policy}. No traffic was served.\n")
    total_usd = outcome.total_usd
    costs = {
        "energy": outcome.energy_usd,
        "tokens bought": outcome.tokens_usd,
        "links per GB": outcome.link_gb_usd,
        "links p95": outcome.link_p95_usd,
        "time to first token": outcome.latency_usd,
        "rejected": outcome.reject_usd,
        "total": total_usd,
    }
    rows = [
        {"cost": name, "USD": round(usd, 4), "share_pct": round(100 * usd / total_usd, 1) if total_usd else None}
        for name, usd in costs.items()
    ]
    print_rows(rows, ("cost", "USD", "share_pct"), "table", sys.stdout)
    if outcome.flat_usd:
        print(f"flat lines, sunk and no part of the total: {outcome.flat_usd:,.2f} USD")
    print()
    nearest_pct = yardsticks.nearest_slo_miss_pct
    beside = f" (published nearest site: {nearest_pct:.2f} %)" if nearest_pct is not None else ""
    print(f"requests       {outcome.requests:,} in the report window, {outcome.rejected:,} rejected")
    print(f"mean TTFT      {outcome.ttft_mean_s * 1000:,.1f} ms, of it wait {outcome.wait_mean_s * 1000:,.1f} ms")
    print(f"SLO misses     {outcome.slo_misses:,}, {outcome.slo_miss_pct:.2f} %{beside}")
    if outcome.hit_tokens:
        print(f"prefix hits    {outcome.hit_pct:.1f} % of prompt tokens")
    found = {name: count for name, count in asdict(outcome.violations).items() if count}
    print(f"violations     {', '.join(f'{name} {count:,}' for name, count in found.items()) or 'none'}")
    if rehearsal.regret is not None:
        print(f"regret         {rehearsal.regret:.2%} over the published bound of {yardsticks.bound_usd:,.4f} USD")
    if rehearsal.captured_saving is not None:
        print(
            f"saving         {rehearsal.captured_saving:.1%} of what the bound saves against the nearest site "
            f"({yardsticks.nearest_usd:,.4f} USD)"
        )
    shares = (f"{site} {count / outcome.requests:.1%}" for site, count in outcome.served_by.items())
    print(f"served by      {', '.join(shares)}")
