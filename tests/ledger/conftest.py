from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where log 0 lives; `tmp_path` is the data directory."""
    return tmp_path / "ledger" / "0"
