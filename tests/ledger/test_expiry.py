"""Old segments go when nobody needs them any more, and whatever was summed up of them stays as it was."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.expiry import Expirer, Keep, expirable
from gateway.ledger.following import Position
from gateway.ledger.index import INDEX_NAME, Index, folded_positions
from gateway.ledger.instants import DAY_US, MICROS
from gateway.ledger.reading import Reader, RowsExpired
from gateway.ledger.rollups import BadRollups, read_rollups, rollup_numbers, rollup_path
from gateway.ledger.sealkey import load_or_make_key, public_hex
from gateway.ledger.seals import Seal, read_seal, seal_path
from gateway.ledger.segment import segment_numbers
from gateway.ledger.storage import SegmentIO
from gateway.ledger.tail import LogLimits
from gateway.ledger.verify import audit

from .exports import opening, row, start, write_log
from .sealing import last_closing, seal, seal_whole, write_small
from .traffic import write_traffic

ROWS = 900
EVERYTHING = Keep(bytes=1)
SUMS: tuple[dict[str, Any], ...] = (
    {},
    {"by": ("origin_country", "destination_country", "tenant", "model", "outcome")},
    {"by": ("tenant",), "period": "hour", "tz": "Asia/Kathmandu"},
)


def sums_of(data_dir: Path) -> list[Any]:
    with Reader(data_dir) as reader:
        found: list[Any] = [reader.sums(**asked) for asked in SUMS]
        return [*found, reader.spent(0, 4e9), reader.refusals()]


def going(data_dir: Path, keep: Keep = EVERYTHING, *, now: float = 0.0, shipped: Position | None = None) -> list[Seal]:
    """What may go of a ledger that an index has folded."""
    ledger = data_dir / "ledger"
    index = Index(ledger / INDEX_NAME)
    index.fold(ledger)
    index.close()
    return expirable(ledger, keep, now, lambda log: shipped, folded_positions(ledger / INDEX_NAME))


def expire(data_dir: Path, seals: list[Seal], io: SegmentIO | None = None) -> None:
    expirer = Expirer(data_dir / "ledger", load_or_make_key(data_dir), io=io)
    for each in seals:
        expirer.expire(each)


def shrink(data_dir: Path) -> int:
    ledger = data_dir / "ledger"
    index = Index(ledger / INDEX_NAME)
    rows = 0
    while gone := index.shrink(ledger):
        rows += gone
    index.close()
    return rows


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "ledger" / "0"
    write_traffic(directory, ROWS, per_s=1, limits=LogLimits(segment_bytes_max=200_000))
    seal_whole(tmp_path)
    return directory


def test_sums_outlive_the_rows_they_sum_with_the_index_and_without(tmp_path, directory):
    before = sums_of(tmp_path)
    seals = going(tmp_path)
    numbers = segment_numbers(directory)
    assert [each.segment for each in seals] == numbers[: len(seals)]
    assert len(seals) > 3
    expire(tmp_path, seals)
    assert segment_numbers(directory) == numbers[len(seals) :]
    assert rollup_numbers(directory) == [each.segment for each in seals]
    assert sums_of(tmp_path) == before
    assert shrink(tmp_path) == sum(each.rows for each in seals)
    assert sums_of(tmp_path) == before
    (tmp_path / "ledger" / INDEX_NAME).unlink()
    assert sums_of(tmp_path) == before
    assert going(tmp_path) == []  # folds a new index
    assert sums_of(tmp_path) == before
    with Reader(tmp_path) as reader:
        assert len(list(reader.rows())) + reader.expired() == ROWS


def test_an_index_that_let_go_is_smaller(tmp_path, directory):
    seals = going(tmp_path)
    index = tmp_path / "ledger" / INDEX_NAME
    size = index.stat().st_size
    expire(tmp_path, seals)
    shrink(tmp_path)
    assert index.stat().st_size < size * 0.7


def test_what_needs_rows_says_that_they_are_gone(tmp_path, directory):
    expire(tmp_path, going(tmp_path))
    shrink(tmp_path)
    with Reader(tmp_path) as reader:
        assert reader.expired() > 0
        with pytest.raises(RowsExpired, match=r"dialect: of .* rows that ended then only sums"):
            reader.sums(("dialect",))
        with pytest.raises(RowsExpired, match="bounds within a quarter of an hour: "):
            reader.sums((), start=1.5)


def test_only_what_is_old_enough_goes(tmp_path, directory):
    seals = going(tmp_path)
    ends = [last_closing(directory)] + [each.last_ended_at for each in seals]
    assert sorted(ends[1:]) == ends[1:]
    day_s = DAY_US / MICROS
    last = last_closing(directory)
    assert going(tmp_path, Keep(days=2), now=last + day_s) == []
    assert going(tmp_path, Keep(days=2), now=last + 3 * day_s) == seals
    assert going(tmp_path, Keep()) == []


def test_the_oldest_go_until_the_rest_is_small_enough(tmp_path, directory):
    sizes = {path.name: path.stat().st_size for path in directory.glob("*.jsonl*")}
    seals = going(tmp_path)
    keep = Keep(bytes=sum(sizes.values()) - seals[0].sealed_bytes - 1)
    assert going(tmp_path, keep) == seals[:2]


def test_what_a_store_has_not_taken_stays(tmp_path, directory):
    assert going(tmp_path, shipped=Position(0, 0)) == []
    assert [each.segment for each in going(tmp_path, shipped=Position(2, 10))] == [1]


def test_what_the_index_has_not_folded_stays(tmp_path, directory):
    assert expirable(tmp_path / "ledger", EVERYTHING, 0.0, lambda log: None, {}) == []


def test_what_is_not_sealed_or_has_its_plain_file_stays(tmp_path):
    directory = write_small(tmp_path)
    assert going(tmp_path) == []
    seal(tmp_path)
    assert going(tmp_path) == []
    seal_whole(tmp_path)
    assert [each.segment for each in going(tmp_path)] == segment_numbers(directory)[:-1]


async def test_what_holds_the_opening_of_a_request_under_way_stays(tmp_path):
    directory = tmp_path / "ledger" / "0"
    limits = LogLimits(segment_bytes_max=9000)
    write_log(directory, [row(number) for number in range(4)], singly=True, limits=limits)
    writer = start(directory, limits=limits)
    writer.append(opening(99).entry())
    writer.close()
    held = segment_numbers(directory)[-1]
    write_log(directory, [row(number) for number in range(100, 110)], singly=True, limits=limits)
    seal_whole(tmp_path)
    assert held < segment_numbers(directory)[-1]
    assert [each.segment for each in going(tmp_path)] == list(range(1, held))


class Crash(Exception):
    pass


class Crashing(SegmentIO):
    """Fails at the nth operation that changes a file."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def write(self, descriptor: int, data: bytes) -> int:
        self._step()
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._step()
        super().sync(descriptor)

    def rename(self, path: Path, to: Path) -> None:
        self._step()
        super().rename(path, to)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._step()
        super().sync_directory(path)


