"""The export statement: an auditor gets the same integers, and it says plainly what it rests on."""

import csv
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.cli import main
from gateway.commands import statement as command
from gateway.finance.statement_text import SEALS_SHOWN
from gateway.ledger.entry import Entry
from gateway.ledger.expiry import Expirer, Keep, expirable
from gateway.ledger.index import INDEX_NAME, Index, folded_positions
from gateway.ledger.instants import MICROS, parse_us
from gateway.ledger.log import LogWriter
from gateway.ledger.seals import read_seals, seal_path
from gateway.ledger.tables import FIGURES
from tests.commands.ledgers import BOUNDS, KEY, configured, seal_ledger, varied_rows, write_ledger, write_seal
from tests.ledger.exports import row

RECOMPUTE = Path(__file__).with_name("recompute.py")
BERLIN = ("--tz", "Europe/Berlin")
OCTOBER, NOVEMBER = (BOUNDS[0], BOUNDS[1]), (BOUNDS[1], BOUNDS[2])

Json = dict[str, Any]
Told = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The option that names a configuration over two logs with rows of all kinds, sealed and compressed."""
    directory = tmp_path_factory.mktemp("books")
    write_ledger(directory / "var", varied_rows(Random(20241101), 600), logs=2)
    seal_ledger(directory / "var", plain=False)
    assert not (directory / "var" / "ledger" / "0" / "000001.jsonl").exists()
    return configured(directory)


@pytest.fixture
def small(tmp_path: Path) -> tuple[list[str], Path]:
    """The same over a ledger of one's own with forty rows of one afternoon, and its data directory."""
    write_ledger(tmp_path / "var", (row(number) for number in range(40)), segment_bytes=20_000)
    return configured(tmp_path), tmp_path / "var"


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs a command: its exit status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([*arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def recomputed(export: Path, bounds: tuple[str, str]) -> Json:
    done = subprocess.run(
        [sys.executable, "-I", str(RECOMPUTE), str(export), *bounds], capture_output=True, check=True, text=True
    )
    found: Json = json.loads(done.stdout)
    return found


def in_the_form_of_the_auditor(sections: list[Json]) -> Json:
    def keyed(rows: list[Json], *keys: str) -> Json:
        one = len(keys) == 1
        told = {}
        for each in rows:
            key = tuple(each[name] for name in keys)
            told[str(key[0] if one else key)] = {name: value for name, value in each.items() if name not in keys}
        return told

    return {
        section["tenant"]: {
            "lines": keyed(section["lines"], "origin_country", "destination_country", "model", "currency"),
            "totals": keyed(section["totals"], "currency"),
            "counted": keyed(section["counted"], "count_source"),
            "flags": keyed(section["flags"], "count_flag"),
            "flagged": section["flagged_requests"],
            "outcomes": keyed(section["outcomes"], "outcome"),
        }
        for section in sections
    }


@pytest.mark.parametrize(("period", "bounds"), [("2024-10", OCTOBER), ("2024-11", NOVEMBER)])
@pytest.mark.parametrize("indexed", [False, True])
def test_every_figure_is_what_an_auditor_computes_from_the_export(books, period, bounds, indexed, tmp_path, told):
    data_dir = Path(books[1]).with_name("var")
    if indexed:
        index = Index(data_dir / "ledger" / INDEX_NAME)
        index.fold(data_dir / "ledger")
        index.close()
    _, rows, _ = told("export", *books)
    (tmp_path / "all.jsonl").write_text(rows)
    status, out, _ = told("statement", *books, "--period", period, *BERLIN, "--format", "json")
    assert status == 0
    statement = json.loads(out)
    expected = recomputed(tmp_path / "all.jsonl", bounds)
    assert in_the_form_of_the_auditor(statement["tenants"]) == expected
    assert set(expected) == {"acme", "globex", "=SUM(A1)", "<b>&co"}
    everything = [total for tenant in expected.values() for total in tenant["totals"].values()]
    for name in FIGURES:
        assert sum(total[name] for total in statement["overall"]["totals"]) == sum(each[name] for each in everything)
    assert set(expected["acme"]["flags"]) == {"usage_missing", "input_estimated", "usage_zero"}


def test_rows_exactly_on_the_bounds_of_a_month_are_in_one_month_each(books, told):
    requests = []
    for period in ("2024-09", "2024-10", "2024-11", "2024-12"):
        _, out, _ = told("statement", *books, "--period", period, *BERLIN, "--format", "json")
        requests.append(json.loads(out)["rows"])
    _, year, _ = told("statement", *books, "--period", "2024", *BERLIN, "--format", "json")
    assert sum(requests) == json.loads(year)["rows"] == 600
    _, rows, _ = told("export", *books, "--from", "2024-10-01", "--to", "2024-11-01", *BERLIN)
    assert len(rows.splitlines()) == requests[1]


def test_a_statement_of_one_tenant_is_its_section_of_the_statement_of_all(books, told):
    _, all_of_them, _ = told("statement", *books, "--period", "2024-10", "--format", "json")
    _, one, _ = told("statement", *books, "--period", "2024-10", "--tenant", "globex", "--format", "json")
    sections = {each["tenant"]: each for each in json.loads(all_of_them)["tenants"]}
    assert json.loads(one)["tenants"] == [sections["globex"]]
    assert json.loads(one)["overall"] is None


def test_csv_holds_the_same_integers_in_one_rectangle_that_no_spreadsheet_runs(books, told):
    arguments = ("statement", *books, "--period", "2024-11", *BERLIN, "--format")
    statement = json.loads(told(*arguments, "json")[1])
    text = told(*arguments, "csv")[1]
    records = list(csv.DictReader(io.StringIO(text, newline="")))
    assert {len(each) for each in csv.reader(io.StringIO(text, newline=""))} == {len(records[0])}

    def of(section: str, *names: str) -> list[tuple[str, ...]]:
        return [tuple(each[name] for name in names) for each in records if each["section"] == section]

    expected = [
        tuple(str(line[name]) for name in FIGURES) for section in statement["tenants"] for line in section["lines"]
    ]
    assert of("line", *FIGURES) == expected
    assert {tenant for (tenant,) in of("line", "tenant")} == {"acme", "globex", "'=SUM(A1)", "<b>&co"}
    assert {model for (model,) in of("line", "model")} == {"m", "n", "'+m<i>"}
    seals = [(each["sealed_sha256"], str(each["rows_of_period"])) for each in statement["seals"]]
    assert of("seal", "sealed_sha256", "rows_of_period") == seals
    assert dict(of("about", "name", "value"))["state"] == statement["state"] == "final"


class Page(HTMLParser):
    """Tags, texts and titles of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_one_file_without_script_or_request_and_with_all_text_escaped(books, told):
    page = Page(told("statement", *books, "--period", "2024-11", *BERLIN, "--format", "html")[1])
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "b", "i", "img", "link", "iframe", "object"}
    attributes = {name for _, attributes in page.tags for name in attributes}
    assert not attributes & {"src", "href", "style"} and not any(name.startswith("on") for name in attributes)
    assert "<b>&co" in page.text and "+m<i>" in page.text
    assert "@page" in page.text and "prefers-color-scheme: dark" in page.text


def test_html_has_every_exact_integer_beside_the_figure_for_people(books, told):
    arguments = ("statement", *books, "--period", "2024-11", *BERLIN, "--format")
    statement = json.loads(told(*arguments, "json")[1])
    text = told(*arguments, "html")[1]
    page = Page(text)
    titles = {attributes.get("title") for _, attributes in page.tags}
    for section in statement["tenants"]:
        for line in section["lines"]:
            assert f"{line['cost_nano']} nano" in titles
            assert f"{line['energy_uwh']} µWh" in titles
            assert f"{line['delivered_tokens']:,}" in page.text
        for total in section["totals"]:
            for name in FIGURES:
                assert re.search(rf"<code>{name}</code></td><td>[^<]+</td><td>{total[name]}</td>", text), name
    for seal in statement["seals"]:
        assert seal["sealed_sha256"] in page.text


def test_a_period_that_is_over_and_sealed_is_final_in_every_format(books, told):
    arguments = ("statement", *books, "--period", "2024-11")
    status, table, error = told(*arguments)
    assert (status, error) == (0, "")
    assert table.startswith("Export statement 2024-11 (UTC): FINAL\n")
    assert json.loads(told(*arguments, "--format", "json")[1])["state"] == "final"
    assert "The period is over, and every row of it is sealed." in told(*arguments, "--format", "html")[1]


def test_rows_that_are_not_sealed_make_it_provisional_and_are_counted(small, told):
    config, data_dir = small
    seals = seal_ledger(data_dir, but_last=True)
    unsealed = 40 - sum(seal.rows for seal in seals)
    assert 0 < unsealed < 40
    status, out, error = told("statement", *config, "--period", "2025-11")
    assert status == 0 and "(UTC): PROVISIONAL\n" in out
    reason = f"provisional: {unsealed} rows of the period are not sealed yet"
    assert error == reason + "\n" and reason in out
    assert f"; {unsealed} not sealed yet\n" in out


def test_a_period_that_is_not_over_is_provisional_though_all_is_sealed(small, told, monkeypatch):
    config, data_dir = small
    seal_ledger(data_dir)
    monkeypatch.setattr(command, "wall", lambda: parse_us("2025-11-30T23:59:59Z") / MICROS)
    _, _, error = told("statement", *config, "--period", "2025-11")
    assert error == "provisional: the period is not over before 2025-12-01T00:00:00Z\n"
    monkeypatch.setattr(command, "wall", lambda: parse_us("2025-12-01T00:00:00Z") / MICROS)
    _, _, error = told("statement", *config, "--period", "2025-11")
    assert error == ""


def test_a_segment_on_the_bound_of_a_period_counts_only_with_its_rows_of_it(books, told):
    _, out, _ = told("statement", *books, "--period", "2024-10", *BERLIN, "--format", "json")
    statement = json.loads(out)
    on_bounds = [each for each in statement["seals"] if each["rows_of_period"] < each["rows"]]
    assert len(on_bounds) == 4  # of two logs, at both ends
    assert sum(each["rows_of_period"] for each in statement["seals"]) == statement["rows"]
    for each in statement["seals"]:
        assert each["last_ended_at"] >= statement["from"] and each["first_ended_at"] < statement["to"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sums": {"revenue_nano": 5}}, "revenue_nano is"),
        ({"rows": 1000}, "the seals hold 1,0"),
        ({"signature": "00" * 64}, "is not signed by the key it names"),
    ],
)
def test_seals_that_do_not_vouch_for_the_figures_are_a_finding(small, changes, said, told):
    config, data_dir = small
    seal = seal_ledger(data_dir)[1]
    if "sums" in changes:
        changes = {"sums": {**seal.sums, **changes["sums"]}}
    if "signature" in changes:
        path = seal_path(data_dir / "ledger" / "0", seal.segment)
        path.write_bytes(path.read_bytes().replace(seal.signature.encode(), changes["signature"].encode()))
    else:
        write_seal(data_dir, seal, **changes)
    status, out, error = told("statement", *config, "--period", "2025-11")
    assert status == 1
    assert said in error and "run tokenport verify" in error
    assert "PROVISIONAL" in out


def test_a_seal_that_cannot_be_read_ends_it_with_its_name(small, told):
    config, data_dir = small
    seal_ledger(data_dir)
    seal_path(data_dir / "ledger" / "0", 2).write_bytes(b"{}\n")
    status, out, error = told("statement", *config, "--period", "2025-11")
    assert (status, out) == (1, "") and "0/000002.seal" in error


def test_a_changed_index_is_held_against_the_seals(small, told):
    config, data_dir = small
    seal_ledger(data_dir)
    index = Index(data_dir / "ledger" / INDEX_NAME)
    index.fold(data_dir / "ledger")
    for table in ("rollups", "days"):
        index._connection.execute(f"UPDATE {table} SET revenue_nano = revenue_nano + 1")
    index.close()
    status, _, error = told("statement", *config, "--period", "2025-11")
    assert status == 1 and "revenue_nano is" in error


def test_refusals_of_a_tenant_are_told_beside_its_figures(small, told):
    config, data_dir = small
    writer = LogWriter(data_dir / "ledger" / "0", 0, None)
    for tenant, count in (("acme", 3), ("acme", 4), ("*", 9)):
        minute = "2025-11-24T16:00:00.000000Z"
        refused = {"record": "refused", "minute": minute, "tenant": tenant, "reason": "residency", "count": count}
        writer.append(Entry.of(refused))
    writer.close()
    _, out, _ = told("statement", *config, "--period", "2025-11", "--tenant", "acme", "--format", "json")
    assert json.loads(out)["tenants"][0]["refused"] == [{"reason": "residency", "count": 7}]


def test_a_tenant_without_requests_has_an_empty_statement_and_an_unknown_one_none(small, told):
    config, _ = small
    status, out, _ = told("statement", *config, "--period", "2025-11", "--tenant", "idle")
    assert status == 0 and "no requests in the period" in out
    status, out, error = told("statement", *config, "--period", "2025-11", "--tenant", "nobody")
    assert (status, out) == (2, "")
    assert error == "tokenport: no tenant nobody in the configuration, and no rows of one in 2025-11\n"


@pytest.mark.parametrize("form", ["table", "json", "csv", "html"])
def test_a_period_without_anything_has_a_statement_that_says_so(tmp_path, form, told):
    status, out, _ = told("statement", *configured(tmp_path), "--period", "2025-11", "--format", form)
    assert status == 0 and out


@pytest.mark.parametrize("period", ["2025-13", "2025-02-30", "25", "2025-1", "1969", "9999", "2025-11-24T00:00", ""])
def test_what_is_no_period_is_refused_with_how_to_write_one(tmp_path, period, told):
    status, out, error = told("statement", *configured(tmp_path), "--period", period)
    assert (status, out) == (2, "")
    assert "not a period; write a year, month or day: 2026, 2026-11, 2026-11-24" in error


@pytest.mark.parametrize(
    ("period", "tz", "start", "hours"),
    [
        ("2024-03-31", "Europe/Berlin", "2024-03-30T23:00:00.000000Z", 23),
        ("2024-10-27", "Europe/Berlin", "2024-10-26T22:00:00.000000Z", 25),
        ("2024-02", "Asia/Kathmandu", "2024-01-31T18:15:00.000000Z", 29 * 24),
        ("2024", "America/St_Johns", "2024-01-01T03:30:00.000000Z", 366 * 24),
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00.000000Z", 23),  # there is no midnight
        ("2011-12-30", "Pacific/Apia", "2011-12-30T10:00:00.000000Z", 0),  # nor such a day
    ],
)
def test_a_period_is_as_long_as_the_clocks_of_its_zone_make_it(tmp_path, period, tz, start, hours, told):
    _, out, _ = told("statement", *configured(tmp_path), "--period", period, "--tz", tz, "--format", "json")
    statement = json.loads(out)
    assert statement["from"] == start
    assert parse_us(statement["to"]) - parse_us(statement["from"]) == hours * 3600 * MICROS


def test_a_file_is_written_whole_or_not_at_all(small, tmp_path, told):
    config, _ = small
    arguments = ("statement", *config, "--period", "2025-11", "--format", "csv")
    target = tmp_path / "statement.csv"
    assert told(*arguments, "--output", str(target))[:2] == (0, "")
    assert target.read_bytes().count(b"\r\n") == target.read_bytes().count(b"\n") > 5
    before = sorted(tmp_path.iterdir())
    status, _, error = told(*arguments, "--output", str(tmp_path / "nowhere" / "statement.csv"))
    assert status == 2 and "nowhere/statement.csv: No such file or directory" in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_table_shows_some_seals_and_how_many_more_there_are(tmp_path, told):
    write_ledger(tmp_path / "var", (row(number) for number in range(300)), segment_bytes=20_000)
    seals = seal_ledger(tmp_path / "var")
    assert len(seals) > SEALS_SHOWN
    _, out, _ = told("statement", *configured(tmp_path), "--period", "2025-11")
    assert out.count("2024-12-01T01:00:00Z") == SEALS_SHOWN
    assert f"and {len(seals) - SEALS_SHOWN} more" in out


def test_the_fingerprint_over_the_seals_changes_with_any_of_them(small, told):
    config, data_dir = small

    def fingerprint() -> str:
        _, out, _ = told("statement", *config, "--period", "2025-11", "--format", "json")
        return str(json.loads(out)["seals_sha256"])

    seal_ledger(data_dir)
    before = fingerprint()
    assert fingerprint() == before != ""
    write_seal(data_dir, read_seals(data_dir / "ledger")[1], sealed_at="2024-12-01T02:00:00.000000Z")
    assert fingerprint() != before


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["statement", "--help"])
    assert ended.value.code == 0
    assert "tokenport statement --period 2026-11 --tenant acme" in html.unescape(capsys.readouterr().out)


def test_a_statement_stays_final_and_the_same_when_its_rows_have_expired(tmp_path, told):
    data_dir = tmp_path / "var"
    write_ledger(data_dir, varied_rows(Random(7), 200), logs=2)
    seal_ledger(data_dir, plain=False)
    asked = ("statement", *configured(tmp_path), "--period", "2024-10", *BERLIN)
    before = json.loads(told(*asked, "--format", "json")[1])
    assert before["state"] == "final"
    ledger = data_dir / "ledger"
    index = Index(ledger / INDEX_NAME)
    index.fold(ledger)
    expirer = Expirer(ledger, KEY)
    expired = expirable(ledger, Keep(bytes=1), 0.0, lambda log: None, folded_positions(ledger / INDEX_NAME))
    for seal in expired:
        expirer.expire(seal)
    while index.shrink(ledger):
        pass
    index.close()
    status, out, _ = told(*asked, "--format", "json")
    after = json.loads(out)
    assert (status, len(expired) > 2) == (0, True)
    assert {name: after[name] for name in ("state", "rows_sealed", "seals_sha256", "seals")} == {
        name: before[name] for name in ("state", "rows_sealed", "seals_sha256", "seals")
    }
    for mine, theirs in zip(after["tenants"], before["tenants"], strict=True):
        for name in ("lines", "totals", "outcomes", "refused"):
            assert mine[name] == theirs[name]
    assert "have expired" in told(*asked)[1]
