"""The same figures from the index, from the logs, and from both; in every order and every time zone."""

import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from gateway.ledger.entry import Entry
from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.instants import parse_us
from gateway.ledger.log import LogWriter
from gateway.ledger.reading import Reader
from gateway.ledger.segment import Record
from gateway.ledger.tail import LogLimits
from gateway.ledger.verify import verify
from pricing.export import Usage

from .exports import NOW_S, QUICK, FaultyIO, ending, opening, row, row_of, write_log


def ended(number: int, moment: str, tokens: int = 10, **changes: Any) -> Record:
    """A row that ended at a moment, with so many tokens delivered."""
    usage = Usage(100, output_tokens=tokens)
    end = ending(0, ended_at_us=parse_us(moment), usage=usage, delivered_tokens=tokens, billed_output_tokens=tokens)
    return row_of(opening(number, **changes), end)


def log_of(data_dir: Path, log: int = 0) -> Path:
    return data_dir / "ledger" / str(log)


def fold(data_dir: Path) -> int:
    index = Index(data_dir / "ledger" / INDEX_NAME)
    try:
        return index.fold(data_dir / "ledger")
    finally:
        index.close()


def everything(data_dir: Path) -> tuple[list[Record], list[Record], list[Record], list[Record]]:
    with Reader(data_dir) as reader:
        by = ("origin_country", "tenant", "outcome")
        return list(reader.rows()), reader.sums(by, "day", "Asia/Shanghai"), reader.sums(by, None), reader.refusals()


