"""PostgreSQL as a store: what is in it, whatever happens on the way there."""

import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from gateway.ledger.instants import parse_us
from gateway.ledger.segment import Record
from gateway.ledger.tail import LogLimits
from gateway.shipping import cursor
from gateway.shipping.postgres import PostgresSink
from gateway.shipping.postgres_reader import PostgresReader
from gateway.shipping.shipper import Shipper
from pricing.export import NAMES
from tests.ledger.exports import ending, export_id, opening, row, row_of, write_log

from .ledgers import figures, ids, ledger_figures, log_of, refuse, rows_of, ship, shipper, write


def to_postgres(data_dir: Path, url: str, gateway: str = "gw1", batch_rows: int = 100) -> Shipper:
    return shipper(data_dir, PostgresSink(url, gateway, "exports"), batch_rows)


def shipped(data_dir: Path, url: str, gateway: str = "gw1") -> Shipper:
    found = to_postgres(data_dir, url, gateway)
    ship(found)
    found.sink.close()
    return found


def store_figures(url: str) -> tuple[list[Record], ...]:
    with PostgresReader(url) as reader:
        return figures(reader)


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(sql)  # type: ignore[arg-type]
        return found.fetchall() if found.description else []


def stored_ids(url: str, gateway: str = "gw1") -> list[str]:
    """In the order of the logs."""
    rows = query(url, f"SELECT export_id FROM exports WHERE gateway = '{gateway}' ORDER BY log, seq")
    return [str(found) for (found,) in rows]


def test_the_store_answers_with_the_figures_of_the_ledger(tmp_path, database):
    write(tmp_path, range(250), limits=LogLimits(segment_bytes_max=100_000))
    write(tmp_path, range(300, 420), log=3)
    refuse(tmp_path, 3, 4, log=3)
    shipped(tmp_path, database)
    assert store_figures(database) == ledger_figures(tmp_path)


def test_the_figures_of_two_gateways_are_their_sum(tmp_path, database):
    for number in (0, 1):
        write(tmp_path / f"d{number}", range(number * 200, number * 200 + 100))
        refuse(tmp_path / f"d{number}", 5)
        shipped(tmp_path / f"d{number}", database, f"gw{number}")
    both = tmp_path / "both"
    for number in (0, 1):
        shutil.copytree(log_of(tmp_path / f"d{number}"), log_of(both, number))
    _, *sums = store_figures(database)
    _, *expected = ledger_figures(both)
    assert sums == expected
    with PostgresReader(database) as reader:
        assert Counter(found["export_id"] for found in reader.rows()) == Counter(ids([*range(100), *range(200, 300)]))


def test_every_month_and_time_zone_has_the_ledgers_sums(tmp_path, database):
    moments = [
        "2025-10-26T00:30:00.000001Z",
        "2025-10-26T01:30:00Z",
        "2025-12-31T23:59:59.999999Z",
        "2026-01-01T00:00:00Z",
    ]
    rows = [row_of(opening(n), ending(n, ended_at_us=parse_us(moment))) for n, moment in enumerate(moments)]
    write_log(log_of(tmp_path), rows)
    shipped(tmp_path, database)
    assert store_figures(database) == ledger_figures(tmp_path)
    partitions = query(
        database, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'exports'::regclass"
    )
    assert sorted(partitions) == [("exports_2025_10",), ("exports_2025_12",), ("exports_2026_01",)]


def test_an_empty_store_has_no_figures_and_a_wrong_question_is_refused(tmp_path, database):
    write(tmp_path, [])
    shipped(tmp_path, database)
    with PostgresReader(database) as reader:
        assert (list(reader.rows()), reader.sums(("tenant",), "day"), reader.refusals()) == ([], [], [])
        for question in ({"by": ("cost_nano",)}, {"period": "week"}, {"period": "day", "tz": "Nowhere"}):
            with pytest.raises(ValueError):
                reader.sums(**question)


def test_columns_come_in_the_order_of_the_contract_with_real_types(tmp_path, database):
    write(tmp_path, range(1))
    shipped(tmp_path, database)
    found = query(
        database,
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'exports'"
        " ORDER BY ordinal_position",
    )
    assert [name for name, _ in found] == [*NAMES, "gateway"]
    kinds = dict(found)  # type: ignore[arg-type]
    assert [kinds[name] for name in ("ended_at", "cost_nano", "exported", "attempts_json")] == [
        "timestamp with time zone",
        "bigint",
        "boolean",
        "text",
    ]


def test_a_lost_cursor_doubles_nothing(tmp_path, database):
    write(tmp_path, range(30))
    refuse(tmp_path, 7)
    shipped(tmp_path, database)
    shutil.rmtree(tmp_path / cursor.SINKS_NAME)
    write(tmp_path, range(30, 40))
    assert shipped(tmp_path, database).condition.rows == 10  # the store itself said where to go on
    assert stored_ids(database) == ids(range(40))
    assert store_figures(database) == ledger_figures(tmp_path)


def test_marks_lost_in_the_store_double_nothing(tmp_path, database):
    write(tmp_path, range(30))
    refuse(tmp_path, 7)
    shipped(tmp_path, database)
    query(database, "DELETE FROM exports_marks")
    query(database, f"DELETE FROM exports WHERE export_id = '{export_id(5)}'")
    assert shipped(tmp_path, database).condition.rows == 30
    assert store_figures(database) == ledger_figures(tmp_path)


