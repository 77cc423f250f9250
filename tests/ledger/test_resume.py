"""A start cuts what was torn, keeps what is whole, and names what is damaged."""

from typing import Any

import orjson
import pytest

from gateway.ledger.lock import held
from gateway.ledger.log import LedgerUnavailable
from gateway.ledger.segment import read_head
from gateway.ledger.verify import verify

from .exports import an_end, ends, row, settled, start, write_log


@pytest.mark.parametrize("torn", [b'{"record":"open","expo', b"\0\0\0\0", b'{"a":1}'])
async def test_a_torn_last_line_is_cut(directory, torn):
    write_log(directory, [row(1)])
    segment = directory / "000001.jsonl"
    whole = segment.read_bytes()
    segment.write_bytes(whole + torn)
    assert verify(directory.parent.parent) == []
    writer = start(directory)
    assert writer.found_damage is None
    await settled(writer, 2)
    writer.close()
    assert segment.read_bytes().startswith(whole + b'{"record":"open"')
    assert verify(directory.parent.parent) == []


async def test_a_segment_that_was_torn_at_birth_is_begun_again(directory):
    write_log(directory, [row(1)])
    (directory / "000002.jsonl").write_bytes(b'{"record":"segm')
    writer = start(directory)
    await settled(writer, 2)
    writer.close()
    assert [end["seq"] for end in ends(directory)] == [0, 1]
    assert verify(directory.parent.parent) == []


@pytest.mark.parametrize("head", [b"", b"\0" * 256])
async def test_whole_lines_beyond_a_lost_head_are_kept(directory, head):
    write_log(directory, [row(1), row(2)])
    (directory / "head").write_bytes(head)
    writer = start(directory)
    await settled(writer, 3)
    writer.close()
    assert [end["seq"] for end in ends(directory)] == [0, 1, 2]
    found = read_head(directory)
    assert found is not None
    assert found.count == 7
    assert verify(directory.parent.parent) == []


def damage_cases() -> dict[str, Any]:
    def flip(content: bytes) -> tuple[bytes, int]:
        at = content.index(b'"tenant":"acme"', content.index(b'"record":"settled"')) + 11
        return content[:at] + b"X" + content[at + 1 :], content[:at].count(b"\n") + 1

    def drop_line(content: bytes) -> tuple[bytes, int]:
        parts = content.splitlines(keepends=True)
        return b"".join(parts[:2] + parts[3:]), 3

    def cut_tail(content: bytes) -> tuple[bytes, int]:
        parts = content.splitlines(keepends=True)
        return b"".join(parts[:-1]), len(parts)

    def cut_in_line(content: bytes) -> tuple[bytes, int]:
        return content[:-10], content.count(b"\n")

    return {"flip": flip, "drop a line": drop_line, "cut the tail": cut_tail, "cut in a line": cut_in_line}


@pytest.mark.parametrize("damage", damage_cases().values(), ids=damage_cases())
async def test_damage_leaves_the_segment_as_it_is_and_a_new_one_names_the_break(directory, damage):
    write_log(directory, [row(1), row(2), row(3)])
    segment = directory / "000001.jsonl"
    content, line = damage(segment.read_bytes())
    segment.write_bytes(content)
    writer = start(directory)
    assert writer.found_damage is not None
    for export in list(writer.found_open):
        writer.terminal(an_end(row(1) | {"export_id": export}))
    await settled(writer, 4)
    writer.close()
    assert segment.read_bytes() == content
    first = orjson.loads((directory / "000002.jsonl").read_bytes().splitlines()[0])
    # A changed line shows in the line after it.
    assert (first["record"], first["broken_segment"]) == ("break", 1)
    assert first["broken_line"] in (line, line + 1)
    named = {(finding.segment, finding.line) for finding in verify(directory.parent.parent)}
    assert ("0/000001.jsonl", first["broken_line"]) in named
    assert len({end["seq"] for end in ends(directory)}) == len(ends(directory)), "no seq is given twice"


async def test_a_log_of_a_later_version_is_refused(directory):
    write_log(directory, [row(1)])
    segment = directory / "000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"v":1', b'"v":2'))
    with pytest.raises(LedgerUnavailable, match="version 2"):
        start(directory)
    assert not held(directory)
