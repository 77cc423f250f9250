"""A configuration with a ledger, for commands."""

import json
from pathlib import Path
from typing import Any

from gateway.cli import main
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.instants import parse_us
from gateway.ledger.segment import Record
from tests.commands.test_commands import CONFIGURATION
from tests.ledger.exports import ending, opening, row_of, write_log

NOON = "2025-11-24T12:00:00Z"
FORMULA = '=HYPERLINK("http://evil","x")'


def export_of(number: int, ended_at: str = NOON, **changes: Any) -> Record:
    return row_of(opening(number, **changes), ending(number, ended_at_us=parse_us(ended_at)))


ROWS = (
    export_of(0, tenant="acme", model="qwen3", origin_country="NO", destination_country="DE"),
    export_of(1, tenant="acme", model="qwen3", origin_country="CN", destination_country="DE"),
    export_of(2, tenant="acme", model="llama4", origin_country="NO", destination_country="", exported=None),
    export_of(3, tenant="globex", model="qwen3", origin_country="NO", destination_country="DE"),
)


class Ledger:
    """A configuration with these rows behind it."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "var"
        self.configuration = directory / "tokenport.toml"
        self.configuration.write_text(CONFIGURATION)

    def write(self, *rows: Record) -> None:
        write_log(self.data_dir / "ledger" / "0", rows)

    def fold(self) -> None:
        index = Index(self.data_dir / "ledger" / INDEX_NAME)
        index.fold(self.data_dir / "ledger")
        index.close()

    def ask(self, command: str, *arguments: str) -> int:
        return main([command, "--config", str(self.configuration), *arguments])


def numbers(text: str) -> list[int]:
    """Which of ROWS an export has."""
    return [int(json.loads(line)["request_id"].removeprefix("client-")) for line in text.splitlines()]
