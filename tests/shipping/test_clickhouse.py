"""ClickHouse as a store: its own SQL, over its own protocol."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.shipping.clickhouse import ClickHouseSink
from gateway.shipping.clickhouse_reader import ClickHouseReader
from gateway.shipping.shipper import Shipper
from tests.ledger.exports import NOW_S, row, write_log

from .clickhouse_server import ClickHouseServer, clickhouse
from .ledgers import figures, ids, ledger_figures, log_of, refuse, ship, shipper, write


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with clickhouse(tmp_path_factory.mktemp("chdb")) as found:
        yield found


@pytest.fixture
def table(server: ClickHouseServer, request: pytest.FixtureRequest) -> str:
    return f"t_{abs(hash(request.node.name))}"


def to_clickhouse(data_dir: Path, server: ClickHouseServer, table: str, gateway: str = "gw1") -> Shipper:
    return shipper(data_dir, ClickHouseSink(server.url, gateway, table, None))


def shipped(data_dir: Path, server: ClickHouseServer, table: str, gateway: str = "gw1") -> Shipper:
    found = to_clickhouse(data_dir, server, table, gateway)
    ship(found)
    found.sink.close()
    return found


def stored_ids(server: ClickHouseServer, table: str) -> list[str]:
    with ClickHouseReader(server.url, table) as reader:
        return [str(found["export_id"]) for found in reader.rows()]


def test_the_store_answers_with_the_figures_of_the_ledger(tmp_path, server, table):
    write(tmp_path, range(250))
    write(tmp_path, range(300, 330), log=3)
    refuse(tmp_path, 3, 4, log=3)
    shipped(tmp_path, server, table)
    with ClickHouseReader(server.url, table) as reader:
        assert figures(reader) == ledger_figures(tmp_path)


def test_rows_whose_answer_was_lost_count_once(tmp_path, server, table):
    write(tmp_path, range(20))
    refuse(tmp_path, 3)
    found = to_clickhouse(tmp_path, server, table)
    server.failing = 1
    assert found.turn() > 0
    write(tmp_path, range(20, 30))
    server.failing = 1
    assert found.turn() > 0
    ship(found)
    found.sink.close()
    with ClickHouseReader(server.url, table) as reader:
        assert figures(reader) == ledger_figures(tmp_path)


def test_a_lost_cursor_and_lost_marks_double_nothing(tmp_path, server, table):
    write(tmp_path, range(20))
    shipped(tmp_path, server, table)
    shutil.rmtree(tmp_path / "sinks")
    server.session.query(f"TRUNCATE TABLE {table}_marks")
    write(tmp_path, range(20, 25))
    shipped(tmp_path, server, table)
    assert stored_ids(server, table) == ids(range(25))


def test_the_mark_in_the_store_says_where_to_go_on(tmp_path, server, table):
    write(tmp_path, range(20))
    shipped(tmp_path, server, table)
    shutil.rmtree(tmp_path / "sinks")
    write(tmp_path, range(20, 25))
    assert shipped(tmp_path, server, table).condition.rows == 5


def test_odd_texts_come_back_and_can_be_asked_for(tmp_path, server, table):
    odd = 'it\'s \\ "odd"\t\n\U0001f600'
    write_log(log_of(tmp_path), [row(0, model=odd), row(1, model="plain"), row(2, destination_country=None)])
    shipped(tmp_path, server, table)
    with ClickHouseReader(server.url, table) as reader:
        assert list(reader.rows()) == ledger_figures(tmp_path)[0]
        assert [found["model"] for found in reader.rows(where={"model": [odd]})] == [odd]
        assert [found["seq"] for found in reader.rows(where={"destination_country": [""]})] == [2]
        assert reader.sums(start=NOW_S + 2, end=NOW_S + 3)[0]["requests"] == 1


def test_a_wrong_password_is_said(tmp_path, server, table):
    write(tmp_path, range(1))
    found = shipper(tmp_path, ClickHouseSink(server.url.replace("sesame", "barley"), "gw1", table, None))
    assert found.turn() > 0
    assert "Authentication failed" in found.condition.problem
    assert "barley" not in found.condition.problem


def test_a_table_of_somebody_else_is_left_alone(tmp_path, server, table):
    server.session.query(f"CREATE TABLE {table} (id Int64) ENGINE = MergeTree ORDER BY id")
    write(tmp_path, range(1))
    found = to_clickhouse(tmp_path, server, table)
    assert found.turn() > 0
    assert "is not one of exports" in found.condition.problem


def test_each_block_of_rows_has_a_token_of_its_own(tmp_path, server, table):
    server.requests.clear()
    write(tmp_path, range(250))
    shipped(tmp_path, server, table)
    tokens = [each["insert_deduplication_token"] for each in server.requests if "insert_deduplication_token" in each]
    assert len(set(tokens)) == 3
