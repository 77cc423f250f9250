"""What happens around a request's edges: it leaves in the very read that brought it, or its limits change meanwhile."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import KEY, backend, document, one_site, tenant, toml
from tests.fakes.gateway import Gateway, GatewayFailed, eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, stream


async def test_a_reload_gives_back_what_requests_under_way_hold(tmp_path: Path) -> None:
    async with ScriptedBackend() as scripted:
        content = one_site(scripted.site().url)
        limits = {"streams": 2, "requests_per_minute": 3}
        content["tenants"] = [tenant(budget={"tokens": 10**6, "period": "year"}, limits=limits)]
        async with Gateway(tmp_path, toml(content)) as gateway:
            heard = asyncio.Event()
            ask = Ask(script=Script(tokens=6, hold_after=2))
            under_way = asyncio.create_task(stream(gateway.url, KEY, ask, heard))
            await asyncio.wait_for(heard.wait(), 10)
            gateway.configure(toml(content) + "# touched\n")
            gateway.signal(signal.SIGHUP)
            await eventually(lambda: "configuration reloaded" in gateway.stderr, "the reload")
            scripted.site().release()
            row = await gateway.row((await under_way).export_id)
            [seen] = (await gateway.status())["tenants"]
            assert (seen["streams"], seen["budget"]["reserved"]) == (0, 0)
            assert seen["budget"]["used"] == row["input_tokens"] + row["billed_output_tokens"]
            statuses = [(await stream(gateway.url, KEY, Ask(script=Script(tokens=1)))).status for _ in range(3)]
            assert statuses == [200, 200, 429], "a reload refilled the rate"


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_slow_reader_gets_the_whole_of_an_answer_that_closes(tmp_path: Path, streamed: bool) -> None:
    async with ScriptedBackend() as scripted:
        content = one_site(scripted.site().url)
        # Room for the whole answer, so that it ends although nobody reads it yet.
        content["limits"] = {"buffer_bytes_high": 2**20, "buffer_bytes_max": 2**22}
        await closes_under_a_slow_reader(tmp_path, content, streamed)


async def closes_under_a_slow_reader(tmp_path: Path, content: dict[str, Any], streamed: bool) -> None:
    async with Gateway(tmp_path, toml(content)) as gateway:
        script = Script(tokens=105 if streamed else 2000, word_bytes_min=1000 if streamed else 450)
        body: dict[str, Any] = {"model": "m", "stream": streamed, "messages": [{"role": "user", "content": "x"}]}
        raw = request(key=KEY, fields=[("connection", "close")], json_body=body | {"user": script.to_json()})
        async with RawClient.connect(gateway.url, receive_bytes=4096) as client:
            await client.send(raw)
            await gateway.rows(1)
            await asyncio.sleep(2.6)  # the reader's own slowness, longer than a lingering close waits for an idle one
            response = await client.response()  # raises Truncated if it was cut
        assert len(response.body) > 120_000


async def test_a_country_database_that_cannot_be_read_is_said_at_start(tmp_path: Path) -> None:
    (tmp_path / "bad.mmdb").write_text("not a database")
    content = one_site("http://127.0.0.1:1/v1")
    content["gateway"]["country_db"] = str(tmp_path / "bad.mmdb")
    gateway = Gateway(tmp_path, toml(content))
    with pytest.raises(GatewayFailed, match="ended with 2"):
        await gateway.start()


async def test_a_removed_backends_connections_are_closed_after_their_last_stream(tmp_path: Path) -> None:
    async with ScriptedBackend() as scripted:
        content = document([backend("old", "edge", scripted.site("old").url)])
        async with Gateway(tmp_path, toml(content)) as gateway:
            heard = asyncio.Event()
            ask = Ask(script=Script(tokens=6, hold_after=2))
            under_way = asyncio.create_task(stream(gateway.url, KEY, ask, heard))
            await asyncio.wait_for(heard.wait(), 10)
            content["backends"][0] |= {"name": "new", "url": scripted.site("new").url}
            content["routes"][0]["backends"] = ["new"]
            gateway.configure(toml(content))
            gateway.signal(signal.SIGHUP)
            await eventually(lambda: "configuration reloaded" in gateway.stderr, "the reload")
            scripted.site("old").release()
            await under_way
            [worker] = gateway.workers()

            def to_backends() -> int:
                lines = Path(f"/proc/{worker}/net/tcp").read_text().splitlines()[1:]
                return sum(f":{scripted.port:04X}" in line.split()[2] and line.split()[3] == "01" for line in lines)

            await eventually(lambda: to_backends() == 0, "no socket to the removed backend", 3)
