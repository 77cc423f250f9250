"""`[regions]`, `[tariffs]` and `[feeds]`: places, and what power costs there."""

from gateway.config.fields import (
    NAME,
    NAME_EXPECTED,
    Context,
    country,
    currency,
    file,
    label,
    timezone,
    url,
)
from gateway.config.reader import Table
from gateway.config.settings import (
    FeedSettings,
    PeriodSettings,
    PowerSettings,
    PowerTariffSettings,
    RegionSettings,
)
from pricing.energy import CURRENCY_SCALE, PRICE_MAX_PER_MWH, PRICE_MIN_PER_MWH
from pricing.units import MILLI, scaled

FEED_KINDS = ("csv",)
DAY_S = 86_400


def named(table: Table | None) -> list[tuple[str, Table]]:
    """The tables under a section whose keys are names, such as [regions.guizhou]."""
    if table is None:
        return []
    found = []
    for name, _ in table.entries():
        entry = table.table(name, expected=f"a table, such as [{table.path}.{name}]")
        if entry is not None and not NAME.fullmatch(name):
            table.complain(name, f"a name must be {NAME_EXPECTED}; rename it")
        if entry is not None:
            found.append((name, entry))
    return found


def region(table: Table, name: str, context: Context) -> RegionSettings:
    """`[regions.NAME]`."""
    settings = RegionSettings(
        name=name,
        country=country(table, "country", required='country = "DE"'),
        power=_power(table, context),
        pue_milli=scaled(
            table.number("pue", 1, low=1, high=5, fix="it is the site's power over its computers' power, such as 1.2"),
            MILLI,
        ),
        carbon_g_per_kwh=_carbon(table),
        power_cap_w=float(table.number("power_cap_w")),
        label=label(table),
    )
    table.close()
    return settings


def _carbon(table: Table) -> int:
    if isinstance(table.raw("carbon_g_per_kwh"), dict):
        table.complain("carbon_g_per_kwh", "carbon intensity cannot be fetched; give grams per kWh as a number")
        return 0
    grams = table.number("carbon_g_per_kwh", high=5000, fix="grams of CO2 per kWh, such as 404")
    return scaled(grams, 1)


def _power(parent: Table, context: Context) -> PowerSettings | None:
    """`power`: one source of the price, and what is added to it."""
    example = '{ tariff = "guizhou" }, { feed = "no2" } or { price_per_mwh = 52.0 }'
    table = parent.table("power", expected=f"a table: {example}")
    if table is None:
        return None
    money = currency(table, context)
    settings = PowerSettings(
        tariff=table.text("tariff"),
        feed=table.text("feed"),
        price_per_mwh=_price_per_mwh(table, "price_per_mwh", money) if table.has("price_per_mwh") else None,
        currency=money,
        adder_per_mwh=_price_per_mwh(table, "adder_per_mwh", money),
    )
    table.close()
    sources = table.given("tariff", "feed", "price_per_mwh")
    if len(sources) > 1:
        parent.complain("power", f"has {' and '.join(sources)}; keep one of them")
    elif not sources:
        parent.complain("power", f"names no price; write {example}")
    elif sources != ["price_per_mwh"] and table.has("currency"):
        table.complain("currency", f"belongs to price_per_mwh; a {sources[0]} has its own, remove this one")
    return settings


def _price_per_mwh(table: Table, key: str, money: str, *, required: str = "") -> float:
    """A price within the technical limits that market prices are held to."""
    scale = CURRENCY_SCALE.get(money, 1)
    low, high = PRICE_MIN_PER_MWH * scale, PRICE_MAX_PER_MWH * scale
    return float(table.number(key, required=required, low=low, high=high, fix=f"{money} per megawatt-hour"))


def power_tariff(table: Table, name: str, context: Context) -> PowerTariffSettings:
    """`[tariffs.NAME]`. How periods fit together is checked when the tariff is built."""
    money = currency(table, context)
    periods = []
    for part in table.tables(
        "periods", expected='a list of tables, such as [{ hours = "00-08", price_per_mwh = 260.0 }]'
    ):
        periods.append(
            PeriodSettings(
                hours=part.text("hours", required='hours = "00-08"'),
                price_per_mwh=_price_per_mwh(part, "price_per_mwh", money, required="price_per_mwh = 260.0"),
                days=part.text("days"),
                months=part.text("months"),
                holidays=part.flag("holidays"),
            )
        )
        part.close()
    settings = PowerTariffSettings(
        name=name,
        currency=money,
        price_per_mwh=_price_per_mwh(table, "price_per_mwh", money, required="price_per_mwh = 400.0"),
        timezone=timezone(table),
        periods=tuple(periods),
        holidays=table.dates("holidays"),
    )
    table.close()
    return settings


def feed(table: Table, name: str, context: Context) -> FeedSettings:
    """`[feeds.NAME]`. What is in a file is checked when everything is read."""
    settings = FeedSettings(
        name=name,
        kind=table.choice("kind", "csv", FEED_KINDS, required='kind = "csv"'),
        currency=currency(table, context),
        path=file(table, "path", context),
        url=url(table, "url", "https://prices.example/no2.csv", required=False),
        resolution_s=float(table.number("resolution_s", 3600, low=60, high=DAY_S, fix="3600 is hourly")),
        refresh_s=float(table.number("refresh_s", 300, low=1, high=7 * DAY_S, fix="300 is every five minutes")),
        stale_after_s=float(table.number("stale_after_s", 10_800, low=1, high=366 * DAY_S)),
        fallback=table.text("fallback"),
    )
    table.close()
    given = table.given("path", "url")
    if not given:
        table.complain("path", 'is missing; add path = "prices.csv" or url = "https://..."')
    elif len(given) > 1:
        table.complain("url", "stands beside path; keep one of them")
    return settings
