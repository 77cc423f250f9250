"""A row's money, recomputed from the row alone by the contract's arithmetic, without the product's code."""

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any


def attempt_costs(x: Mapping[str, Any]) -> dict[str, int]:
    """Energy and the three costs of one attempt (or of a row, for its serving one). `round` is half-even."""
    fresh = x["input_tokens"] - x["cached_input_tokens"]
    power = (x["prefill_mj_per_token"] * fresh + x["decode_mj_per_token"] * x["output_tokens"]) * x["pue_milli"]
    bought = x["unit_input_nano_per_mtok"] * (fresh - x["cache_write_tokens"])
    bought += x["unit_cached_nano_per_mtok"] * x["cached_input_tokens"]
    bought += x["unit_cache_write_nano_per_mtok"] * x["cache_write_tokens"]
    bought += x["unit_output_nano_per_mtok"] * x["output_tokens"]
    carried = (x["bytes_to_backend"] + x["bytes_from_backend"]) * x["unit_link_nano_per_gb"]
    return {
        "energy_uwh": round(Fraction(power, 3600)),
        "carbon_mg": round(Fraction(power * x["carbon_g_per_kwh"], 3_600_000_000)),
        "cost_energy_nano": round(Fraction(power * x["unit_energy_nano_per_kwh"], 3_600_000_000_000)),
        "cost_tokens_nano": round(Fraction(bought, 1_000_000)),
        "cost_link_nano": round(Fraction(carried, 1_000_000_000)),
    }


def recomputed(row: Mapping[str, Any]) -> dict[str, int]:
    """Every derived integer of a row."""
    found = attempt_costs(row)
    names = ("cost_energy_nano", "cost_tokens_nano", "cost_link_nano")
    attempts = json.loads(row["attempts_json"])
    found["cost_waste_nano"] = sum(each[name] for each in attempts if not each["serving"] for name in names)
    found["cost_nano"] = sum(found[name] for name in (*names, "cost_waste_nano"))
    charged = row["tariff_output_nano_per_mtok"] * row["billed_output_tokens"]
    if row["ttft_ms"] is not None:
        charged += row["tariff_input_nano_per_mtok"] * (row["input_tokens"] - row["cached_input_tokens"])
        charged += row["tariff_cached_nano_per_mtok"] * row["cached_input_tokens"]
    found["revenue_nano"] = round(Fraction(charged, 1_000_000))
    return found


def differences(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says otherwise than its own prices do, its attempts included."""
    wrong: dict[str, Any] = {}
    for name, value in recomputed(row).items():
        if row[name] != value:
            wrong[name] = (row[name], value)
    for number, attempt in enumerate(json.loads(row["attempts_json"])):
        costs = attempt_costs({"carbon_g_per_kwh": 0, **attempt})
        for name in ("cost_energy_nano", "cost_tokens_nano", "cost_link_nano"):
            if attempt[name] != costs[name]:
                wrong[f"attempts[{number}].{name}"] = (attempt[name], costs[name])
    return wrong
