"""The board holds what was counted, whenever somebody looks, and survives its process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from gateway.ledger.board import AREA_BYTES, Board, BoardEntry, Slot

from .exports import export_id


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board.create(tmp_path / "board", 4)
    yield made
    made.close()


def claim(board: Board, number: int, opening: bytes = b"first") -> Slot:
    slot = board.claim(UUID(export_id(number)).bytes, opening)
    assert slot is not None
    return slot


def seen(board: Board) -> list[BoardEntry]:
    """What another process sees."""
    other = Board.open_readonly(board.path)
    try:
        return list(other.entries())
    finally:
        other.close()


def test_a_fresh_slot_knows_its_export_and_nothing_else(board):
    claim(board, 7)
    assert seen(board) == [
        BoardEntry(
            export_id=export_id(7),
            opening=b"first",
            delivered_events=0,
            delivered_tokens=None,
            generated_events=0,
            generated_tokens=None,
            bytes_from_client=0,
            bytes_to_client=0,
            bytes_to_backend=0,
            bytes_from_backend=0,
            ttft_us=None,
            status=None,
            input_tokens=None,
            cached_input_tokens=0,
        )
    ]


def test_every_count_arrives_under_its_name(board):
    slot = claim(board, 7)
    slot.received(1)
    slot.sent(2)
    slot.input(3, 4)
    slot.generated(5, 7, 8)
    slot.mark_first(9, 200)
    slot.count(10, 12, 13)
    assert seen(board) == [
        BoardEntry(
            export_id(7),
            b"first",
            10,
            11,
            5,
            6,
            1,
            13,
            2,
            8,
            ttft_us=9,
            status=200,
            input_tokens=3,
            cached_input_tokens=4,
        )
    ]


def test_no_tokens_are_known_and_zero_tokens_are_two_things(board):
    slot = claim(board, 7)
    slot.count(3, 0, 100)
    assert seen(board)[0].delivered_tokens is None
    slot.count(3, 1, 100)
    assert seen(board)[0].delivered_tokens == 0


def test_another_attempt_replaces_the_opening_and_what_was_counted_for_it(board):
    slot = claim(board, 7)
    slot.received(1)
    slot.sent(2)
    slot.input(3, 1)
    slot.generated(5, 7, 8)
    slot.reopen(b"the second opening")
    entry = seen(board)[0]
    assert entry.opening == b"the second opening"
    assert (entry.bytes_to_backend, entry.bytes_from_backend, entry.generated_events) == (0, 0, 0)
    assert (entry.input_tokens, entry.generated_tokens) == (None, None)
    assert entry.bytes_from_client == 1, "the request's own counts stay"
    slot.generated(1, 2, 30)
    slot.reopen(b"3rd")
    slot.sent(9)
    assert (seen(board)[0].opening, seen(board)[0].bytes_to_backend) == (b"3rd", 9)


def test_a_released_slot_is_gone_and_releasing_twice_is_releasing_once(board):
    slot, other = claim(board, 1), claim(board, 2)
    slot.release()
    slot.release()
    assert [entry.export_id for entry in seen(board)] == [export_id(2)]
    assert board.live == 1
    third, fourth = claim(board, 3), claim(board, 4)
    slot.release()
    assert {entry.export_id for entry in seen(board)} == {export_id(number) for number in (2, 3, 4)}
    for each in (other, third, fourth):
        each.release()
    with pytest.raises(ValueError, match="released"):
        slot.reopen(b"")


def test_nothing_of_the_last_owner_is_left_in_a_slot(board):
    slot = claim(board, 1)
    slot.count(10, 11, 12)
    slot.generated(1, 2, 3)
    slot.reopen(b"other side")
    slot.mark_first(5, 200)
    slot.release()
    claim(board, 2)
    entry = seen(board)[0]
    assert (entry.delivered_events, entry.delivered_tokens, entry.ttft_us, entry.status) == (0, None, None, None)
    assert (entry.opening, entry.generated_events, entry.bytes_from_backend) == (b"first", 0, 0)


def test_a_full_board_gives_no_slot(board):
    for number in range(4):
        claim(board, number)
    assert board.claim(bytes(16), b"") is None


def test_slots_are_reused_last_in_first_out_so_that_memory_follows_concurrency(tmp_path):
    board = Board.create(tmp_path / "board", 1000)
    for number in range(0, 1000, 8):
        held = [claim(board, number + n, b"o" * 440) for n in range(8)]
        for slot in held:
            slot.count(1, 2, 3)
            slot.release()
    touched = sum(any(page) for page in pages(tmp_path / "board")) - 1
    board.close()
    assert touched == 2, "a stream brings a sixth of a page into memory"


def pages(path: Path) -> list[bytes]:
    content = path.read_bytes()
    return [content[at : at + 4096] for at in range(0, len(content), 4096)]


def test_an_opening_fills_its_area_and_not_more(board):
    opening = bytes(range(256)) * 8
    slots = [claim(board, number, opening[number : number + AREA_BYTES]) for number in range(1, 3)]
    assert [entry.opening for entry in seen(board)] == [opening[n : n + AREA_BYTES] for n in (1, 2)]
    for slot, number in zip(slots, (3, 4), strict=True):
        slot.reopen(opening[number : number + AREA_BYTES])
    assert [entry.opening for entry in seen(board)] == [opening[n : n + AREA_BYTES] for n in (3, 4)]
    slot = slots[0]
    slots[1].release()
    with pytest.raises(ValueError, match="larger than"):
        slot.reopen(b"c" * (AREA_BYTES + 1))
    with pytest.raises(ValueError, match="larger than"):
        board.claim(bytes(16), b"c" * (AREA_BYTES + 1))
    assert board.live == 1, "a refused claim takes no slot"


def test_a_fresh_board_replaces_an_old_one_whole(board):
    claim(board, 1)
    old = Board.open_readonly(board.path)
    fresh = Board.create(board.path, 2)
    assert list(fresh.entries()) == []
    assert [entry.export_id for entry in old.entries()] == [export_id(1)], "who mapped it still reads it"
    old.close()
    fresh.close()


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 8192, b"x" * 4096])
def test_a_file_that_is_no_board_is_refused(tmp_path, content):
    (tmp_path / "board").write_bytes(content)
    with pytest.raises(ValueError, match="not a board"):
        Board.open_readonly(tmp_path / "board")


KILLED_IN_THE_STORE = """
import sys
from pathlib import Path
from gateway.ledger.board import Board
board = Board.create(Path(sys.argv[1]), 1)
slot = board.claim(bytes(15) + b"1", b"0" * 1000)
n = 0
while True:
    n += 1
    slot.reopen(str(n % 10).encode() * 1000)
    slot.generated(n, n + 1, n)
    slot.count(n, n + 1, n)
    if n == 1:
        print("ready", flush=True)
"""


def test_a_kill_inside_a_store_leaves_whole_openings_and_whole_counts(tmp_path):
    for round_number in range(5):
        path = tmp_path / f"board{round_number}"
        with subprocess.Popen(
            [sys.executable, "-c", KILLED_IN_THE_STORE, str(path)], stdout=subprocess.PIPE, cwd=os.getcwd()
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            other = Board.open_readonly(path)
            last = 0
            for _ in range(200 * (round_number + 1)):
                for entry in other.entries():
                    assert entry.delivered_events >= last, "a count never goes back"
                    last = entry.delivered_events
            child.kill()
        found = list(other.entries())
        other.close()
        assert len(found) == 1
        assert len(set(found[0].opening)) == 1
        assert len(found[0].opening) == 1000
        delivered, tokens = found[0].delivered_events, found[0].delivered_tokens
        assert delivered >= last
        assert tokens is not None
        assert delivered - 1 <= tokens <= delivered
        if found[0].generated_events:
            assert int(found[0].opening[:1]) == found[0].generated_events % 10, "counts belong to their opening"
