"""Where an export goes: whole files or none, no binary on a terminal, nothing through a closed pipe."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow.parquet as pq
import pytest

from gateway.commands import export
from gateway.commands.export import WRITERS
from gateway.commands.output_file import output_file
from gateway.ledger.parquet import UnfitValue
from tests.commands.filled import FORMULA, ROWS, Ledger, export_of, numbers


def command(ledger: Ledger, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "export", "--config", str(ledger.configuration), *arguments]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "focus"])
def test_a_file_holds_what_stdout_would(ledger, form):
    ledger.write(*ROWS)
    printed = subprocess.run(command(ledger, "--format", form), capture_output=True, check=True)
    path = ledger.data_dir / "out"
    assert ledger.ask("export", "--format", form, "--output", str(path)) == 0
    assert path.read_bytes() == printed.stdout
    assert (printed.stderr, len(printed.stdout) > 500) == (b"", True)
    assert [each.name for each in ledger.data_dir.iterdir() if each.name != "ledger"] == ["out"]


def test_parquet_has_the_rows_that_were_asked_for(ledger):
    ledger.write(*ROWS)
    path = ledger.data_dir / "acme.parquet"
    assert ledger.ask("export", "--format", "parquet", "--output", str(path), "--tenant", "acme") == 0
    assert pq.read_table(path)["request_id"].to_pylist() == ["client-0", "client-1", "client-2"]


def test_an_export_that_fails_leaves_the_file_that_was_there(ledger, capsys, monkeypatch):
    def fail(rows: Iterable[object], out: BinaryIO) -> int:
        out.write(b"half of it")
        raise UnfitValue("opened_at is not time in every row")

    monkeypatch.setitem(WRITERS, "parquet", fail)
    ledger.write(*ROWS)
    path = ledger.data_dir / "out.parquet"
    path.write_bytes(b"of yesterday")
    assert ledger.ask("export", "--format", "parquet", "--output", str(path)) == 2
    assert "--format parquet: opened_at is not time in every row" in capsys.readouterr().err
    assert path.read_bytes() == b"of yesterday"
    assert sorted(each.name for each in ledger.data_dir.iterdir()) == ["ledger", "out.parquet"]


def test_a_file_has_its_name_only_once_it_is_whole(tmp_path):
    path = tmp_path / "out"
    with output_file(path) as out:
        out.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"


def test_a_link_stays_one_and_a_device_is_written_to(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.touch()
    link.symlink_to(target)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (link, pipe):
            with output_file(path) as out:
                out.write(b"x")
        assert os.read(reading, 9) == b"x"
    finally:
        os.close(reading)
    assert link.is_symlink() and target.read_bytes() == b"x"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("path", ["nowhere/out", "."])
def test_a_place_that_cannot_be_written_is_one_line(ledger, capsys, path):
    ledger.write(*ROWS)
    assert ledger.ask("export", "--output", str(ledger.data_dir / path)) == 2
    assert capsys.readouterr().err.startswith("tokenport: cannot export: [Errno")


def test_nothing_binary_goes_to_a_terminal(ledger, capsys, monkeypatch):
    ledger.write(*ROWS)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ledger.ask("export", "--format", "parquet") == 2
    printed = capsys.readouterr()
    assert (printed.out, "give --output FILE" in printed.err) == ("", True)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_reader_that_leaves_early_is_no_error(ledger, form):
    ledger.write(*(export_of(number) for number in range(1000)))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = subprocess.run(command(ledger, "--format", form), stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (0, b"")


def test_lines_are_written_as_rows_are_read(ledger, tmp_path):
    """Memory is flat: no row waits for the last one."""
    path = tmp_path / "out"
    seen = 0

    def rows() -> Iterator[dict[str, object]]:
        nonlocal seen
        for number in range(500):
            seen = path.stat().st_size
            yield export_of(number)

    with path.open("wb") as out:
        export.WRITERS["jsonl"](rows(), out)
    assert 0 < seen < path.stat().st_size
    assert len(numbers(path.read_text())) == 500


def test_csv_is_harmless_and_jsonl_is_as_it_was(ledger, capsys):
    ledger.write(export_of(0, tenant=FORMULA))
    assert ledger.ask("export", "--format", "csv") == 0
    assert ",\"'" + FORMULA.replace('"', '""') + '",' in capsys.readouterr().out
    assert ledger.ask("export") == 0
    assert json.loads(capsys.readouterr().out)["tenant"] == FORMULA