def write_refusals(data_dir: Path, *counts: int, log: int = 0) -> None:
    writer = LogWriter(log_of(data_dir, log), log, None)
    for count in counts:
        minute = "2025-11-24T16:00:00.000000Z"
        writer.append(
            Entry.of({"record": "refused", "minute": minute, "tenant": "acme", "reason": "budget", "count": count})
        )
    writer.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Two logs, three tenants, rows and refusals."""
    for log in (0, 1):
        numbers = range(log * 100, log * 100 + 20)
        rows = [row(number, tenant=f"tenant-{number % 3}", exported=number % 2 == 0) for number in numbers]
        write_log(log_of(tmp_path, log), rows, limits=LogLimits(8, segment_bytes_max=10_000))
        write_refusals(tmp_path, 3, 4, log=log)
    return tmp_path


def test_rows_come_back_as_they_were_written_in_order_of_their_end(data_dir):
    expected = [row(number, tenant=f"tenant-{number % 3}", exported=number % 2 == 0) for number in range(20)]
    with Reader(data_dir) as reader:
        rows = list(reader.rows(end=NOW_S + 60))
    for seq, each in enumerate(expected):
        each |= {"seq": seq, "log": 0}
    assert rows == expected
    assert list(rows[0]) == list(expected[0])


def test_figures_are_the_same_with_an_index_without_one_and_with_part_of_one(data_dir):
    without = everything(data_dir)
    fold(data_dir)
    assert everything(data_dir) == without
    index = Index(data_dir / "ledger" / INDEX_NAME)
    write_log(log_of(data_dir), [row(number) for number in range(500, 510)])
    write_refusals(data_dir, 1)
    with_tail = everything(data_dir)
    index.fold(data_dir / "ledger")
    index.close()
    assert everything(data_dir) == with_tail
    assert len(with_tail[0]) == len(without[0]) + 10
    assert with_tail[3][0]["count"] == without[3][0]["count"] + 1
    assert verify(data_dir) == []


def test_a_fold_takes_each_record_once(data_dir):
    assert fold(data_dir) == 44
    assert fold(data_dir) == 0
    write_log(log_of(data_dir), [row(900)])
    assert fold(data_dir) == 1


def test_totals_do_not_depend_on_the_order_of_records(tmp_path):
    rows = [row(number, tenant=f"tenant-{number % 3}") for number in range(12)]
    totals = []
    for turn in range(3):
        data_dir = tmp_path / str(turn)
        shuffled = Random(turn).sample(rows, len(rows))
        write_log(log_of(data_dir, 0), shuffled[:5])
        write_log(log_of(data_dir, 1), shuffled[5:])
        fold(data_dir)
        with Reader(data_dir) as reader:
            totals.append((reader.sums(("tenant",), "hour"), reader.sums()))
    assert totals[0] == totals[1] == totals[2]


@pytest.mark.parametrize("indexed", [False, True])
def test_an_export_that_is_in_two_logs_counts_once(tmp_path, indexed):
    for log in (0, 1):
        write_log(log_of(tmp_path, log), [row(1), row(2 + log)])
        if indexed:
            fold(tmp_path)
    with Reader(tmp_path) as reader:
        assert len(list(reader.rows())) == 3
        (sums,) = reader.sums()
    assert sums["requests"] == 3


def test_what_came_in_vain_with_a_copy_is_written_down_again(tmp_path):
    write_log(log_of(tmp_path, 0), [row(1)])
    fold(tmp_path)
    write_log(log_of(tmp_path, 1), [row(1), row(2, tenant="another")])
    fold(tmp_path)
    with Reader(tmp_path) as reader:
        assert [each["tenant"] for each in reader.rows()] == ["acme", "another"]
        assert [sums["requests"] for sums in reader.sums(("tenant",))] == [1, 1]
    assert [found.problem for found in verify(tmp_path) if "index" in str(found.segment)] == []


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("broken", [{"ttft_ms": 2**63}, {"input_tokens": "many"}, {"tenant": ["acme"]}])
def test_a_row_that_no_table_can_hold_keeps_nothing_else_out(tmp_path, broken, indexed):
    write_log(log_of(tmp_path), [row(1), row(2) | broken, row(3)])
    if indexed:
        fold(tmp_path)
    with Reader(tmp_path) as reader:
        assert [each["export_id"] for each in reader.rows()] == [row(1)["export_id"], row(3)["export_id"]]
        assert reader.sums()[0]["requests"] == 2


def test_a_copy_that_is_not_in_the_index_yet_does_not_count_again(tmp_path):
    write_log(log_of(tmp_path, 0), [row(1)])
    fold(tmp_path)
    write_log(log_of(tmp_path, 1), [row(1)])
    with Reader(tmp_path) as reader:
        assert len(list(reader.rows())) == 1
        assert reader.sums()[0]["requests"] == 1


def damages() -> dict[str, Any]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for at in range(4096, len(content), 512):
            content[at] ^= 0xFF
        path.write_bytes(content)

    def no_table(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE rollups")
        connection.close()

    return {
        "deleted": lambda path: path.unlink(),
        "empty": lambda path: path.write_bytes(b""),
        "not a database": lambda path: path.write_bytes(b"x" * 50_000),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:20_000]),
        "flipped": flip,
        "without a table": no_table,
        "another schema": lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 7").connection.close(),
    }


@pytest.mark.parametrize("damage", damages().values(), ids=damages())
def test_a_damaged_index_is_left_out_and_rebuilt_to_the_same_figures(data_dir, damage):
    expected = everything(data_dir)
    fold(data_dir)
    damage(data_dir / "ledger" / INDEX_NAME)
    assert everything(data_dir) == expected
    assert fold(data_dir) == 44
    assert everything(data_dir) == expected
    assert verify(data_dir) == []


def test_an_index_of_other_logs_is_rebuilt(data_dir, tmp_path):
    fold(data_dir)
    for log in (0, 1):
        shutil.rmtree(log_of(data_dir, log))
        write_log(log_of(data_dir, log), [row(log)])
    assert len(everything(data_dir)[0]) == 2
    fold(data_dir)
    with Reader(data_dir) as reader:
        assert reader.sums()[0]["requests"] == 2
    assert verify(data_dir) == []


def test_the_index_takes_only_what_is_acknowledged(tmp_path):
    write_log(log_of(tmp_path), [row(1)])
    io = FaultyIO()
    writer = LogWriter(log_of(tmp_path), 0, None, io=io, limits=QUICK)
    writer.append(opening(2).entry())
    writer.flush()
    path = log_of(tmp_path) / "000001.jsonl"
    beyond = row(2) | {"seq": 1, "prev": "0" * 64}
    with path.open("ab") as file:
        file.write(orjson.dumps(beyond) + b"\n")
    assert fold(tmp_path) == 1
    writer.close()


def test_a_reader_stands_still_while_the_index_moves_on(data_dir):
    fold(data_dir)
    with Reader(data_dir) as reader:
        write_log(log_of(data_dir), [row(900)])
        fold(data_dir)
        assert reader.sums()[0]["requests"] == 40
    with Reader(data_dir) as reader:
        assert reader.sums()[0]["requests"] == 41


@pytest.fixture(params=["rollups", "tail"])
def clock_change(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    """One row of one token in each half hour around two months' ends and two clock changes of Europe/Berlin."""
    moments = [
        datetime(2025, month, day, hour, minute, tzinfo=UTC)
        for month, day in ((3, 29), (3, 30), (3, 31), (10, 25), (10, 26), (10, 31))
        for hour in range(24)
        for minute in (10, 40)
    ]
    rows = [ended(number, moment.isoformat(), 1) for number, moment in enumerate(moments)]
    write_log(log_of(tmp_path), rows)
    if request.param == "rollups":
        fold(tmp_path)
    with Reader(tmp_path) as reader:
        yield reader


