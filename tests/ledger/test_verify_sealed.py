"""The audit of sealed segments: what was done to a ledger of 10,000 rows is found, and located."""

import dataclasses
import re
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.ledger.frames import Packer, in_frames
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.sealkey import load_key, load_or_make_key, public_hex, sign
from gateway.ledger.seals import Seal, read_seal
from gateway.ledger.segment import sealed_path, segment_path
from gateway.ledger.tail import LogLimits
from gateway.ledger.verify import Finding, audit, verify

from .exports import row, write_log
from .sealing import SMALL, seal, seal_whole, write_small
from .traffic import write_traffic

ROWS = 10_000
LAST_SEALED = 8  # of it the plain file is still there; 9 is open


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


# ---- seals, keys, index


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A data directory with two sealed segments and an open one, and an index."""
    write_small(tmp_path)
    seal_whole(tmp_path)
    index = Index(tmp_path / "ledger" / INDEX_NAME)
    index.fold(tmp_path / "ledger")
    index.close()
    assert verify(tmp_path) == audit(tmp_path / "ledger", deep=True).findings == []
    return tmp_path


def test_seals_and_lines_give_the_same_sums(small):
    by_seals, by_lines = (audit(small / "ledger", deep=deep) for deep in (False, True))
    assert by_seals.summary.flat() == by_lines.summary.flat()
    assert (by_seals.sealed, by_seals.walked) == (2, 1)
    assert (by_lines.sealed, by_lines.walked) == (0, 3)


@pytest.mark.parametrize("deep", [False, True])
def test_seals_of_another_key_are_found_and_an_older_key_may_be_given(small, deep):
    ledger = small / "ledger"
    first = public_hex(load_key(small))
    assert audit(ledger, deep=deep).trusted_key == first
    other = public_hex(load_or_make_key(ledger))
    problems = {each.problem for each in audit(ledger, deep=deep, public_keys=(other,)).findings}
    assert problems == {f"is signed by another key, {first}"}
    assert audit(ledger, deep=deep, public_keys=(other, first)).findings == []


def test_a_second_key_is_found_where_none_is_given(small):
    directory = small / "ledger" / "0"
    segment_path(directory, 2).write_bytes(plain_of(directory, 2))
    for path in (sealed_path(directory, 2), directory / "000002.seal"):
        path.unlink()
    (small / "seal.key").rename(small / "lost.key")
    seal(small)
    findings = verify(small)
    assert [each.segment for each in findings] == ["0/000002.seal"]
    assert "is signed by another key than the others" in findings[0].problem
    keys = [public_hex(load_key(small))]
    (small / "lost.key").rename(small / "seal.key")
    assert audit(small / "ledger", public_keys=[*keys, public_hex(load_key(small))]).findings == []


def test_a_seal_that_was_made_anew_with_the_right_key_shows_in_the_next_one(small):
    directory = small / "ledger" / "0"
    members = {field.name: getattr(read_seal(directory, 1), field.name) for field in dataclasses.fields(Seal)}
    for name in ("version", "public_key", "signature"):
        del members[name]
    again = sign(members | {"sealed_at": "2020-01-01T00:00:00.000000Z"}, load_key(small))
    (directory / "000001.seal").write_bytes(again.encoded() + b"\n")
    problem = "does not follow the seal before it: that was changed, or one is missing"
    assert verify(small) == [Finding("0/000002.seal", 0, problem)]


def test_a_seal_that_was_dropped_is_found(small):
    path = small / "ledger" / "0" / "000002.seal"
    path.unlink()
    assert verify(small) == [Finding("0/000002.seal", 0, "is missing, and the plain file is gone")]


def test_a_compressed_file_that_was_dropped_is_found(small):
    sealed_path(small / "ledger" / "0", 1).unlink()
    assert verify(small)[0] == Finding("0/000001.jsonl.zst", 0, "is missing, and sealed")


def change(data_dir: Path, sql: str) -> None:
    with sqlite3.connect(data_dir / "ledger" / INDEX_NAME) as connection:
        assert connection.execute(sql).rowcount
    connection.close()


def test_a_changed_figure_of_a_sealed_row_is_found_by_the_seals_and_located_by_the_deep_walk(small):
    change(small, "UPDATE ends SET input_tokens = input_tokens + 1, cost_nano = 7 WHERE seq = 0")
    assert verify(small) == [
        Finding(
            INDEX_NAME,
            0,
            "rows add up to other input_tokens, cost_nano than the logs: verify --deep says where; delete it, and it is"
            " rebuilt",
        )
    ]
    found = audit(small / "ledger", deep=True).findings
    assert Finding("0/000001.jsonl.zst", 3, "differs in the index: input_tokens, attempts_json, cost_nano") in found


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("UPDATE rollups SET cost_nano = cost_nano + 1", "rollups add up to other cost_nano"),
        ("UPDATE spent SET tokens = tokens + 1", "budgets add up to other tokens"),
        (
            "INSERT INTO refusals VALUES ('2025-11-24T16:00:00.000000Z', 'acme', 'budget', 3)",
            "refusals add up to other",
        ),
        ("DELETE FROM ends WHERE seq = 1", "rows add up to other requests"),
    ],
)
def test_a_changed_sum_of_sealed_rows_is_found_without_unpacking(small, sql, what):
    change(small, sql)
    assert any(what in each.problem for each in verify(small))
    assert audit(small / "ledger", deep=True).findings


def test_a_changed_word_of_a_sealed_row_is_found_by_the_deep_walk(small):
    change(small, "UPDATE ends SET request_id = 'other' WHERE seq = 1")
    assert audit(small / "ledger", deep=True).findings == [
        Finding("0/000001.jsonl.zst", 5, "differs in the index: request_id")
    ]


def test_a_changed_row_of_the_open_segment_is_located(small):
    first = read_seal(small / "ledger" / "0", 2)
    change(small, f"UPDATE ends SET cost_nano = 7 WHERE seq = {first.seq_before + first.rows}")
    assert any(
        each.segment == "0/000003.jsonl" and each.problem == "differs in the index: cost_nano" for each in verify(small)
    )


def test_an_index_that_ends_within_a_sealed_segment_is_compared_as_far_as_it_goes(tmp_path):
    directory = write_small(tmp_path, rows=5)
    index = Index(tmp_path / "ledger" / INDEX_NAME)
    index.fold(tmp_path / "ledger")
    index.close()
    write_log(directory, [row(number) for number in range(5, 12)], singly=True, limits=SMALL)
    seal_whole(tmp_path)
    assert verify(tmp_path) == []
    change(tmp_path, "UPDATE ends SET cost_nano = 7 WHERE seq = 4")
    assert any(each.problem == "differs in the index: cost_nano" for each in verify(tmp_path))
