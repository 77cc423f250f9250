"""SQL over the ledger: the same figures as the reports, and no way out of the query."""

import json
from pathlib import Path

import pytest

from tests.commands.filled import ROWS, Ledger, export_of


def asked(ledger: Ledger, capsys: pytest.CaptureFixture[str], sql: str, *arguments: str) -> list[dict[str, object]]:
    assert ledger.ask("query", *arguments, "--format", "json", sql) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def test_exports_are_there_with_their_types(ledger, capsys):
    ledger.write(*ROWS)
    (row,) = asked(ledger, capsys, "SELECT sum(cost_nano) AS cost, bool_and(stream) s, min(ended_at) AS t FROM exports")
    assert row["cost"] == sum(each["cost_nano"] for each in ROWS)
    assert row["t"] == "2025-11-24T12:00:00+00:00"
    types = asked(ledger, capsys, "SELECT DISTINCT data_type AS t FROM duckdb_columns() WHERE table_name = 'exports'")
    assert {each["t"] for each in types} == {"VARCHAR", "BIGINT", "BOOLEAN", "TIMESTAMP WITH TIME ZONE"}


def test_rollups_and_reports_agree(ledger, capsys):
    ledger.write(*ROWS, export_of(9, "2025-11-24T13:30:00Z", tenant="acme"))
    ledger.fold()
    sql = "SELECT tenant, sum(requests) AS requests, sum(revenue_nano) AS revenue FROM rollups GROUP BY 1 ORDER BY 1"
    rows = asked(ledger, capsys, sql)
    assert ledger.ask("report", "--by", "tenant", "--format", "json") == 0
    reported = json.loads(capsys.readouterr().out)
    assert rows == [
        {"tenant": each["tenant"], "requests": each["requests"], "revenue": each["revenue_nano"]} for each in reported
    ]


def test_only_what_was_selected_is_there_and_days_are_the_viewers(ledger, capsys):
    ledger.write(export_of(0, "2025-11-24T23:30:00Z"), export_of(1, "2025-11-25T23:30:00Z"), ROWS[3])
    sql = "SELECT strftime(ended_at, '%Y-%m-%d') AS day FROM exports ORDER BY 1"
    found = asked(ledger, capsys, sql, "--tz", "Europe/Berlin", "--tenant", "acme", "--to", "2025-11-26")
    assert found == [{"day": "2025-11-25"}]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY exports TO '{out}'",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}' AS other",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{secret}')",
        "SELECT 1; COPY (SELECT 1) TO '{out}'",
        "LOAD '{secret}'",
        "INSTALL httpfs",
        "SELECT * FROM 'http://127.0.0.1:9/x.parquet'",
        "SELECT * FROM arguments",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "DELETE FROM exports",
        "CREATE TABLE more AS SELECT 1",
    ],
)
def test_a_query_reaches_nothing_but_the_ledger(ledger, capsys, tmp_path, sql):
    ledger.write(*ROWS)
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("a\n1\n")
    assert ledger.ask("query", sql.format(secret=secret, out=out)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("tokenport: ")
    assert not out.exists()


def test_a_mistake_in_sql_is_told_with_its_place(ledger, capsys):
    ledger.write(*ROWS)
    assert ledger.ask("query", "SELECT tenant, nothing FROM exports") == 2
    told = capsys.readouterr().err
    assert '"nothing" not found' in told and "LINE 1: SELECT tenant, nothing" in told and "Traceback" not in told


def test_two_columns_of_one_name_and_no_rows_are_fine(ledger, capsys):
    assert asked(ledger, capsys, "SELECT 1 AS a, 2 AS a, 3 AS a") == [{"a": 1, "a:1": 2, "a:2": 3}]
    assert asked(ledger, capsys, "SELECT 1 AS a WHERE false") == []
    assert asked(ledger, capsys, "") == []


def test_values_without_a_json_form_become_text_and_never_lose_digits(ledger, capsys):
    sql = "SELECT 170141183460469231731687303715884105727 AS huge, 0.1::DECIMAL(9, 2) AS d, 'nan'::FLOAT AS n, [1] AS l"
    assert asked(ledger, capsys, sql) == [{"huge": 2**127 - 1, "d": "0.10", "n": None, "l": "[1]"}]


def test_a_table_is_cut_at_a_thousand_lines_and_csv_is_not(ledger, capsys):
    assert ledger.ask("query", "FROM range(1001)") == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1001 and "only the first 1,000 rows" in printed.err
    assert ledger.ask("query", "--format", "csv", "FROM range(1001)") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1002


def test_nothing_is_left_behind(ledger, capsys, tmp_path, monkeypatch):
    ledger.write(*ROWS)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    Path(tmp_path / "tmp").mkdir()
    asked(ledger, capsys, "SELECT count(*) FROM exports")
    assert list((tmp_path / "tmp").iterdir()) == []