def test_a_crash_at_any_step_changes_nothing_that_a_later_pass_does_not_mend(tmp_path, directory):
    before = sums_of(tmp_path)
    first = going(tmp_path)[0]
    steps = 0
    while True:
        work = tmp_path / f"after-{steps}"
        shutil.copytree(tmp_path / "ledger", work / "ledger")
        shutil.copy(tmp_path / "seal.key", work / "seal.key")
        try:
            expire(work, [first], Crashing(steps))
        except Crash:
            assert sums_of(work) == before
            expire(work, [each for each in going(work) if each.segment == first.segment])
            assert sums_of(work) == before
            assert first.segment not in segment_numbers(work / "ledger" / "0")
        else:
            break
        steps += 1
    assert steps >= 5


def test_a_segment_whose_rows_are_not_what_was_sealed_stays(tmp_path, directory):
    first = going(tmp_path)[0]
    other = read_seal(directory, 2)
    wrong = Seal(**{**{name: getattr(first, name) for name in first.__slots__}, "sums": other.sums})
    with pytest.raises(BadRollups, match="are not those of the seal"):
        expire(tmp_path, [wrong])
    assert 1 in segment_numbers(directory)
    assert rollup_numbers(directory) == []


def test_a_file_of_sums_is_signed_and_has_one_spelling(tmp_path, directory):
    first = going(tmp_path)[0]
    expire(tmp_path, [first])
    key = public_hex(load_or_make_key(tmp_path))
    assert read_rollups(directory, 1, (key,)).problem(first) == ""
    with pytest.raises(BadRollups, match="not signed"):
        read_rollups(directory, 1, ("00" * 32,))
    path = rollup_path(directory, 1)
    data = path.read_bytes()
    for changed in (
        data.replace(b'"billed_output_tokens":', b'"billed_output_tokens": ', 1),
        data[:-2],
        data + b"\n",
        data[data.index(b"\n") + 1 :],
        data.replace(b'"requests":', b'"requests":1', 1),
        b"",
    ):
        path.write_bytes(changed)
        with pytest.raises(BadRollups):
            read_rollups(directory, 1, (key,))


