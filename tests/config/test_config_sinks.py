"""`[[sinks]]`: what may stand there, and every mistake in one line."""

import pytest

from gateway.config import ConfigError, load_text
from tests.config.configurations import REFERENCE

PLACES = {"GZ1_KEY": "k", "SELLER_KEY": "k", "PW": "p@ss/w:rd", "URL": "postgres://u:secret@db.example/x"}


def sinks_of(tmp_path, *texts):
    (tmp_path / "prices.csv").write_text("utc_start,price_per_mwh\n2026-01-01T00:00:00Z,41.20\n")
    text = REFERENCE + "".join(f"\n[[sinks]]\n{each}\n" for each in texts)
    return load_text(text, tmp_path, PLACES).sinks


def problem_of(tmp_path, *texts):
    with pytest.raises(ConfigError) as caught:
        sinks_of(tmp_path, *texts)
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


def test_nothing_is_shipped_unless_it_is_asked_for(tmp_path):
    assert sinks_of(tmp_path) == ()


def test_secrets_come_from_the_environment_and_are_never_shown(tmp_path):
    first, second, third = sinks_of(
        tmp_path,
        'name = "a"\nkind = "postgres"\nurl = "postgres://me@db.example:5433/x?sslmode=require"\npassword_env = "PW"',
        'name = "b"\nkind = "postgres"\nurl_env = "URL"\ntable = "ours.exports"\nbatch_rows = 50',
        'name = "c"\nkind = "clickhouse"\nurl = "http://me@ch.example:8123/db"\npassword_env = "PW"',
    )
    assert first.url == "postgres://me:p%40ss%2Fw%3Ard@db.example:5433/x?sslmode=require"
    assert (second.url, second.table, second.batch_rows) == (PLACES["URL"], "ours.exports", 50)
    assert third.url == "http://me:p%40ss%2Fw%3Ard@ch.example:8123/db"
    for sink in (first, second, third):
        assert "p@ss" not in repr(sink) and "p%40ss" not in repr(sink) and "secret" not in repr(sink)


@pytest.mark.parametrize(
    ("text", "key", "fix"),
    [
        ('kind = "nats"\nurl = "nats://h"', "name", 'add name = "warehouse"'),
        ('name = "a"\nkind = "postgre"\nurl = "postgres://h/x"', "kind", "did you mean postgres?"),
        ('name = "a"\nkind = "postgres"', "url", 'add url = "postgres://'),
        ('name = "a"\nkind = "postgres"\nurl = "mysql://h/x"', "url", "postgresql://"),
        ('name = "a"\nkind = "postgres"\nurl = "postgres:///x"', "url", "names no host"),
        ('name = "a"\nkind = "postgres"\nurl = "postgres://u:pw@h/x"', "url", "password_env"),
        ('name = "a"\nkind = "postgres"\nurl = "postgres://h/x"\npassword_env = "PW"', "password_env", "user"),
        ('name = "a"\nkind = "postgres"\nurl = "postgres://h/x"\nurl_env = "URL"', "url_env", "remove one"),
        ('name = "a"\nkind = "postgres"\nurl_env = "NONE"', "url_env", "export it"),
        ('name = "a"\nkind = "postgres"\nurl = "postgres://h/x"\nstream = "s"', "stream", "remove it"),
        ('name = "a"\nkind = "postgres"\nurl = "postgres://h/x"\ntable = "a; DROP"', "table", "small letters"),
        ('name = "a"\nkind = "postgres"\nurl = "postgres://h/x"\nbatch_row = 3', "batch_row", "batch_rows?"),
        ('name = "a"\nkind = "nats"\nurl = "nats://h"\nbatch_rows = 1001', "batch_rows", "at most 1000"),
        ('name = "a"\nkind = "nats"\nurl = "nats://h"\nsubject = "a.>"', "subject", "without wildcards"),
        ('name = "a"\nkind = "nats"\nurl = "nats://h?x=1"', "url", "must end with its path"),
        ('name = "a"\nkind = "clickhouse"\nurl = "clickhouse://h"', "url", "https://"),
    ],
)
def test_a_mistake_is_one_line_with_its_key_and_the_fix(tmp_path, text, key, fix):
    line = problem_of(tmp_path, text)
    assert line.startswith(f"sinks[0].{key}: ") and fix in line, line
    assert "pw" not in line


def test_two_stores_have_two_names(tmp_path):
    each = 'name = "a"\nkind = "nats"\nurl = "nats://h"'
    assert problem_of(tmp_path, each, each).startswith("sinks[1].name: ")
