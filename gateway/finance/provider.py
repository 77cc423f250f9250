"""A provider's usage file, line by line: CSV with a header, or JSON Lines.

A line of JSON is a request, a bucket with `results`, or a page with `data`, as the usage APIs of providers answer; what
is nested is named by its path. A line that cannot be read is told with its number and what is wrong; the rest is read.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zoneinfo import ZoneInfo

from gateway.finance.headers import OURS, Columns, UnknownHeaders, find_columns
from gateway.ledger.instants import parse_us

_LINE_BYTES_MAX = 64 * 1024 * 1024  # a page of a usage API is a line, and at most a few MB
_TOKENS_MAX = 10**12  # in one line: more is a mistake, and sums of millions of lines still fit 64 bits
_PLAIN_DIGITS = 12  # of which every number is below that
_COST_MAX = Decimal(10**7)
_MILLIS_FROM = 10**11  # an epoch second of the year 5138: a larger number counts milliseconds
_KINDS_MAX = 1000  # sets of members that JSON objects of one file may have, each remembered
_BAD_LINES_FIRST_MAX = 100  # before any good one; then it is no usage file
_EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN)


class Usage(NamedTuple):
    """One line, or one result within a line."""

    line: int
    id: str
    time_us: int | None
    end_us: int | None
    model: str
    requests: int
    input: int  # all of it
    cached: int
    cache_write: int
    output: int
    cost_nano: int
    cost_decimals: int  # that the file gives
    currency: str


class Unreadable(NamedTuple):
    line: int
    problem: str


class _Record(NamedTuple):
    line: int
    members: Mapping[str, object]


class UnreadableFile(ValueError):
    """Nothing of it can be read; says why and what to do."""


class _BadCell(ValueError):
    pass


class ProviderFile:
    """Iterated once, in constant memory. `has` are those of our columns that some line had: at first, the first."""

    def __init__(self, file: BinaryIO, path: Path, given: Mapping[str, str], tz: ZoneInfo) -> None:
        """Raises UnreadableFile or UnknownHeaders."""
        self._file = file
        self._given = given
        self._tz = tz
        self.has: set[str] = set()
        self._found: dict[tuple[str, ...], Columns] = {}
        start = _start(file, path)
        self._records = self._json_records() if start.startswith(b"{") else self._csv_records(start)
        # The first record that can be read says which columns there are; bad lines before it are kept for their turn.
        self._waiting: list[_Record | Unreadable] = []
        self._look_ahead(path)

    def __iter__(self) -> Iterator[Usage | Unreadable]:
        for each in self._chained():
            if isinstance(each, Unreadable):
                yield each
                continue
            try:
                yield self._usage(each.line, each.members)
            except (_BadCell, UnknownHeaders) as error:
                yield Unreadable(each.line, str(error))

    def _chained(self) -> Iterator["_Record | Unreadable"]:
        yield from self._waiting
        yield from self._records

    def _look_ahead(self, path: Path) -> None:
        for each in self._records:
            self._waiting.append(each)
            if not isinstance(each, Unreadable):
                self._columns_of(each.members)
                return
            if len(self._waiting) == _BAD_LINES_FIRST_MAX:
                break
        first = "".join(
            f": line {each.line} {each.problem}" for each in self._waiting[:1] if isinstance(each, Unreadable)
        )
        raise UnreadableFile(f"{path} has no line of usage that can be read{first}")

    def _columns_of(self, record: Mapping[str, object]) -> Columns:
        kind = tuple(record)
        found = self._found.get(kind)
        if found is None:
            if len(self._found) >= _KINDS_MAX:
                self._found.clear()
            found = self._found[kind] = find_columns(kind, self._given)
            self.has.update(ours for ours in OURS if found.at[ours])
        return found

    # ---- records

    def _lines(self) -> Iterator[bytes]:
        while line := self._file.readline(_LINE_BYTES_MAX):
            yield line

    def _csv_records(self, start: bytes) -> Iterator["_Record | Unreadable"]:
        lines = (line.decode(errors="surrogateescape") for line in self._lines())
        first = start.partition(b"\n")[0]
        delimiter = max(",;\t", key=lambda each: first.count(each.encode()))
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header = next(reader, [])
        line = reader.line_num
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Unreadable(line + 1, f"{error}{_through(line + 1, reader.line_num)}")
                line = reader.line_num
                continue
            line, began = reader.line_num, line + 1
            if not any(fields):
                continue
            if len(fields) != len(header):
                yield Unreadable(began, f"has {len(fields)} fields, the header {len(header)}{_through(began, line)}")
            else:
                yield _Record(began, _Row(header, fields))

    def _json_records(self) -> Iterator["_Record | Unreadable"]:
        for number, data in enumerate(self._lines(), 1):
            if not data.strip():
                continue
            try:
                value = json.loads(data, parse_float=Decimal, parse_constant=_no_number)
                if not isinstance(value, dict):
                    raise ValueError("is no object")
                if value.get("has_more") is True:
                    yield Unreadable(number, "says that there are further pages (has_more): add them to the file")
                records = list(_records(value))
            except (ValueError, RecursionError) as error:
                why = "is not JSON; one object a line is needed" if isinstance(error, json.JSONDecodeError) else error
                yield Unreadable(number, f"{why}")
                continue
            for record in records:
                yield _Record(number, record)

    # ---- cells

    def _usage(self, line: int, record: Mapping[str, object]) -> Usage:
        columns = self._columns_of(record)

        def cell(ours: str) -> object:
            at = columns.at[ours]
            return record[at[0]] if at else None

        cached = _tokens(cell("cached"), "cached", 0)
        written = sum(_tokens(record[header], header, 0) for header in columns.at["cache_write"])
        if columns.at["input"]:
            prompt = _tokens(cell("input"), "input")
        else:
            prompt = _tokens(cell("fresh_input"), "fresh_input") + cached + written
        cost, decimals = _cost(cell("cost"))
        return Usage(
            line,
            _text(cell("id"), "id"),
            self._moment(cell("time"), "time"),
            self._moment(cell("end"), "end"),
            _text(cell("model"), "model"),
            _tokens(cell("requests"), "requests", 1),
            prompt,
            cached,
            written,
            _tokens(cell("output"), "output"),
            cost,
            decimals,
            (_text(cell("currency"), "currency") or columns.currency).upper(),
        )

    def _moment(self, value: object, name: str) -> int | None:
        if value is None or value == "":
            return None
        try:
            if isinstance(value, str) and not _is_plain_number(value):
                moment = datetime.fromisoformat(value.strip().removesuffix(" UTC") + _utc(value))
                local = moment if moment.tzinfo else moment.replace(tzinfo=self._tz)
                at = parse_us(local.isoformat())
            else:
                number = _EXACT.create_decimal(str(value))
                at = int(number * (1000 if number >= _MILLIS_FROM else 1_000_000))
            datetime.fromtimestamp(at // 1_000_000, self._tz)  # a moment that has a date
            if at < 0 or isinstance(value, bool):
                raise ValueError
        except (ValueError, OverflowError, OSError, InvalidOperation):
            raise _BadCell(f"{name} {_shown(value)} is not a time") from None
        return at


class _Row(Mapping[str, object]):
    """A CSV line under its header, where a name may stand twice as long as nobody asks for it."""

    __slots__ = ("_fields", "_header")

    def __init__(self, header: Sequence[str], fields: Sequence[str]) -> None:
        self._header = header
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[self._header.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)


def _start(file: BinaryIO, path: Path) -> bytes:
    """The first bytes, without a byte order mark and blanks; the file is back at its beginning."""
    start = file.read(65_536)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
        raise UnreadableFile(f"{path} is not text in UTF-8: save it as CSV in UTF-8")
    file.seek(3 if start.startswith(b"\xef\xbb\xbf") else 0)
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise UnreadableFile(f"{path} is empty")
    if start.startswith(b"["):
        raise UnreadableFile(f"{path} is a JSON array: give one object a line, as jq -c '.[]' writes them")
    return start


def _records(value: Mapping[str, Any]) -> Iterator[Mapping[str, object]]:
    """The results in a page, a bucket, or the thing itself; what is nested named by its path."""
    if isinstance(value.get("data"), list):
        for each in value["data"]:
            if not isinstance(each, dict):
                raise ValueError("has a bucket in data that is no object")
            yield from _records(each)
    elif isinstance(value.get("results"), list):
        outer = {name: each for name, each in value.items() if not isinstance(each, dict | list)}
        for each in value["results"]:
            if not isinstance(each, dict):
                raise ValueError("has a result that is no object")
            yield dict(_flat({**outer, **each}, ""))
    else:
        yield dict(_flat(value, ""))


def _flat(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, object]]:
    for name, each in value.items():
        if isinstance(each, dict):
            yield from _flat(each, f"{path}{name}.")
        elif not isinstance(each, list):
            yield path + name, each


def _tokens(value: object, name: str, default: int | None = None) -> int:
    if value is None or value == "":
        if default is None:
            raise _BadCell(f"has no {name}")
        return default
    if isinstance(value, str) and len(value) <= _PLAIN_DIGITS and value.isascii() and value.isdigit():
        return int(value)  # as nearly all of them are written
    number: Decimal | None = None
    if not isinstance(value, bool):
        text = value.strip() if isinstance(value, str) else str(value)
        groups = text.split(",")
        if len(groups) == 1 or (len(groups[0]) <= 3 and all(len(each) == 3 for each in groups[1:])):
            with suppress(InvalidOperation):
                number = _EXACT.create_decimal("".join(groups))
    if number is None or not number.is_finite() or number != number.to_integral_value():
        raise _BadCell(f"{name} {_shown(value)} is not a whole number")
    if not 0 <= number <= _TOKENS_MAX:
        raise _BadCell(f"{name} {_shown(value)} is out of range")
    return int(number)


def _cost(value: object) -> tuple[int, int]:
    """In nano units, and to how many decimals it is given."""
    if value is None or value == "":
        return 0, 0
    try:
        if isinstance(value, bool):
            raise InvalidOperation
        amount = _EXACT.create_decimal(str(value).strip().removeprefix("$"))
        if not amount.is_finite() or abs(amount) > _COST_MAX:
            raise InvalidOperation
    except InvalidOperation:
        raise _BadCell(f"cost {_shown(value)} is not an amount") from None
    exponent = amount.normalize(_EXACT).as_tuple().exponent
    assert isinstance(exponent, int)
    return int(amount.scaleb(9, _EXACT).to_integral_value(ROUND_HALF_EVEN)), max(0, -exponent)


def _text(value: object, name: str) -> str:
    if value is None:
        return ""
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadCell(f"{name} is not UTF-8") from None
    return text


def _is_plain_number(text: str) -> bool:
    stripped = text.strip()
    return stripped.replace(".", "", 1).isascii() and stripped.replace(".", "", 1).isdigit() and len(stripped) > 8


def _utc(text: str) -> str:
    return "+00:00" if text.strip().endswith(" UTC") else ""


def _no_number(name: str) -> object:
    raise ValueError(f"holds {name}, which is no number")


def _shown(value: object) -> str:
    return ascii(value if isinstance(value, str) else str(value))[:60]


def _through(first: int, last: int) -> str:
    return f" (as far as line {last}: a quote that is not closed?)" if last > first else ""
