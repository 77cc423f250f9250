"""A ledger that any version wrote is read, added up, audited and gone on with."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.recovery import recover_log
from gateway.ledger.segment import RECORD_VERSION
from gateway.ledger.verify import verify

from .exports import NOW_S, export_id, row, write_log
from .stored import OPEN, expected, figures, fixture

VERSIONS = range(1, RECORD_VERSION + 1)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    assert fixture(number).is_dir(), "a new record version: `python -m tests.ledger.stored`, and commit what it wrote"
    return number


@pytest.fixture
def data_dir(version: int, tmp_path: Path) -> Path:
    shutil.copytree(fixture(version), tmp_path, dirs_exist_ok=True)
    return tmp_path


def fold(data_dir: Path) -> None:
    index = Index(data_dir / "ledger" / INDEX_NAME)
    index.fold(data_dir / "ledger")
    index.close()


def segments(data_dir: Path) -> dict[str, str]:
    paths = sorted((data_dir / "ledger").glob("*/[0-9]*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def known(found: Any, stored: Any) -> Any:
    """Of what is found, what was known when it was stored: later versions have more columns."""
    if isinstance(stored, dict):
        return {name: known(found[name], value) for name, value in stored.items()}
    if isinstance(stored, list):
        assert len(found) == len(stored)
        return [known(*pair) for pair in zip(found, stored, strict=True)]
    return found


def test_it_is_read_and_adds_up_with_and_without_an_index(data_dir: Path, version: int) -> None:
    stored = expected(version)
    assert known(figures(data_dir), stored) == stored
    fold(data_dir)
    assert known(figures(data_dir), stored) == stored


def test_it_passes_the_audit(data_dir: Path) -> None:
    assert verify(data_dir, live=[export_id(OPEN)]) == []
    [finding] = verify(data_dir)
    assert finding.problem == f"open {export_id(OPEN)} has no end"


def test_it_is_recovered_and_gone_on_with_and_no_old_segment_changes(data_dir: Path, version: int) -> None:
    fold(data_dir)
    before = segments(data_dir)
    assert recover_log(data_dir / "ledger", 0, NOW_S) == 1
    write_log(data_dir / "ledger" / "0", [row(900)])
    fold(data_dir)
    assert verify(data_dir) == []
    found = figures(data_dir)["exports"]
    assert set(found) == {*expected(version)["exports"], export_id(OPEN), export_id(900)}
    after = segments(data_dir)
    closed = sorted(before)[:-1]
    assert {name: after[name] for name in closed} == {name: before[name] for name in closed}
