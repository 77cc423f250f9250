"""The log keeps what it acknowledged, in order and once, whatever its disk and its process do."""

import asyncio
import threading

import orjson
import pytest

from gateway.ledger.entry import Entry
from gateway.ledger.lock import LedgerBusy, held
from gateway.ledger.log import DURABLE, LedgerUnavailable, LogWriter
from gateway.ledger.segment import hash_of
from gateway.ledger.tail import LogLimits
from gateway.ledger.verify import verify

from .exports import (
    NOW_S,
    QUICK,
    FaultyIO,
    an_end,
    durable,
    ends,
    eventually,
    export_id,
    lines,
    opening,
    row,
    settled,
    start,
)

REFUSED = {"record": "refused", "minute": "2025-11-24T16:00:00.000000Z", "tenant": "t", "reason": "r", "count": 1}


async def test_what_is_durable_is_in_the_file_and_chained(directory):
    writer = start(directory)
    await settled(writer, 1)
    written = lines(directory)
    writer.close()
    assert [orjson.loads(line)["record"] for line in written] == ["segment", "open", "settled"]
    assert orjson.loads(written[0])["prev"] == "0" * 64
    assert [orjson.loads(line)["prev"] for line in written[1:]] == [hash_of(line) for line in written[:-1]]
    assert written[2].endswith(b',"prev":"%b"}' % hash_of(written[1]).encode())


async def test_a_record_that_is_durable_needs_no_waiting(directory):
    writer = start(directory)
    ticket = writer.append(opening(1).entry())
    await durable(writer, ticket)
    assert writer.wait(ticket) is None
    assert writer.wait(DURABLE) is None
    writer.close()


async def test_what_gathers_behind_a_sync_is_one_commit(directory):
    class SlowIO(FaultyIO):
        def __init__(self) -> None:
            super().__init__()
            self.gate = threading.Event()
            self.gate.set()
            self.entered = threading.Event()

        def sync(self, descriptor: int) -> None:
            self.entered.set()
            self.gate.wait(10)
            super().sync(descriptor)

    io = SlowIO()
    writer = start(directory, io=io)
    await settled(writer, 1)
    io.gate.clear()
    io.entered.clear()
    first = writer.append(opening(2).entry())
    await asyncio.to_thread(io.entered.wait, 10)
    tickets = [writer.append(opening(number).entry()) for number in range(3, 53)]
    syncs = io.syncs
    io.gate.set()
    await asyncio.gather(*(durable(writer, ticket) for ticket in [first, *tickets]))
    assert io.syncs - syncs <= 3
    writer.close()


UNHURRIED = LogLimits(commit_ms=3_600_000)  # a rest that a test cannot sleep through


async def crowd(writer: LogWriter) -> None:
    """So many exports under way that the writer rests, and a commit that has just been."""
    tickets = [writer.append(opening(number).entry()) for number in range(10)]
    await asyncio.gather(*(durable(writer, ticket) for ticket in tickets))


async def test_in_a_crowd_a_commit_waits_for_company_until_everyone_waits_for_it(directory):
    writer = start(directory, limits=UNHURRIED)
    await crowd(writer)
    first = writer.wait(writer.append(opening(20).entry()))
    assert first is not None
    second = writer.append(opening(21).entry())
    await asyncio.sleep(0.05)
    assert not first.done(), "the second may still bring more"
    await asyncio.wait_for(asyncio.gather(first, durable(writer, second)), 10)
    assert writer.wait(second) is None
    writer.close()


async def test_a_rest_is_never_longer_than_its_setting(directory):
    writer = start(directory, limits=LogLimits(commit_ms=50))
    await crowd(writer)
    future = writer.wait(writer.append(opening(20).entry()))
    writer.append(opening(21).entry())  # nobody will ever wait for this one
    assert future is not None
    await asyncio.wait_for(future, 10)
    writer.close()


async def test_few_requests_are_never_kept_waiting(directory):
    writer = start(directory, limits=UNHURRIED)
    for number in range(4):
        writer.append(opening(number).entry())
        await eventually(lambda number=number: len(lines(directory)) == 2 + number)
    writer.close()


async def test_what_nobody_waits_for_is_called_all_the_same(directory):
    writer = start(directory)
    called: list[int] = []
    await durable(writer, writer.append(opening(1).entry()))
    writer.terminal(an_end(row(1)), lambda: called.append(1))
    await eventually(lambda: called)
    assert len(ends(directory)) == 1
    writer.close()


async def test_closing_ends_a_rest(directory):
    writer = start(directory, limits=UNHURRIED)
    await crowd(writer)
    writer.append(opening(20).entry())
    writer.close()
    assert not held(directory)
    assert len(lines(directory)) == 12


async def test_ending_twice_is_ending_once(directory):
    writer = start(directory)
    called: list[int] = []
    ticket = writer.append(opening(1).entry())
    await durable(writer, writer.terminal(an_end(row(1)), lambda: called.append(1)))
    assert writer.terminal(an_end(row(1)), lambda: called.append(2)) == DURABLE
    await settled(writer, 2)
    writer.close()
    assert ticket == 1
    assert called == [1]
    assert [(end["export_id"], end["seq"]) for end in ends(directory)] == [(export_id(1), 0), (export_id(2), 1)]


