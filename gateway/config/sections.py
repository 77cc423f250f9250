"""`[gateway]`, `[limits]`, `[ledger]`, `[fx]` and `[price_clock]`."""

import ssl
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal

from gateway.config.fields import CURRENCY, HEADER, Context, address, file, networks, reference, secret
from gateway.config.limits import LedgerSettings, Limits
from gateway.config.reader import Table
from gateway.config.settings import Address, GatewaySettings, PriceClock, Tls

EVERY_HOST = {"0.0.0.0", "::"}
WORKERS_MAX = 256  # far above the cores of one machine
SPEED_MAX = 100_000  # a year of prices in five minutes

# Pairs of limits of which the first must not exceed the second.
_ORDERED = (
    ("line_bytes_max", "head_bytes_max"),
    ("body_bytes_max", "bodies_bytes_max"),
    ("body_s", "body_large_s"),
    ("buffer_bytes_high", "buffer_bytes_max"),
    ("first_content_s", "stream_s"),
    ("gap_s", "stream_s"),
    ("eject_s", "eject_s_max"),
)


def gateway(table: Table, context: Context) -> GatewaySettings:
    """`[gateway]`; sets the currency that the other sections default to."""
    context.currency = table.text(
        "currency",
        "USD",
        accepts=CURRENCY.fullmatch,
        expected="a currency code of three capital letters",
        fix='for example "USD"',
    )
    listen = address(table, "listen", Address("127.0.0.1", 8080))
    admin_listen = address(table, "admin_listen", Address("127.0.0.1", 8081))
    admin_token = secret(table, "admin_token_env", context)
    proxies = networks(table, "trusted_proxies")
    settings = GatewaySettings(
        edge=reference(table, "edge", "eu-edge"),
        data_dir=context.resolve(table.text("data_dir") or "var"),
        listen=listen,
        workers=table.whole("workers", 1, high=WORKERS_MAX, fix="0 starts one per core"),
        currency=context.currency,
        trusted_proxies=proxies,
        admin_listen=admin_listen,
        admin_token=admin_token,
        tls=_tls(table, context),
        country_db=file(table, "country_db", context),
        destination_header=_destination_header(table, bool(proxies)),
    )
    if not admin_listen.loopback and not admin_token and not table.spoiled("admin_token_env"):
        table.complain("admin_listen", f'"{admin_listen}" is open to others; set admin_token_env, or use 127.0.0.1')
    hosts = {listen.host, admin_listen.host}
    if (
        listen.port == admin_listen.port != 0
        and (len(hosts) == 1 or hosts & EVERY_HOST)
        and not table.spoiled("listen")
    ):
        table.complain("admin_listen", "has the port of listen; give it another one")
    table.close()
    return settings


def _destination_header(table: Table, proxies: bool) -> str:
    header = table.text(
        "destination_header",
        accepts=HEADER.fullmatch,
        expected="the name of a header",
        fix='for example "cf-ipcountry"',
    )
    if header and not proxies and not table.spoiled("trusted_proxies"):
        table.complain("destination_header", "is believed from trusted_proxies only; set that to its senders")
    return header.lower()


def _tls(table: Table, context: Context) -> Tls | None:
    """Certificate and key, tried out: a pair that does not match is found here and not by the first customer."""
    part = table.table("tls", expected='a table, such as { cert = "cert.pem", key = "key.pem" }')
    if part is None:
        return None
    cert, key = file(part, "cert", context), file(part, "key", context)
    part.close()
    for given, path, missing in (("cert", cert, "key"), ("key", key, "cert")):
        other = key if missing == "key" else cert
        if path is not None and other is None and not part.spoiled(missing):
            part.complain(given, f'needs its {missing} beside it; add {missing} = "{missing}.pem"')
    if cert is None or key is None:
        return None
    if context.files and not part.spoiled("cert") and not part.spoiled("key"):
        try:
            # The password is empty so that an encrypted key is refused instead of asking at a terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
        except (OSError, ValueError):
            part.complain(
                "cert", "does not work with its key; both must be PEM, without a password, and belong together"
            )
    return Tls(cert, key)


def limits(table: Table | None) -> Limits:
    """`[limits]`, each within the range its field names."""
    if table is None:
        return Limits()
    given = _in_range(table, Limits)
    for lesser, greater in _ORDERED:
        if not table.spoiled(lesser) and not table.spoiled(greater):
            _order(table, given, lesser, greater)
    return Limits(**given)  # type: ignore[arg-type]


def ledger(table: Table | None) -> LedgerSettings:
    """`[ledger]`, likewise."""
    return LedgerSettings() if table is None else LedgerSettings(**_in_range(table, LedgerSettings))  # type: ignore[arg-type]


def _in_range(table: Table, section: type[Limits] | type[LedgerSettings]) -> dict[str, int | float]:
    """What is given of a section whose fields name their ranges."""
    given: dict[str, int | float] = {}
    for spec in fields(section):
        if not table.has(spec.name):
            continue
        if spec.type is bool:
            given[spec.name] = table.flag(spec.name) is not False
            continue
        low, high = spec.metadata["low"], spec.metadata["high"]
        if spec.type is int:
            given[spec.name] = table.whole(spec.name, low, low=low, high=high)
        else:
            given[spec.name] = float(table.number(spec.name, low=low, high=high))
    table.close()
    return given


def _order(table: Table, given: dict[str, int | float], lesser: str, greater: str) -> None:
    """A default gives way to the limit that was set; two that were set must not contradict each other."""
    found = Limits(**given)  # type: ignore[arg-type]
    least, most = getattr(found, lesser), getattr(found, greater)
    if least <= most:
        return
    if lesser in given and greater in given:
        table.complain(lesser, f"({least}) must not exceed {greater} ({most}); change one of them")
    elif lesser in given:
        given[greater] = least
    else:
        given[lesser] = most


def fx(table: Table | None, context: Context) -> dict[str, float]:
    """`[fx]`: what a unit of another currency is worth in the gateway's."""
    rates = {context.currency: 1.0}
    if table is None:
        return rates
    for code, value in table.entries():
        if code == "feed":
            table.complain(code, f"exchange rates cannot be fetched; give what a unit is worth in {context.currency}")
        elif not CURRENCY.fullmatch(code):
            table.complain(code, "is not a currency code; use three capital letters, such as EUR")
        elif isinstance(value, dict):
            table.complain(code, "exchange rates cannot be fetched; give the rate as a number")
            rates[code] = 1.0
        elif code == context.currency:
            if value != 1:
                table.complain(code, "is the gateway's own currency and worth 1; remove it")
        else:
            what = f"what one {code} is worth in {context.currency}"
            rates[code] = float(table.number(code, above=0, fix=f"give {what}"))
    return rates


def price_clock(table: Table | None) -> PriceClock | None:
    """`[price_clock]`: a start, as a text or as TOML's own time, and a speed."""
    if table is None:
        return None
    value = table.raw("start", required='start = "2024-05-08T00:00:00Z"')
    start = _moment(value)
    if value is not None and start is None:
        table.complain("start", 'must be a time with its zone; write it like "2024-05-08T00:00:00Z"')
    speed = table.number("speed", 1, above=0, high=SPEED_MAX, fix="1 is the speed of the wall clock")
    table.close()
    return PriceClock((start or datetime.fromtimestamp(0, UTC)).timestamp(), float(speed or Decimal(1)))


def _moment(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime) and value.tzinfo is not None else None