def test_days_have_23_and_25_hours_when_clocks_change(clock_change):
    days = {each["period"]: each["requests"] for each in clock_change.sums((), "day", "Europe/Berlin")}
    assert days["2025-03-30"] == 46
    assert days["2025-10-26"] == 50
    assert sum(days.values()) == 6 * 48


def test_an_hour_that_is_repeated_is_two_hours(clock_change):
    hours = [
        each for each in clock_change.sums((), "hour", "Europe/Berlin") if each["period"].startswith("2025-10-26T0")
    ]
    assert [each["period"] for each in hours][:4] == [
        "2025-10-26T00:00+02:00",
        "2025-10-26T01:00+02:00",
        "2025-10-26T02:00+02:00",
        "2025-10-26T02:00+01:00",
    ]
    assert {each["requests"] for each in hours} == {2}


def test_months_begin_at_the_viewers_midnight(clock_change):
    def months(tz: str) -> dict[str, int]:
        return {each["period"]: each["requests"] for each in clock_change.sums((), "month", tz)}

    assert months("UTC") == {"2025-03": 144, "2025-10": 144}
    # 31 March ends at 22:00 UTC in Berlin and at 18:15 UTC in Kathmandu; 31 October at 23:00 and 18:15.
    assert months("Europe/Berlin") == {"2025-03": 140, "2025-04": 4, "2025-10": 142, "2025-11": 2}
    assert months("Asia/Kathmandu") == {"2025-03": 133, "2025-04": 11, "2025-10": 133, "2025-11": 11}


