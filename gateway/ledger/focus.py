"""The export as FOCUS 1.2 (columns: `focus_columns`): charges, not requests.

A charge is what one tenant used of one SKU (a model's token class) at one price in one charge period, made by one
backend for one destination. BilledCost and EffectiveCost are sums of the ledger's integers, ContractedCost and ListCost
exactly price times quantity, as FOCUS wants it; the two differ by what requests were rounded. All amounts are exact
decimals. Rows come in order of time, so that only the charges of one period are in memory.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

from gateway.ledger.charges import FAILED, POWER, TOKENS, Meter, Row, View, billed, incurred

VIEWS: dict[str, View] = {"billing": billed, "cost": incurred}
CHARGE_PERIODS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_PRICE_EXPONENT = 9  # prices are nano units
_NO_CURRENCY = "XXX"  # ISO 4217: none


@dataclass(frozen=True, slots=True)
class FocusTerms:
    """What the ledger does not say: who bills whom, from which side, and how long a charge period is."""

    provider: str
    view: str = "billing"
    period: str = "day"


class _Key(NamedTuple):
    """What charges are told apart by; in the order in which they are written."""

    tenant: str
    model: str
    meter: Meter
    price_nano: int
    backend: str
    region: str
    origin: str
    destination: str
    exported: bool | None
    currency: str
    edge: str


def focus_rows(rows: Iterable[Row], terms: FocusTerms) -> Iterator[dict[str, object]]:
    """Rows of the ledger in order of their end, as charges."""
    length = CHARGE_PERIODS[terms.period]
    parts = VIEWS[terms.view]
    for start, group in groupby(rows, key=lambda row: _start(str(row["ended_at"]), length)):
        sums: dict[_Key, list[int]] = {}
        for row in group:
            for part in parts(row):
                total = sums.setdefault(_key(row, part.meter, part.price_nano), [0, 0])
                total[0] += part.quantity
                total[1] += part.amount_nano
        for key in sorted(sums, key=_order):
            quantity, amount_nano = sums[key]
            yield _charge(key, quantity, amount_nano, (start, start + length), terms)


def _start(ended_at: str, length: timedelta) -> datetime:
    """Of the charge period (UTC) that a moment is in."""
    ended = datetime.fromisoformat(ended_at).astimezone(UTC)
    return ended.replace(hour=ended.hour if length < timedelta(days=1) else 0, minute=0, second=0, microsecond=0)


def _key(row: Row, meter: Meter, price_nano: int) -> _Key:
    def text(name: str) -> str:
        return str(row[name] or "")

    exported = row["exported"]
    return _Key(
        text("tenant"),
        text("model"),
        meter,
        price_nano,
        text("origin_backend"),
        text("origin_region"),
        text("origin_country"),
        text("destination_country"),
        exported if isinstance(exported, bool) else None,
        text("currency"),
        text("edge"),
    )


def _order(key: _Key) -> tuple[str, ...]:
    return tuple(map(str, key))


def _charge(
    key: _Key, quantity: int, amount_nano: int, period: tuple[datetime, datetime], terms: FocusTerms
) -> dict[str, object]:
    billed_cost = _decimal(amount_nano, _PRICE_EXPONENT)
    month = period[0].replace(day=1, hour=0)
    return {
        "BilledCost": billed_cost,
        "BillingAccountId": key.edge or terms.provider,
        "BillingAccountName": key.edge or terms.provider,
        "BillingAccountType": "Gateway",
        "BillingCurrency": key.currency or _NO_CURRENCY,
        "BillingPeriodEnd": _time((month + timedelta(days=32)).replace(day=1)),
        "BillingPeriodStart": _time(month),
        "ChargeClass": None,
        "ChargeDescription": _description(key),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _time(period[1]),
        "ChargePeriodStart": _time(period[0]),
        "CommitmentDiscountStatus": None,
        "EffectiveCost": billed_cost,
        "InvoiceId": None,  # the ledger makes no invoices
        "InvoiceIssuerName": _provider(key, terms),
        "ProviderName": _provider(key, terms),
        "PublisherName": _provider(key, terms),
        "RegionId": key.region or None,
        "RegionName": key.region or None,
        "ResourceId": key.backend or None,
        "ResourceName": None,
        "ResourceType": "Inference Backend" if key.backend else None,
        "ServiceCategory": key.meter.service.category,
        "ServiceName": key.meter.service.name,
        "ServiceSubcategory": key.meter.service.subcategory,
        "SubAccountId": key.tenant or None,
        "SubAccountName": key.tenant or None,
        "SubAccountType": "Tenant" if key.tenant else None,
        "Tags": _tags(key),
        "x_DestinationCountry": key.destination or None,
        "x_Exported": key.exported,
        "x_Model": key.model or None,
        "x_OriginCountry": key.origin or None,
        **(_unpriced(billed_cost) if key.meter == FAILED else _priced(key, quantity)),
    }


def _priced(key: _Key, quantity: int) -> dict[str, object]:
    """The columns of a charge that is a price times a quantity."""
    meter = key.meter
    # FOCUS has no price below 0, and power has: its sign is the quantity's.
    sign = -1 if key.price_nano < 0 else 1
    price = _decimal(abs(key.price_nano), _PRICE_EXPONENT)
    cost = _decimal(quantity * key.price_nano, meter.pricing_exponent + _PRICE_EXPONENT)
    sku = _sku(key)
    return {
        "ChargeCategory": "Usage",
        "ConsumedQuantity": _decimal(quantity, meter.unit_exponent),
        "ConsumedUnit": meter.unit,
        "ContractedCost": cost,
        "ContractedUnitPrice": price,
        "ListCost": cost,
        "ListUnitPrice": price,
        "PricingCategory": "Dynamic" if meter == POWER else "Standard",
        "PricingQuantity": _decimal(sign * quantity, meter.pricing_exponent),
        "PricingUnit": meter.pricing_unit,
        "SkuId": sku,
        "SkuMeter": meter.name,
        "SkuPriceDetails": json.dumps({"x_Model": key.model}, ensure_ascii=False) if meter.unit == TOKENS else None,
        "SkuPriceId": f"{sku} {_decimal(key.price_nano, _PRICE_EXPONENT):f} {key.currency}/{meter.pricing_unit}",
    }


def _unpriced(cost: Decimal) -> dict[str, object]:
    """The columns of an amount without price and quantity."""
    names = (
        "ConsumedQuantity ConsumedUnit ContractedUnitPrice ListUnitPrice PricingCategory PricingQuantity PricingUnit"
    )
    skus = "SkuId SkuMeter SkuPriceDetails SkuPriceId"
    return {
        **dict.fromkeys((*names.split(), *skus.split())),
        "ChargeCategory": "Adjustment",
        "ContractedCost": cost,
        "ListCost": cost,
    }


def _sku(key: _Key) -> str:
    """A SKU is what is sold, wherever it is made: a model's token class; what we buy differs by where."""
    service = key.meter.service.name
    if key.meter.unit == TOKENS:
        return f"{service}/{key.model}/{key.meter.name}"
    return f"{service}/{key.region}/{key.meter.name}"


