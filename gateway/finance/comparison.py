"""A provider's usage and our attempts at its backend, side by side.

Both are put into a temporary database, which spills to disk, so that files and ledgers of any size are compared in
constant memory. What belongs together has one key: the id of a request, or an hour or day and a model. Sums of a key
are compared, because a client may use one id twice, and a provider may split an hour by key or tier.

    matched     the same to the token, or to the tolerance
    differing   both have it, with other tokens, or another cost
    only ours, only theirs
    unbilled    attempts of ours without a token that the provider does not name: it never got them, or charged nothing

A cost is compared where both are in one currency, and to the decimals that the file gives. A request near a bound of
the time compared may lie on either side of it; so both sides are read a day beyond, and a key counts if one side has it
within.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from gateway.finance.attempts import Ours
from gateway.finance.provider import Unreadable, Usage
from gateway.ledger.instants import DAY_US, MICROS

CLASSES = ("input", "cached", "cache_write", "output")
REQUEST, HOUR, DAY = "request", "hour", "day"
MATCHED, DIFFERING, ONLY_OURS, ONLY_THEIRS, UNBILLED = "matched", "differing", "only ours", "only theirs", "unbilled"
FINDINGS = (DIFFERING, ONLY_OURS, ONLY_THEIRS)
BEYOND_US = DAY_US  # a request takes an hour at most, but one that recovery ends does so at the next start

_HOUR_US = 3600 * MICROS
_BATCH = 1000  # lines put into the database at once
_ENDED_AS_MAX = 5  # ways of ending that are told of one key

_TABLES = f"""
CREATE TABLE ours (key TEXT, export_id TEXT, at INTEGER, model TEXT, {", ".join(CLASSES)}, cost INTEGER, currency TEXT,
                   estimated INTEGER, ended_as TEXT);
CREATE TABLE theirs (key TEXT, line INTEGER, at INTEGER, model TEXT, requests INTEGER, {", ".join(CLASSES)},
                     cost INTEGER, currency TEXT);
