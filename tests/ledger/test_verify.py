"""The audit finds what was done to a ledger, and finds nothing in a good one."""

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.ledger.index import INDEX_NAME, Index
from gateway.ledger.log import LogWriter
from gateway.ledger.segment import hash_of
from gateway.ledger.tail import LogLimits
from gateway.ledger.verify import Finding, audit, summary, verify

from .exports import an_end, export_id, lines, opening, row, write_log


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a log of several segments, closed in good order."""
    data_dir = tmp_path_factory.mktemp("good")
    write_log(
        data_dir / "ledger" / "0",
        [row(number) for number in range(10)],
        singly=True,
        limits=LogLimits(segment_bytes_max=9000),
    )
    assert len(list((data_dir / "ledger" / "0").glob("*.jsonl"))) == 3
    return data_dir


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "data"


def copy(good: Path, scratch: Path) -> list[Path]:
    """A fresh copy to damage; returns its segments."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(good, scratch)
    return sorted((scratch / "ledger" / "0").glob("*.jsonl"))


def rewrite(path: Path, changed: dict[str, Any]) -> None:
    """Change the first settled row of a log of one segment and mend the chain and the head behind it."""
    done: list[bytes] = []
    prev, found = "0" * 64, False
    for line in path.read_bytes().splitlines():
        record = orjson.loads(line)
        if record["record"] == "settled" and not found:
            record |= changed
            found = True
        record["prev"] = prev
        done.append(orjson.dumps(record))
        prev = hash_of(done[-1])
    path.write_bytes(b"".join(line + b"\n" for line in done))
    head = path.with_name("head")
    named = orjson.loads(head.read_bytes()) | {"hash": prev, "offset": path.stat().st_size}
    head.write_bytes(orjson.dumps(named).ljust(255) + b"\n")


def test_a_good_ledger_has_no_findings_and_a_summary(good):
    assert verify(good) == []
    totals = summary(good)
    assert totals["rows"] == totals["completed"] == 10
    assert totals["delivered_tokens"] == totals["exported_tokens"] == sum(50 + number for number in range(10))


def test_no_ledger_at_all_is_good(tmp_path):
    assert verify(tmp_path) == []


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(data=st.data())
def test_any_changed_byte_is_found(good, scratch, data):
    path = data.draw(st.sampled_from(copy(good, scratch)))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    line = bytes(content[:at]).count(b"\n") + 1
    findings = verify(scratch)
    assert findings
    # The line itself, the next one, or the first of the next segment.
    near = {(path.name, line + step) for step in (-1, 0, 1)} | {(f"{int(path.stem) + 1:06d}.jsonl", 1)}
    assert {(Path(finding.segment).name, finding.line) for finding in findings} & near


@quick
@given(data=st.data())
def test_any_deleted_line_is_found(good, scratch, data):
    path = data.draw(st.sampled_from(copy(good, scratch)))
    content = path.read_bytes().splitlines(keepends=True)
    del content[data.draw(st.integers(0, len(content) - 1))]
    path.write_bytes(b"".join(content))
    assert verify(scratch)


@quick
@given(data=st.data())
def test_any_two_swapped_lines_are_found(good, scratch, data):
    path = data.draw(st.sampled_from(copy(good, scratch)))
    content = path.read_bytes().splitlines(keepends=True)
    one = data.draw(st.integers(0, len(content) - 2))
    other = data.draw(st.integers(one + 1, len(content) - 1))
    content[one], content[other] = content[other], content[one]
    path.write_bytes(b"".join(content))
    assert verify(scratch)


@quick
@given(data=st.data())
def test_any_inserted_line_is_found(good, scratch, data):
    paths = copy(good, scratch)
    path = data.draw(st.sampled_from(paths))
    content = path.read_bytes().splitlines(keepends=True)
    copied = data.draw(
        st.sampled_from([line for each in paths for line in each.read_bytes().splitlines(keepends=True)])
    )
    content.insert(data.draw(st.integers(0, len(content))), copied)
    path.write_bytes(b"".join(content))
    assert verify(scratch)


@quick
@given(data=st.data())
def test_any_cut_tail_is_found(good, scratch, data):
    path = copy(good, scratch)[-1]
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert verify(scratch)


def test_a_missing_segment_is_found(good, scratch):
    copy(good, scratch)[1].unlink()
    assert Finding("0/000002.jsonl", 0, "is missing") in verify(scratch)


def test_a_log_that_lost_all_its_segments_is_found(good, scratch):
    for path in copy(good, scratch):
        path.unlink()
    assert verify(scratch)


def test_a_head_behind_the_log_is_no_finding_and_one_ahead_is(good, scratch):
    copy(good, scratch)
    head = scratch / "ledger" / "0" / "head"
    named = orjson.loads(head.read_bytes())
    all_lines = lines(scratch / "ledger" / "0")
    behind = named | {"count": named["count"] - 1, "hash": hash_of(all_lines[-2])}
    behind |= {"offset": named["offset"] - len(all_lines[-1]) - 1, "seq": named["seq"] - 1}
    head.write_bytes(orjson.dumps(behind).ljust(255) + b"\n")
    assert verify(scratch) == []
    head.write_bytes(orjson.dumps(named | {"count": named["count"] + 1}).ljust(255) + b"\n")
    assert [finding.problem for finding in verify(scratch)] == ["ends 1 records before what the head counts"]
    for wrong in ({"offset": 1}, {"segment": 2}, {"seq": 2}):
        head.write_bytes(orjson.dumps(named | wrong).ljust(255) + b"\n")
        (finding,) = verify(scratch)
        assert finding.segment == "0/head"
        assert "does not end where its last record does" in finding.problem
    head.write_bytes(b"garbage".ljust(255) + b"\n")
    assert verify(scratch) == [Finding("0/head", 0, "the head is not readable")]


