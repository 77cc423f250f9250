from pathlib import Path

import pytest

from tests.commands.ledgers import Ledger


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.delenv("COLUMNS", raising=False)
    return Ledger(tmp_path)
