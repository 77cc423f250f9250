"""`[[tenants]]`, `[[teams]]` and `[[users]]`: who may ask, how much, and what it costs them."""

import re

from gateway.config.fields import countries, country, name, reference
from gateway.config.reader import Table
from gateway.config.settings import (
    BudgetSettings,
    ChargeSettings,
    RateSettings,
    TeamSettings,
    TenantSettings,
    UserSettings,
)
from pricing.units import nano

PERIODS = ("day", "month", "year")
PRICE_PER_MTOK_MAX = 10**9  # in any currency; a million times it in nano units still fits 64 bits
KEY = re.compile(r"sha256:[0-9a-fA-F]{64}")


def tenant(table: Table) -> TenantSettings:
    """One `[[tenants]]`."""
    settings = TenantSettings(
        name=name(table, "acme"),
        key_hashes=tuple(key[7:].lower() for key in table.texts("keys", objection=_key_problem)),
        charge=_charge(table),
        budget=_budget(table),
        limits=_rates(table),
        country=country(table, "country"),
        value_per_second=float(table.number("value_per_second")),
        deny_origins=frozenset(countries(table, "deny_origins")),
    )
    table.close()
    return settings


def team(table: Table) -> TeamSettings:
    """One `[[teams]]`."""
    settings = TeamSettings(
        tenant=reference(table, "tenant", "acme"),
        name=name(table, "search"),
        limits=_rates(table),
        budget=_budget(table),
    )
    table.close()
    return settings


def user(table: Table) -> UserSettings:
    """One `[[users]]`."""
    settings = UserSettings(
        team=reference(table, "team", "search"),
        name=name(table, "ada"),
        limits=_rates(table),
        budget=_budget(table),
    )
    table.close()
    return settings


def _key_problem(text: str) -> str:
    # The text is not shown: it may be the key itself.
    if KEY.fullmatch(text):
        return ""
    return 'must be the hash of a key; write "sha256:" and 64 hex digits, as `tokenport keys new` prints them'


def _charge(table: Table) -> ChargeSettings:
    """What the tenant pays. Cached input costs what input does, if not given."""
    part = table.table("tariff_per_mtok", expected="a table, such as { input = 0.3, output = 1.2 }")
    if part is None:
        return ChargeSettings()
    fresh = part.number("input", high=PRICE_PER_MTOK_MAX)
    cached = part.number("cached_input", fresh, high=PRICE_PER_MTOK_MAX)
    output = part.number("output", high=PRICE_PER_MTOK_MAX)
    part.close()
    return ChargeSettings(nano(fresh), nano(cached), nano(output))


def _budget(table: Table) -> BudgetSettings | None:
    part = table.table("budget", expected='a table, such as { tokens = 2_000_000_000, period = "year" }')
    if part is None:
        return None
    tokens = part.whole("tokens", 1, required="tokens = 2_000_000_000", low=1, fix="leave budget out for none")
    period = part.choice("period", "year", PERIODS, required='period = "year"')
    part.close()
    return BudgetSettings(tokens, period)


def _rates(table: Table) -> RateSettings:
    part = table.table("limits", expected="a table, such as { requests_per_minute = 600, streams = 50 }")
    if part is None:
        return RateSettings()
    rates = RateSettings(
        requests_per_minute=part.whole("requests_per_minute", fix="0 is none"),
        tokens_per_minute=part.whole("tokens_per_minute", fix="0 is none"),
        streams=part.whole("streams", fix="0 is none"),
    )
    part.close()
    return rates
