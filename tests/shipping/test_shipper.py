"""The loop of one store, with a store that does as it is told."""

from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from gateway.config import SinkSettings
from gateway.control.shipping import Shipping
from gateway.ledger.following import Position
from gateway.ledger.segment import read_head
from gateway.ledger.tail import LogLimits
from gateway.shipping import cursor
from gateway.shipping.batch import Batch, Mark, next_batch
from gateway.shipping.shipper import BACKOFF_S_MAX, BACKOFF_S_MIN, POLL_S, SinkError, backoff_s
from tests.ledger.exports import NOW_S, export_id

from .ledgers import ids, log_of, refuse, ship, shipper, write
from .servers import wait_until


class Store:
    """Remembers batches, and its marks across connections; fails while `problem` says why."""

    keyed = True

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.marks: dict[int, Mark] = {}
        self.problem = ""
        self.opened = 0
        self.is_open = False

    def open(self) -> Mapping[int, Mark]:
        self._may_fail()
        self.opened += 1
        self.is_open = True
        return dict(self.marks)

    def deliver(self, batch: Batch) -> None:
        self._may_fail()
        self.batches.append(batch)
        self.marks[batch.log] = batch.end

    def close(self) -> None:
        self.is_open = False

    def _may_fail(self) -> None:
        if self.problem:
            raise SinkError(self.problem)

    def ids(self, log: int = 0) -> list[str]:
        return [row.record["export_id"] for batch in self.batches if batch.log == log for row in batch.rows]


def head_of(data_dir: Path, log: int = 0) -> Position:
    head = read_head(log_of(data_dir, log))
    assert head is not None
    return Position(head.segment, head.offset)


def test_rows_come_in_order_over_segments_in_batches_of_a_bounded_size(tmp_path):
    write(tmp_path, range(90), singly=True, limits=LogLimits(segment_bytes_max=50_000))
    refuse(tmp_path, 1, 2)
    store = Store()
    ship(shipper(tmp_path, store, batch_rows=20))
    assert store.ids() == ids(range(90))
    assert all(len(batch.rows) + len(batch.refusals) <= 20 for batch in store.batches)
    assert [each.record["count"] for batch in store.batches for each in batch.refusals] == [1, 2]
    assert all(before.end == after.start for before, after in zip(store.batches, store.batches[1:], strict=False))


def test_the_cursor_is_where_the_store_is_and_may_only_lag(tmp_path):
    write(tmp_path, range(30))
    write(tmp_path, range(50, 60), log=4)
    store = Store()
    shipping = shipper(tmp_path, store, batch_rows=7)
    while shipping.turn() == 0.0:
        for log, position in cursor.load(tmp_path, "store").items():
            assert position <= store.marks[log].position
    assert cursor.load(tmp_path, "store") == {0: head_of(tmp_path), 4: head_of(tmp_path, 4)}
    assert cursor.taken_by_all(tmp_path, ["store"], 4) == head_of(tmp_path, 4)
    assert cursor.taken_by_all(tmp_path, ["store", "new"], 4) == (0, 0)
    assert cursor.taken_by_all(tmp_path, [], 4) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sink": "other", "positions": {"0": [1, 2]}}', '{"sink": "store"}'])
def test_a_cursor_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "store.json").write_text(text)
    assert cursor.load(tmp_path, "store") == {}


def test_the_name_of_a_gateway_is_made_once(tmp_path):
    name = cursor.gateway_id(tmp_path)
    assert len(name) == 32 and cursor.gateway_id(tmp_path) == name
    (tmp_path / "gateway.id").write_text("")
    with pytest.raises(OSError, match="holds no name"):
        cursor.gateway_id(tmp_path)


def test_a_store_that_is_away_is_told_with_what_waits_for_it_and_caught_up_with(tmp_path, caplog):
    write(tmp_path, range(30))
    store = Store()
    shipping = shipper(tmp_path, store)
    ship(shipping)
    store.problem = "no route to host"
    write(tmp_path, range(30, 75))
    with caplog.at_level("ERROR"):
        pauses = [shipping.turn() for _ in range(12)]
    told = shipping.condition
    assert (told.reachable, told.problem, told.failures, told.lag_rows) == (False, "no route to host", 12, 45)
    assert told.lag_bytes > 45 * 1000
    assert told.lag_s(NOW_S + 131) == 100  # the first of them ended 31 s after NOW_S
    assert [record.message for record in caplog.records] == [
        "a store did not take what it was given; it is tried again"
    ]
    assert BACKOFF_S_MIN / 2 <= pauses[0] <= BACKOFF_S_MIN and BACKOFF_S_MAX / 2 <= pauses[-1] <= BACKOFF_S_MAX
    store.problem = ""
    ship(shipping)
    assert store.ids() == ids(range(75))
    assert (shipping.condition.lag_rows, shipping.condition.lag_bytes, shipping.condition.lag_s(NOW_S)) == (0, 0, 0)


def test_lag_is_known_before_a_store_was_ever_reached(tmp_path):
    write(tmp_path, range(30))
    store = Store()
    store.problem = "away"
    shipping = shipper(tmp_path, store)
    shipping.turn()
    assert shipping.condition.lag_rows == 30 and shipping.condition.lag_s(NOW_S + 11) == 10


