"""A statement as one HTML file: for a screen in light or dark, and for A4 paper. No script, nothing to fetch.

Figures are shown in the units people read; the exact integer stands in the title of each, and in a table of totals.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TextIO

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.finance import shown
from gateway.finance.statement import COUNTED, PLACES, Section, Statement
from gateway.finance.statement_text import exactness
from gateway.ledger.tables import FIGURES

_HEADLINES = {
    "exported_tokens": "Exported tokens",
    "requests": "Requests",
    "energy_uwh": "Energy",
    "cost_nano": "Cost",
    "revenue_nano": "Revenue",
    shown.SPREAD: "Spread",
}
_UNITS = {"energy_uwh": "µWh", "carbon_mg": "mg"}  # of the integers; those of money are nano
_EXACT = (*shown.WORDS, *(name for name in FIGURES if name not in shown.WORDS))


class Cell(NamedTuple):
    text: str
    exact: str  # the integer of the ledger; empty where the text is that
    negative: bool


class Line(NamedTuple):
    keys: Sequence[str]
    cells: Sequence[Cell]
    total: bool = False


class Table(NamedTuple):
    caption: str
    keys: Sequence[str]
    heads: Sequence[str]
    lines: Sequence[Line]


class Headline(NamedTuple):
    name: str
    cell: Cell
    unit: str


class Exact(NamedTuple):
    name: str
    shown: str
    column: str
    value: int


class Amounts(NamedTuple):
    """What there is once per currency."""

    currency: str
    headlines: Sequence[Headline]
    tables: Sequence[Table]
    exact: Sequence[Exact]


class Part(NamedTuple):
    """A section, ready to be written."""

    title: str
    amounts: Sequence[Amounts]
    exactness: str
    tables: Sequence[Table]


def write_html(statement: Statement, out: TextIO) -> None:
    environment = Environment(
        loader=PackageLoader("gateway", "finance/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = [_part(section, section.tenant or shown.UNKNOWN) for section in statement.sections]
    if statement.overall is not None:
        parts.append(_part(statement.overall, "All tenants"))
    environment.filters["moment"] = shown.moment
    template = environment.get_template("statement.html")
    for piece in template.generate(statement=statement, basis=statement.basis, parts=parts):
        out.write(piece)


def _part(section: Section, title: str) -> Part:
    amounts = [_amounts(section, total) for total in section.totals]
    tables = [
        _table("Counted by", ("count_source",), COUNTED, section.counted),
        _table("Flags of counts", ("count_flag",), COUNTED, section.flags),
        _table("How requests ended", ("outcome",), COUNTED, section.outcomes),
        _table("Refused, in no figure above", ("reason",), ("count",), section.refused),
    ]
    return Part(title, amounts, exactness(section), [table for table in tables if table.lines])


def _amounts(section: Section, total: Mapping[str, object]) -> Amounts:
    currency = str(total["currency"] or shown.UNKNOWN)
    lines = [line for line in section.lines if line["currency"] == total["currency"]]
    return Amounts(
        currency,
        [Headline(word, _cell(total, name), shown.unit_of(name, currency)) for name, word in _HEADLINES.items()],
        [
            _table("Tokens", PLACES, shown.TOKENS, lines, total),
            _table(f"Energy, carbon, and money in {currency}", PLACES, shown.MONEY, lines, total),
        ],
        [_exact(total, name, currency) for name in _EXACT],
    )


def _exact(total: Mapping[str, object], name: str, currency: str) -> Exact:
    value = shown.figure_of(total, name)
    text = f"{shown.text_of(value, name)} {shown.unit_of(name, currency)}".rstrip()
    return Exact(_word(name), text, "" if name == shown.SPREAD else name, value)


def _table(
    caption: str,
    keys: Sequence[str],
    figures: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    total: Mapping[str, object] | None = None,
) -> Table:
    measured = list(rows) if total is None else [*rows, total]
    beside = shown.largest(measured, figures)
    lines = [
        Line([_key(row, name) for name in keys], [_cell(row, name, beside[name]) for name in figures]) for row in rows
    ]
    if total is not None:
        lines.append(Line(["Total"], [_cell(total, name, beside[name]) for name in figures], total=True))
    return Table(caption, [_head(name) for name in keys], [_head(name) for name in figures], lines)


def _cell(row: Mapping[str, object], name: str, beside: int = 0) -> Cell:
    value = shown.figure_of(row, name)
    scaled = bool(shown.unit_of(name, "currency"))
    return Cell(shown.text_of(value, name, beside), f"{value} {_integer_unit(name)}" if scaled else "", value < 0)


def _integer_unit(name: str) -> str:
    return _UNITS.get(name, "nano")


def _key(row: Mapping[str, object], name: str) -> str:
    return str(row[name] or shown.UNKNOWN)


def _head(name: str) -> str:
    head = shown.HEADS.get(name, name)
    return head if name in _UNITS else _capital(head)


def _word(name: str) -> str:
    return _capital(shown.WORDS.get(name, name.replace("_", " ")))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
