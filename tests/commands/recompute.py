"""An auditor's own arithmetic: figures of a statement from the JSON Lines export alone. Imports nothing of tokenport.

    python -I recompute.py EXPORT.jsonl FROM TO

Every amount is computed anew from the tokens, bytes and unit prices that stand in the row (the contract's formulas, in
fractions, rounded half-even once); what the row says it cost is not looked at. Prints a JSON object: for each tenant
its lines, totals, counts, flags and outcomes, keyed by their names.
"""

import json
import sys
from collections import Counter
from datetime import datetime
from fractions import Fraction

TOKENS = (
    *("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"),
    *("delivered_tokens", "billed_output_tokens"),
)
BYTES = ("bytes_from_client", "bytes_to_client", "bytes_to_backend", "bytes_from_backend", "attempts")
TABLES = ("lines", "totals", "counted", "flags", "outcomes")
COUNTED = ("requests", "output_tokens", "delivered_tokens", "billed_output_tokens", "exported_tokens")


def costs_of(it: dict) -> dict:
    """What a row, or an attempt, cost: its five results."""
    fresh = it["input_tokens"] - it["cached_input_tokens"]
    millijoules = it["prefill_mj_per_token"] * fresh + it["decode_mj_per_token"] * it["output_tokens"]
    energy = Fraction(millijoules * it["pue_milli"])
    bought = (
        it["unit_input_nano_per_mtok"] * (fresh - it["cache_write_tokens"])
        + it["unit_cached_nano_per_mtok"] * it["cached_input_tokens"]
        + it["unit_cache_write_nano_per_mtok"] * it["cache_write_tokens"]
        + it["unit_output_nano_per_mtok"] * it["output_tokens"]
    )
    size = it["bytes_to_backend"] + it["bytes_from_backend"]
    return {  # round() of a fraction is half-even
        "energy_uwh": round(energy / 3600),
        "carbon_mg": round(energy * it["carbon_g_per_kwh"] / 3_600_000_000),
        "cost_energy_nano": round(energy * it["unit_energy_nano_per_kwh"] / 3_600_000_000_000),
        "cost_tokens_nano": round(Fraction(bought, 1_000_000)),
        "cost_link_nano": round(Fraction(size * it["unit_link_nano_per_gb"], 1_000_000_000)),
    }


def figures_of(row: dict) -> Counter:
    costs = costs_of(row)
    failed = [costs_of(each) for each in json.loads(row["attempts_json"]) if not each["serving"]]
    parts = ("cost_energy_nano", "cost_tokens_nano", "cost_link_nano")
    waste = sum(each[part] for each in failed for part in parts)
    earned = row["tariff_output_nano_per_mtok"] * row["billed_output_tokens"]
    if row["ttft_ms"] is not None:
        earned += row["tariff_input_nano_per_mtok"] * (row["input_tokens"] - row["cached_input_tokens"])
        earned += row["tariff_cached_nano_per_mtok"] * row["cached_input_tokens"]
    return Counter(
        requests=1,
        exported_tokens=row["delivered_tokens"] if row["exported"] is True else 0,
        **{name: row[name] for name in (*TOKENS, *BYTES)},
        **costs,
        cost_waste_nano=waste,
        cost_nano=sum(costs[part] for part in parts) + waste,
        revenue_nano=round(Fraction(earned, 1_000_000)),
    )


def add(into: dict, key: object, figures: Counter) -> None:
    into.setdefault(str(key), Counter()).update(figures)


def recompute(path: str, start: datetime, end: datetime) -> dict:
    tenants: dict = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if not start <= datetime.fromisoformat(row["ended_at"]) < end:
                continue
            figures = figures_of(row)
            told = tenants.setdefault(row["tenant"], {**{name: {} for name in TABLES}, "flagged": 0})
            place = (row["origin_country"], row["destination_country"], row["model"], row["currency"])
            add(told["lines"], place, figures)
            add(told["totals"], row["currency"], figures)
            counts = Counter({name: figures[name] for name in COUNTED})
            add(told["counted"], row["count_source"], counts)
            add(told["outcomes"], row["outcome"], counts)
            for flag in filter(None, row["count_flags"].split(";")):
                add(told["flags"], flag, counts)
            told["flagged"] += row["count_flags"] != ""
    return tenants


if __name__ == "__main__":
    since, until = (datetime.fromisoformat(each) for each in sys.argv[2:4])
    json.dump(recompute(sys.argv[1], since, until), sys.stdout)