@pytest.mark.parametrize("tz", ["Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "UTC"])
@pytest.mark.parametrize("period", ["hour", "day", "month", "year"])
def test_sums_of_rollups_are_sums_of_rows(clock_change, tz, period):
    zone, counted = ZoneInfo(tz), {}
    for each in clock_change.rows():
        local = datetime.fromisoformat(each["ended_at"]).astimezone(zone)
        label = local.replace(minute=0).isoformat(timespec="minutes") if period == "hour" else local.isoformat()
        label = label[: {"day": 10, "month": 7, "year": 4}.get(period)]
        counted[label] = counted.get(label, 0) + each["delivered_tokens"]
    assert {each["period"]: each["delivered_tokens"] for each in clock_change.sums((), period, tz)} == counted


@pytest.mark.parametrize("indexed", [False, True])
def test_bounds_are_inclusive_and_exclusive_to_the_microsecond(tmp_path, indexed):
    moments = ["2025-11-24T16:00:00Z", "2025-11-24T16:07:30.000001Z", "2025-11-24T16:15:00Z"]
    write_log(log_of(tmp_path), [ended(number, moment) for number, moment in enumerate(moments)])
    if indexed:
        fold(tmp_path)
    bounds = [NOW_S, NOW_S + 450, NOW_S + 450.000001, NOW_S + 450.000002, NOW_S + 900, NOW_S + 900.000001]
    with Reader(tmp_path) as reader:
        for start, end in itertools.combinations(bounds, 2):
            expected = sum(round(start * 1e6) <= parse_us(moment) < round(end * 1e6) for moment in moments)
            assert len(list(reader.rows(start, end))) == expected
            assert sum(each["requests"] for each in reader.sums((), None, "UTC", start, end)) == expected


def test_sums_are_grouped_and_unknown_is_null(tmp_path):
    write_log(
        log_of(tmp_path),
        [
            row(1, destination_country="DE"),
            row(2, destination_country="DE", exported=False),
            row(3, destination_country="", exported=None),
        ],
    )
    with Reader(tmp_path) as reader:
        sums = reader.sums(("destination_country", "origin_region"))
        by_key = reader.sums(("key_id",))
    assert [(each["destination_country"], each["requests"], each["exported_tokens"]) for each in sums] == [
        (None, 1, 0),
        ("DE", 2, 51),
    ]
    assert sums[0]["origin_region"] == "guizhou"
    assert (by_key[0]["key_id"], by_key[0]["requests"]) == ("k1", 3)


def test_amounts_of_two_currencies_are_two_sums(tmp_path):
    write_log(log_of(tmp_path), [row(1), row(2, currency="EUR"), row(3)])
    with Reader(tmp_path) as reader:
        assert [(each["currency"], each["requests"]) for each in reader.sums()] == [("EUR", 1), ("USD", 2)]


@pytest.mark.parametrize(
    "arguments", [(("cost_nano",),), (("nothing",),), ((), "week"), ((), "day", "Mars/Olympus"), ((), "day", "../x")]
)
def test_sums_over_what_does_not_exist_are_refused(data_dir, arguments):
    with Reader(data_dir) as reader, pytest.raises(ValueError):
        reader.sums(*arguments)


def test_refusals_are_summed_by_minute_tenant_and_reason(data_dir):
    with Reader(data_dir) as reader:
        assert reader.refusals() == [
            {"minute": "2025-11-24T16:00:00.000000Z", "tenant": "acme", "reason": "budget", "count": 14}
        ]
        assert reader.refusals(NOW_S + 60) == []
        assert len(reader.refusals(NOW_S, NOW_S + 60)) == 1


def test_many_rows_come_in_chunks_without_gap_or_repetition(tmp_path):
    moment = "2025-11-24T16:00:00Z"
    write_log(log_of(tmp_path), [ended(number, moment) for number in range(2100)])
    with Reader(tmp_path) as reader:
        assert [each["seq"] for each in reader.rows()] == list(range(2100))


def test_without_any_ledger_there_is_nothing(tmp_path):
    assert everything(tmp_path) == ([], [], [], [])


def test_an_index_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / INDEX_NAME).mkdir()
    with pytest.raises(OSError, match=INDEX_NAME):
        Index(tmp_path / INDEX_NAME)


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [
        (b'"status":200', b'"status":2e2'),
        (b'"status":200', b'"status":[2]'),
        (b'"status":200', b'"stat_s":200'),
        (b'"ended_at":"2025', b'"ended_at":"XXXX'),
        (b'"cost_nano":', b'"cost_nano":9999999999999999999'),
        (b'"seq":1', b'"seq":-'),
    ],
)
def test_a_damaged_row_is_left_out_and_named(tmp_path, whole, damaged):
    write_log(log_of(tmp_path), [row(1), row(2), row(3)])
    (segment,) = log_of(tmp_path).glob("*.jsonl")
    content = segment.read_bytes()
    at = content.index(whole, content.index(b'"seq":1') - 200)
    segment.write_bytes(content[:at] + content[at:].replace(whole, damaged, 1))
    with Reader(tmp_path) as reader:
        assert len(list(reader.rows())) == 2
    head = orjson.loads((log_of(tmp_path) / "head").read_bytes()) | {"offset": segment.stat().st_size}
    (log_of(tmp_path) / "head").write_bytes(orjson.dumps(head).ljust(255) + b"\n")
    assert fold(tmp_path) == 2
    assert any(finding.line in (5, 6) for finding in verify(tmp_path))
