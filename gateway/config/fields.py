"""Values that several sections share: names, places, money, addresses, files, credentials.

Each function reads one key of a table and complains there. Those that take a `Context` look beyond the file: at the
directory it lies in, and at the environment.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from gateway.config.countries import CODES, MEANT
from gateway.config.reader import Table, shown
from gateway.config.settings import Address, Network

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
NAME_EXPECTED = "1 to 64 letters, digits, dots, underscores or dashes"
CURRENCY = re.compile(r"[A-Z]{3}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
MODEL_MAX = 128  # characters: it becomes a metric label and a column
LABEL_MAX = 120  # characters: one line on a page


@dataclass(slots=True)
class Context:
    """What a file means depends on where it lies, on the environment, and on the gateway's own currency."""

    directory: Path
    environ: Mapping[str, str] = field(repr=False)
    currency: str = "USD"
    files: bool = True  # whether to look into the files that are named
    currencies: list[tuple[Table, str, str]] = field(default_factory=list)  # every use: table, key, code

    def resolve(self, text: str) -> Path:
        """A path of the file: relative ones start at the file's directory, not where the process was started."""
        return self.directory / text


def name(table: Table, example: str) -> str:
    """The required `name` of an entry."""
    given = table.text("name", required=f'name = "{example}"')
    if given and not NAME.fullmatch(given):
        table.complain("name", f'must be {NAME_EXPECTED}, got {shown(given)}; for example "{example}"')
    return given


def reference(table: Table, key: str, example: str) -> str:
    """The required name of something defined elsewhere. Whether it exists is checked when everything is read."""
    return table.text(key, required=f'{key} = "{example}"')


def model(text: str) -> bool:
    """Whether a model name can be shown and labelled."""
    return 0 < len(text) <= MODEL_MAX and text.isprintable() and text == text.strip()


def label(table: Table) -> str:
    """Free text for the pages."""
    return table.text(
        "label",
        accepts=lambda text: len(text) <= LABEL_MAX and text.isprintable(),
        expected=f"one line of at most {LABEL_MAX} characters",
        fix="shorten it",
    )


def country(table: Table, key: str, *, required: str = "") -> str:
    """An ISO 3166 country code, or the empty text if absent."""
    code = table.text(key, required=required)
    if code and country_problem(code):
        table.complain(key, country_problem(code))
    return code


def countries(table: Table, key: str) -> tuple[str, ...]:
    """A list of country codes."""
    return table.texts(key, objection=country_problem)


def country_problem(code: str, other: str = "") -> str:
    """What is wrong with a code and which is likely right, or the empty text. `other`: what else might be written."""
    if code in CODES:
        return ""
    meant = MEANT.get(code.upper(), code.upper() if code.upper() in CODES else "")
    hint = f"did you mean {meant}?" if meant else f"use two capital letters, such as DE{other}"
    return f'"{code}" is not an ISO 3166 country code; {hint}'


def currency(table: Table, context: Context, key: str = "currency") -> str:
    """A currency code, the gateway's if absent; that it has a rate is checked when [fx] is read."""
    code = table.text(
        key,
        context.currency,
        accepts=CURRENCY.fullmatch,
        expected="a currency code of three capital letters",
        fix='for example "EUR"',
    )
    context.currencies.append((table, key, code))
    return code


def timezone(table: Table) -> str:
    """An IANA time zone."""
    return table.text(
        "timezone", "UTC", accepts=is_timezone, expected="an IANA time zone", fix='for example "Europe/Berlin" or "UTC"'
    )


def is_timezone(text: str) -> bool:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):  # a directory, not a relative path, not known
        return False
    return True


def address(table: Table, key: str, default: Address) -> Address:
    """host:port or [IPv6]:port."""
    text = table.text(key)
    found = _address(text) if text else default
    if found is None:
        table.complain(
            key, f'must be an address and a port, got "{text}"; write it like "127.0.0.1:8080" or "[::1]:8080"'
        )
    return found or default


def _address(text: str) -> Address | None:
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536):
        return None
    try:
        if (ip_address(host).version == 6) != bracketed:
            return None
    except ValueError:
        # All digits and dots, yet no address: a slip such as 127.0.1, not a name.
        if bracketed or not HOST.fullmatch(host) or re.fullmatch(r"[0-9.]+", host):
            return None
    return Address(host, int(port))


def networks(table: Table, key: str) -> tuple[Network, ...]:
    """A list of address ranges."""
    return tuple(ip_network(text) for text in table.texts(key, objection=_network_problem))


def _network_problem(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        reason = "has bits set behind its mask" if "host bits" in str(error) else "is not an address range"
        return f'"{text}" {reason}; write it like "10.0.0.0/8" or "192.0.2.7/32"'
    return ""


def url(table: Table, key: str, example: str, *, required: bool = True) -> str:
    """An http or https URL without credentials, query and fragment."""
    text = table.text(key, required=f'{key} = "{example}"' if required else "")
    reason = _url_problem(text) if text else ""
    if reason:
        table.complain(key, f'{reason}; write it like "{example}"')
    return text.rstrip("/")


def _url_problem(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if "@" in parts.netloc:  # not shown: there may be a password in it
        return "must not hold a user or password"
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text:
        return f'must be an http or https URL, got "{text[:80]}"'
    return "must end with its path, without ? and #" if parts.query or parts.fragment else ""


def file(table: Table, key: str, context: Context) -> Path | None:
    """A file that can be read, or None if the key is absent or empty."""
    text = table.text(key)
    if not text:
        return None
    path = context.resolve(text)
    if not context.files:
        return path
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        table.complain(
            key, f"{path} cannot be read ({reason}); relative paths start at the directory of the configuration file"
        )
    return path


def secret(table: Table, key: str, context: Context) -> str:
    """The value of the environment variable that a key names. The value is never shown, nor what may be one."""
    variable = table.text(key)
    if not variable:
        return ""
    if not VARIABLE.fullmatch(variable):
        table.complain(key, "must be the name of an environment variable, not the secret itself; set it to such a name")
        return ""
    value = context.environ.get(variable)
    if not value:
        state = "is not set" if value is None else "is empty"
        table.complain(key, f"the environment variable {variable} {state}; export it, or remove this key")
        return ""
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        table.complain(
            key,
            f"the environment variable {variable} holds blanks or line ends; set it to the bare secret",
        )
    return value
