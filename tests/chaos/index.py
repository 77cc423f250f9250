"""The index of a stopped gateway beside one that is made of its logs alone: readers must be told the same by both."""

import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.reading import LEDGER_NAME, Reader
from gateway.ledger.tables import DIMENSIONS


def index_findings(data_dir: Path) -> list[str]:
    """What differs; nothing where all is well."""
    with tempfile.TemporaryDirectory() as temporary:
        rebuilt = Path(temporary)
        ledger = rebuilt / LEDGER_NAME
        ledger.mkdir()
        for log in (data_dir / LEDGER_NAME).glob("[0-9]*"):
            (ledger / log.name).symlink_to(log.absolute())
        index = Index(ledger / INDEX_NAME)
        index.fold(ledger)
        index.close()
        with Reader(data_dir) as kept, Reader(rebuilt) as fresh:
            answers = zip_longest(_answers(kept), _answers(fresh))
            return list(dict.fromkeys(f"the index is not what the logs give: {a[0]}" for a, b in answers if a != b))


def _answers(reader: Reader) -> Iterator[tuple[str, Any]]:
    """All that a reader can be asked, each with its name."""
    for row in reader.rows():
        yield "rows", row
    yield "sums", reader.sums(DIMENSIONS, period="hour")
    yield "refusals", reader.refusals()
    yield "spent", reader.spent(0.0, 2.0**32)
