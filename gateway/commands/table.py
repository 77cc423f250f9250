"""Tables for people: aligned, with separators, a line of totals, and no wider than the window if that can be.

What does not fit is made narrower in the order in which it is missed least: headings take a second line, counts lose
digits (12.3M), columns their distance, names their middle; columns go that others nearly say, and a line tells which;
names lose more. A last column of text is prose, and wraps. Programs ask for JSON or CSV, where nothing is shortened.
"""

import shutil
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TextIO

Row = Mapping[str, object]

_GAPS = (2, 1)  # spaces between columns
_TEXT_CHARS = (16, 8)  # a name is still told from others; less of one tells nothing
_SHORT_FROM = 10_000  # a smaller count is as short as it gets
_MAGNITUDES = ((10**18, "E"), (10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def write_table(
    rows: Sequence[Row],
    columns: Sequence[str],
    out: TextIO,
    totals: Sequence[Row] = (),
    spare: Sequence[str] = (),
) -> None:
    """Rows under a heading, and totals under a rule. Fits the window where there is one (or COLUMNS says how wide);
    `spare` are columns that it may do without, the first of them first."""
    window = shutil.get_terminal_size((0, 0)).columns
    drawn = [_Column(name, [row.get(name) for row in (*rows, *totals)]) for name in columns]
    gap = " " * (_fit(drawn, window, spare) if window else _GAPS[0])
    height = max((len(column.heading) for column in drawn), default=0)
    lines = [[column.heading_line(number, height) for column in drawn] for number in range(height)]
    body = [[column.aligned(column.cells[number]) for column in drawn] for number in range(len(rows) + len(totals))]
    lines += body[: len(rows)]
    if totals:
        lines.append(["-" * column.width for column in drawn])
        lines += body[len(rows) :]
    out.writelines(gap.join(line).rstrip() + "\n" for line in lines)
    if len(drawn) < len(columns):
        shown = {column.title for column in drawn}
        out.write(f"left out in this window: {', '.join(name for name in columns if name not in shown)}\n")


def cell_text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return f"{value:,f}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    # A name from outside must not move the cursor or begin a line of its own.
    return "".join(char if char.isprintable() else "?" for char in str(value))


def short(count: int) -> str:
    """Three digits and a magnitude: 987, 12.3k, 4.56M."""
    for size, unit in _MAGNITUDES:
        if abs(count) * 1000 >= size * 999.5:
            scaled = count / size
            decimals = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{decimals}f}{unit}"
    return str(count)


def decimals_for(amounts: Sequence[Decimal]) -> int:
    """How many decimals show a column of amounts: cents of large ones, all nine of the smallest."""
    largest = max(map(abs, amounts), default=Decimal(0))
    return 2 if largest >= 1000 else 4 if largest >= 1 else 6 if largest >= Decimal("0.001") else 9


class _Column:
    def __init__(self, title: str, values: list[object]) -> None:
        self.title = title
        self.heading = [title]
        self.values = values
        self.cells = [cell_text(value) for value in values]
        self.numeric = all(isinstance(value, int | float | Decimal | None) for value in values)

    @property
    def width(self) -> int:
        return max(map(len, (*self.heading, *self.cells)), default=0)

    @property
    def counts(self) -> bool:
        """Whether there are digits to lose."""
        return any(type(value) is int and abs(value) >= _SHORT_FROM for value in self.values) and not self._is_short

    _is_short = False

    def fold_heading(self) -> None:
        """In two lines, as even as its words allow."""
        words = self.heading[0].replace("_", " ").split(" ")
        splits = [(" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words))]
        if splits:
            self.heading = list(min(splits, key=lambda pair: max(map(len, pair))))

    def shorten_counts(self) -> None:
        self.cells = [short(value) if type(value) is int else cell_text(value) for value in self.values]
        self._is_short = True

    def cut_texts(self, chars: int) -> None:
        self.heading = [_cut(line, chars) for line in self.heading]
        self.cells = [_cut(cell, chars) for cell in self.cells]

    def heading_line(self, number: int, height: int) -> str:
        """Headings stand on the lowest line."""
        above = height - len(self.heading)
        return self.aligned(self.heading[number - above] if number >= above else "")

    def aligned(self, text: str) -> str:
        return text.rjust(self.width) if self.numeric else text.ljust(self.width)


def _fit(columns: list[_Column], window: int, spare: Sequence[str]) -> int:
    """Make columns narrower until they fit. Returns the gap between them."""
    gap, tight = _GAPS

    def excess() -> int:
        return sum(column.width for column in columns) + gap * (len(columns) - 1) - window

    if excess() > 0:
        for column in columns:
            column.fold_heading()
    while excess() > 0 and (long := [column for column in columns if column.counts]):
        max(long, key=lambda column: column.width).shorten_counts()
    if excess() > 0:
        gap = tight
    for chars, going in zip(_TEXT_CHARS, (spare, ()), strict=True):
        while (over := excess()) > 0:
            long = [column for column in columns[:-1] if not column.numeric and column.width > chars]
            if not long:
                break
            widest = max(long, key=lambda column: column.width)
            widest.cut_texts(max(chars, widest.width - over))
        for title in going:
            if excess() > 0:
                columns[:] = [column for column in columns if column.title != title]
    return gap  # what is too wide now is wrapped by the terminal


def _cut(text: str, chars: int) -> str:
    """The beginning and the end of a text: names of one house differ at either."""
    if len(text) <= chars:
        return text
    tail = (chars - 1) // 2
    return text[: chars - 1 - tail] + "…" + text[len(text) - tail :]
