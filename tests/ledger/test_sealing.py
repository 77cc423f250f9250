"""Closed segments are compressed and sealed whatever happens, and everything reads on in what is left."""

import os
import shutil
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.ledger import lock
from gateway.ledger.following import Position, follow
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.log import LogWriter
from gateway.ledger.reading import Reader
from gateway.ledger.recovery import recover
from gateway.ledger.sealing import Sealer, Sealing, due
from gateway.ledger.sealkey import SealKeyError, load_key, load_or_make_key, parse_public_key, public_hex
from gateway.ledger.seals import BadSeal, read_seal, read_seals, seal_path, sealed_segments
from gateway.ledger.segment import NO_HASH, hash_of, segment_numbers, segment_path
from gateway.ledger.segmentfile import SegmentFile, read_lines
from gateway.ledger.storage import SegmentIO

from .exports import NOW_S, export_id, lines, opening, row, write_log
from .sealing import PLAIN_S, SMALL, last_closing, names, seal, seal_whole, write_small


def test_closed_segments_are_sealed_and_the_open_one_is_not(tmp_path):
    directory = write_small(tmp_path)
    result = seal(tmp_path)
    assert result.sealed == [(0, 1), (0, 2)]
    assert result.damaged == result.removed == []
    assert [each.segment for each in read_seals(tmp_path / "ledger")] == sealed_segments(directory) == [1, 2]
    assert names(directory) == [
        *("000001.jsonl", "000001.jsonl.zst", "000001.seal"),
        *("000002.jsonl", "000002.jsonl.zst", "000002.seal"),
        "000003.jsonl",
    ]


def test_a_seal_says_what_the_segment_holds(tmp_path):
    directory = write_small(tmp_path)
    content = {number: segment_path(directory, number).read_bytes() for number in (1, 2)}
    seal_whole(tmp_path)
    first, second = read_seals(tmp_path / "ledger")
    for each in (first, second):
        held = content[each.segment].splitlines()
        assert (each.count, each.plain_bytes) == (len(held), len(content[each.segment]))
        assert (each.first_hash, each.last_hash) == (hash_of(held[0]), hash_of(held[-1]))
        assert sum(frame.lines for frame in each.frames) == each.count
    assert (first.follows, first.previous, first.count_before, first.seq_before) == (NO_HASH, NO_HASH, 0, 0)
    assert (second.follows, second.previous) == (first.last_hash, first.hash)
    assert (second.count_before, second.seq_before) == (first.count, first.rows)
    with Reader(tmp_path) as reader:
        rows = [each for each in reader.rows() if each["seq"] < first.rows]
    assert first.sums["delivered_tokens"] == first.sums["exported_tokens"] == sum(r["delivered_tokens"] for r in rows)
    assert first.sums["cost_nano"] == sum(r["cost_nano"] for r in rows)
    assert first.outcomes == {"completed": first.rows}
    assert (first.first_ended_at, first.last_ended_at) == (rows[0]["ended_at"], rows[-1]["ended_at"])


def test_a_seal_is_signed_by_the_key_of_the_data_directory(tmp_path):
    write_small(tmp_path)
    seal(tmp_path)
    key = public_hex(load_key(tmp_path))
    assert all(each.public_key == key and each.signed_by(key) for each in read_seals(tmp_path / "ledger"))
    other = public_hex(load_or_make_key(tmp_path / "ledger"))
    assert not any(each.signed_by(other) for each in read_seals(tmp_path / "ledger"))


def test_common_tools_read_what_is_left(tmp_path):
    directory = write_small(tmp_path)
    content = segment_path(directory, 1).read_bytes()
    seal_whole(tmp_path)
    with (directory / "000001.jsonl.zst").open("rb") as file:
        assert zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read() == content


def test_a_plain_file_stays_for_its_time_and_goes_then(tmp_path):
    directory = write_small(tmp_path)
    seal(tmp_path, after_s=PLAIN_S - 1)
    assert segment_path(directory, 2).exists()
    assert not due(tmp_path / "ledger", PLAIN_S, last_closing(directory) + PLAIN_S - 1)
    assert due(tmp_path / "ledger", PLAIN_S, last_closing(directory) + PLAIN_S)
    assert seal_whole(tmp_path).removed == [(0, 1), (0, 2)]
    assert names(directory) == [
        *("000001.jsonl.zst", "000001.seal", "000002.jsonl.zst", "000002.seal"),
        "000003.jsonl",
    ]
    assert not due(tmp_path / "ledger", PLAIN_S, last_closing(directory) + 1e9)


def test_a_segment_that_was_begun_and_never_acknowledged_closes_nothing(tmp_path):
    directory = tmp_path / "ledger" / "0"
    write_log(directory, [row(1)])
    segment_path(directory, 2).write_bytes(b'{"record":"segm')
    assert not due(tmp_path / "ledger", 0, NOW_S)
    result = Sealing()
    Sealer(tmp_path / "ledger", load_or_make_key(tmp_path), 0, lambda: NOW_S).run((), result)
    assert result == Sealing()


# ---- reading what is left


