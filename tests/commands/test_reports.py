"""What `report` and `export` are asked for, and what they print: filters, windows, currencies, hostile names."""

import csv
import io
import json

import pytest

from tests.commands.filled import FORMULA, ROWS, export_of, numbers


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ("", [0, 1, 2, 3]),
        ("--tenant acme", [0, 1, 2]),
        ("--tenant acme --model qwen3 --origin NO --destination DE", [0]),
        ("--origin no", [0, 2, 3]),
        ("--origin NO --origin CN --model qwen3", [0, 1, 3]),
        ("--destination -", [2]),
        ("--backend gz-1 --region guizhou --outcome completed", [0, 1, 2, 3]),
        ("--tenant acm", []),
        ("--tenant acme'", []),
    ],
)
def test_report_and_export_are_narrowed_by_the_same_filters(ledger, capsys, filters, found, indexed):
    ledger.write(*ROWS)
    if indexed:
        ledger.fold()
    assert ledger.ask("export", *filters.split()) == 0
    assert numbers(capsys.readouterr().out) == found
    # A bound within a quarter of an hour is summed over rows, others over rollups.
    for bound in ("2025-11-24T11:00", "2025-11-24T11:59:59.999999"):
        assert ledger.ask("report", *filters.split(), "--from", bound, "--format", "json") == 0
        sums = json.loads(capsys.readouterr().out)
        assert sum(each["requests"] for each in sums) == len(found)
        assert sum(each["cost_nano"] for each in sums) == sum(ROWS[number]["cost_nano"] for number in found)


def test_refusals_are_narrowed_by_tenant_and_by_nothing_that_they_do_not_have(ledger, capsys):
    ledger.write(*ROWS)
    assert ledger.ask("report", "--refusals", "--tenant", "acme") == 0
    assert ledger.ask("report", "--refusals", "--origin", "NO") == 2
    assert "only --tenant narrows them" in capsys.readouterr().err


def test_a_period_that_ends_before_it_begins_is_a_mistake(ledger, capsys):
    for command in ("report", "export"):
        assert ledger.ask(command, "--from", "2025-11-24", "--to", "2025-11-24") == 2
        assert "--to 2025-11-24: is not after --from 2025-11-24" in capsys.readouterr().err


def test_an_empty_report_says_so_beside_the_data(ledger, capsys):
    ledger.write(*ROWS)
    assert ledger.ask("report", "--from", "2031-01-01", "--format", "json") == 0
    printed = capsys.readouterr()
    assert (json.loads(printed.out), printed.err) == ([], "tokenport: there is nothing in this period\n")


def test_lines_are_in_order_of_their_period_and_then_of_their_names(ledger, capsys):
    tenants = {"2025-10-26T00:30:00Z": ("b", "a"), "2025-10-26T01:30:00Z": ("a", "c"), "2025-10-25T22:30:00Z": ("c",)}
    each = [(moment, name) for moment, names in tenants.items() for name in names]
    ledger.write(*(export_of(number, moment, tenant=name) for number, (moment, name) in enumerate(each)))
    arguments = ("--by", "tenant", "--period", "hour", "--tz", "Europe/Berlin", "--format", "json")
    assert ledger.ask("report", *arguments) == 0
    found = [(line["period"][11:], line["tenant"]) for line in json.loads(capsys.readouterr().out)]
    first, again, later = "00:00+02:00", "02:00+02:00", "02:00+01:00"
    assert found == [(first, "c"), (again, "a"), (again, "b"), (later, "a"), (later, "c")]


@pytest.mark.parametrize("columns", [70, 80, 120])
def test_a_table_fits_the_window_and_keeps_every_line(ledger, capsys, monkeypatch, columns):
    names = ("globex-international-holding", "globex-international-research", "x" * 60)
    ledger.write(*(export_of(number, tenant=name) for number, name in enumerate(names)))
    monkeypatch.setenv("COLUMNS", str(columns))
    assert ledger.ask("report", "--by", "tenant,destination_country", "--period", "month") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert ("left out in this window: " in lines[-1]) == (columns < 100)
    assert lines[-2 if columns < 100 else -1].startswith("total")
    shown = [line.split()[0] for line in lines if "2025-11" in line]
    assert len(set(shown)) == 3, "names that differ at their ends still differ"


def test_counts_lose_digits_only_where_the_window_is_too_narrow(ledger, capsys, monkeypatch):
    ledger.write(*(export_of(number) for number in range(150)))
    for columns, tokens in ((150, "26,175"), (70, "26.2k")):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert ledger.ask("report", "--by", "tenant") == 0
        assert tokens in capsys.readouterr().out.splitlines()[-1]


def test_each_currency_has_a_total_of_its_own_and_its_name_beside_it(ledger, capsys):
    ledger.write(export_of(0), export_of(1, currency="EUR"), export_of(2, tenant="globex"))
    assert ledger.ask("report", "--by", "tenant") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["tenant", "currency", "requests"] and "cost USD" not in head
    assert [line.split()[:3] for line in lines[-2:]] == [["total", "EUR", "1"], ["total", "USD", "2"]]


def test_money_in_a_table_is_exact_to_its_last_digit(ledger, capsys):
    rows = [export_of(number) for number in range(3)]
    ledger.write(*rows)
    assert ledger.ask("report", "--by", "tenant") == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["revenue", "USD"]
    cost = sum(row["cost_nano"] for row in rows)
    assert line.split()[-2] == f"0.{cost:09}"


def test_no_name_runs_as_a_formula_or_moves_the_cursor(ledger, capsys):
    ledger.write(export_of(0, tenant=FORMULA), export_of(1, tenant="\x1b[2J\nacme"))
    assert ledger.ask("report", "--by", "tenant", "--format", "csv") == 0
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [line["tenant"] for line in read] == ["\x1b[2J\nacme", "'" + FORMULA]
    assert all(value.isdigit() for line in read for name, value in line.items() if name not in ("tenant", "currency"))
    assert ledger.ask("report", "--by", "tenant") == 0
    table = capsys.readouterr().out
    assert "\x1b" not in table and "?[2J?acme" in table
