"""The index keeps once what rows share, derives what they say twice, and sums whole days."""

import sqlite3

import pytest

from gateway.ledger.index import INDEX_NAME
from gateway.ledger.opening import FailedAttempt
from gateway.ledger.reading import Reader

from .exports import POWER, ending, opening, row, row_of, write_log
from .test_reading import ended, fold, log_of


def test_what_rows_have_in_common_is_stored_once(tmp_path):
    for number in range(3):
        write_log(log_of(tmp_path), [row(2 * number), row(2 * number + 1)])
        fold(tmp_path)
    connection = sqlite3.connect(tmp_path / "ledger" / INDEX_NAME)
    assert connection.execute("SELECT count(*) FROM ends").fetchone() == (6,)
    assert connection.execute("SELECT count(*) FROM places").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM prices").fetchone() == (1,)
    connection.close()


def test_the_only_attempt_of_a_row_is_told_again_from_the_row(tmp_path):
    failed = (FailedAttempt("hydro-1", "quebec", "connect_failed", None, 3000, units=POWER),)
    timed = row_of(opening(2), ending(2, attempt_ttft_ms=119, attempt_duration_ms=899))
    rows = [row(1), timed, row_of(opening(3, failed=failed), ending(3, failed=failed))]
    odd = [
        row(number) | {"attempts_json": text} for number, text in ((4, None), (5, "[]"), (6, '[{"backend":"gz-1"}]'))
    ]
    write_log(log_of(tmp_path), [*rows, *odd])
    fold(tmp_path)
    with Reader(tmp_path) as reader:
        found = [each["attempts_json"] for each in reader.rows()]
    assert found == [each["attempts_json"] for each in (*rows, *odd)]
    connection = sqlite3.connect(tmp_path / "ledger" / INDEX_NAME)
    kept = connection.execute(
        "SELECT attempts_json, attempt_ttft_ms, attempt_duration_ms FROM ends ORDER BY seq"
    ).fetchall()
    connection.close()
    assert kept[:2] == [("", None, None), ("", 119, 899)]
    assert all(text != "" for text, _, _ in kept[2:])


@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin"])
def test_months_are_summed_from_days(tmp_path, tz):
    rows = [ended(number, f"2025-10-{1 + number % 31:02d}T23:{number % 60:02d}:00Z", number) for number in range(90)]
    write_log(log_of(tmp_path), rows)
    fold(tmp_path)
    with Reader(tmp_path) as reader:
        expected = reader.sums(("tenant",), "month", tz)
    connection = sqlite3.connect(tmp_path / "ledger" / INDEX_NAME)
    connection.execute("DELETE FROM rollups WHERE quarter / 96 * 86400 < unixepoch('2025-10-31')")
    connection.commit()
    connection.close()
    with Reader(tmp_path) as reader:
        assert reader.sums(("tenant",), "month", tz) == expected
        assert sum(each["requests"] for each in reader.sums(("tenant",), "hour", tz)) == 2, "only 31 October is left"
