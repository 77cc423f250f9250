"""The export as Parquet: the same values as in JSON Lines, typed, whatever there is of them."""

import io
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.extras import MissingExtra
from gateway.ledger.parquet import UnfitValue, write_parquet
from gateway.ledger.segment import Record
from pricing.export import COLUMNS, NAMES

from .exports import row


def written(rows: list[Record]) -> pq.ParquetFile:
    out = io.BytesIO()
    assert write_parquet(rows, out) == len(rows)
    return pq.ParquetFile(io.BytesIO(out.getvalue()))


def as_in_json(value: object) -> object:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value


def test_every_value_comes_back_as_it_was():
    rows = [row(1), row(2, destination_country="", exported=None), row(3, exported=False, tenant="naïve; =1+1\n")]
    rows[1] |= {"cost_nano": -(2**63), "revenue_nano": 2**63 - 1, "ttft_ms": None}
    read = written(rows).read().to_pylist()
    assert [{name: as_in_json(value) for name, value in each.items()} for each in read] == rows


def test_columns_have_the_types_of_the_contract_in_its_order():
    types = {
        "text": pa.string(),
        "json": pa.string(),
        "integer": pa.int64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    for rows in ([], [row(1)], [row(1) | dict.fromkeys(NAMES)]):
        schema = written(rows).schema_arrow
        assert [(field.name, field.type) for field in schema] == [(name, types[kind]) for name, kind in COLUMNS]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "many"),
        ("status", 2.5),
        ("status", True),
        ("tenant", 7),
        ("opened_at", "yesterday"),
        ("opened_at", 5),
        ("exported", 1),
        ("cost_nano", 2**63),
    ],
)
def test_a_value_that_its_column_cannot_hold_is_named_and_not_bent(name, value):
    with pytest.raises(UnfitValue, match=f"{name} is not .* {row(1)['export_id']}"):
        write_parquet([row(1) | {name: value}], io.BytesIO())


class Counted(dict[str, Any]):
    """A row that is counted as long as it is alive."""

    alive = 0
    most = 0

    def __init__(self, values: Record) -> None:
        super().__init__(values)
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self) -> None:
        Counted.alive -= 1


def test_many_rows_are_written_in_groups_and_never_held_together():
    template = row(1)

    def rows() -> Iterator[Counted]:
        for _ in range(70_000):
            yield Counted(template)

    out = io.BytesIO()
    assert write_parquet(rows(), out, COLUMNS[:12]) == 70_000
    file = pq.ParquetFile(io.BytesIO(out.getvalue()))
    assert [file.metadata.row_group(group).num_rows for group in range(3)] == [32_768, 32_768, 4_464]
    assert Counted.most <= 2_001


def test_without_its_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"^needs the extra parquet: pip install 'tokenport\[parquet\]'"):
        write_parquet([row(1)], io.BytesIO())