CREATE TABLE unreadable (line INTEGER, problem TEXT);
"""

Item = TypeVar("Item")


class Span(NamedTuple):
    """What is compared; None: no bound."""

    start_us: int | None
    end_us: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """What both sides have under one key."""

    verdict: str
    key: str
    model: str
    export_id: str  # one of ours
    line: int | None  # the first of theirs
    ours: Mapping[str, int]  # requests and tokens by class; cost_nano
    theirs: Mapping[str, int]
    estimated: bool  # some of ours are
    ended_as: str
    cost_differs: bool  # by more than rounding

    def difference(self, name: str) -> int:
        """What they have more than we."""
        return self.theirs[name] - self.ours[name]


@dataclass(slots=True)
class Found:
    """What is known once all pairs have been seen."""

    pairs: Counter[str] = field(default_factory=Counter)
    ours: Counter[str] = field(default_factory=Counter)
    theirs: Counter[str] = field(default_factory=Counter)

    def add(self, pair: Pair) -> None:
        self.pairs[pair.verdict] += 1
        self.ours.update(pair.ours)
        self.theirs.update(pair.theirs)

    @property
    def differences(self) -> int:
        return sum(self.pairs[verdict] for verdict in FINDINGS)


class Comparison:
    """First the file is taken in, then our attempts, then the pairs are read."""

    def __init__(self, tz: ZoneInfo, tolerance_tokens: int) -> None:
        self._tz = tz
        self._tolerance = tolerance_tokens
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)
        self._database.create_function("bucket", 1, self._bucket, deterministic=True)
        self.by = REQUEST
        self.span = Span(None, None)
        self.classes: tuple[str, ...] = ()
        self.currency = ""  # of their cost; empty: they have none, or in several
        self.compares_cost = False
        self.found = Found()
        self._models = False
        self._whole_days = True
        self._cost_decimals = 0

    def close(self) -> None:
        self._database.close()

    # ---- taking in

    def take_file(self, usages: Iterable[Usage | Unreadable], by: str | None, models: Mapping[str, str]) -> None:
        """`by`: what to match; None: hours or days, as the file has them. `models`: their name -> ours."""
        self.by = by or HOUR
        self._whole_days = True
        self._insert("theirs", 11, self._lines(usages, models))
        if by is None and self._whole_days:
            self.by = DAY

    def _lines(self, usages: Iterable[Usage | Unreadable], models: Mapping[str, str]) -> Iterator[tuple[object, ...]]:
        for usage in usages:
            if isinstance(usage, Unreadable):
                self._bad(usage.line, usage.problem)
            elif self.by == REQUEST and not usage.id:
                self._bad(usage.line, "has no id")
            elif self.by != REQUEST and usage.time_us is None:
                self._bad(usage.line, "has no time")
            else:
                if usage.time_us is not None and self._whole_days:
                    self._whole_days = self._is_day(usage.time_us, usage.end_us)
                self._cost_decimals = max(self._cost_decimals, usage.cost_decimals)
                model = models.get(usage.model, usage.model)
                tokens = (usage.input, usage.cached, usage.cache_write, usage.output)
                yield (
                    usage.id,
                    usage.line,
                    usage.time_us,
                    model,
                    usage.requests,
                    *tokens,
                    usage.cost_nano,
                    usage.currency,
                )

    def set_span(self, start_us: int | None, end_us: int | None) -> None:
        """The bounds asked for; one that was not is where the file begins or ends."""
        first, last = self._one("SELECT min(at), max(at) FROM theirs")
        if first is not None and last is not None:
            if self.by != REQUEST:
                first, last = self._begin(first), self._begin(last, next_one=True) - 1
            start_us = first if start_us is None else start_us
            end_us = last + 1 if end_us is None else end_us
        self.span = Span(start_us, end_us)

    @property
    def reaches(self) -> Span:
        """Of which rows attempts are needed."""
        beyond = BEYOND_US if self.by == REQUEST else 0
        start, end = self.span
        return Span(None if start is None else max(0, start - beyond), None if end is None else end + beyond)

    def take_attempts(self, attempts: Iterable[Ours], has: Iterable[str], currency: str) -> None:
        """`has`: the columns of the file. `currency`: of its cost where it names none."""
        rows = (
            (each.request_id or each.export_id, each.export_id, each.ended_us, each.model, *each[4:])
            for each in attempts
        )
        self._insert("ours", 12, rows)
        has = frozenset(has)
        self.classes = tuple(name for name in CLASSES if name in has or name in ("input", "output"))
        if "cost" in has:
            self._settle_currency(currency)
        self._models = "model" in has and bool(self._one("SELECT count(*) FROM theirs WHERE model != ''")[0])
        if self.by == REQUEST:
            self._join_export_ids()
            self._leave_out_beyond()
        else:
            for table in ("ours", "theirs"):
                self._database.execute(f"UPDATE {table} SET key = bucket(at)")

    def _settle_currency(self, default: str) -> None:
        theirs = {each or default for (each,) in self._database.execute("SELECT DISTINCT currency FROM theirs")}
        ours = {each for (each,) in self._database.execute("SELECT DISTINCT currency FROM ours")}
        self.currency = theirs.pop() if len(theirs) == 1 else ""
        self.compares_cost = bool(self.currency) and ours <= {self.currency}

    def _join_export_ids(self) -> None:
        """An id of theirs that is no request id of ours may be an export id."""
        self._database.execute("CREATE INDEX ours_key ON ours (key)")
        self._database.execute("CREATE INDEX ours_export ON ours (export_id)")
        self._database.execute(
            "UPDATE theirs SET key = (SELECT ours.key FROM ours WHERE ours.export_id = theirs.key)"
            " WHERE NOT EXISTS (SELECT 1 FROM ours WHERE ours.key = theirs.key)"
            " AND EXISTS (SELECT 1 FROM ours WHERE ours.export_id = theirs.key)"
        )
        self._database.execute("CREATE INDEX theirs_key ON theirs (key)")

    def _leave_out_beyond(self) -> None:
        """What lies beyond the span is for keys that have nothing within on that side: an id may be used every day."""
        for side in ("ours", "theirs"):
            of_key = f"SELECT 1 FROM {side} AS same WHERE same.key = {side}.key AND {_within('same.at')}"
            beyond = f"NOT {_within(f'{side}.at')}"
            self._database.execute(f"DELETE FROM {side} WHERE {beyond} AND EXISTS ({of_key})", self.span)

    # ---- reading

    @property
    def ids_in_common(self) -> bool:
        """Whether the file's ids are ours at all."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM theirs JOIN ours ON ours.key = theirs.key)")[0])

    def pairs(self) -> Iterator[Pair]:
        """All of them, in order of time; `found` adds them up."""
        self.found = Found()
        model = "model" if self._models and self.by != REQUEST else "''"
        names = ("requests", *CLASSES, "cost")
        ours = ", ".join(("1 AS requests", *CLASSES, "cost", *(f"0 AS their_{name}" for name in names)))
        theirs = ", ".join((*("0" for _ in names), *names))
        of_ours = f"key, model, at, {_within('at')} AS inside, export_id, NULL AS line, estimated, ended_as, {ours}"
        of_theirs = f"key, model, at, {_within('at')}, NULL, line, 0, NULL, {theirs}"
        told = "max(model), min(export_id), min(line), max(estimated), group_concat(DISTINCT ended_as), count(line)"
        sums = ", ".join(f"sum({name})" for name in (*names, *(f"their_{name}" for name in names)))
        sql = (
            f"SELECT key, {model}, {told}, {sums}"
            f" FROM (SELECT {of_ours} FROM ours UNION ALL SELECT {of_theirs} FROM theirs)"
            f" GROUP BY key, {model} HAVING max(inside) ORDER BY min(at), key, {model}"
        )
        with closing(self._database.execute(sql, self.span)) as cursor:
            for row in cursor:
                pair = self._pair(row)
                self.found.add(pair)
                yield pair

    def unreadable(self) -> Iterator[Unreadable]:
        for line, problem in self._database.execute("SELECT line, problem FROM unreadable ORDER BY line"):
            yield Unreadable(line, problem)

    @property
    def unreadable_count(self) -> int:
        return self._one("SELECT count(*) FROM unreadable")[0] or 0

    def _pair(self, row: tuple[object, ...]) -> Pair:
        key, grouped, model, export_id, line, estimated, ended_as, lines, *sums = row
        names = ("requests", *CLASSES, "cost_nano")
        numbers = [each for each in sums if isinstance(each, int)]
        ours = dict(zip(names, numbers[: len(names)], strict=True))
        theirs = dict(zip(names, numbers[len(names) :], strict=True))
        lines = int(str(lines))
        cost_differs = self._cost_differs(ours, theirs, lines)
        return Pair(
            verdict=self._verdict(ours, theirs, lines, cost_differs),
            key=str(key),
            model=str(grouped or (model if self.by == REQUEST else "") or ""),
            export_id=str(export_id or ""),
            line=line if isinstance(line, int) else None,
            ours=ours,
            theirs=theirs,
            estimated=bool(estimated),
            ended_as=";".join(str(ended_as or "").split(",")[:_ENDED_AS_MAX]),
            cost_differs=cost_differs,
        )

    def _verdict(self, ours: Mapping[str, int], theirs: Mapping[str, int], lines: int, cost_differs: bool) -> str:
        if not lines:
            return ONLY_OURS if any(ours[name] for name in self.classes) else UNBILLED
        if not ours["requests"]:
            return ONLY_THEIRS
        tokens_differ = any(abs(theirs[name] - ours[name]) > self._tolerance for name in self.classes)
        return DIFFERING if tokens_differ or cost_differs else MATCHED

    def _cost_differs(self, ours: Mapping[str, int], theirs: Mapping[str, int], lines: int) -> bool:
        """Each of their amounts is rounded to the decimals of the file, each of ours to a nano unit."""
        rounded = lines * 10**9 // (2 * 10**self._cost_decimals) + ours["requests"]
        return self.compares_cost and abs(theirs["cost_nano"] - ours["cost_nano"]) > rounded

    # ---- times

    def _bucket(self, at_us: int) -> str:
        local = self._local(at_us)
        if self.by == DAY:
            return local.strftime("%Y-%m-%d")
        return local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes")

    def _begin(self, at_us: int, *, next_one: bool = False) -> int:
        """Where the bucket of a moment begins, or the next one does."""
        if self.by == HOUR:
            return at_us - at_us % _HOUR_US + (_HOUR_US if next_one else 0)
        local = self._local(at_us)
        midnight = datetime(local.year, local.month, local.day, tzinfo=self._tz) + timedelta(days=int(next_one))
        return int(midnight.timestamp()) * MICROS

    def _is_day(self, at_us: int, end_us: int | None) -> bool:
        if end_us is not None and end_us - at_us <= _HOUR_US:
            return False
        local = self._local(at_us)
        return (local.hour, local.minute, local.second, local.microsecond) == (0, 0, 0, 0)

    def _local(self, at_us: int) -> datetime:
        return datetime.fromtimestamp(at_us // MICROS, self._tz)

    # ---- the database

    def _insert(self, table: str, columns: int, rows: Iterator[tuple[object, ...]]) -> None:
        sql = f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"
        self._database.execute("BEGIN")
        for batch in _batches(rows):
            self._database.executemany(sql, batch)
        self._database.execute("COMMIT")

    def _bad(self, line: int, problem: str) -> None:
        self._database.execute("INSERT INTO unreadable VALUES (?, ?)", (line, problem))

    def _one(self, sql: str) -> tuple[int | None, ...]:
        found: tuple[int | None, ...] = self._database.execute(sql).fetchone()
        return found


def _within(at: str) -> str:
    """Whether a moment is in the span. Without one it is: there is nothing to leave it out by."""
    return f"({at} IS NULL OR ((?1 IS NULL OR {at} >= ?1) AND (?2 IS NULL OR {at} < ?2)))"


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while batch := list(islice(items, _BATCH)):
        yield batch
