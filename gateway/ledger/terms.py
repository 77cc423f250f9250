"""The terms of an export: who asked for what, from where to where, at which prices.

Many requests have them in common, and they are most of what is written about each. So requests on the same terms hold
the same object (`terms_of`), and what it looks like in a record, in a row and on the board is made once (`text_of`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import NamedTuple

import orjson

from gateway.ledger.entry import Shared
from pricing.export import COLUMNS, FIRST_COLUMNS
from pricing.tariff import Tariff
from pricing.unit_prices import UnitPrices

_TERMS_MAX = 2048  # as many as have their text kept

# Numbers are packed in the order of these, so a new field is on the board by itself.
UNITS = tuple(field.name for field in fields(UnitPrices) if field.name != "zone")
TARIFF = tuple(field.name for field in fields(Tariff) if field.name != "valid_from")
values_of_units = attrgetter(*UNITS)
values_of_tariff = attrgetter(*TARIFF)


class Terms(NamedTuple):
    """Empty text is unknown. Names are at most 64 characters, models 128."""

    units: UnitPrices = UnitPrices()
    tariff: Tariff = Tariff()
    tenant: str = ""
    model: str = ""
    key_id: str = ""
    dialect: str = "openai"
    stream: bool = True
    upstream_model: str = ""
    origin_backend: str = ""
    origin_region: str = ""
    origin_country: str = ""
    destination_country: str = ""
    destination_method: str = "unknown"
    exported: bool | None = None
    tokens_per_event_max: int = 4
    currency: str = ""
    price_version: str = ""
    route_version: str = ""
    edge: str = ""


PLAIN = Terms._fields[2:]  # all but the prices


class TermsText(NamedTuple):
    """Members of JSON objects, without braces."""

    of_opening: bytes  # in an `open` or `attempt` record
    packed: bytes  # elements of the array on the board
    place: bytes  # in a row: who, from where to where
    prices: bytes  # in a row: from the currency on
    of_attempt: bytes  # the prices of that attempt, within the JSON string `attempts_json`
    origin_of_attempt: bytes  # and where it was


_in_use: dict[tuple[object, ...], Terms] = {}


def terms_of(units: UnitPrices, tariff: Tariff, *plain: str | int | None) -> Terms:
    """The terms with these members, in the order of `Terms`: the same object for the same prices and values."""
    # By their identity: to hash prices costs more than all the rest. The terms keep them, so no other object gets it.
    key = (id(units), id(tariff), *plain)
    terms = _in_use.get(key)
    if terms is None:
        if len(_in_use) >= _TERMS_MAX:
            _in_use.clear()
        terms = _in_use[key] = Terms._make((units, tariff, *plain))
    return terms


def _members(names: Iterable[str], values: Mapping[str, object]) -> bytes:
    """Members of an object; an empty text is unknown."""
    return orjson.dumps({name: None if values[name] == "" else values[name] for name in names})[1:-1]


def within(text: bytes) -> bytes:
    """JSON within a JSON string."""
    return orjson.dumps(text.decode())[1:-1]


_FIRST = [column.name for column in COLUMNS[:FIRST_COLUMNS]]


def stretch(first: str, last: str) -> tuple[str, ...]:
    """Columns of a row that follow on each other."""
    return tuple(_FIRST[_FIRST.index(first) : _FIRST.index(last) + 1])


PLACE = stretch("tenant", "exported")
PRICES = stretch("currency", "edge")


def _text(terms: Terms) -> TermsText:
    units, tariff, plain = terms.units, terms.tariff, terms[2:]
    columns = units.columns()
    of_opening = {
        **dict(zip(PLAIN, plain, strict=True)),
        "units": units,
        "tariff": dict(zip(TARIFF, values_of_tariff(tariff), strict=True)),
    }
    of_row = {**dict(zip(PLAIN, plain, strict=True)), **columns, **tariff.columns()}
    del columns["zone"]
    origin = {"backend": terms.origin_backend, "region": terms.origin_region}
    return TermsText(
        of_opening=orjson.dumps(of_opening)[1:-1],
        packed=orjson.dumps((*plain, units.zone, *values_of_units(units), *values_of_tariff(tariff)))[1:-1],
        place=_members(PLACE, of_row),
        prices=_members(PRICES, of_row),
        of_attempt=within(orjson.dumps(columns)[1:-1]),
        origin_of_attempt=within(orjson.dumps(origin)[1:-1]),
    )


_texts: Shared[Terms, TermsText] = Shared(_text)
text_of = _texts.of


def _unserved(terms: Terms) -> Terms:
    return terms._replace(
        units=UnitPrices(), upstream_model="", origin_backend="", origin_region="", origin_country="", exported=None
    )


_without_origin: Shared[Terms, Terms] = Shared(_unserved)
unserved = _without_origin.of  # the terms of a row that nobody served
