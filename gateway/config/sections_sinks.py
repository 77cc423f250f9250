"""`[[sinks]]`: the stores that committed rows are shipped to.

Nothing secret stands in the file: a whole URL may come from the environment (`url_env`), or the password of one that
names its user (`password_env`).
"""

import re
from importlib.util import find_spec
from urllib.parse import quote, urlsplit, urlunsplit

from gateway.config.fields import Context, file, name, secret
from gateway.config.reader import Table
from gateway.config.settings import SinkSettings

KINDS = ("postgres", "nats", "clickhouse")
BATCH_ROWS_MAX = 10_000  # about 100 MB in memory
NATS_BATCH_ROWS_MAX = 1000  # what a NATS server takes as one

# Of each kind: schemes of its URL, an example, the extra with its driver and what that installs.
_SCHEMES = {"postgres": ("postgres", "postgresql"), "nats": ("nats", "tls"), "clickhouse": ("http", "https")}
_EXAMPLES = {
    "postgres": "postgres://tokenport@db.example:5432/exports?sslmode=verify-full",
    "nats": "tls://tokenport@nats.example:4222",
    "clickhouse": "https://tokenport@clickhouse.example:8443/exports",
}
_EXTRAS = {"postgres": ("postgres", "psycopg"), "nats": ("nats", "nats")}
_ONLY = {"table": ("postgres", "clickhouse"), "stream": ("nats",), "subject": ("nats",)}

# Folded case and no quotes: what a person can type into a client without thinking.
_TABLE = re.compile(r"([a-z_][a-z0-9_]{0,47}\.)?[a-z_][a-z0-9_]{0,47}")
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SUBJECT = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}")


def sink(table: Table, context: Context) -> SinkSettings:
    """One `[[sinks]]`."""
    kind = table.choice("kind", "postgres", KINDS, required='kind = "postgres"')
    most = NATS_BATCH_ROWS_MAX if kind == "nats" else BATCH_ROWS_MAX
    settings = SinkSettings(
        name=name(table, "warehouse"),
        kind=kind,
        url=_url(table, kind, context),
        table=_word(table, "table", "exports", _TABLE, 'a table in small letters, such as "exports" or "ours.exports"'),
        stream=_word(table, "stream", "tokenport", _STREAM, "letters, digits, dashes and underscores"),
        subject=_word(table, "subject", "tokenport.exports", _SUBJECT, "a subject without wildcards"),
        batch_rows=table.whole("batch_rows", min(1000, most), low=1, high=most),
        ca_file=file(table, "ca_file", context),
    )
    table.close()
    if not table.spoiled("kind"):
        for key, kinds in _ONLY.items():
            if table.has(key) and kind not in kinds:
                table.complain(key, f'belongs to kind = "{kinds[0]}"; remove it')
        if table.has("ca_file") and kind == "postgres":
            table.complain("ca_file", "is given in the URL for PostgreSQL; add ?sslmode=verify-full&sslrootcert=FILE")
        extra, module = _EXTRAS.get(kind, ("", ""))
        if context.files and module and find_spec(module) is None:
            table.complain("kind", f"{kind} needs the extra {extra}; install it: pip install 'tokenport[{extra}]'")
    return settings


def _word(table: Table, key: str, default: str, form: re.Pattern[str], expected: str) -> str:
    return table.text(key, default, accepts=form.fullmatch, expected=expected, fix=f'for example "{default}"')


def _url(table: Table, kind: str, context: Context) -> str:
    """The URL with its password in it; never shown."""
    example = _EXAMPLES[kind]
    if table.has("url") and table.has("url_env"):
        table.complain("url_env", "stands beside url; remove one of them")
        return ""
    key = "url_env" if table.has("url_env") else "url"
    text = secret(table, key, context) if key == "url_env" else table.text("url", required=f'url = "{example}"')
    password = secret(table, "password_env", context)
    problem = url_problem(text, kind) if text else ""
    if problem:
        table.complain(key, f'{problem}; write it like "{example}"')
        return ""
    parts = urlsplit(text)
    user, _, given = parts.netloc.rpartition("@")[0].partition(":")
    if given and key == "url":
        table.complain("url", "must not hold a password; name the variable that does in password_env")
    if password and not user:
        table.complain("password_env", f'is the password of a user that url does not name; write it like "{example}"')
        return ""
    if not password:
        return text
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def url_problem(text: str, kind: str) -> str:
    """What is wrong with the URL of a store; the text itself is not shown, because it may hold a password."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in _SCHEMES[kind] or not text.isprintable() or " " in text:
        return f"must be a URL that begins with {_SCHEMES[kind][-1]}://"
    if not parts.hostname and not (kind == "postgres" and "host=" in parts.query):
        return "names no host"
    return "" if kind == "postgres" or not (parts.query or parts.fragment) else "must end with its path"
