"""Reading one TOML table by name, type and range, and remembering what was wrong.

A parser asks a `Table` for each key it knows, in any order, then calls `close`, which reports every key nobody asked
for. Nothing raises: a wrong value becomes one line in `Problems` and a harmless stand-in, so that one run reports all
mistakes. A key is blamed once, and what follows from its being wrong is not reported again (`spoiled`).

Fractions come from TOML as exact decimals (`parse_float=Decimal`). `true` is never a number.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from difflib import get_close_matches

from gateway.config.positions import Position, item, member

WHOLE_MAX = 2**63 - 1  # what an index column and a memory-mapped cell can hold
SMALLEST_EXPONENT = -300  # what a float can still hold
NUMBER_MAX = Decimal(10) ** 15  # beyond it a float no longer tells neighbouring whole numbers apart

# What the units in key names are called, and the words people use instead of them.
_UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "bytes": "bytes",
    "w": "watts",
    "mwh": "per megawatt-hour",
    "kwh": "per kilowatt-hour",
    "gb": "per gigabyte, 1e9 bytes",
    "mbps": "megabits per second",
    "mtok": "per million tokens",
    "minute": "per minute",
}
_OTHER_UNITS = frozenset(
    {"us", "ns", "sec", "secs", "second", "seconds", "millis", "mins", "minutes", "h", "hours"}
    | {"byte", "kb", "kib", "mb", "mib", "gib", "tb", "kbps", "gbps", "kw", "mw", "watts", "wh", "gwh"}
    | {"tok", "ktok", "per"}
)


# The last step of a key path: an index, a bare key or a quoted one.
_LAST_STEP = re.compile(r'(\[\d+\]|\.?[^.\["]+|\.?"(?:[^"\\]|\\.)*")$')


class Problems:
    """What is wrong with a file: one line for each path, in the order of the file."""

    def __init__(self, where: Mapping[str, Position] | None = None) -> None:
        self._where = where or {}
        self._lines: dict[str, str] = {}
        self._spoiled: set[str] = set()

    def add(self, path: str, message: str) -> None:
        """Blame a path. A second complaint about the same one follows from the first and is dropped."""
        self._lines.setdefault(path, message)

    def spoil(self, path: str) -> None:
        """The value at this path is not known, for a reason that is reported."""
        self._spoiled.add(path)

    def spoiled(self, path: str) -> bool:
        """Whether the value at this path is a stand-in."""
        return path in self._spoiled

    def blamed(self, path: str) -> bool:
        """Whether something is wrong at this path or in it."""
        return any(known == path or known.startswith((path + ".", path + "[")) for known in self._lines)

    def unsure_of(self, section: str, *, name: str = r"\.name") -> bool:
        """Whether something may be missing from a section because it, an entry or a name in it is wrong."""
        entry = re.compile(re.escape(section) + r'(\[\d+\]|\.[^.\["]+|\."(?:[^"\\]|\\.)*")?' + f"({name})?")
        return any(entry.fullmatch(path) for path in self._spoiled)

    def lines(self) -> tuple[str, ...]:
        """All problems, sorted by position."""
        found = sorted((self._position(path), path) for path in self._lines)
        return tuple(_one_line(f"{path}: {self._lines[path]}{_line(position)}") for position, path in found)

    def _position(self, path: str) -> Position:
        """Of a path, or of the innermost table around it that stands in the file."""
        while path not in self._where:
            path, cut = _LAST_STEP.subn("", path)
            if not cut:
                return 0, 0
        return self._where[path]


def _one_line(text: str) -> str:
    """What a file or a path holds must not break the line it is reported in."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


def _line(position: Position) -> str:
    return f" (line {position[0]})" if position[0] else ""