def test_a_ledger_brought_back_from_a_backup_loses_no_row_of_either(tmp_path, database):
    write(tmp_path, range(20))
    shutil.copytree(log_of(tmp_path), tmp_path / "backup")
    write(tmp_path, range(20, 25))
    shipped(tmp_path, database)
    shutil.rmtree(log_of(tmp_path))
    shutil.copytree(tmp_path / "backup", log_of(tmp_path))
    write(tmp_path, range(100, 130))
    shipped(tmp_path, database)
    assert Counter(stored_ids(database)) == Counter(ids([*range(25), *range(100, 130)]))


def test_a_damaged_line_and_a_row_no_store_can_hold_are_passed_over_by_name(tmp_path, database, caplog):
    rows = rows_of(range(5))
    rows[1]["model"] = "nul\0"
    rows[3]["cost_nano"] = 2**63
    write_log(log_of(tmp_path), rows)
    path = log_of(tmp_path) / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"client-2"', b'"client-2'))
    with caplog.at_level("WARNING"):
        condition = shipped(tmp_path, database).condition
    assert stored_ids(database) == ids([0, 4])
    assert (condition.rows, condition.skipped) == (2, 3)
    told = [(record.problem, record.segment) for record in caplog.records if hasattr(record, "segment")]
    assert told == [
        ("has a text with a NUL character", 1),
        ("is not JSON", 1),
        ("has a number beyond 64 bits", 1),
    ]


def test_a_table_of_an_older_version_gets_the_columns_it_lacks(tmp_path, database):
    write(tmp_path, range(3))
    shipped(tmp_path, database)
    query(database, "ALTER TABLE exports DROP COLUMN edge")
    write(tmp_path, range(3, 5))
    shipped(tmp_path, database)
    assert query(database, "SELECT count(edge), count(*) FROM exports") == [(2, 5)]


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ("CREATE TABLE exports (id int)", "is not one of exports"),
        ("CREATE TABLE exports (export_id text, ended_at timestamp, gateway text)", "column ended_at is timestamp"),
    ],
)
def test_a_table_of_somebody_else_is_left_alone(tmp_path, database, definition, problem):
    query(database, definition)
    before = query(database, "SELECT count(*) FROM information_schema.columns WHERE table_name = 'exports'")
    write(tmp_path, range(3))
    found = to_postgres(tmp_path, database)
    assert found.turn() > 0
    assert problem in found.condition.problem and "set `table`" in found.condition.problem
    assert query(database, "SELECT count(*) FROM information_schema.columns WHERE table_name = 'exports'") == before


def test_two_that_ship_under_one_name_stop_each_other_and_double_nothing(tmp_path, database):
    write(tmp_path / "a", range(10))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = (to_postgres(tmp_path / name, database) for name in "ab")
    ship(first)
    ship(second)
    write(tmp_path / "a", range(10, 20))
    write(tmp_path / "b", range(30, 40))
    ship(first)
    assert second.turn() > 0
    assert "is gateway.id a copy of another's?" in second.condition.problem
    first.sink.close()
    second.sink.close()
    assert stored_ids(database) == ids(range(20))


def test_what_is_not_acknowledged_is_not_shipped(tmp_path, database):
    write(tmp_path, range(3))
    path = log_of(tmp_path) / "000001.jsonl"
    line = path.read_bytes().splitlines(keepends=True)[-1]
    with path.open("ab") as file:
        file.write(line.replace(export_id(2).encode(), export_id(9).encode()))
    shipped(tmp_path, database)
    assert stored_ids(database) == ids(range(3))


def test_a_text_comes_back_as_it_was(tmp_path, database):
    odd = "tab\t, quote \" and ' back\\slash, line\nend, \u2028, \U0001f600, {}, \\N, NULL"
    write_log(log_of(tmp_path), [row(0, model=odd), row(1, model=""), row(2, destination_country=None, exported=None)])
    shipped(tmp_path, database)
    assert store_figures(database)[0] == ledger_figures(tmp_path)[0]


def test_a_server_that_hangs_is_left_after_a_while_and_doubles_nothing(tmp_path, database, monkeypatch):
    monkeypatch.setattr("gateway.shipping.postgres.DELIVER_S_MAX", 0.3)
    write(tmp_path, range(5))
    found = to_postgres(tmp_path, database)
    ship(found)
    ((server, *_),) = query(database, "SELECT pid FROM pg_stat_activity WHERE application_name = 'tokenport'")
    assert isinstance(server, int)
    os.kill(server, signal.SIGSTOP)
    try:
        write(tmp_path, range(5, 10))
        assert found.turn() > 0
    finally:
        os.kill(server, signal.SIGCONT)
    assert "PostgreSQL" in found.condition.problem
    monkeypatch.undo()
    ship(found)
    found.sink.close()
    assert stored_ids(database) == ids(range(10))


def test_an_url_that_cannot_be_read_is_not_shown(tmp_path):
    write(tmp_path, range(1))
    found = to_postgres(tmp_path, "postgres://u:pass%zzword@127.0.0.1/x")
    assert found.turn() > 0
    assert "cannot be read" in found.condition.problem and "pass" not in found.condition.problem