def test_damaged_sums_count_for_nothing_and_stop_nothing(tmp_path, directory):
    expire(tmp_path, going(tmp_path))
    (tmp_path / "ledger" / INDEX_NAME).unlink()
    rollup_path(directory, 1).write_bytes(b"nonsense")
    seal_path(directory, 2).write_bytes(b"nonsense")
    assert going(tmp_path) == []
    with Reader(tmp_path) as reader:
        [total] = reader.sums()
        assert 0 < total["requests"] < ROWS


def findings(data_dir: Path, **options: Any) -> list[Any]:
    return audit(data_dir / "ledger", **options).findings


def test_a_ledger_whose_rows_expired_verifies_and_sums_up_to_the_same(tmp_path, directory):
    seals = going(tmp_path)
    before = audit(tmp_path / "ledger").summary.flat()
    for each in seals[:2]:
        expire(tmp_path, [each])
        assert findings(tmp_path) == findings(tmp_path, deep=True) == []
    shrink(tmp_path)
    found = audit(tmp_path / "ledger")
    assert (found.findings, found.outlived, found.summary.flat()) == ([], 2, before)
    expire(tmp_path, seals[2:])
    (tmp_path / "ledger" / INDEX_NAME).unlink()
    assert findings(tmp_path) == []
    going(tmp_path)
    assert findings(tmp_path) == findings(tmp_path, deep=True) == []


def test_changed_or_missing_sums_are_found(tmp_path, directory):
    expire(tmp_path, going(tmp_path))
    shrink(tmp_path)
    path = rollup_path(directory, 2)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"requests":', b'"requests":1', 1))
    assert ("0/000002.rollup.jsonl", 0, "is not signed by the key of the seals") in findings(tmp_path)
    path.write_bytes(b"{}")
    assert ("0/000002.rollup.jsonl", 0, "is not readable") in findings(tmp_path)
    path.write_bytes(rollup_path(directory, 1).read_bytes())
    assert next(each.segment for each in findings(tmp_path)) == "0/000002.rollup.jsonl"
    path.unlink()
    assert ("0/000002.jsonl.zst", 0, "is missing, and sealed") in findings(tmp_path)


def test_a_changed_sum_in_the_index_is_found_when_the_rows_are_gone(tmp_path, directory):
    expire(tmp_path, going(tmp_path))
    shrink(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger" / INDEX_NAME)) as index, index:
        index.execute(
            "UPDATE rollups SET revenue_nano = revenue_nano + 1 WHERE quarter = (SELECT min(quarter) FROM rollups)"
        )
    assert [each.problem.split(" ")[0] for each in findings(tmp_path)] == ["rollups"]
    assert [each.problem.split(" of quarter")[0] for each in findings(tmp_path, deep=True)][:1] == ["rollups"]