class Table:
    """A table, its path, and which of its keys were asked for."""

    def __init__(self, data: Mapping[str, object], path: str, problems: Problems) -> None:
        self._data = data
        self.path = path
        self.problems = problems
        self._known: dict[str, str] = {}  # key -> example to show if it is required and missing

    def where(self, key: str) -> str:
        return member(self.path, key)

    def has(self, key: str) -> bool:
        """Whether a key is given; an empty text is as good as none."""
        self._known.setdefault(key, "")
        return self._data.get(key, "") != ""

    def where_listed(self, key: str, value: str) -> str:
        """The path of a text in a list."""
        listed = self._data.get(key)
        return item(self.where(key), listed.index(value)) if isinstance(listed, list) else self.where(key)

    def complain(self, key: str, message: str) -> None:
        """Something is wrong with the value of a key."""
        self.problems.spoil(self.where(key))
        self.problems.add(self.where(key), message)

    def spoiled(self, key: str) -> bool:
        """Whether a key was given, but not so that it could be read."""
        return self.problems.spoiled(self.where(key))

    def given(self, *keys: str) -> list[str]:
        """Those of these keys that are there; if none is, those that were meant: misspelt, or not to be read."""
        return [key for key in keys if self.has(key)] or [key for key in keys if self.spoiled(key)]

    def raw(self, key: str, required: str = "") -> object:
        """The value as parsed, None if absent. `required` is an example and makes absence a mistake."""
        self._known[key] = required or self._known.get(key, "")
        return self._data.get(key)

    def text(
        self,
        key: str,
        default: str = "",
        *,
        required: str = "",
        accepts: Callable[[str], object] = lambda _: True,
        expected: str = "a text in quotes",
        fix: str = "",
    ) -> str:
        """A text. `accepts` says whether it is well formed, `expected` what it must be."""
        value = self.raw(key, required)
        if value is None:
            return default
        if not isinstance(value, str):
            self._wrong(key, expected, value, fix)
            return default
        if required and not value:
            self.complain(key, f"must not be empty; for example {required}")
        elif value and not accepts(value):
            # Blamed, but not lost: it may still be what others refer to.
            self.problems.add(self.where(key), _must(expected, value, fix))
        return value

    def choice(self, key: str, default: str, choices: Sequence[str], *, required: str = "") -> str:
        """One word of several."""
        value = self.raw(key, required)
        if value is None:
            return default
        if isinstance(value, str) and value in choices:
            return value
        near = get_close_matches(str(value), choices, 1)
        self._wrong(key, f"one of {', '.join(choices)}", value, f"did you mean {near[0]}?" if near else "")
        return default

    def whole(
        self, key: str, default: int = 0, *, required: str = "", low: int = 0, high: int = WHOLE_MAX, fix: str = ""
    ) -> int:
        """A whole number from low to high."""
        value = self.raw(key, required)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self._wrong(key, f"a whole number {_bound(value, low, high)}", value, fix)
        return default

    def number(
        self,
        key: str,
        default: Decimal | float = 0,
        *,
        required: str = "",
        low: float = 0,
        above: float | None = None,
        high: float | Decimal = NUMBER_MAX,
        fix: str = "",
    ) -> Decimal:
        """A finite number, exact: at least low, or greater than `above`, and at most high."""
        value = self.raw(key, required)
        if value is None:
            return Decimal(repr(default)) if isinstance(default, float) else Decimal(default)
        number = _finite(value)
        if number is None:
            self._wrong(key, "a finite number", value, fix)
        elif above is not None and number <= Decimal(str(above)):
            self._wrong(key, f"a number greater than {above}", value, fix)
        elif number < Decimal(str(low)) or number > Decimal(str(high)):
            self._wrong(key, f"a number {_bound(number, low, high)}", value, fix)
        else:
            return number
        return Decimal(1)

    def flag(self, key: str) -> bool | None:
        """true, false, or None if absent."""
        value = self.raw(key)
        if value is None or isinstance(value, bool):
            return value
        self._wrong(key, "true or false", value)
        return None

    def texts(
        self,
        key: str,
        default: tuple[str, ...] = (),
        *,
        required: str = "",
        objection: Callable[[str], str] = lambda text: "" if text else "must not be empty; remove it",
    ) -> tuple[str, ...]:
        """A list of different texts. `objection` says what is wrong with one; wrong ones are left out."""
        values = self._list(key, f"a list of texts, such as {required or key + ' = [..]'}", required)
        if values is None:
            return default
        if required and not values:
            self.complain(key, f"must not be empty; for example {required}")
        good: list[str] = []
        for index, value in enumerate(values):
            message = objection(value) if isinstance(value, str) else _must("a text in quotes", value)
            if value in good:
                message = "is the same as an earlier one; remove it"
            if message:
                self.problems.spoil(self.where(key))
                self.problems.add(item(self.where(key), index), message)
            else:
                good.append(str(value))
        return tuple(good)

    def dates(self, key: str) -> frozenset[date]:
        """A list of days, as texts or as TOML's own dates."""
        good = []
        for index, value in enumerate(self._list(key, 'a list of days, such as ["2026-10-01"]') or ()):
            day = _day(value)
            if day is None:
                path = item(self.where(key), index)
                self.problems.add(path, _must('a day, such as "2026-10-01"', value))
            else:
                good.append(day)
        return frozenset(good)

    def table(self, key: str, *, required: str = "", expected: str = "a table") -> "Table | None":
        """A table inside this one, or None."""
        value = self.raw(key, required)
        if value is None:
            return None
        if isinstance(value, dict):
            return Table(value, self.where(key), self.problems)
        self._wrong(key, expected, value, f"for example {required}" if required else "")
        return None

    def tables(self, key: str, *, expected: str = "") -> list["Table"]:
        """The tables of a list, such as those written `[[key]]`."""
        good = []
        for index, value in enumerate(self._list(key, expected or f"a list of tables, each under [[{key}]]") or ()):
            path = item(self.where(key), index)
            if isinstance(value, dict):
                good.append(Table(value, path, self.problems))
            else:
                self.problems.spoil(path)
                self.problems.add(path, _must("a table", value))
        return good

    def entries(self) -> list[tuple[str, object]]:
        """Every key with its value, for tables whose keys are the writer's own."""
        for key in self._data:
            self._known.setdefault(key, "")
        return list(self._data.items())

    def close(self) -> None:
        """Report keys nobody asked for, then required ones that are missing and were not merely misspelt."""
        for key in self._data:
            if key not in self._known:
                message, meant = self._unknown(key)
                self.problems.add(self.where(key), message)
                if meant not in self._data:
                    self.problems.spoil(self.where(meant))
        for key, example in self._known.items():
            if example and key not in self._data and not self.spoiled(key):
                self.complain(key, f"is missing; add {example}")

    def _unknown(self, key: str) -> tuple[str, str]:
        """What to say about a key nobody knows, and the key that may have been meant, or the empty text."""
        absent = [known for known in self._known if known not in self._data]
        candidates = [*absent, *self._known]
        for candidate in candidates:
            stem, unit = _stem(candidate)
            if unit and stem and stem == _stem(key)[0]:
                return f"unknown key; did you mean {candidate}? ({unit})", candidate
        near = get_close_matches(key, candidates, 1, cutoff=0.6)
        if near:
            return f"unknown key; did you mean {near[0]}?", near[0]
        nearest = get_close_matches(key, candidates, 1, cutoff=0.0)
        if not nearest:
            return "unknown key; remove it", ""
        # Not much alike: the same mistake as a missing key only where that key must be there.
        meant = nearest[0] if self._known[nearest[0]] else ""
        return f"unknown key; the nearest known key is {nearest[0]}", meant

    def _list(self, key: str, expected: str, required: str = "") -> list[object] | None:
        value = self.raw(key, required)
        if value is None or isinstance(value, list):
            return value
        self._wrong(key, expected, value)
        return None

    def _wrong(self, key: str, expected: str, value: object, fix: str = "") -> None:
        self.complain(key, _must(expected, value, fix))


def shown(value: object) -> str:
    """A value as it looks in the file, cut short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a table"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    if isinstance(value, Decimal) and not value.is_finite():
        text = text.lower().replace("infinity", "inf")  # as TOML spells it
    return text if len(text) <= 60 else text[:57] + "..."


def _must(expected: str, value: object, fix: str = "") -> str:
    return f"must be {expected}, got {shown(value)}" + (f"; {fix}" if fix else "")


def _bound(value: object, low: object, high: object) -> str:
    """The bound that a value breaks; the lower one if it is no number at all."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and value > Decimal(str(high)):
        return f"of at most {high}"
    return f"of at least {low}"


def _finite(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if number.is_finite() and number.adjusted() > SMALLEST_EXPONENT else None


def _day(value: object) -> date | None:
    if type(value) is date:
        return value
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _stem(key: str) -> tuple[tuple[str, ...], str]:
    """A key without its units, and what its unit is called."""
    words = key.lower().split("_")
    stem = tuple(sorted(word for word in words if word not in _UNITS and word not in _OTHER_UNITS))
    units = [_UNITS[word] for word in words if word in _UNITS]
    return stem, units[-1] if units else ""
