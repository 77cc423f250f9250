"""A configuration that was read section by section, beside the tables it came from.

Every section is read whatever is wrong with the others. What one section says about another is checked afterwards, on
the draft, which knows for each value where it stands in the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

from gateway.config import sections, sections_routes, sections_sinks, sections_sites, sections_tenants
from gateway.config.fields import Context
from gateway.config.reader import Problems, Table
from gateway.config.settings import Settings

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Draft:
    """Settings, not yet trusted. The lists of tables run parallel to the lists of settings."""

    settings: Settings
    problems: Problems
    gateway: Table
    regions: dict[str, Table]
    tariffs: dict[str, Table]
    feeds: dict[str, Table]
    backends: list[Table]
    links: list[Table]
    rules: list[Table]
    tenants: list[Table]
    teams: list[Table]
    users: list[Table]
    sinks: list[Table]

    def refer(self, path: str, name: str, section: str, known: list[str], kind: str) -> bool:
        """Whether a name is defined; if it surely is not, that is a problem of whoever uses it."""
        if not name or name in known:
            return bool(name)
        if not self.problems.unsure_of(section):
            near = get_close_matches(name, known, 1)
            others = f"use one of: {', '.join(known[:8])}" if known else "there is none yet"
            hint = f"did you mean {near[0]}?" if near else f"define it ({others})"
            self.problems.add(path, f'no {kind} is called "{name}"; {hint}')
        return False


def draft(top: Table, context: Context) -> Draft:
    """Read every section."""
    problems = top.problems
    gateway = top.table("gateway", required='[gateway] with edge = "eu-edge"')
    if gateway is None:
        gateway = Table({}, "gateway", Problems())  # that it is missing is one mistake, not one for each of its keys
    gateway_settings = sections.gateway(gateway, context)
    fx = top.table("fx")
    rates = sections.fx(fx, context)
    regions, region_tables = _named(top, "regions", context, sections_sites.region)
    tariffs, tariff_tables = _named(top, "tariffs", context, sections_sites.power_tariff)
    feeds, feed_tables = _named(top, "feeds", context, sections_sites.feed)
    backends, backend_tables = _listed(top, "backends", lambda table: sections_routes.backend(table, context))
    links, link_tables = _listed(top, "links", lambda table: sections_routes.link(table, context))
    rules, rule_tables = _listed(top, "routes", sections_routes.rule)
    tenants, tenant_tables = _listed(top, "tenants", sections_tenants.tenant)
    teams, team_tables = _listed(top, "teams", sections_tenants.team)
    users, user_tables = _listed(top, "users", sections_tenants.user)
    sinks, sink_tables = _listed(top, "sinks", lambda table: sections_sinks.sink(table, context))
    limits = sections.limits(top.table("limits"))
    ledger = sections.ledger(top.table("ledger"))
    price_clock = sections.price_clock(top.table("price_clock"))
    top.close()
    _rates_known(context, rates, problems)
    settings = Settings(
        gateway=gateway_settings,
        directory=context.directory,
        limits=limits,
        ledger=ledger,
        fx=rates,
        regions=regions,
        tariffs=tariffs,
        feeds=feeds,
        backends=tuple(backends),
        links=tuple(links),
        rules=tuple(rules),
        tenants=tuple(tenants),
        teams=tuple(teams),
        users=tuple(users),
        sinks=tuple(sinks),
        price_clock=price_clock,
    )
    return Draft(
        settings=settings,
        problems=problems,
        gateway=gateway,
        regions=region_tables,
        tariffs=tariff_tables,
        feeds=feed_tables,
        backends=backend_tables,
        links=link_tables,
        rules=rule_tables,
        tenants=tenant_tables,
        teams=team_tables,
        users=user_tables,
        sinks=sink_tables,
    )


def _named(
    top: Table, key: str, context: Context, read: Callable[[Table, str, Context], Entry]
) -> tuple[dict[str, Entry], dict[str, Table]]:
    tables = dict(sections_sites.named(top.table(key)))
    return {name: read(table, name, context) for name, table in tables.items()}, tables


def _listed(top: Table, key: str, read: Callable[[Table], Entry]) -> tuple[list[Entry], list[Table]]:
    tables = top.tables(key)
    return [read(table) for table in tables], tables


def _rates_known(context: Context, rates: dict[str, float], problems: Problems) -> None:
    """Every currency has a rate. One without is reported where it is used first."""
    if problems.spoiled("fx"):
        return
    reported = set()
    for table, key, code in context.currencies:
        if code not in rates and code not in reported and not problems.blamed(table.where(key)):
            reported.add(code)
            worth = f"{code} = (its worth in {context.currency})"
            problems.add(table.where(key), f"there is no exchange rate for {code}; add {worth} under [fx]")
