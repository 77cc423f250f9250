"""Configuration: TOML and environment in, frozen settings out. The only reader of either.

    reader, positions    one TOML table, typed; every mistake becomes a line with its key path
    fields, sections*    what each section may hold
    draft, checks        what sections say about each other
    settings, limits     the result
    build                from settings to the tables of the pure packages

Relative paths in a file start at the directory of that file.
"""

from gateway.config.limits import LedgerSettings, Limits
from gateway.config.loading import ConfigError, load_file, load_text
from gateway.config.settings import (
    Address,
    BackendSettings,
    FeedSettings,
    GatewaySettings,
    PriceClock,
    RuleSettings,
    Settings,
    SinkSettings,
    TenantSettings,
)

__all__ = [
    "Address",
    "BackendSettings",
    "ConfigError",
    "FeedSettings",
    "GatewaySettings",
    "LedgerSettings",
    "Limits",
    "PriceClock",
    "RuleSettings",
    "Settings",
    "SinkSettings",
    "TenantSettings",
    "load_file",
    "load_text",
]
