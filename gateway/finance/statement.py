"""The export statement: what a tenant's tokens were in a period, from where to where, what they cost and earned.

Every figure is a sum over the rows that ended in the period, taken by one reader and so of one moment; parts add up to
totals because totals are sums of the lines. Two currencies have no sum, so there is a total for each.

A statement is final once its period is over, every row of it is in a sealed segment and its figures are those of the
seals; until then it is provisional, and says why.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.finance import shown
from gateway.finance.basis import Basis, basis_of
from gateway.finance.period import Period
from gateway.ledger.instants import MICROS, rfc3339
from gateway.ledger.reading import LEDGER_NAME, Reader, RowsExpired
from gateway.ledger.seals import Seal
from gateway.ledger.segment import RECORD_VERSION, Record
from gateway.ledger.tables import FIGURES

PLACES = ("origin_country", "destination_country", "model")
# How exact the tokens are is told of these.
COUNTED = ("requests", "output_tokens", "delivered_tokens", "billed_output_tokens", "exported_tokens")
FINAL, PROVISIONAL = "final", "provisional"
EXPIRED = "expired"  # the count source of rows of which only sums are left


@dataclass(frozen=True, slots=True)
class Section:
    """One tenant, or all of them together."""

    tenant: str
    lines: tuple[Record, ...]  # by place and model
    totals: tuple[Record, ...]  # one per currency
    counted: tuple[Record, ...]  # by count_source
    flags: tuple[Record, ...]  # by flag; a row with two of them is in both
    flagged: int  # rows with any flag
    outcomes: tuple[Record, ...]
    refused: tuple[Record, ...]  # requests that are no rows, by reason

    @property
    def requests(self) -> int:
        return _total(self.totals, "requests")

    @property
    def delivered(self) -> int:
        return _total(self.totals, "delivered_tokens")

    @property
    def delivered_by_estimate(self) -> int:
        return sum(each["delivered_tokens"] for each in self.counted if each["count_source"] == "estimated")


@dataclass(frozen=True, slots=True)
class Statement:
    period: Period
    tenant: str  # empty: all
    edge: str
    made_at: str
    version: str  # of the software
    sections: tuple[Section, ...]
    overall: Section | None  # None where the one section is all that was asked for
    basis: Basis
    reasons: tuple[str, ...]  # why it is not final

    record_version = RECORD_VERSION

    @property
    def state(self) -> str:
        return PROVISIONAL if self.reasons else FINAL


class NoSuchTenant(ValueError):
    """Neither in the configuration nor in the rows of the period."""


def make_statement(
    data_dir: Path,
    seals: Sequence[Seal],
    period: Period,
    *,
    tenant: str,
    tenants: Iterable[str],
    edge: str,
    version: str,
    now_us: int,
) -> Statement:
    """`seals`: read before this is called. `tenants`: those there are, whether they have rows or not.

    Raises:
        NoSuchTenant: the tenant asked for is none of them, and has no rows.
    """
    with Reader(data_dir) as reader:
        figures = _Figures(reader, period)
    with_rows, known = {_text(each["tenant"]) for each in figures.lines}, set(tenants)
    if tenant and tenant not in known | with_rows:
        raise NoSuchTenant(f"no tenant {tenant} in the configuration, and no rows of one in {period.name}")
    chosen = [tenant] if tenant else sorted(with_rows | (known & figures.refused_tenants))
    sections = tuple(figures.section(name, frozenset((name,))) for name in chosen)
    basis = basis_of(data_dir / LEDGER_NAME, seals, period, figures.sums())
    return Statement(
        period=period,
        tenant=tenant,
        edge=edge,
        made_at=rfc3339(now_us - now_us % MICROS),
        version=version,
        sections=sections,
        overall=None if len(sections) == 1 else figures.section("", None),
        basis=basis,
        reasons=tuple(_reasons(period, basis, now_us)),
    )


def _reasons(period: Period, basis: Basis, now_us: int) -> Iterable[str]:
    if now_us < period.end_us:
        yield f"the period is not over before {shown.moment(period.end)}"
    if basis.unsealed:
        rows = "1 row of the period is" if basis.unsealed == 1 else f"{basis.unsealed:,} rows of the period are"
        yield f"{rows} not sealed yet"
    yield from (f"{finding}: run tokenport verify" for finding in basis.findings)


class _Figures:
    """All sums of a period, from one reader."""

    def __init__(self, reader: Reader, period: Period) -> None:
        start, end = period.start_us / MICROS, period.end_us / MICROS
        self.lines = reader.sums(("tenant", *PLACES), start=start, end=end)
        self._outcomes = reader.sums(("tenant", "outcome"), start=start, end=end)
        try:
            self._counts = reader.sums(("tenant", "count_source", "count_flags"), start=start, end=end)
        except RowsExpired:
            # The rows said it, and only their sums are left.
            self._counts = [{**each, "count_source": EXPIRED, "count_flags": None} for each in self.lines]
        self._refused = reader.refusals(start, end)
        self.refused_tenants = {_text(each["tenant"]) for each in self._refused}

    def sums(self) -> dict[str, int]:
        """Over all rows, whatever their currency."""
        return {name: _total(self.lines, name) for name in FIGURES}

    def section(self, tenant: str, of: frozenset[str] | None) -> Section:
        """The sums of these tenants; None: of all, and of refusals that are nobody's."""

        def wanted(rows: Iterable[Record]) -> list[Record]:
            return [each for each in rows if of is None or _text(each["tenant"]) in of]

        counts = wanted(self._counts)
        flagged = [
            {**each, "count_flag": flag} for each in counts for flag in _text(each["count_flags"]).split(";") if flag
        ]
        return Section(
            tenant=tenant,
            lines=_summed(wanted(self.lines), (*PLACES, "currency"), FIGURES),
            totals=_summed(wanted(self.lines), ("currency",), FIGURES),
            counted=_summed(counts, ("count_source",), COUNTED),
            flags=_summed(flagged, ("count_flag",), COUNTED),
            flagged=sum(each["requests"] for each in counts if each["count_flags"]),
            outcomes=_summed(wanted(self._outcomes), ("outcome",), COUNTED),
            refused=_summed(wanted(self._refused), ("reason",), ("count",)),
        )


def _summed(rows: Iterable[Mapping[str, object]], keys: Sequence[str], figures: Sequence[str]) -> tuple[Record, ...]:
    """Sums by keys, in the order of the keys; what is unknown comes last."""
    sums: dict[tuple[object, ...], Record] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        into = sums.setdefault(key, {**dict(zip(keys, key, strict=True)), **dict.fromkeys(figures, 0)})
        for name in figures:
            into[name] += row[name]
    return tuple(sums[key] for key in sorted(sums, key=lambda key: [(each is None, str(each)) for each in key]))


def _total(rows: Iterable[Record], figure: str) -> int:
    return sum(row[figure] for row in rows)


def _text(value: object) -> str:
    return "" if value is None else str(value)
