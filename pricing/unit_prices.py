"""The unit prices of one route at one moment: integers, in the gateway's currency, after exchange.

They are the only form in which prices leave the book. Routing decides on rates derived from them, settlement multiplies
them, and a ledger row carries them, so a decision, its cost and its audit cannot disagree about a price.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """A term that does not apply is 0. Without arguments: the unit prices of a row that no backend served."""

    zone: str = ""  # feed or power tariff that priced the energy; empty for a fixed price or bought tokens
    energy_nano_per_kwh: int = 0
    pue_milli: int = 0
    carbon_g_per_kwh: int = 0
    prefill_mj_per_token: int = 0
    decode_mj_per_token: int = 0
    link_nano_per_gb: int = 0
    input_nano_per_mtok: int = 0
    cached_nano_per_mtok: int = 0
    cache_write_nano_per_mtok: int = 0
    output_nano_per_mtok: int = 0

    def columns(self) -> dict[str, int | str]:
        """As ledger columns."""
        return {
            "zone": self.zone,
            "unit_energy_nano_per_kwh": self.energy_nano_per_kwh,
            "pue_milli": self.pue_milli,
            "carbon_g_per_kwh": self.carbon_g_per_kwh,
            "prefill_mj_per_token": self.prefill_mj_per_token,
            "decode_mj_per_token": self.decode_mj_per_token,
            "unit_link_nano_per_gb": self.link_nano_per_gb,
            "unit_input_nano_per_mtok": self.input_nano_per_mtok,
            "unit_cached_nano_per_mtok": self.cached_nano_per_mtok,
            "unit_cache_write_nano_per_mtok": self.cache_write_nano_per_mtok,
            "unit_output_nano_per_mtok": self.output_nano_per_mtok,
        }

    @classmethod
    def from_columns(cls, row: Mapping[str, int]) -> "UnitPrices":
        """Back from ledger columns; the zone takes no part in the arithmetic and is left out."""
        return cls(
            energy_nano_per_kwh=row["unit_energy_nano_per_kwh"],
            pue_milli=row["pue_milli"],
            carbon_g_per_kwh=row["carbon_g_per_kwh"],
            prefill_mj_per_token=row["prefill_mj_per_token"],
            decode_mj_per_token=row["decode_mj_per_token"],
            link_nano_per_gb=row["unit_link_nano_per_gb"],
            input_nano_per_mtok=row["unit_input_nano_per_mtok"],
            cached_nano_per_mtok=row["unit_cached_nano_per_mtok"],
            cache_write_nano_per_mtok=row["unit_cache_write_nano_per_mtok"],
            output_nano_per_mtok=row["unit_output_nano_per_mtok"],
        )
