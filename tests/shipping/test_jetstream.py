"""NATS JetStream as a store: every row once, in the order of its log."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import nats as driver
import orjson
import pytest
from nats.js.api import StreamConfig

from gateway.shipping import cursor
from gateway.shipping.jetstream import JetStreamSink
from gateway.shipping.shipper import Shipper
from pricing.export import NAMES
from tests.ledger.exports import row, write_log

from .ledgers import ids, ledger_figures, log_of, refuse, ship, shipper, write
from .servers import Nats


def to_nats(data_dir: Path, nats: Nats, stream: str, gateway: str = "gw1", batch_rows: int = 40) -> Shipper:
    return shipper(data_dir, JetStreamSink(nats.url, gateway, stream, f"{stream}.exports", None), batch_rows)


def shipped(data_dir: Path, nats: Nats, stream: str, gateway: str = "gw1") -> Shipper:
    found = to_nats(data_dir, nats, stream, gateway)
    ship(found)
    found.sink.close()
    return found


def ask(nats: Nats, question: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """What a client says about JetStream."""

    async def run() -> Any:
        client = await driver.connect(nats.url, allow_reconnect=False)
        try:
            return await question(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(run())


def messages(nats: Nats, stream: str) -> list[tuple[str, dict[str, Any]]]:
    """Subject and content of everything in a stream, in its order."""

    async def read(context: Any) -> list[tuple[str, dict[str, Any]]]:
        state = (await context.stream_info(stream)).state
        found = []
        for seq in range(state.first_seq, state.last_seq + 1):
            message = await context.get_msg(stream, seq)
            found.append((message.subject, orjson.loads(message.data)))
        return found

    found: list[tuple[str, dict[str, Any]]] = ask(nats, read)
    return found


def stream_ids(nats: Nats, stream: str, gateway: str = "gw1", log: int = 0) -> list[str]:
    subject = f"{stream}.exports.{gateway}.{log}"
    return [told.get("export_id", "refused") for name, told in messages(nats, stream) if name == subject]


def test_a_message_is_a_row_with_the_columns_of_the_contract(tmp_path, nats):
    write(tmp_path, range(3))
    shipped(tmp_path, nats, "columns")
    found = messages(nats, "columns")
    assert [list(told) for _, told in found] == [[*NAMES, "gateway"]] * 3
    assert [{name: told[name] for name in NAMES} for _, told in found] == ledger_figures(tmp_path)[0]


def test_rows_and_refusals_keep_the_order_of_their_log(tmp_path, nats):
    write(tmp_path, range(50))
    refuse(tmp_path, 3)
    write(tmp_path, range(50, 95))
    write(tmp_path, range(200, 230), log=1)
    shipped(tmp_path, nats, "order")
    assert stream_ids(nats, "order") == [*ids(range(50)), "refused", *ids(range(50, 95))]
    assert stream_ids(nats, "order", log=1) == ids(range(200, 230))


def test_a_lost_cursor_doubles_nothing(tmp_path, nats):
    write(tmp_path, range(30))
    shipped(tmp_path, nats, "cursor")
    shutil.rmtree(tmp_path / cursor.SINKS_NAME)
    write(tmp_path, range(30, 40))
    assert shipped(tmp_path, nats, "cursor").condition.rows == 10
    assert stream_ids(nats, "cursor") == ids(range(40))


def test_an_answer_that_was_lost_doubles_nothing(tmp_path, nats):
    write(tmp_path, range(10))
    found = to_nats(tmp_path, nats, "answer")
    deliver, lost = found.sink.deliver, iter([True])

    def deliver_unheard(batch: Any) -> None:
        deliver(batch)
        if next(lost, False):
            raise ConnectionError("the answer is lost")

    found.sink.deliver = deliver_unheard  # type: ignore[method-assign]
    assert found.turn() > 0
    write(tmp_path, range(10, 20))
    ship(found)
    found.sink.close()
    assert stream_ids(nats, "answer") == ids(range(20))


def test_a_stream_that_let_its_messages_go_is_filled_on_from_the_cursor(tmp_path, nats):
    write(tmp_path, range(10))
    found = to_nats(tmp_path, nats, "purged")
    ship(found)
    ask(nats, lambda context: context.purge_stream("purged"))
    write(tmp_path, range(10, 15))
    ship(found)
    found.sink.close()
    ask(nats, lambda context: context.purge_stream("purged"))
    write(tmp_path, range(15, 20))
    shipped(tmp_path, nats, "purged")
    assert stream_ids(nats, "purged") == ids(range(15, 20))


def test_with_neither_cursor_nor_message_the_server_drops_what_it_remembers(tmp_path, nats):
    write(tmp_path, range(10))
    shipped(tmp_path, nats, "both")
    shutil.rmtree(tmp_path / cursor.SINKS_NAME)
    ask(nats, lambda context: context.purge_stream("both"))
    write(tmp_path, range(10, 12))
    shipped(tmp_path, nats, "both")
    assert stream_ids(nats, "both") == ids([10, 11])


def test_two_gateways_share_a_stream(tmp_path, nats):
    for first, name in enumerate(("a", "b")):
        write(tmp_path / name, range(first, 40, 2))
        shipped(tmp_path / name, nats, "shared", name)
    found = [stream_ids(nats, "shared", name) for name in ("a", "b")]
    assert found == [ids(range(0, 40, 2)), ids(range(1, 40, 2))]


def test_two_that_ship_under_one_name_stop_each_other(tmp_path, nats):
    write(tmp_path / "a", range(10))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = (to_nats(tmp_path / name, nats, "clone") for name in "ab")
    ship(first)
    ship(second)
    write(tmp_path / "a", range(10, 20))
    write(tmp_path / "b", range(30, 40))
    ship(first)
    assert second.turn() > 0
    assert "is gateway.id a copy?" in second.condition.problem
    first.sink.close()
    second.sink.close()
    assert stream_ids(nats, "clone") == ids(range(20))


def test_a_ledger_brought_back_from_a_backup_stops_and_says_so(tmp_path, nats):
    write(tmp_path, range(5))
    shutil.copytree(log_of(tmp_path), tmp_path / "backup")
    write(tmp_path, range(5, 10))
    shipped(tmp_path, nats, "restored")
    shutil.rmtree(log_of(tmp_path))
    shutil.copytree(tmp_path / "backup", log_of(tmp_path))
    write(tmp_path, range(100, 130))
    found = to_nats(tmp_path, nats, "restored")
    assert found.turn() > 0
    assert "was restored or replaced" in found.condition.problem
    assert stream_ids(nats, "restored") == ids(range(10))


def test_a_stream_without_atomic_batches_is_refused_with_what_to_do(tmp_path, nats):
    ask(nats, lambda context: context.add_stream(StreamConfig(name="plain", subjects=["plain.>"])))
    write(tmp_path, range(3))
    found = to_nats(tmp_path, nats, "plain")
    assert found.turn() > 0
    assert "set allow_atomic" in found.condition.problem


def test_a_batch_of_the_largest_size_goes_in_whole(tmp_path, nats):
    write(tmp_path, range(1000))
    found = to_nats(tmp_path, nats, "large", batch_rows=1000)
    ship(found)
    found.sink.close()
    state = ask(nats, lambda context: context.stream_info("large")).state
    assert state.messages == 1000


@pytest.mark.parametrize("text", ["\U0001f600", '"\\\n', "x" * 5000])
def test_odd_texts_arrive(tmp_path, nats, text):
    write_log(log_of(tmp_path), [row(0, model=text)])
    stream = f"odd-{len(text)}-{ord(text[0])}"
    shipped(tmp_path, nats, stream)
    assert [told["model"] for _, told in messages(nats, stream)] == [text]