def test_pauses_grow_to_a_bound_and_are_never_the_same_for_all():
    for seed in range(20):
        pauses = [backoff_s(failures, Random(seed)) for failures in range(1, 200)]
        assert all(BACKOFF_S_MIN / 2 <= pause <= BACKOFF_S_MAX for pause in pauses)
    assert len({backoff_s(9, Random(seed)) for seed in range(20)}) == 20


def test_a_store_that_forgot_everything_gets_everything(tmp_path):
    write(tmp_path, range(10))
    store = Store()
    shipping = shipper(tmp_path, store)
    ship(shipping)
    store.problem = "restored from an old backup"
    write(tmp_path, range(10, 12))
    shipping.turn()
    store.problem, store.marks, store.batches = "", {}, []
    ship(shipping)
    assert store.ids() == ids(range(12))


def test_a_store_without_keys_goes_on_from_the_cursor(tmp_path):
    write(tmp_path, range(10))
    store = Store()
    store.keyed = False
    ship(shipper(tmp_path, store))
    store.marks = {}
    write(tmp_path, range(10, 15))
    ship(shipper(tmp_path, store))
    assert store.ids() == ids(range(15))


def test_a_mark_in_the_middle_of_a_line_or_of_another_log_is_found_out(tmp_path):
    write(tmp_path, range(10))
    head = read_head(log_of(tmp_path))
    assert head is not None
    first = next_batch(log_of(tmp_path), 0, Mark(), head, 3)
    assert first is not None
    segment, offset = first.end.position
    store = Store()
    for wrong in (
        first.end._replace(position=Position(segment, offset - 5)),
        first.end._replace(hash="0" * 64),
        first.end._replace(position=Position(segment + 3, 10)),
        Mark(head_of(tmp_path), "0" * 64, 3),
    ):
        store.marks, store.batches = {0: wrong}, []
        ship(shipper(tmp_path, store))
        assert store.ids() == ids(range(10)), wrong


def test_a_log_that_went_on_after_damage_is_shipped_on(tmp_path):
    write(tmp_path, range(5))
    store = Store()
    ship(shipper(tmp_path, store))
    path = log_of(tmp_path) / "000001.jsonl"
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 19 + b"\n")  # the last line, shipped already
    write(tmp_path, range(5, 9))
    ship(shipper(tmp_path, store))
    assert store.ids() == ids(range(9))


def test_stores_come_and_go_with_the_configuration(tmp_path):
    write(tmp_path, range(5))
    stores: dict[str, Store] = {}

    def make(settings: SinkSettings, gateway: str) -> Store:
        assert gateway == cursor.gateway_id(tmp_path)
        return stores.setdefault(f"{settings.name} {settings.batch_rows}", Store())

    shipping = Shipping(tmp_path, make)
    shipping.install([SinkSettings("a", "postgres", "u"), SinkSettings("b", "postgres", "u")])
    wait_until(lambda: [each.lag_rows for each in shipping.conditions() if each.rows == 5] == [0, 0], "both")
    shipping.install([SinkSettings("a", "postgres", "u"), SinkSettings("b", "postgres", "u", batch_rows=9)])
    wait_until(lambda: "b 9" in stores and len(stores["b 9"].ids()) == 5, "the changed one")
    wait_until(lambda: not stores["b 1000"].is_open, "the end of what it was before")
    assert stores["a 1000"].opened == 1
    shipping.install([])
    assert shipping.conditions() == []
    wait_until(lambda: not any(store.is_open for store in stores.values()), "the end of all")


async def test_what_was_written_last_is_shipped_before_the_gateway_ends(tmp_path):
    write(tmp_path, range(5))
    store = Store()
    shipping = Shipping(tmp_path, lambda settings, gateway: store)
    shipping.install([SinkSettings("a", "postgres", "u")])
    wait_until(lambda: len(store.ids()) == 5, "the first rows")
    write(tmp_path, range(5, 9))
    await shipping.stop()
    assert store.ids() == ids(range(9))
    assert not store.is_open


def test_a_poll_is_what_a_row_waits_at_most(tmp_path):
    write(tmp_path, range(2))
    shipping = shipper(tmp_path, Store())
    assert shipping.turn() == POLL_S
    assert export_id(1) in shipping.sink.ids()  # type: ignore[attr-defined]


@pytest.mark.parametrize("shipped_before", [False, True])
def test_what_a_later_version_wrote_waits_for_it(tmp_path, monkeypatch, shipped_before):
    store = Store()
    with monkeypatch.context() as later:
        later.setattr("gateway.ledger.tail.RECORD_VERSION", 99)
        write(tmp_path, range(5))
    if shipped_before:
        with monkeypatch.context() as later:
            later.setattr("gateway.shipping.batch.RECORD_VERSION", 99)
            ship(shipper(tmp_path, store, batch_rows=2))
        store.marks[0] = store.batches[0].end
        store.batches.clear()
    shipping = shipper(tmp_path, store)
    assert shipping.turn() > 0
    assert "records of version 99" in shipping.condition.problem
    assert store.batches == []


def test_a_lag_that_cannot_be_measured_ends_no_thread(tmp_path, monkeypatch):
    write(tmp_path, range(5))
    store = Store()
    store.problem = "away"
    shipping = shipper(tmp_path, store)
    with monkeypatch.context() as broken:
        broken.setattr("gateway.shipping.shipper.bytes_between", lambda *_: 1 // 0)
        assert shipping.turn() > 0
    store.problem = ""
    ship(shipping)
    assert store.ids() == ids(range(5))
