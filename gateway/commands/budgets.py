"""`tokenport report --budgets`: what is used of each budget, and where that leads.

Used is what the limiter counts (`Reader.spent`): input and billed output tokens of the calendar period in UTC. The
forecast is used + mean of the tenant's last 28 whole days (or of those since its first export, if there are fewer) x
what is left of the period. Teams and users have budgets in the configuration, and no key belongs to one yet: what they
used is not known, and not guessed.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from gateway.commands.output import print_rows
from gateway.config import Settings
from gateway.config.settings import BudgetSettings
from gateway.edge.shares import period_bounds
from gateway.ledger.instants import MICROS, micros, rfc3339
from gateway.ledger.reading import Reader
from gateway.ledger.segment import Record

COLUMNS = (
    *("level", "name", "tenant", "period", "period_start", "period_end", "limit_tokens", "used_tokens"),
    *("daily_tokens", "mean_of_days", "forecast_tokens", "reached_at"),
)
MEAN_DAYS_MAX = 28  # four of each day of the week
_DAY_S = 86_400
FORECAST = "forecast: used + mean of the last 28 whole days (or since the first export) x time left, in UTC"
UNKNOWN = "teams and users: configured, not enforced yet; no key belongs to one, so what they used is not known"


def budget_rows(settings: Settings, reader: Reader, now: float, tenants: Sequence[str] | None = None) -> list[Record]:
    """A row per budget; None where something cannot be known. `tenants`: only of these."""

    def wanted(tenant: str) -> bool:
        return tenants is None or tenant in tenants

    daily = _daily(reader, now)
    rows = []
    for tenant in settings.tenants:
        if tenant.budget is not None and wanted(tenant.name):
            spent = reader.spent(*period_bounds(tenant.budget.period, now)).get(tenant.name, {})
            row = _row("tenant", tenant.name, tenant.name, tenant.budget, now)
            rows.append(row | _used(row, sum(spent.values()), daily.get(tenant.name, []), now))
    owners = {team.name: team.tenant for team in settings.teams}
    for level, name, tenant_name, budget in (
        *(("team", team.name, team.tenant, team.budget) for team in settings.teams),
        *(("user", f"{user.team}/{user.name}", owners[user.team], user.budget) for user in settings.users),
    ):
        if budget is not None and wanted(tenant_name):
            rows.append(_row(level, name, tenant_name, budget, now))
    return rows


def print_budgets(rows: Sequence[Record], tz: ZoneInfo, form: str) -> None:
    if form != "table":
        print_rows(rows, COLUMNS, form)
    elif rows:
        print_rows([_shown(row, tz) for row in rows], _TITLES, "table", spare=("per day", "until"))
        print(FORECAST)
        if any(row["level"] != "tenant" for row in rows):
            print(UNKNOWN)


def _daily(reader: Reader, now: float) -> dict[str, list[int]]:
    """Tokens of each tenant's whole days before today, from its first one with tokens on."""
    today = int(now // _DAY_S * _DAY_S)
    found: dict[str, list[int]] = {}
    for number in range(MEAN_DAYS_MAX, 0, -1):
        start = today - number * _DAY_S
        spent = reader.spent(start, start + _DAY_S)
        for tenant in found.keys() | spent.keys():
            found.setdefault(tenant, []).append(sum(spent.get(tenant, {}).values()))
    return found


def _row(level: str, name: str, tenant: str, budget: BudgetSettings, now: float) -> Record:
    start, end = (rfc3339(bound * MICROS) for bound in period_bounds(budget.period, now))
    named = {"level": level, "name": name, "tenant": tenant, "period": budget.period}
    bounds = {"period_start": start, "period_end": end, "limit_tokens": budget.tokens}
    return {**dict.fromkeys(COLUMNS), **named, **bounds}


def _used(row: Record, used: int, days: Sequence[int], now: float) -> Record:
    limit, now_us = row["limit_tokens"], micros(now)
    left_us = micros(period_bounds(row["period"], now)[1]) - now_us
    found: Record = {"used_tokens": used, "mean_of_days": len(days)}
    if days:
        total, span_us = sum(days), len(days) * _DAY_S * MICROS
        found["daily_tokens"] = total // len(days)
        found["forecast_tokens"] = used + total * left_us // span_us
        if used < limit and total and (limit - used) * span_us <= total * left_us:
            found["reached_at"] = rfc3339(now_us + (limit - used) * span_us // total)
    if used >= limit:
        found["reached_at"] = rfc3339(now_us)
    return found


_TITLES = (
    "level",
    "name",
    "period",
    "until",
    "limit",
    "used",
    "used %",
    "per day",
    "forecast",
    "forecast %",
    "reached",
)


def _shown(row: Record, tz: ZoneInfo) -> Record:
    limit, used, forecast = row["limit_tokens"], row["used_tokens"], row["forecast_tokens"]

    def share(tokens: int | None) -> Decimal | None:
        return None if tokens is None or not limit else round(Decimal(100 * tokens) / limit, 1)

    def local(moment: str) -> datetime:
        return datetime.fromisoformat(moment).astimezone(tz)

    reached = row["reached_at"]
    return {
        "level": row["level"],
        "name": row["name"],
        "period": row["period"],
        "until": f"{local(row['period_end']):%Y-%m-%d %H:%M}",
        "limit": limit,
        "used": used,
        "used %": share(used),
        "per day": row["daily_tokens"],
        "forecast": forecast,
        "forecast %": share(forecast),
        "reached": None if reached is None else "now" if used >= limit else f"{local(reached):%Y-%m-%d}",
    }