def test_everything_reads_the_same_from_compressed_segments(tmp_path):
    directory = write_small(tmp_path)
    plain = {number: list(read_lines(directory, number)) for number in (1, 2, 3)}
    with Reader(tmp_path) as reader:
        rows, sums = list(reader.rows()), reader.sums()
    seal_whole(tmp_path)
    assert segment_numbers(directory) == [1, 2, 3]
    assert {number: list(read_lines(directory, number)) for number in (1, 2, 3)} == plain
    with Reader(tmp_path) as reader:
        assert (list(reader.rows()), reader.sums()) == (rows, sums)
    index = Index(tmp_path / "ledger" / INDEX_NAME)
    index.fold(tmp_path / "ledger")
    index.close()
    with Reader(tmp_path) as reader:
        assert (list(reader.rows()), reader.sums()) == (rows, sums)


def test_a_follower_goes_on_from_every_line_of_a_compressed_segment(tmp_path):
    directory = write_small(tmp_path)
    every = [line for number in (1, 2, 3) for line in read_lines(directory, number)]
    seal_whole(tmp_path)
    for line in every:
        place = Position(line.segment, line.offset)
        read = [data for _, batch in follow(place, directory, 0, None) for data in batch]
        assert read == [each.data for each in every if (each.segment, each.offset) >= place]


def test_a_follower_whose_plain_segment_vanishes_goes_on_in_the_compressed_one(tmp_path):
    directory = write_small(tmp_path)
    expected = lines(directory)
    seal(tmp_path)
    reading = follow(Position(0, 0), directory, 0, None)
    place, read = next(reading)
    assert place.segment == 1
    seal_whole(tmp_path)
    assert not segment_path(directory, 1).exists()
    for _, batch in reading:
        read += batch
    assert read == expected


def test_a_reader_that_has_a_plain_segment_open_reads_on_when_it_goes(tmp_path):
    directory = write_small(tmp_path)
    expected = segment_path(directory, 1).read_bytes()
    seal(tmp_path)
    with SegmentFile(directory, 1) as file:
        begun = file.read(0, 100)
        seal_whole(tmp_path)
        assert begun + file.read(100, 1 << 20) == expected


def test_an_open_that_is_carried_from_a_sealed_segment_is_recovered_with_all_it_said(tmp_path):
    directory = tmp_path / "ledger" / "0"
    writer = LogWriter(directory, 0, None, limits=SMALL)
    writer.append(opening(99, tenant="patient").entry())
    writer.flush()
    writer.close()
    write_small(tmp_path)
    seal_whole(tmp_path)
    assert not segment_path(directory, 1).exists()
    writer = LogWriter(directory, 0, None)
    assert recover(writer, NOW_S) == 1
    writer.close()
    with Reader(tmp_path) as reader:
        found = [each for each in reader.rows() if each["outcome"] == "recovered"]
    assert [(each["export_id"], each["tenant"]) for each in found] == [(export_id(99), "patient")]


def test_a_log_goes_on_behind_a_sealed_segment_even_if_all_behind_it_is_gone(tmp_path):
    directory = write_small(tmp_path)
    seal(tmp_path)
    before = segment_path(directory, 2).read_bytes()
    segment_path(directory, 3).unlink()
    (directory / "head").unlink()
    write_log(directory, [row(50)])
    assert segment_path(directory, 2).read_bytes() == before
    assert segment_numbers(directory) == [1, 2, 3]


# ---- crashes


class Killed(BaseException):
    """The process ends here."""


class DyingIO(SegmentIO):
    """Ends the process before its n-th operation, or in the middle of it if that writes."""

    def __init__(self, operations: int) -> None:
        self.left = operations

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def write_over(self, path: Path) -> int:
        self._step()
        return super().write_over(path)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.left == 0:
            super().write(descriptor, data[: len(data) // 2])
        self._step()
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._step()
        super().sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        self._step()
        super().sync_directory(path)

    def rename(self, path: Path, to: Path) -> None:
        self._step()
        super().rename(path, to)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)


def test_a_pass_may_be_killed_before_each_of_its_steps(tmp_path):
    write_small(tmp_path / "good")
    load_or_make_key(tmp_path / "good")
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "good", whole)
    seal_whole(whole)
    expected = {name: (whole / "ledger" / "0" / name).read_bytes() for name in names(whole / "ledger" / "0")}
    steps = 0
    while True:
        data_dir = tmp_path / f"killed-{steps}"
        shutil.copytree(tmp_path / "good", data_dir)
        directory = data_dir / "ledger" / "0"
        content = lines(directory)
        try:
            seal(data_dir, after_s=PLAIN_S, io=DyingIO(steps))
        except Killed:
            pass
        else:
            break
        # At no time anything is missing, and the next pass ends where this one would have.
        assert [line.data for number in (1, 2, 3) for line in read_lines(directory, number)] == content
        seal_whole(data_dir)
        assert {name: (directory / name).read_bytes() for name in names(directory)} == expected
        shutil.rmtree(data_dir)
        steps += 1
    assert steps > 2 * 11