def test_a_rewritten_end_that_keeps_the_chain_is_found_by_the_head(tmp_path):
    directory = tmp_path / "ledger" / "0"
    write_log(directory, [row(1)])
    head = (directory / "head").read_bytes()
    rewrite(directory / "000001.jsonl", {"tenant": "other"})
    (directory / "head").write_bytes(head)
    assert [finding.problem for finding in verify(tmp_path)] == ["is not the record that the head names"]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"cost_nano": 1}, "cost_nano does not follow from the row"),
        ({"revenue_nano": 1}, "revenue_nano does not follow from the row"),
        ({"seq": 1}, "has seq 1 instead of 0"),
        ({"log": 4}, "belongs to log 4"),
        ({"status": 200.0}, "status is not an integer"),
        ({"extra": 1}, "has other columns than the contract"),
        ({"export_id": export_id(9)}, f"ends {export_id(9)}, which is not open: a second end, or no open"),
        ({"delivered_tokens": 50}, "more is billed than delivered"),
        ({"delivered_tokens": 99}, "more is delivered than generated"),
    ],
)
def test_a_row_that_contradicts_itself_is_found_under_a_good_chain(tmp_path, changed, problem):
    directory = tmp_path / "ledger" / "0"
    write_log(directory, [row(1)])
    rewrite(directory / "000001.jsonl", changed)
    findings = verify(tmp_path)
    assert Finding("0/000001.jsonl", 3, problem) in findings
    assert not any("line before it" in finding.problem for finding in findings)


def test_an_open_without_an_end_is_found_unless_it_is_live(tmp_path):
    directory = tmp_path / "ledger" / "0"
    writer = LogWriter(directory, 0, None)
    writer.append(opening(1).entry())
    writer.flush()
    assert verify(tmp_path) == [], "its writer holds the lock"
    assert verify(tmp_path, live=[export_id(1)]) == []
    assert verify(tmp_path, live=[]) == [Finding("0/000001.jsonl", 2, f"open {export_id(1)} has no end")]
    writer.close()
    assert verify(tmp_path) == [Finding("0/000001.jsonl", 2, f"open {export_id(1)} has no end")]


async def test_a_log_that_is_being_written_has_no_findings(tmp_path):
    writer = LogWriter(
        tmp_path / "ledger" / "0", 0, asyncio.get_running_loop(), limits=LogLimits(segment_bytes_max=20_000)
    )
    index = Index(tmp_path / "ledger" / INDEX_NAME)
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            writer.append(opening(number).entry())
            future = writer.wait(writer.terminal(an_end(row(number))))
            number += 1
            if future is not None and number % 7 == 0:
                await asyncio.wait_for(future, 10)

    writing = asyncio.create_task(write())
    for _ in range(5):
        await asyncio.to_thread(index.fold, tmp_path / "ledger")
        assert await asyncio.to_thread(verify, tmp_path) == []
    stop.set()
    await writing
    writer.close()
    index.close()
    assert verify(tmp_path) == []


@pytest.fixture
def indexed(good: Path, tmp_path: Path) -> Path:
    data_dir = tmp_path / "data"
    shutil.copytree(good, data_dir)
    index = Index(data_dir / "ledger" / INDEX_NAME)
    index.fold(data_dir / "ledger")
    index.close()
    assert verify(data_dir) == []
    return data_dir


ID_2 = f"x'{export_id(2).replace('-', '')}'"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("UPDATE places SET tenant = 'x'", "differs in the index: tenant"),
        (f"DELETE FROM ends WHERE export_id = {ID_2}", "is not in the index"),
        ("UPDATE rollups SET requests = requests + 1", "rollups of quarter"),
        ("DELETE FROM rollups", "rollups of quarter"),
        ("UPDATE days SET revenue_nano = revenue_nano + 1", "sums of day"),
        ("UPDATE prices SET attempt = 'x'", "differs in the index: attempts_json"),
        ("UPDATE spent SET tokens = tokens - 1", "what budgets have used"),
        ("DELETE FROM spent", "what budgets have used"),
        ("INSERT INTO refusals VALUES ('2025-11-24T16:00:00.000000Z', 'acme', 'budget', 1)", "refusals are not"),
        (f"UPDATE ends SET export_id = 'x' WHERE export_id = {ID_2}", "has 1 rows of log 0 that"),
    ],
)
def test_an_index_that_differs_from_the_logs_is_found(indexed, sql, expected):
    connection = sqlite3.connect(indexed / "ledger" / INDEX_NAME)
    connection.execute(sql)
    connection.commit()
    connection.close()
    assert any(finding.problem.startswith(expected) for finding in verify(indexed))


def test_an_index_that_cannot_be_read_is_found(indexed):
    (indexed / "ledger" / INDEX_NAME).write_bytes(b"no database at all" * 1000)
    findings = audit(indexed / "ledger").findings
    assert [finding.segment for finding in findings] == [INDEX_NAME]
    assert "delete it" in findings[0].problem
