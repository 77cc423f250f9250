"""The export in its formats, harmless in a spreadsheet; refusals in few records."""

import csv
import io
import json
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.entry import Entry
from gateway.ledger.formats import csv_cell, write_csv, write_jsonl
from gateway.ledger.log import LedgerUnavailable
from gateway.ledger.refusals import Refusals
from gateway.ledger.segment import Record
from pricing.export import NAMES

from .exports import NOW_US, row


def test_json_lines_hold_every_column_in_order():
    out = io.StringIO()
    assert write_jsonl([row(1), row(2, destination_country="", exported=None)], out) == 2
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert tuple(first) == NAMES
    assert first == row(1)
    assert (second["destination_country"], second["exported"], second["request_id"]) == (None, None, "client-2")


def test_csv_has_a_header_crlf_and_empty_cells_for_what_is_unknown():
    out = io.StringIO()
    assert write_csv([row(1, destination_country="", exported=None)], out) == 1
    text = out.getvalue()
    assert text.startswith(",".join(NAMES) + "\r\n")
    assert text.endswith("\r\n")
    (read,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (read["destination_country"], read["exported"], read["stream"]) == ("", "", "true")
    assert json.loads(read["attempts_json"])[0]["backend"] == "gz-1"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("-5", "-5"),
        ("+5.25", "+5.25"),
        (-5, "-5"),
        ("--5", "'--5"),
        ("-5e3", "'-5e3"),
        ("plain", "plain"),
        ("a=b", "a=b"),
        ("", ""),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
    ],
)
def test_a_cell_never_runs_as_a_formula(value, cell):
    assert csv_cell(value) == cell


@given(st.text(max_size=40).filter(lambda text: "\0" not in text))
def test_any_text_survives_csv(text):
    out = io.StringIO(newline="")
    write_csv([row(1, request_id=text)], out)
    (read,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    assert read["request_id"].removeprefix("'") == text.removeprefix("'")


def kept(written: list[Record]) -> Callable[[Entry], None]:
    """A log that keeps what it is given."""
    return lambda entry: written.append(orjson.loads(entry.head + b"}"))


def test_refusals_of_a_minute_become_one_record_per_tenant_and_reason_when_it_is_over():
    refusals, written = Refusals(), []
    for _ in range(1000):
        refusals.add(NOW_US, "acme", "budget")
    refusals.add(NOW_US + 59_999_999, "acme", "residency")
    refusals.add(NOW_US + 60_000_000, "acme", "budget")
    assert refusals.flush(NOW_US + 59_999_999, kept(written)) == 0
    assert refusals.flush(NOW_US + 60_000_000, kept(written)) == 2
    minute = "2025-11-24T16:00:00.000000Z"
    assert written == [
        {"record": "refused", "minute": minute, "tenant": "acme", "reason": "budget", "count": 1000},
        {"record": "refused", "minute": minute, "tenant": "acme", "reason": "residency", "count": 1},
    ]
    assert refusals.flush(NOW_US + 60_000_000, kept(written)) == 0
    assert refusals.flush(NOW_US + 60_000_000, kept(written), everything=True) == 1


def test_refusals_in_memory_are_bounded_and_none_is_lost():
    refusals, written = Refusals(keys_max=10), []
    for number in range(100):
        refusals.add(NOW_US, f"tenant-{number}", "budget")
    assert refusals.flush(NOW_US, kept(written), everything=True) == 11
    assert sum(record["count"] for record in written) == 100
    assert written[-1]["tenant"] == "*"
    refusals.add(NOW_US, "tenant-99", "budget")
    refusals.flush(NOW_US, kept(written), everything=True)
    assert written[-1]["tenant"] == "tenant-99", "there is room again"


def test_refusals_that_the_ledger_does_not_take_stay_counted():
    refusals, written = Refusals(), []

    def refuse(record: object) -> None:
        raise LedgerUnavailable("disk")

    refusals.add(NOW_US, "acme", "budget")
    with pytest.raises(LedgerUnavailable):
        refusals.flush(NOW_US, refuse, everything=True)
    assert refusals.flush(NOW_US, kept(written), everything=True) == 1
