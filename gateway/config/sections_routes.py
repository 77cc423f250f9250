"""`[[backends]]`, `[[links]]` and `[[routes]]`: who can answer, over which road, and who is asked for what."""

from decimal import Decimal

from gateway.config.fields import (
    HEADER,
    MODEL_MAX,
    Context,
    countries,
    country_problem,
    currency,
    file,
    label,
    model,
    name,
    reference,
    secret,
    timezone,
    url,
)
from gateway.config.reader import Table
from gateway.config.settings import (
    BackendSettings,
    EnergySettings,
    LinkSettings,
    MultiplierSettings,
    ObjectiveSettings,
    RuleSettings,
    TokenPriceSettings,
)
from pricing.units import MILLI, scaled

DIALECTS = ("openai", "anthropic", "responses")  # what a backend may be said to speak
SPOKEN = ("openai",)  # those of them that clients can speak to this gateway
AUTHS = ("bearer", "x-api-key", "none")
USAGES = ("final", "continuous", "none")
OBJECTIVES = ("cheapest", "balanced", "fastest")
ANYWHERE = "*"

SLOTS_MAX = 1_000_000
JOULES_MAX = 100_000  # per token; the largest model measured alone on its machine takes about ten
PRICE_PER_MTOK_MAX = 10**9  # in any currency
MS_MAX = 3_600_000
MODEL_EXPECTED = f"1 to {MODEL_MAX} printable characters without blanks around them"
# The prices a link of each billing needs, with examples.
LINK_PRICES = {
    "flat": {"price_per_month": "6000"},
    "per_gb": {"price_per_gb": "0.12"},
    "p95": {"price_per_mbps_month": "0.2", "planned_mbps": "200"},
}


def backend(table: Table, context: Context) -> BackendSettings:
    """One `[[backends]]`."""
    given = name(table, "gz-1")
    slots = table.whole(
        "slots", 1, required="slots = 64", low=1, high=SLOTS_MAX, fix="set slots to what the backend runs at once"
    )
    auth, auth_header = _auth(table)
    energy, tokens = _energy(table), _token_price(table, context)
    settings = BackendSettings(
        name=given,
        region=reference(table, "region", "guizhou"),
        url=url(table, "url", "http://127.0.0.1:9001/v1"),
        models=_models(table),
        slots=slots,
        queue_max=table.whole("queue_max", slots, high=SLOTS_MAX, fix="set it to what may wait there beyond slots"),
        energy=energy,
        tokens=tokens,
        api_key=secret(table, "api_key_env", context),
        auth=auth,
        auth_header=auth_header,
        prefill_tokens_per_s=float(table.number("prefill_tokens_per_s", 5000, above=0)),
        itl_s=float(table.number("itl_ms", 30, above=0, high=MS_MAX) / 1000),
        dialects=table.texts("dialects", ("openai",), objection=_dialect_problem),
        context_tokens=table.whole("context_tokens", 131_072, low=1),
        usage=table.choice("usage", "final", USAGES),
        tokens_per_event_max=table.whole(
            "tokens_per_event_max", 4, low=1, high=65_536, fix="1 says that every event is exactly one token"
        ),
        ca_file=file(table, "ca_file", context),
        power_cap_w=float(table.number("power_cap_w")),
        label=label(table),
    )
    table.close()
    if not settings.dialects and not table.spoiled("dialects"):
        table.complain("dialects", 'must not be empty; for example dialects = ["openai"]')
    _one_price(table)
    return settings


def _one_price(table: Table) -> None:
    keys = ("joules_per_token", "price_per_mtok")
    given = table.given(*keys)
    if not given:
        table.complain(
            "joules_per_token",
            "is missing; add joules_per_token = { prefill = 0.25, decode = 1.1 }, or price_per_mtok for bought tokens",
        )
    elif len(given) > 1:
        table.complain("price_per_mtok", "stands beside joules_per_token; keep the one by which tokens are paid here")


def _dialect_problem(text: str) -> str:
    return "" if text in DIALECTS else f'"{text}" is not one of {", ".join(DIALECTS)}'


def _models(table: Table) -> dict[str, str]:
    part = table.table("models", required='models = { "qwen3" = "Qwen/Qwen3-235B-A22B" }')
    found: dict[str, str] = {}
    if part is None:
        return found
    for public, _ in part.entries():
        upstream = part.text(public, required=f'{public} = "..."', accepts=model, expected=MODEL_EXPECTED)
        if not model(public):
            part.complain(public, f"a model name must be {MODEL_EXPECTED}; rename it")
        found[public] = upstream
    if not found:
        table.complain("models", 'must not be empty; for example { "qwen3" = "Qwen/Qwen3-235B-A22B" }')
    return found


def _auth(table: Table) -> tuple[str, str]:
    """The kind of credential, and the header's name where it is neither of the common ones."""
    part = table.table("auth") if isinstance(table.raw("auth"), dict) else None
    if part is None:
        return table.choice("auth", "bearer", AUTHS), ""
    header = part.text(
        "header", required='header = "api-key"', accepts=HEADER.fullmatch, expected="the name of a header"
    )
    part.close()
    return "header", header.lower()


