"""After a crash every open has exactly one end, with the counts the board still had."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from gateway.ledger.board import Board, Slot
from gateway.ledger.instants import MICROS
from gateway.ledger.lock import LedgerBusy
from gateway.ledger.log import LedgerUnavailable, LogWriter
from gateway.ledger.opening import FailedAttempt, Opening
from gateway.ledger.recovery import recover, recover_log
from gateway.ledger.segment import TERMINAL
from gateway.ledger.tail import LogLimits
from gateway.ledger.verify import verify
from pricing.export import Usage

from .exports import BOUGHT, NOW_S, NOW_US, QUICK, FaultyIO, an_end, export_id, lines, opening, row

RECOVERY_S = NOW_S + 3600


class Crashed:
    """A worker up to its end: what it wrote and what it had mapped stays, what it had in memory is gone."""

    def __init__(self, data_dir: Path, **options: Any) -> None:
        self.data_dir = data_dir
        self.directory = data_dir / "ledger" / "0"
        self.log = LogWriter(self.directory, 0, None, **options)
        self.board = Board.create(self.directory / "board", 16)

    def begin(self, opened: Opening, *, durable: bool = True) -> Slot:
        slot = self.board.claim(UUID(opened.export_id).bytes, opened.to_bytes())
        assert slot is not None
        if durable:
            self.log.append(opened.entry())
            self.log.flush()
        return slot

    def recover(self, **options: Any) -> list[dict[str, Any]]:
        """Stop, and start again. Returns the recovered rows."""
        self.board.close()
        self.log.close()
        writer = LogWriter(self.directory, 0, None, **options)
        try:
            count = recover(writer, RECOVERY_S)
        finally:
            writer.close()
        rows = [each for each in self.ends() if each["record"] == "recovered"]
        assert count == len(rows)
        assert verify(self.data_dir) == []
        return rows

    def ends(self) -> list[dict[str, Any]]:
        return [each for each in map(orjson.loads, lines(self.directory)) if each["record"] in TERMINAL]


@pytest.fixture
def crashed(tmp_path: Path) -> Iterator[Crashed]:
    made = Crashed(tmp_path)
    yield made
    made.log.close()


def test_a_stream_that_was_under_way_ends_with_what_the_board_counted(crashed):
    slot = crashed.begin(opening(1))
    slot.received(400)
    slot.sent(500)
    slot.generated(11, 0, 4000)
    slot.mark_first(120_499, 200)
    slot.count(10, 0, 3500)
    (found,) = crashed.recover()
    expected = {
        "export_id": export_id(1),
        "outcome": "recovered",
        "status": 200,
        "ended_at": "2025-11-24T17:00:00.000000Z",
        "delivered_tokens": 10,
        "billed_output_tokens": 10,
        "output_tokens": 11,
        "input_tokens": 90,
        "cached_input_tokens": 0,
        "count_source": "counted",
        "count_flags": "input_estimated",
        "ttft_ms": 120,
        "duration_ms": None,
        "bytes_from_client": 400,
        "bytes_to_client": 3500,
        "bytes_to_backend": 500,
        "bytes_from_backend": 4000,
        "attempts": 1,
        "seq": 0,
    }
    assert {name: found[name] for name in expected} == expected
    assert not (crashed.directory / "board").exists()


@pytest.mark.parametrize(
    ("most", "milli", "running", "delivered", "source"),
    [
        (1, 1000, None, 10, "counted"),
        (1, 1000, 10, 10, "continuous"),
        (4, 2500, None, 25, "estimated"),
        (2, 2500, None, 20, "estimated"),  # an event holds no more than two
        (4, 500, None, 10, "estimated"),  # nor less than one
        (4, 500, 25, 25, "continuous"),
    ],
)
def test_tokens_come_from_running_usage_or_from_events(crashed, most, milli, running, delivered, source):
    slot = crashed.begin(opening(1, tokens_per_event_max=most, tokens_per_event_milli=milli))
    slot.mark_first(1, 200)
    slot.count(10, 0 if running is None else running + 1, 3500)
    (found,) = crashed.recover()
    assert (found["delivered_tokens"], found["count_source"]) == (delivered, source)
    assert found["billed_output_tokens"] == delivered


@pytest.mark.parametrize("claim", [0, 9, 41, 10**6])
def test_a_running_usage_that_cannot_be_is_not_believed(crashed, claim):
    slot = crashed.begin(opening(1, tokens_per_event_max=4, tokens_per_event_milli=2500))
    slot.generated(10, claim + 1, 4000)
    slot.mark_first(1, 200)
    slot.count(10, claim + 1, 3500)
    (found,) = crashed.recover()
    assert (found["delivered_tokens"], found["output_tokens"], found["count_source"]) == (25, 25, "estimated")
    assert found["count_flags"] == "usage_implausible;input_estimated"


def test_a_running_usage_before_any_content_is_no_content(crashed):
    crashed.begin(opening(1)).generated(0, 10**6 + 1, 400)
    (found,) = crashed.recover()
    assert (found["output_tokens"], found["count_source"]) == (0, "counted")


def test_a_plain_answer_that_was_handed_over_keeps_its_count(crashed):
    slot = crashed.begin(opening(1, stream=False))
    slot.mark_first(1, 200)
    slot.count(0, 8, 300)
    (found,) = crashed.recover()
    assert (found["delivered_tokens"], found["output_tokens"], found["count_flags"]) == (7, 7, "input_estimated")


def test_a_plain_answer_whose_tokens_were_estimated_says_so_when_it_is_recovered(crashed):
    slot = crashed.begin(opening(1, stream=False))
    slot.mark_first(1, 200)
    slot.count_plain(7, 300, estimated=True)
    sure = crashed.begin(opening(2, stream=False))
    sure.mark_first(1, 200)
    sure.count_plain(8, 300, estimated=False)
    rows = {row["export_id"]: row for row in crashed.recover()}
    counts = [
        (rows[export_id(number)]["delivered_tokens"], rows[export_id(number)]["count_source"]) for number in (1, 2)
    ]
    assert counts == [(7, "estimated"), (8, "continuous")]


def test_input_that_the_backend_named_is_not_estimated(crashed):
    crashed.begin(opening(1)).input(120, 30)
    (found,) = crashed.recover()
    assert (found["input_tokens"], found["cached_input_tokens"], found["count_flags"]) == (120, 30, "")


def test_what_failed_before_is_paid_for_by_the_recovered_row(crashed):
    failed = FailedAttempt("bought-1", "saxony", "cut", 900, 1500, Usage(100, 0, 0, 7), 512, 2000, BOUGHT)
    slot = crashed.begin(opening(1))
    slot.sent(512)
    slot.generated(1, 0, 2000)
    again = opening(1, failed=(failed,), origin_backend="gz-2")
    slot.reopen(again.to_bytes())
    slot.sent(600)
    (found,) = crashed.recover()
    assert (found["origin_backend"], found["attempts"], found["bytes_to_backend"]) == ("gz-2", 2, 600)
    assert found["cost_waste_nano"] == 100 * 100 + 7 * 400
    assert orjson.loads(found["attempts_json"])[0]["backend"] == "bought-1"


def test_a_slot_whose_open_was_not_durable_is_opened_and_ended(crashed):
    slot = crashed.begin(opening(1), durable=False)
    slot.sent(500)
    (found,) = crashed.recover()
    assert (found["delivered_tokens"], found["bytes_to_backend"], found["status"]) == (0, 500, None)
    kinds = [orjson.loads(line)["record"] for line in lines(crashed.directory)]
    assert kinds == ["segment", "open", "recovered"]


def test_a_slot_whose_end_is_durable_is_left_alone(crashed):
    crashed.begin(opening(1))
    crashed.log.terminal(an_end(row(1)))
    crashed.log.flush()
    assert crashed.recover() == []
    assert [end["record"] for end in crashed.ends()] == ["settled"]


def test_a_slot_whose_end_is_in_an_earlier_segment_is_left_alone(tmp_path):
    now = [NOW_S + 10]
    crashed = Crashed(tmp_path, limits=LogLimits(segment_bytes_max=1), now=lambda: now[0])
    crashed.begin(opening(1))
    crashed.log.terminal(an_end(row(1)))
    crashed.log.flush()
    for number in (2, 3):
        crashed.log.append(opening(number).entry())
        crashed.log.terminal(an_end(row(number)))
        crashed.log.flush()
    assert len(list(crashed.directory.glob("*.jsonl"))) > 3
    assert crashed.recover() == []


def test_without_a_board_opens_end_with_nothing_delivered(crashed):
    failed = FailedAttempt("bought-1", "saxony", "cut", usage=Usage(100, 0, 0, 7), units=BOUGHT)
    crashed.begin(opening(1))
    crashed.begin(opening(2))
    crashed.log.append(opening(2, failed=(failed,)).entry())
    crashed.log.flush()
    (crashed.directory / "board").unlink()
    first, second = crashed.recover()
    for found in (first, second):
        assert (found["delivered_tokens"], found["billed_output_tokens"], found["revenue_nano"]) == (0, 0, 0)
        assert found["count_flags"] == "input_estimated;board_lost"
        assert found["status"] is None
    assert second["cost_waste_nano"] == 100 * 100 + 7 * 400, "the log has the failed attempts too"


@pytest.mark.parametrize("content", [b"", b"\0" * 4096 * 17, b"no board"])
def test_a_board_that_cannot_be_read_is_a_lost_one(crashed, content):
    crashed.begin(opening(1))
    (crashed.directory / "board").unlink()
    (crashed.directory / "board").write_bytes(content)
    (found,) = crashed.recover()
    assert found["count_flags"] == "input_estimated;board_lost"


def test_a_torn_slot_is_a_lost_one(crashed):
    slot = crashed.begin(opening(1))
    slot.count(5, 6, 100)
    slot.reopen(b"not an opening")
    (found,) = crashed.recover()
    assert "board_lost" in found["count_flags"]


def test_opens_of_earlier_segments_are_carried_to_recovery(tmp_path):
    crashed = Crashed(tmp_path, limits=LogLimits(segment_bytes_max=1))
    slot = crashed.begin(opening(1))
    for number in range(2, 5):
        crashed.log.append(opening(number).entry())
        crashed.log.terminal(an_end(row(number)))
        crashed.log.flush()
    slot.mark_first(1, 200)
    slot.count(3, 0, 100)
    (found,) = crashed.recover()
    assert (found["export_id"], found["tenant"], found["delivered_tokens"]) == (export_id(1), "acme", 3)


def test_a_crash_during_recovery_repeats_nothing(crashed):
    for number in range(4):
        slot = crashed.begin(opening(number))
        slot.mark_first(1, 200)
        slot.count(number, 0, 100)
    crashed.begin(opening(4), durable=False)
    board = (crashed.directory / "board").read_bytes()
    assert len(crashed.recover()) == 5
    (crashed.directory / "board").write_bytes(board)  # killed before the board was removed
    assert recover_log(crashed.data_dir / "ledger", 0, RECOVERY_S + 1) == 0
    assert len(crashed.ends()) == 5
    assert verify(crashed.data_dir) == []


def test_a_recovery_that_cannot_write_keeps_the_board(crashed):
    crashed.begin(opening(1)).count(3, 0, 100)
    crashed.log.close()
    io = FaultyIO()
    writer = LogWriter(crashed.directory, 0, None, io=io, limits=QUICK)
    io.failing = "sync"
    with pytest.raises(LedgerUnavailable):
        recover(writer, RECOVERY_S)
    assert (crashed.directory / "board").exists()
    writer.close()
    (found,) = crashed.recover()
    assert found["delivered_tokens"] == 3


def test_recovery_goes_through_below_the_disk_reserve(crashed):
    crashed.begin(opening(1))
    crashed.begin(opening(2), durable=False)
    io = FaultyIO()
    io.free = 0
    assert len(crashed.recover(io=io)) == 2


def test_a_log_that_somebody_writes_is_not_recovered(crashed):
    crashed.begin(opening(1))
    with pytest.raises(LedgerBusy):
        recover_log(crashed.data_dir / "ledger", 0, RECOVERY_S)


def test_a_recovered_row_belongs_to_the_period_of_its_recovery(crashed):
    crashed.begin(opening(1))
    (found,) = crashed.recover()
    assert found["opened_at"] == "2025-11-24T16:00:01.000000Z"
    assert found["ended_at"] == "2025-11-24T17:00:00.000000Z"
    assert NOW_US + 3600 * MICROS == RECOVERY_S * MICROS