def _provider(key: _Key, terms: FocusTerms) -> str:
    """From the tenant's side it is the operator; what the operator pays for has no name of its own in the ledger but
    that of the place."""
    return terms.provider if terms.view == "billing" else key.backend or key.region or terms.provider


def _description(key: _Key) -> str:
    made = f", made in {key.origin}" if key.origin else ""
    delivered = f", delivered to {key.destination}" if key.destination else ""
    return f"{key.meter.name} of {key.model or 'no model'}{made}{delivered}"


def _tags(key: _Key) -> str:
    tags = {
        "tokenport/model": key.model or None,
        "tokenport/origin_country": key.origin or None,
        "tokenport/destination_country": key.destination or None,
        "tokenport/exported": key.exported,
    }
    return json.dumps(tags, ensure_ascii=False)


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _decimal(integer: int, exponent: int) -> Decimal:
    """integer x 10 ** -exponent, exact whatever its size (arithmetic of Decimal would round). There is always a point:
    who guesses types from text shall see a decimal in every line."""
    sign, digits = ("-", str(-integer)) if integer < 0 else ("", str(integer))
    digits = digits.rjust(exponent + 1, "0")
    whole, fraction = digits[: len(digits) - exponent], digits[len(digits) - exponent :].rstrip("0")
    return Decimal(f"{sign}{whole}.{fraction or 0}")
