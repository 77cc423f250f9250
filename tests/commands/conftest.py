"""A filled ledger; one with what bought-1 served, and `tokenport reconcile` over it."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.ledger.segment import Record
from tests.commands.filled import Ledger
from tests.commands.ledgers import configured, write_ledger
from tests.commands.provider_files import ROWS

Run = Callable[..., tuple[int, str, str]]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.delenv("COLUMNS", raising=False)
    return Ledger(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    write_ledger(tmp_path / "var", ROWS)
    return configured(tmp_path)


@pytest.fixture
def run(config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Writes the file and compares it: exit status, stdout, stderr."""

    def compare(content: str | bytes, *options: str, rows: Iterable[Record] | None = None) -> tuple[int, str, str]:
        if rows is not None:
            for path in (tmp_path / "var" / "ledger" / "0").iterdir():
                path.unlink()
            write_ledger(tmp_path / "var", rows)
        path = tmp_path / "usage"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        capsys.readouterr()
        status = main(["reconcile", *config, "--backend", "bought-1", str(path), *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return compare


@pytest.fixture
def ask(run: Run) -> Ask:
    """The same, as JSON with the exit status."""

    def compare(content: str | bytes, *options: str, rows: Iterable[Record] | None = None) -> dict[str, Any]:
        status, out, error = run(content, *options, "--format", "json", rows=rows)
        assert out, error
        return {**json.loads(out), "status": status, "error": error}

    return compare