async def test_an_end_without_an_open_is_not_written(directory):
    writer = start(directory)
    assert writer.terminal(an_end(row(7))) == DURABLE
    writer.close()
    assert ends(directory) == []


async def test_an_export_cannot_be_opened_twice(directory):
    writer = start(directory)
    writer.append(opening(1).entry())
    with pytest.raises(ValueError, match="open already"):
        writer.append(opening(1).entry())
    writer.close()


async def test_a_second_writer_of_a_log_is_refused(directory):
    writer = start(directory)
    assert held(directory)
    with pytest.raises(LedgerBusy):
        start(directory)
    writer.close()
    assert not held(directory)
    start(directory).close()


async def test_the_next_start_goes_on_where_the_last_one_ended(directory):
    for number in range(3):
        writer = start(directory)
        await settled(writer, number)
        writer.close()
    assert [end["seq"] for end in ends(directory)] == [0, 1, 2]
    assert len(list(directory.glob("*.jsonl"))) == 1
    assert verify(directory.parent.parent) == []


async def test_closing_writes_what_is_still_in_memory(directory):
    writer = start(directory)
    called: list[int] = []
    for number in range(1000):
        writer.append(opening(number).entry())
        writer.terminal(an_end(row(number)), lambda: called.append(1))
    writer.close()
    assert len(ends(directory)) == len(called) == 1000


async def test_closing_waits_for_no_timer(directory):
    for count in (0, 1, 300):
        writer = start(directory, limits=LogLimits(disk_check_s=3600, commit_s_max=3600))
        for number in range(count):
            writer.append(opening(number).entry())
            writer.terminal(an_end(row(number)))
        writer.close()
        assert not held(directory), "the thread has ended and given everything back"


@pytest.mark.parametrize("failing", ["write", "sync"])
@pytest.mark.parametrize("tears", [False, True])
async def test_a_failed_commit_stops_the_ledger_and_resumes_without_loss_or_duplicate(directory, failing, tears):
    io = FaultyIO()
    io.loop, io.tears = asyncio.get_running_loop(), tears
    writer = start(directory, io=io, limits=QUICK)
    await settled(writer, 1)
    live = writer.append(opening(2).entry())
    await durable(writer, live)

    io.failing = failing
    doomed = writer.wait(writer.append(opening(3).entry()))
    assert doomed is not None
    with pytest.raises(LedgerUnavailable, match="injected failure"):
        await asyncio.wait_for(doomed, 10)
    assert not writer.writable
    with pytest.raises(LedgerUnavailable, match="injected failure"):
        writer.append(opening(4).entry())
    freed: list[int] = []
    writer.terminal(an_end(row(2)), lambda: freed.append(2))
    end = writer.terminal(an_end(row(3)), lambda: freed.append(3))
    failed = writer.wait(end)
    assert failed is not None
    with pytest.raises(LedgerUnavailable):
        await failed
    assert freed == []

    io.failing = ""
    await eventually(lambda: writer.writable)
    await settled(writer, 5)
    writer.close()
    assert freed == [2, 3]
    assert [end["export_id"] for end in ends(directory)] == [export_id(number) for number in (1, 2, 3, 5)]
    assert [end["seq"] for end in ends(directory)] == [0, 1, 2, 3]
    assert len(list(directory.glob("*.jsonl"))) == 2, "a failed segment is never written to again"
    assert verify(directory.parent.parent) == []


@pytest.mark.parametrize("then", ["create", "truncate", "sync"])
async def test_a_way_back_that_fails_is_tried_again(directory, then):
    io = FaultyIO()
    io.loop = asyncio.get_running_loop()
    writer = start(directory, io=io, limits=QUICK)
    await settled(writer, 1)
    io.failing = "sync"
    writer.append(opening(2).entry())
    await asyncio.wait_for(io.failed.wait(), 10)
    io.failed.clear()
    io.failing = then
    await asyncio.wait_for(io.failed.wait(), 10)
    io.failing = ""
    await eventually(lambda: writer.writable)
    await durable(writer, writer.terminal(an_end(row(2))))
    writer.close()
    assert [end["seq"] for end in ends(directory)] == [0, 1]
    assert verify(directory.parent.parent) == []


async def test_a_ledger_that_still_fails_when_closed_is_found_open_at_the_next_start(directory):
    io = FaultyIO()
    io.loop = asyncio.get_running_loop()
    writer = start(directory, io=io, limits=QUICK)
    await durable(writer, writer.append(opening(1).entry()))
    io.failing = "sync"
    writer.terminal(an_end(row(1)))
    await asyncio.wait_for(io.failed.wait(), 10)
    writer.close()
    after = start(directory)
    assert set(after.found_open) == {export_id(1)}, "what a failed sync left behind is not believed"
    after.close()
    assert verify(directory.parent.parent, live=[export_id(1)]) == []