def _energy(table: Table) -> EnergySettings | None:
    part = table.table("joules_per_token", expected="a table, such as { prefill = 0.25, decode = 1.1 }")
    if part is None:
        return None
    prefill = part.number("prefill", required="prefill = 0.25", high=JOULES_MAX, fix="joules, such as 0.25")
    decode = part.number("decode", required="decode = 1.1", high=JOULES_MAX, fix="joules, such as 1.1")
    part.close()
    return EnergySettings(scaled(prefill, MILLI), scaled(decode, MILLI))


def _token_price(table: Table, context: Context) -> TokenPriceSettings | None:
    """What bought tokens cost. Cached input and cache writes cost what input does, if not given."""
    part = table.table("price_per_mtok", expected="a table, such as { input = 0.3, output = 1.2 }")
    if part is None:
        return None
    fresh = part.number("input", required="input = 0.3", high=PRICE_PER_MTOK_MAX)
    periods = []
    for entry in part.tables("periods", expected='a list such as [{ hours = "00-08", multiplier = 0.5 }]'):
        hours = entry.text("hours", required='hours = "00-08"')
        multiplier = entry.number("multiplier", required="multiplier = 0.5", high=1000)
        periods.append(MultiplierSettings(hours, float(multiplier), entry.text("days")))
        entry.close()
    settings = TokenPriceSettings(
        input=float(fresh),
        cached_input=float(part.number("cached_input", fresh, high=PRICE_PER_MTOK_MAX)),
        cache_write=float(part.number("cache_write", fresh, high=PRICE_PER_MTOK_MAX)),
        output=float(part.number("output", required="output = 1.2", high=PRICE_PER_MTOK_MAX)),
        currency=currency(part, context),
        timezone=timezone(part),
        periods=tuple(periods),
    )
    part.close()
    return settings


def link(table: Table, context: Context) -> LinkSettings:
    """One `[[links]]`. Without a name it is called FROM-TO."""
    origin, edge = reference(table, "from", "guizhou"), reference(table, "to", "eu-edge")
    given = name(table, "gz-iepl") if table.has("name") else f"{origin}-{edge}"
    billing = table.choice("billing", "", tuple(LINK_PRICES), required='billing = "per_gb"')
    prices = {price: Decimal(0) for needed in LINK_PRICES.values() for price in needed}
    for kind, needed in LINK_PRICES.items():
        for price, example in needed.items():
            prices[price] = table.number(price, required=f"{price} = {example}" if kind == billing else "")
    settings = LinkSettings(
        name=given,
        origin=origin,
        edge=edge,
        rtt_s=float(table.number("rtt_ms", required="rtt_ms = 187", high=MS_MAX, fix="milliseconds, both ways") / 1000),
        billing=billing,
        currency=currency(table, context),
        price_per_gb=float(prices["price_per_gb"]),
        price_per_month=float(prices["price_per_month"]),
        price_per_mbps_month=float(prices["price_per_mbps_month"]),
        planned_mbps=float(prices["planned_mbps"]),
        transit=countries(table, "transit"),
        capacity_mbps=float(table.number("capacity_mbps")),
    )
    table.close()
    for kind, needed in LINK_PRICES.items():
        for price in needed:
            if billing and kind != billing and table.has(price):
                table.complain(price, f'belongs to billing "{kind}", but this link has "{billing}"; remove one')
    return settings


def rule(table: Table) -> RuleSettings:
    """One `[[routes]]`."""
    ttft_slo_ms = _optional(table, "ttft_slo_ms", MS_MAX)
    settings = RuleSettings(
        model=table.text("model", required='model = "qwen3"'),
        destinations=table.texts("destinations", (ANYWHERE,), objection=_destination_problem),
        backends=table.texts("backends"),
        regions=table.texts("regions"),
        objective=_objective(table),
        ttft_slo_s=None if ttft_slo_ms is None else ttft_slo_ms / 1000,
        deny_origins=frozenset(countries(table, "deny_origins")),
        first_content_s=_optional(table, "first_content_s", 86_400),
        gap_s=_optional(table, "gap_s", 86_400),
        stream_s=_optional(table, "stream_s", 86_400),
        hedge_after_s=float(table.number("hedge_after_ms", high=MS_MAX) / 1000),
    )
    table.close()
    if not settings.destinations and not table.spoiled("destinations"):
        table.complain("destinations", 'must not be empty; write destinations = ["*"] for all')
    unknown = table.spoiled("backends") or table.spoiled("regions")
    if not settings.backends and not settings.regions and not unknown:
        table.complain("backends", 'is missing; add backends = ["gz-1"] or regions = ["guizhou"]')
    return settings


def _destination_problem(code: str) -> str:
    return "" if code == ANYWHERE else country_problem(code, ', or "*" for all')


def _optional(table: Table, key: str, high: int) -> float | None:
    return float(table.number(key, above=0, high=high)) if table.has(key) else None


def _objective(table: Table) -> ObjectiveSettings:
    """A word, or a price of the rule's own for a second of waiting."""
    part = table.table("objective") if isinstance(table.raw("objective"), dict) else None
    if part is None:
        return ObjectiveSettings(table.choice("objective", "balanced", OBJECTIVES))
    value = part.number("value_per_second", required="value_per_second = 2e-5")
    part.close()
    return ObjectiveSettings("value", float(value))
