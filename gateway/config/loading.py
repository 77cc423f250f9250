"""From a file to settings, or to every mistake in it at once."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from gateway.config import checks
from gateway.config.build import price_book, route_table
from gateway.config.draft import Draft, draft
from gateway.config.fields import Context
from gateway.config.positions import positions
from gateway.config.reader import Problems, Table
from gateway.config.settings import Settings

TEXT_BYTES_MAX = 16 * 1024 * 1024  # tens of thousands of tenants

_PLACE = re.compile(r"\s*\(at (line \d+, column \d+|end of document)\)$")


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` has one line for each mistake, in the order of the file."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_file(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file. Relative paths in it start at its directory.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    try:
        with path.open("rb") as stream:
            body = stream.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}; give --config FILE",)) from None
    if len(body) > TEXT_BYTES_MAX:
        raise ConfigError((f"{path}: is larger than {TEXT_BYTES_MAX} bytes; is it a configuration?",))
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise ConfigError((f"line {line}: is not UTF-8 text; save the file as UTF-8",)) from None
    return replace(load_text(text, path.parent.resolve(), environ), source=path)


def load_text(text: str, directory: Path, environ: Mapping[str, str], *, files: bool = True) -> Settings:
    """Read a configuration. Relative paths in it start at `directory`.

    `files`: whether to look into the files it names. A process that takes over a configuration that was checked
    before leaves that out, so that a price file that is just being rewritten does not stop it.

    Raises:
        ConfigError: something in it is wrong.
    """
    data = _parse(text)
    problems = Problems(positions(text))
    context = Context(directory, environ, files=files)
    read = draft(Table(data, "", problems), context)
    _check(read, files)
    lines = problems.lines()
    if lines:
        raise ConfigError(lines)
    return replace(read.settings, notes=checks.notes(read))


def _parse(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError((_syntax(str(error), text),)) from None
    except ValueError as error:  # an integer of thousands of digits
        raise ConfigError((f"the file is not valid TOML: {error}; mend it",)) from None
    except RecursionError:
        raise ConfigError(("the file nests lists or tables too deeply; flatten them",)) from None


def _syntax(message: str, text: str) -> str:
    """One line: where, then what."""
    match = _PLACE.search(message)
    reason = _PLACE.sub("", message)
    reason = "".join(mark if mark.isprintable() else " " for mark in reason[:1].lower() + reason[1:])
    place = match.group(1) if match is not None else ""
    if not place.startswith("line"):
        last = text.rstrip().split("\n")
        place = f"line {len(last)}, column {len(last[-1]) + 1}"
    return f"{place}: {reason}; this is not valid TOML"


def _check(read: Draft, files: bool) -> None:
    """What the sections say about each other; then, if all is well, whether the tables can be made."""
    checks.names(read)
    checks.places(read)
    checks.periods(read)
    checks.links(read)
    checks.rules(read)
    checks.tenants(read)
    if files:
        checks.country_database(read)
    curves = checks.feeds(read) if files else {}
    if read.problems.lines():
        return
    try:
        route_table(read.settings)
        if files:
            price_book(read.settings, curves)
    except ValueError as error:
        read.problems.add("configuration", str(error))
