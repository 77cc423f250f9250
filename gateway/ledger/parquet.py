"""Rows as Parquet, written in row groups: what is in memory does not depend on how many rows there are.

Types say what a column is: int64, bool, string, timestamp[us, UTC], and decimals where amounts are not whole. What many
rows have in common is dictionary encoded. Needs the extra `parquet`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, BinaryIO

from gateway.extras import extra
from pricing.export import COLUMNS, Column

_BATCH_ROWS = 1000  # as many as a reader takes at once
# A row is about 1 KB, most of it attempts: groups of 32 MB, of which one is in memory.
_GROUP_ROWS = 32_768
# Nearly every row has another one, and a dictionary of them would only be in the way.
_DISTINCT = frozenset({"export_id", "request_id", "seq", "opened_at", "ended_at", "attempts_json"})
_DECIMAL = (38, 18)  # digits, and those behind the point: nano units per kWh times micro-watt-hours

Rows = Iterable[Mapping[str, object]]


class UnfitValue(Exception):
    """A row holds what its column cannot; the message names both."""


def write_parquet(rows: Rows, out: BinaryIO, columns: Sequence[Column] = COLUMNS) -> int:
    """Returns the number of rows.

    Raises:
        MissingExtra: pyarrow is not installed.
        UnfitValue: what was written until then is no file.
    """
    pa, parquet = extra("parquet", "pyarrow", "pyarrow.parquet")
    converter = Converter(columns, pa)
    dictionaries = [column.name for column in columns if column.name not in _DISTINCT]
    written = 0
    rows = iter(rows)
    with parquet.ParquetWriter(out, converter.schema, compression="zstd", use_dictionary=dictionaries) as writer:
        while batches := list(converter.batches(islice(rows, _GROUP_ROWS))):
            group = pa.Table.from_batches(batches, converter.schema)
            writer.write_table(group, row_group_size=_GROUP_ROWS)
            written += group.num_rows
    return written


class Converter:
    """Rows to record batches of one schema."""

    def __init__(self, columns: Sequence[Column], pa: Any) -> None:
        kinds = {
            "text": pa.string(),
            "json": pa.string(),
            "integer": pa.int64(),
            "bool": pa.bool_(),
            "time": pa.timestamp("us", tz="UTC"),
            "decimal": pa.decimal128(*_DECIMAL),
        }
        self._pa = pa
        self._columns = columns
        self.schema = pa.schema([(column.name, kinds[column.kind]) for column in columns])

    def batches(self, rows: Rows) -> Iterator[Any]:
        """Raises UnfitValue."""
        rows = iter(rows)
        while chunk := list(islice(rows, _BATCH_ROWS)):
            arrays = [
                self._array(chunk, column, field.type) for column, field in zip(self._columns, self.schema, strict=True)
            ]
            yield self._pa.record_batch(arrays, schema=self.schema)

    def _array(self, chunk: Sequence[Mapping[str, object]], column: Column, wanted: Any) -> Any:
        pa, name = self._pa, column.name
        # The type is inferred first: told what to make of it, Arrow would cut a fraction off and say nothing.
        read_as = wanted if column.kind == "decimal" else pa.string() if column.kind == "time" else None
        try:
            array = pa.array([row[name] for row in chunk], read_as)
            if array.type == wanted:
                return array
            if column.kind == "time" or pa.types.is_null(array.type):
                return array.cast(wanted)
        except (pa.ArrowException, OverflowError):
            pass
        raise UnfitValue(f"{name} is not {column.kind} in every row from {chunk[0].get('export_id')} on; see verify")