async def test_below_the_disk_reserve_live_requests_end_and_new_ones_are_refused(directory):
    io = FaultyIO()
    writer = start(directory, io=io, limits=QUICK)
    await durable(writer, writer.append(opening(1).entry()))
    io.free = 63 * 1024 * 1024
    await eventually(lambda: not writer.writable)
    assert writer.reason == "63 MiB of disk are free, the reserve is 64 MiB"
    with pytest.raises(LedgerUnavailable, match="63 MiB"):
        writer.append(opening(2).entry())
    await durable(writer, writer.terminal(an_end(row(1))))
    io.free = 10**12
    await eventually(lambda: writer.writable)
    await settled(writer, 3)
    writer.close()
    assert len(ends(directory)) == 2


async def test_a_commit_that_takes_too_long_refuses_new_work(directory):
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    class StuckIO(FaultyIO):
        stuck = threading.Event()
        entered = threading.Event()

        def sync(self, descriptor: int) -> None:
            if not self.stuck.is_set():
                self.entered.set()
                self.stuck.wait(10)
            super().sync(descriptor)

    clock, io = Clock(), StuckIO()
    io.stuck.set()
    writer = start(directory, io=io, clock=clock)
    await settled(writer, 1)
    io.stuck.clear()
    ticket = writer.append(opening(2).entry())
    await asyncio.to_thread(io.entered.wait, 10)
    assert writer.writable
    clock.now = 1.5
    with pytest.raises(LedgerUnavailable, match="longer than 1 s"):
        writer.append(opening(3).entry())
    io.stuck.set()
    await durable(writer, ticket)
    assert writer.writable
    writer.close()


async def test_records_that_wait_are_bounded(directory):
    io = FaultyIO()
    writer = start(directory, io=io, limits=LogLimits(pending_rows_max=10, retry_s=0.01))
    await settled(writer, 0)
    io.failing = "sync"
    for number in range(1, 10):
        writer.append(opening(number).entry(), refusable=False)
    writer.append(Entry.of(REFUSED))
    with pytest.raises(LedgerUnavailable):
        writer.append(opening(11).entry())
    with pytest.raises(LedgerUnavailable):
        writer.append(Entry.of(REFUSED))
    writer.terminal(an_end(row(1)))
    io.failing = ""
    writer.close()
    assert len(ends(directory)) == 2


async def test_a_segment_is_closed_when_it_is_full_and_carries_what_is_open(directory):
    writer = start(directory, limits=LogLimits(segment_bytes_max=4000))
    await durable(writer, writer.append(opening(0).entry()))
    for number in range(1, 6):
        await settled(writer, number)
    writer.close()
    segments = sorted(directory.glob("*.jsonl"))
    assert [path.name for path in segments] == [f"{number:06d}.jsonl" for number in range(1, len(segments) + 1)]
    assert len(segments) > 2
    last = orjson.loads(segments[-1].read_bytes().splitlines()[0])
    assert [item["export_id"] for item in last["carried"]] == [export_id(0)]
    assert last["carried"][0]["segment"] == 1
    after = start(directory)
    assert list(after.found_open) == [export_id(0)]
    after.close()
    assert verify(directory.parent.parent, live=[export_id(0)]) == []


async def test_a_segment_is_closed_after_an_hour_if_anything_is_in_it(directory):
    wall, io = [NOW_S], FaultyIO()
    writer = start(directory, limits=QUICK, io=io, now=lambda: wall[0])
    await settled(writer, 1)
    wall[0] += 3600
    await eventually(lambda: len(list(directory.glob("*.jsonl"))) == 2)
    wall[0] += 3600
    checks = io.checks
    await eventually(lambda: io.checks > checks + 3)
    assert len(list(directory.glob("*.jsonl"))) == 2, "an idle gateway makes no empty segments"
    await settled(writer, 2)
    writer.close()
    assert len(list(directory.glob("*.jsonl"))) == 2, "an hour of use, not of waiting"
    assert verify(directory.parent.parent) == []


def test_a_log_without_a_loop_is_flushed(directory):
    writer = LogWriter(directory, 0, None)
    called: list[int] = []
    writer.append(opening(1).entry())
    writer.terminal(an_end(row(1)), lambda: called.append(1))
    writer.flush()
    assert called == [1]
    assert len(ends(directory)) == 1
    writer.close()


def test_a_flush_that_fails_says_so(directory):
    io = FaultyIO()
    writer = LogWriter(directory, 0, None, io=io, limits=QUICK)
    writer.append(opening(1).entry())
    writer.flush()
    io.failing = "sync"
    writer.terminal(an_end(row(1)))
    with pytest.raises(LedgerUnavailable, match="injected"):
        writer.flush()
    io.failing = ""
    writer.flush()
    writer.close()
    assert len(ends(directory)) == 1


def test_a_directory_that_cannot_be_used_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable):
        LogWriter(tmp_path / "file" / "0", 0, None)
