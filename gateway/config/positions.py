"""Where each key of a TOML text stands.

The standard parser gives values without places, but a mistake is mended faster when its line is named, and mistakes are
listed in the order of the file. This scanner walks a text that the parser has already accepted, so it only has to find
its way past values, not to judge them. Key paths are written as everywhere in messages: `backends[0].slots`.
"""

import re

Position = tuple[int, int]  # line and column, from 1

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")


def member(path: str, key: str) -> str:
    """The path of a key in the table at `path`."""
    shown = key if _BARE_KEY.fullmatch(key) else '"' + key.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    return f"{path}.{shown}" if path else shown


def item(path: str, index: int) -> str:
    """The path of an element in the list at `path`."""
    return f"{path}[{index}]"


def positions(text: str) -> dict[str, Position]:
    """Position of every key, table and list element of a valid TOML text."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._counted_to = 0
        self._found: dict[str, Position] = {}
        self._lengths: dict[str, int] = {}  # of arrays of tables, so far

    def scan(self) -> dict[str, Position]:
        table = ""
        while self._skip(_BLANK) < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._found

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return self._at

    def _here(self) -> Position:
        passed = self._text.count("\n", self._counted_to, self._at)
        if passed:
            self._line += passed
            self._line_start = self._text.rindex("\n", 0, self._at) + 1
        self._counted_to = self._at
        return self._line, self._at - self._line_start + 1

    def _mark(self, path: str, position: Position) -> None:
        self._found.setdefault(path, position)

    def _header(self) -> str:
        """`[a.b]` or `[[a.b]]`; gives the path of the table that opens."""
        position = self._here()
        repeated = self._text.startswith("[[", self._at)
        self._at += 2 if repeated else 1
        keys = self._keys()
        self._at += 2 if repeated else 1
        path = ""
        for depth, key in enumerate(keys, 1):
            path = member(path, key)
            self._mark(path, position)
            if repeated and depth == len(keys):
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = item(path, self._lengths[path] - 1)
        self._mark(path, position)
        return path

    def _pair(self, table: str) -> None:
        """`a.b = value` in the table at this path."""
        position = self._here()
        path = table
        for key in self._keys():
            path = member(path, key)
            self._mark(path, position)
        self._at += 1  # the equals sign
        self._value(path)

    def _keys(self) -> list[str]:
        """A dotted key; stops behind it and the blanks that follow."""
        keys = []
        while True:
            self._skip(_SPACE)
            if self._text[self._at] in "\"'":
                start = self._at
                self._string()
                keys.append(_unquoted(self._text[start : self._at]))
            else:
                start = self._at
                keys.append(self._text[start : self._skip(_BARE_KEY)])
            if self._at == start:
                raise ValueError("not a key")
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: str) -> None:
        self._skip(_SPACE)
        opening = self._text[self._at]
        if opening in "\"'":
            self._string()
        elif opening == "[":
            self._list(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _list(self, path: str) -> None:
        self._at += 1
        index = 0
        while self._text[self._skip(_BLANK)] != "]":
            self._mark(item(path, index), self._here())
            self._value(item(path, index))
            index += 1
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, path: str) -> None:
        self._at += 1
        while self._text[self._skip(_BLANK)] != "}":
            self._pair(path)
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1

    def _string(self) -> None:
        quote = self._text[self._at]
        closing = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(closing)
        while not self._text.startswith(closing, self._at):
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
        self._at += len(closing)
        if len(closing) == 3:  # up to two quotes may stand directly before the closing three
            while self._text.startswith(quote, self._at):
                self._at += 1


def _unquoted(key: str) -> str:
    """A quoted key as the parser gives it."""
    if key[0] == "'":
        return key[1:-1]
    return re.sub(r'\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|["\\bfnrt])', _escape, key[1:-1])


def _escape(match: re.Match[str]) -> str:
    code = match.group(1)
    if code[0] in "uU":
        return chr(int(code[1:], 16))
    return {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}.get(code, code)
