"""Records on their way to the log: encoded once, where they are made, but for their place in the chain.

Most of what a record says does not depend on the request, and every request is recorded twice. So records are bytes
from the start, and the parts that requests share (prices, names of columns) are encoded once.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import orjson

Source = TypeVar("Source")
Encoded = TypeVar("Encoded")

_SHARED_MAX = 1024  # routes x periods of prices, or tenants, in use at a time; about 0.5 MB


class Entry:
    """A record that has its final text, but for the hash of the line before it."""

    __slots__ = ("body", "export_id", "kind")

    def __init__(self, kind: str, export_id: str, body: bytes) -> None:
        self.kind = kind
        self.export_id = export_id
        self.body = body

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Entry":
        return cls(str(record["record"]), str(record.get("export_id", "")), orjson.dumps(record))


class Terminal:
    """The end of an export. Its numbers `seq` and `log` are the log's to give: the text stops before each of them."""

    __slots__ = ("export_id", "kind", "rest", "to_log", "to_seq")

    def __init__(self, kind: str, export_id: str, to_seq: bytes, to_log: bytes, rest: bytes) -> None:
        self.kind = kind
        self.export_id = export_id
        self.to_seq = to_seq
        self.to_log = to_log
        self.rest = rest

    def entry(self, seq: int, log: int) -> Entry:
        return Entry(self.kind, self.export_id, b"%b%d%b%d%b" % (self.to_seq, seq, self.to_log, log, self.rest))


class Shared(Generic[Source, Encoded]):
    """What a source that many requests share becomes, kept while it is in use.

    Found by identity: to compare the numbers of a source would cost more than half of what encoding them does.
    """

    def __init__(self, encode: Callable[[Source], Encoded]) -> None:
        self._encode = encode
        self._found: dict[int, tuple[Source, Encoded]] = {}

    def of(self, source: Source) -> Encoded:
        found = self._found.get(id(source))
        if found is None or found[0] is not source:
            if len(self._found) >= _SHARED_MAX:
                self._found.clear()
            found = self._found[id(source)] = (source, self._encode(source))
        return found[1]
