"""Records on their way to the log: encoded once, where they are made, but for what only the log can say of them.

Most of what a record says does not depend on the request, and every request is recorded twice. So records are bytes
from the start, and the parts that requests share (prices, names of columns) are encoded once. A record is three pieces
of text: what is long is hashed and written as it is, and never copied for the sake of a number that comes before it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import orjson

Source = TypeVar("Source")
Encoded = TypeVar("Encoded")

_SHARED_MAX = 2048  # tenants x keys x models x routes x periods of prices in use at a time; about 8 MB at most


class Entry:
    """A record: the text of its JSON object without the closing brace, in pieces. An end has gaps for its numbers:
    `seq` goes between `head` and `body`, `log` between `body` and `tail`. `then` is called once it is durable."""

    __slots__ = ("body", "export_id", "head", "kind", "tail", "then")

    def __init__(self, kind: str, export_id: str, head: bytes, body: bytes = b"", tail: bytes = b"") -> None:
        self.kind = kind
        self.export_id = export_id
        self.head = head
        self.body = body
        self.tail = tail
        self.then: Callable[[], None] | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Entry":
        return cls(str(record["record"]), str(record.get("export_id", "")), orjson.dumps(record)[:-1])

    def number(self, seq: int, log: int) -> None:
        """Fill the gaps of an end."""
        self.head += b"%d" % seq
        self.tail = b"%d%b" % (log, self.tail)


class Shared(Generic[Source, Encoded]):
    """What a source that many requests share becomes, kept while it is in use.

    Found by identity: to compare the members of a source would cost more than half of what encoding them does.
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
