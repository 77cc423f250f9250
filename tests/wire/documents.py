"""Strategies for JSON documents as clients and backends may write them, and an independent reading of them."""

import json
from typing import Any

from hypothesis import strategies as st

SPACE = st.sampled_from(["", "", "", " ", "\n", "\t ", " \r\n "])
# What a scanner of raw bytes could take for structure, and what escapes could hide.
LOOKALIKES = st.sampled_from(
    ['"', "\\", '\\"', '\\\\"', '"}', "{", "[", "]}", ",", ":", '","model":"x', "é", "\U0001f600", "\n", "\x00", "/"]
)
TEXT = st.lists(st.one_of(LOOKALIKES, st.text(st.characters(codec="utf-8"), max_size=4)), max_size=4).map("".join)
KEYS = st.one_of(st.sampled_from(["model", "stream", "stream_options", "usage", "choices", ""]), TEXT)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def string(draw: st.DrawFn, text: str) -> str:
    """A JSON string in any spelling: raw UTF-8, ASCII only, or escaped beyond need."""
    spelling = draw(st.sampled_from(["raw", "ascii", "all"]))
    if spelling == "all":
        units = text.encode("utf-16-be")
        return '"' + "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2)) + '"'
    return json.dumps(text, ensure_ascii=spelling == "ascii")


@st.composite
def value(draw: st.DrawFn, content: Any) -> str:
    """JSON text of a value, with white space wherever it may stand."""
    if isinstance(content, str):
        return draw(string(content))
    if isinstance(content, dict):
        return draw(objects(list(content.items())))
    if isinstance(content, list):
        parts = [draw(SPACE) + draw(value(each)) + draw(SPACE) for each in content]
        return "[" + ",".join(parts or [draw(SPACE)]) + "]"
    return json.dumps(content)


@st.composite
def objects(draw: st.DrawFn, members: list[tuple[str, Any]]) -> str:
    """JSON text of an object from its members, duplicates included."""
    parts = []
    for key, content in members:
        name = draw(SPACE) + draw(string(key)) + draw(SPACE)
        parts.append(name + ":" + draw(SPACE) + draw(value(content)) + draw(SPACE))
    return "{" + ",".join(parts or [draw(SPACE)]) + "}"


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], bytes]:
    members = draw(st.lists(st.tuples(KEYS, VALUES), max_size=6))
    return members, (draw(SPACE) + draw(objects(members)) + draw(SPACE)).encode()


def pairs(raw: bytes) -> list[tuple[str, Any]]:
    """The members of the outermost object in order, duplicates included."""
    found: list[tuple[str, Any]] = json.loads(raw, object_pairs_hook=_Pairs).members
    return [(key, _plain(content)) for key, content in found]


class _Pairs:
    def __init__(self, members: list[tuple[str, Any]]) -> None:
        self.members = members


def _plain(content: Any) -> Any:
    if isinstance(content, _Pairs):
        return {key: _plain(each) for key, each in content.members}
    return [_plain(each) for each in content] if isinstance(content, list) else content
