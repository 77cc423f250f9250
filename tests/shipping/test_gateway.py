"""The running gateway ships: its reports over the store are those over its ledger, and no request waits for a store."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import KEY, one_site, toml
from tests.fakes.gateway import POLL_S, Gateway, run_command
from tests.fakes.streaming import Ask, stream

from .servers import Nats
from .test_jetstream import stream_ids

REPORT = ("--by", "origin_country,destination_country,tenant,model", "--period", "day", "--format", "json")


def configuration(site_url: str, *sinks: dict[str, Any]) -> str:
    return toml(one_site(site_url) | {"sinks": list(sinks)})


async def sink_of(gateway: Gateway, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in (await gateway.status())["sinks"] if each["name"] == name)
    return found


async def sink_when(gateway: Gateway, name: str, check: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the gateway says of a store, once it is so."""
    async with asyncio.timeout(30):
        while not check(sink := await sink_of(gateway, name)):  # noqa: ASYNC110  another process
            await asyncio.sleep(POLL_S)
    return sink


async def up_to_date(gateway: Gateway, name: str, rows: int) -> None:
    await sink_when(gateway, name, lambda sink: sink["reachable"] and not sink["lag_rows"] and sink["rows"] >= rows)


async def ask(gateway: Gateway, count: int, prefix: str) -> None:
    for number in range(count):
        assert (await stream(gateway.url, KEY, Ask(request_id=f"{prefix}-{number}"))).looks_whole


async def test_a_gateway_ships_and_reports_over_the_store_as_over_its_ledger(tmp_path, database, nats: Nats):
    async with ScriptedBackend() as scripted:
        text = configuration(
            scripted.site("one").url,
            {"name": "pg", "kind": "postgres", "url_env": "PG"},
            {"name": "js", "kind": "nats", "url": nats.url, "stream": "live", "subject": "live.exports"},
        )
        async with Gateway(tmp_path, text, {"PG": database}) as gateway:
            await ask(gateway, 5, "first")
            await up_to_date(gateway, "pg", 5)
            await up_to_date(gateway, "js", 5)
            await gateway.stop()
            await gateway.start()
            await ask(gateway, 3, "second")
            await up_to_date(gateway, "pg", 3)
            for sources in (("--source", "pg"), ("--source", database)):
                there = await gateway.command("report", *REPORT, *sources)
                here = await gateway.command("report", *REPORT)
                assert (there.status, there.json) == (0, here.json), there.stderr
                assert sum(row["requests"] for row in here.json) == 8
                exported = await gateway.command("export", *sources)
                assert exported.stdout == (await gateway.command("export")).stdout
            bare = await run_command("report", "--config", "none.toml", *REPORT, "--source", database)
            assert bare.json == here.json
            await up_to_date(gateway, "js", 3)
            rows = [orjson.loads(line) for line in exported.stdout.splitlines()]
            gateway_id = (gateway.data_dir / "gateway.id").read_text().strip()
            expected = [row["export_id"] for row in sorted(rows, key=lambda row: row["seq"])]
            # On a thread: it runs a loop of its own.
            assert await asyncio.to_thread(stream_ids, nats, "live", gateway_id) == expected
            checked = await gateway.command("check")
            assert "ships to pg: postgres, table exports\nships to js: nats, stream live\n" in checked.stdout


async def test_a_store_that_is_away_stops_no_request_and_a_reload_mends_it(tmp_path, database):
    async with ScriptedBackend() as scripted:
        gone = {"name": "pg", "kind": "postgres", "url": "postgres://nobody@127.0.0.1:9/none"}
        async with Gateway(tmp_path, configuration(scripted.site("one").url, gone)) as gateway:
            await ask(gateway, 3, "away")
            sink = await sink_when(gateway, "pg", lambda sink: sink["lag_rows"] == 3)
            assert (sink["reachable"], sink["lag_rows"], sink["rows"]) == (False, 3, 0)
            assert sink["lag_bytes"] > 0 and sink["lag_s"] > 0 and "PostgreSQL" in sink["problem"]
            page = await admin(gateway, "/")
            assert b"takes nothing since" in page and b"3 rows" in page
            failed = await gateway.command("report", "--source", "pg")
            assert failed.status == 3 and failed.stderr.count("\n") == 1
            gateway.configure(configuration(scripted.site("one").url, {**gone, "url": database}))
            await up_to_date(gateway, "pg", 3)
            assert b"up to date" in await admin(gateway, "/")
            assert b'tokenport_sink_rows_total{sink="pg"} 3.0' in await admin(gateway, "/metrics")


async def admin(gateway: Gateway, path: str) -> bytes:
    async with RawClient.connect(gateway.admin_url) as client:
        await client.send(request("GET", path, host=gateway.admin_url.removeprefix("http://")))
        return (await client.response()).body
