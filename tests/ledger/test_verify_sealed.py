"""The audit of sealed segments: what was done to a ledger of 10,000 rows is found, and located."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.ledger.frames import Packer, in_frames
from gateway.ledger.seals import read_seal
from gateway.ledger.segment import sealed_path, segment_path
from gateway.ledger.tail import LogLimits
from gateway.ledger.verify import Finding, verify

from .sealing import seal_whole
from .traffic import write_traffic

ROWS = 10_000
LAST_SEALED = 8  # of it the plain file is still there; 9 is open
Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 10,000 rows, sealed but for its last segment; each example puts back what it damaged."""
    data_dir = tmp_path_factory.mktemp("whole")
    log = data_dir / "ledger" / "0"
    write_traffic(log, ROWS, limits=LogLimits(segment_bytes_max=4_050_000))
    seal_whole(data_dir)
    segment_path(log, LAST_SEALED).write_bytes(plain_of(log, LAST_SEALED))
    assert sorted(path.name for path in log.glob("*.jsonl")) == ["000008.jsonl", "000009.jsonl"]
    assert verify(data_dir) == []
    return log


def plain_of(log: Path, segment: int) -> bytes:
    with sealed_path(log, segment).open("rb") as file:
        data: bytes = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    return data


def packed(lines: Sequence[bytes]) -> bytes:
    packer = Packer()
    return b"".join(packer.pack(len(each), b"".join(each))[1] for each in in_frames(lines))


def found_after(path: Path, data: bytes) -> list[Finding]:
    """The findings with other bytes in a file, which are put back."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        return verify(path.parents[2])
    finally:
        path.write_bytes(before)


def line_of(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def flipped(data: st.DataObject, content: bytes) -> tuple[int, bytes]:
    changed = bytearray(content)
    at = data.draw(st.integers(0, len(content) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    return at, bytes(changed)


@some
@given(data=st.data())
def test_a_changed_byte_of_a_compressed_segment_is_located_to_its_frame(directory, data):
    segment = data.draw(st.integers(1, LAST_SEALED))
    path = sealed_path(directory, segment)
    at, changed = flipped(data, path.read_bytes())
    frames = read_seal(directory, segment).frames
    frame = next(n for n in range(len(frames)) if at < sum(each.sealed_bytes for each in frames[: n + 1])) + 1
    findings = found_after(path, changed)
    assert any(each.segment == f"0/{path.name}" and f"frame {frame} " in each.problem for each in findings)
    assert {each.segment for each in findings} == {f"0/{path.name}"}


@some
@given(data=st.data())
def test_a_changed_byte_of_a_plain_segment_is_located_to_its_line(directory, data):
    segment = data.draw(st.sampled_from((LAST_SEALED, LAST_SEALED + 1)))
    path = segment_path(directory, segment)
    content = path.read_bytes()
    at, changed = flipped(data, content)
    findings = found_after(path, changed)
    line = line_of(content, at)
    # In the open segment it is the line itself, or the one behind it, which names other bytes before it.
    near = {line} if segment == LAST_SEALED else {line - 1, line, line + 1}
    assert {each.line for each in findings if each.segment == f"0/{path.name}"} & near


@some
@given(data=st.data())
def test_a_changed_byte_of_a_seal_is_located_to_the_seal(directory, data):
    path = directory / f"{data.draw(st.integers(1, LAST_SEALED)):06d}.seal"
    _, changed = flipped(data, path.read_bytes())
    assert any(each.segment == f"0/{path.name}" for each in found_after(path, changed))


def removed(lines: list[bytes], one: int, other: int) -> int:
    del lines[one]
    return one + 1


def repeated(lines: list[bytes], one: int, other: int) -> int:
    lines.insert(one, lines[other])
    return one + 1


def swapped(lines: list[bytes], one: int, other: int) -> int:
    if lines[one] == lines[other]:
        other = (one + 1) % len(lines)
    lines[one], lines[other] = lines[other], lines[one]
    return min(one, other) + 1


@some
@given(data=st.data(), change=st.sampled_from((removed, repeated, swapped)))
def test_a_line_that_is_deleted_inserted_or_swapped_is_located_in_every_form_of_a_segment(directory, data, change):
    segment = data.draw(st.integers(1, LAST_SEALED + 1))
    path = data.draw(
        st.sampled_from([p for p in (segment_path(directory, segment), sealed_path(directory, segment)) if p.exists()])
    )
    is_packed = path.suffix == ".zst"
    lines = (plain_of(directory, segment) if is_packed else path.read_bytes()).splitlines(keepends=True)
    place = st.integers(0, len(lines) - 1)
    line = change(lines, data.draw(place), data.draw(place))
    findings = found_after(path, packed(lines) if is_packed else b"".join(lines))
    located = [each for each in findings if each.segment == f"0/{path.name}"]
    assert located
    # At the end of a segment only what follows it tells, or its seal: then the place is the frame, or behind the end.
    frames = [
        tuple(map(int, re.findall(r"lines (\d+) to (\d+)", each.problem)[0]))
        for each in located
        if "lines " in each.problem
    ]
    assert any(abs(each.line - line) <= 1 for each in located) or any(
        low - 1 <= line <= high + 1 for low, high in frames
    )


@some
@given(data=st.data())
def test_a_cut_tail_is_located_in_every_form_of_a_segment(directory, data):
    segment = data.draw(st.integers(1, LAST_SEALED + 1))
    path = data.draw(
        st.sampled_from([p for p in (segment_path(directory, segment), sealed_path(directory, segment)) if p.exists()])
    )
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    findings = [each for each in found_after(path, content[:cut]) if each.segment == f"0/{path.name}"]
    if path.suffix == ".zst":
        assert any("frame " in each.problem for each in findings)
    else:
        assert {each.line for each in findings} & {
            line_of(content, cut) - 1,
            line_of(content, cut),
            line_of(content, cut) + 1,
        }


@some
@given(data=st.data())
def test_a_changed_or_cut_head_is_found(directory, data):
    path = directory / "head"
    content = path.read_bytes()
    _, changed = flipped(data, content)
    assert found_after(path, changed)
    assert found_after(path, content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize("segment", range(1, LAST_SEALED + 1))
def test_a_sealed_segment_that_is_dropped_with_its_seal_shows(directory, segment, tmp_path):
    shutil.copytree(directory.parents[1], tmp_path / "data")
    log = tmp_path / "data" / "ledger" / "0"
    for path in log.glob(f"{segment:06d}.*"):
        path.unlink()
    findings = verify(tmp_path / "data")
    assert Finding(f"0/{segment:06d}.jsonl", 0, "is missing") in findings
    if segment < LAST_SEALED:
        assert any(each.segment == f"0/{segment + 1:06d}.seal" for each in findings)