def test_a_disk_that_is_full_leaves_nothing_half_done(tmp_path):
    directory = write_small(tmp_path)

    class FullIO(SegmentIO):
        def write(self, descriptor: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        seal(tmp_path, io=FullIO())
    assert names(directory) == ["000001.jsonl", "000002.jsonl", "000003.jsonl"]
    assert seal(tmp_path).sealed == [(0, 1), (0, 2)]


def test_two_passes_at_once_are_one(tmp_path):
    write_small(tmp_path)
    held = lock.take(tmp_path / "ledger")
    with pytest.raises(lock.LedgerBusy):
        seal(tmp_path)
    os.close(held)


# ---- damage


@pytest.mark.parametrize(
    ("damage", "line", "problem"),
    [
        (lambda data: data[:230] + bytes([data[230] ^ 1]) + data[231:], 3, "does not follow the line before it"),
        (lambda data: b"".join(data.splitlines(keepends=True)[:-1]), None, "is not what the next segment follows"),
        (lambda data: b"", 1, "is empty"),
    ],
)
def test_a_damaged_segment_is_named_and_neither_sealed_nor_deleted(tmp_path, damage, line, problem):
    directory = write_small(tmp_path)
    path = segment_path(directory, 1)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    result = seal_whole(tmp_path)
    (found,) = result.damaged
    assert (found.log, found.segment) == (0, 1)
    assert found.line == line or line is None
    assert problem in found.problem
    assert result.sealed == [(0, 2)]
    assert path.read_bytes() == damaged
    assert not seal_path(directory, 1).exists()
    assert not list(directory.glob("*.new"))
    assert not due(tmp_path / "ledger", PLAIN_S, 1e12, {(0, 1)})


def test_a_plain_file_whose_compressed_one_went_bad_stays(tmp_path):
    directory = write_small(tmp_path)
    seal(tmp_path)
    packed = directory / "000001.jsonl.zst"
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(data)
    result = seal_whole(tmp_path)
    assert [each.segment for each in result.damaged] == [1]
    assert segment_path(directory, 1).exists()
    assert not segment_path(directory, 2).exists()


def test_readers_pass_over_a_frame_that_does_not_unpack_and_read_the_rest(tmp_path):
    directory = write_small(tmp_path)
    with Reader(tmp_path) as reader:
        rows = {each["seq"] for each in reader.rows()}
    seal_whole(tmp_path)
    first = read_seal(directory, 1).rows
    packed = directory / "000001.jsonl.zst"
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(data)
    with Reader(tmp_path) as reader:
        assert {each["seq"] for each in reader.rows()} == rows - set(range(first))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (lambda data: data[:-1], "is not as it was written"),
        (lambda data: data.replace(b'"rows":', b'"rows": '), "is not as it was written"),
        (lambda data: data.replace(b'"version":1', b'"version":2'), "is of version 2, later than this software"),
        (lambda data: data.replace(b'"count":', b'"count":-'), "has no good count"),
        (lambda data: data.replace(b'"segment":1,', b'"segment":7,'), "is the seal of 0/000007"),
        (lambda data: b"\xff", "is not readable"),
        (lambda data: b"[" * 100_000, "is not readable"),
        (lambda data: b"", "is not readable"),
    ],
)
def test_a_seal_that_is_none_is_said_to_be(tmp_path, changed, problem):
    directory = write_small(tmp_path)
    seal(tmp_path)
    path = seal_path(directory, 1)
    path.write_bytes(changed(path.read_bytes()))
    with pytest.raises(BadSeal, match=problem):
        read_seals(tmp_path / "ledger")
    assert sealed_segments(directory) == [2]


# ---- the key


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    made = public_hex(load_or_make_key(tmp_path))
    path = tmp_path / "seal.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_hex(load_or_make_key(tmp_path)) == public_hex(load_key(tmp_path)) == made
    assert [each.name for each in tmp_path.iterdir()] == ["seal.key"]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.chmod(0o640), "others may use it .mode 0640.; chmod 600 it"),
        (lambda path: path.write_bytes(b""), "is not an Ed25519 key"),
        (lambda path: path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "is not an"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a file"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_and_never_replaced(tmp_path, spoil, problem):
    load_or_make_key(tmp_path)
    path = tmp_path / "seal.key"
    spoil(path)
    before = path.stat()
    with pytest.raises(SealKeyError, match=problem):
        load_or_make_key(tmp_path)
    assert path.stat().st_ino == before.st_ino


def test_a_public_key_is_given_as_digits_or_as_a_file(tmp_path):
    key = load_or_make_key(tmp_path)
    digits = public_hex(key)
    (tmp_path / "digits").write_text(digits.upper() + "\n")
    (tmp_path / "pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for given in (digits, f" {digits} ", str(tmp_path / "digits"), str(tmp_path / "pem")):
        assert parse_public_key(given) == digits
    for wrong in ("", "abc", str(tmp_path), str(tmp_path / "seal.key"), "\0", "x" * 5000):
        with pytest.raises(SealKeyError):
            parse_public_key(wrong)
