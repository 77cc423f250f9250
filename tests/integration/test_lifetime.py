"""From start to stop: reloads that take or leave a file whole, drains that lose nothing, one gateway per directory."""

import asyncio
import errno
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import KEY, one_site, tenant, toml
from tests.fakes.gateway import Gateway, eventually, run_command
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, Stream, stream
from tests.integration.recomputation import differences


async def get(url: str, path: str) -> int:
    async with RawClient.connect(url) as client:
        await client.send(request("GET", path, host=url.removeprefix("http://")))
        return (await client.response()).status


def refuses(url: str) -> bool:
    """Whether nobody listens there any more."""
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) == errno.ECONNREFUSED


async def test_readiness_and_health_answer_on_both_listeners(tmp_path: Path, backend: ScriptedBackend) -> None:
    async with Gateway(tmp_path, toml(one_site(backend.site().url))) as gateway:
        found = [await get(url, path) for url in (gateway.url, gateway.admin_url) for path in ("/healthz", "/readyz")]
        # What tells more than that is on the admin listener only.
        assert [await get(gateway.url, path) for path in ("/metrics", "/status", "/")] == [404, 404, 404]
        assert [await get(gateway.admin_url, path) for path in ("/metrics", "/status", "/")] == [200, 200, 200]
    assert found == [200, 200, 200, 200]


@pytest.mark.parametrize("told", [True, False])
async def test_a_changed_file_is_taken_whole_by_signal_or_by_itself(
    tmp_path: Path, backend: ScriptedBackend, told: bool
) -> None:
    content = one_site(backend.site("old").url)
    async with Gateway(tmp_path, toml(content)) as gateway:
        first = await stream(gateway.url, KEY, Ask())
        content["backends"][0] |= {"name": "new", "url": backend.site("new").url}
        content["routes"][0]["backends"] = ["new"]
        gateway.configure(toml(content))
        if told:
            gateway.signal(signal.SIGHUP)
        second = await _answered_by(gateway, "new")
        rows = {row["export_id"]: row for row in await gateway.rows(2)}
    old, new = rows[first.export_id], rows[second.export_id]
    assert (old["origin_backend"], new["origin_backend"]) == ("near", "new")
    assert old["route_version"] != new["route_version"]


async def _answered_by(gateway: Gateway, name: str) -> Stream:
    async with asyncio.timeout(10):
        while True:
            seen = await stream(gateway.url, KEY, Ask())
            if seen.headers["x-tokenport-backend"] == name:
                return seen


async def test_a_bad_file_keeps_the_old_configuration_and_is_named(tmp_path: Path, backend: ScriptedBackend) -> None:
    content = one_site(backend.site().url)
    async with Gateway(tmp_path, toml(content)) as gateway:
        content["backends"][0]["slots"] = -4
        gateway.configure(toml(content))
        gateway.signal(signal.SIGHUP)
        await eventually(lambda: "slots" in gateway.stderr, "the mistake is named")
        seen = await stream(gateway.url, KEY, Ask())
        assert seen.done
        # What needs a restart is refused as well.
        content["backends"][0]["slots"] = 4
        content["gateway"]["workers"] = 3
        gateway.configure(toml(content))
        gateway.signal(signal.SIGHUP)
        await eventually(lambda: "gateway.workers" in gateway.stderr, "the other mistake is named")
        assert (await stream(gateway.url, KEY, Ask())).done


async def test_a_removed_backend_finishes_its_streams(tmp_path: Path, backend: ScriptedBackend) -> None:
    old = backend.site("old")
    content = one_site(old.url)
    async with Gateway(tmp_path, toml(content)) as gateway:
        heard = asyncio.Event()
        ask = Ask(script=Script(tokens=6, hold_after=2))
        under_way = asyncio.create_task(stream(gateway.url, KEY, ask, heard))
        await asyncio.wait_for(heard.wait(), 10)
        content["backends"][0] |= {"name": "new", "url": backend.site("new").url}
        content["routes"][0]["backends"] = ["new"]
        gateway.configure(toml(content))
        gateway.signal(signal.SIGHUP)
        await _answered_by(gateway, "new")
        old.release()
        seen = await under_way
        row = await gateway.row(seen.export_id)
    assert (seen.tokens, seen.done) == (6, True)
    assert (row["outcome"], row["origin_backend"], row["delivered_tokens"]) == ("completed", "near", 6)
    assert differences(row) == {}


async def test_a_new_key_works_and_a_removed_one_does_not_after_a_reload(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    content = one_site(backend.site().url)
    async with Gateway(tmp_path, toml(content)) as gateway:
        content["tenants"] = [tenant(key="another-key")]
        gateway.configure(toml(content))
        gateway.signal(signal.SIGHUP)

        async def status(key: str) -> int:
            return (await stream(gateway.url, key, Ask())).status

        async with asyncio.timeout(10):
            while await status("another-key") != 200:
                pass
        assert await status(KEY) == 401


# ---- stopping


async def test_a_drain_lets_streams_end_and_says_so_at_once(tmp_path: Path, backend: ScriptedBackend) -> None:
    site = backend.site()
    content = one_site(site.url)
    content["limits"] |= {"accept_s": 2.0, "drain_s": 30.0}
    async with Gateway(tmp_path, toml(content)) as gateway:
        heard = asyncio.Event()
        ask = Ask(script=Script(tokens=6, hold_after=2))
        under_way = asyncio.create_task(stream(gateway.url, KEY, ask, heard))
        await asyncio.wait_for(heard.wait(), 10)
        gateway.signal(signal.SIGTERM)
        # Unready at once, and still accepting: balancers need seconds to look away.
        async with asyncio.timeout(2.0):
            while await get(gateway.url, "/readyz") != 503:
                pass
        late = await stream(gateway.url, KEY, Ask(script=Script(tokens=3)))
        site.release()
        seen = await asyncio.wait_for(under_way, 10)
        assert await gateway.ended() == 0
        rows = await gateway.export()
    assert (seen.tokens, seen.done) == (6, True)
    assert (late.tokens, late.done) == (3, True) or late.status == 503
    assert all(row["outcome"] == "completed" for row in rows)


async def test_what_does_not_end_is_ended_with_an_error_event_and_counted(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    content = one_site(backend.site().url)
    content["limits"] |= {"drain_s": 0.3}
    async with Gateway(tmp_path, toml(content)) as gateway:
        heard = asyncio.Event()
        ask = Ask(script=Script(tokens=6, hold_after=2))
        under_way = asyncio.create_task(stream(gateway.url, KEY, ask, heard))
        await asyncio.wait_for(heard.wait(), 10)
        gateway.signal(signal.SIGTERM)
        seen = await asyncio.wait_for(under_way, 10)
        assert await gateway.ended() == 0
        [row] = await gateway.export()
        verified = await gateway.verify()
    assert (seen.tokens, seen.done, seen.framed) == (2, False, True)
    assert seen.error is not None
    assert (row["outcome"], row["delivered_tokens"], row["output_tokens"]) == ("drained", 2, 2)
    assert differences(row) == {}
    assert verified.status == 0, verified.stdout


async def test_a_second_signal_stops_at_once(tmp_path: Path, backend: ScriptedBackend) -> None:
    content = one_site(backend.site().url)
    content["limits"] |= {"drain_s": 600.0, "accept_s": 60.0}
    async with Gateway(tmp_path, toml(content)) as gateway:
        heard = asyncio.Event()
        under_way = asyncio.create_task(stream(gateway.url, KEY, Ask(script=Script(tokens=6, hold_after=2)), heard))
        await asyncio.wait_for(heard.wait(), 10)
        gateway.signal(signal.SIGINT)
        await eventually(lambda: "again" in gateway.stdout, "it says how to stop at once")
        gateway.signal(signal.SIGINT)
        assert await gateway.ended(10) == 0
        seen = await under_way
        [row] = await gateway.export()
    assert seen.error is not None and not seen.done
    assert (row["outcome"], row["delivered_tokens"]) == ("drained", 2)


async def test_a_body_that_arrives_after_accepting_ended_is_refused(tmp_path: Path, backend: ScriptedBackend) -> None:
    site = backend.site()
    content = one_site(site.url)
    content["limits"] |= {"drain_s": 30.0}
    async with Gateway(tmp_path, toml(content)) as gateway:
        heard = asyncio.Event()
        holding = asyncio.create_task(stream(gateway.url, KEY, Ask(script=Script(tokens=6, hold_after=2)), heard))
        await asyncio.wait_for(heard.wait(), 10)
        late = Ask(request_id="late", script=Script(tokens=3), fields=(("expect", "100-continue"),))
        head, end, body = late.bytes(KEY).partition(b"\r\n\r\n")
        async with RawClient.connect(gateway.url) as client:
            await client.send(head + end)
            assert (await client.head(interim=True)).status == 100
            gateway.signal(signal.SIGTERM)
            await eventually(lambda: refuses(gateway.url), "the port is closed")
            await client.send(body)
            response = await client.response()
            assert await client.ended()
        site.release()
        seen = await asyncio.wait_for(holding, 10)
        assert await gateway.ended() == 0
        rows = await gateway.export()
        refused = await gateway.command("report", "--refusals", "--format", "json")
    assert (response.status, response.error["code"]) == (503, "draining")
    assert 1 <= int(response.headers["retry-after"]) <= 5
    assert (seen.tokens, seen.done) == (6, True)
    assert [row["outcome"] for row in rows] == ["completed"]
    assert [(each["tenant"], each["reason"], each["count"]) for each in refused.json] == [("acme", "draining", 1)]
    assert not site.served("late")


# ---- starting


async def test_a_second_gateway_on_the_same_directory_ends_with_2(tmp_path: Path, backend: ScriptedBackend) -> None:
    async with Gateway(tmp_path, toml(one_site(backend.site().url))) as gateway:
        second = await gateway.command("serve")
        assert second.status == 2
        assert "data" in second.stderr and "Traceback" not in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
        assert (await stream(gateway.url, KEY, Ask())).done


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path, backend: ScriptedBackend) -> None:
    content = one_site(backend.site().url)
    content["gateway"]["listen"] = f"127.0.0.1:{backend.port}"
    config = tmp_path / "tokenport.toml"
    config.write_text(toml(content))
    finished = await run_command("serve", "--config", str(config))
    assert finished.status == 2
    assert "gateway.listen" in finished.stderr and "in use" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("name", ["var", "var/ledger"])
async def test_a_file_where_a_directory_should_be_is_one_clear_line(
    tmp_path: Path, backend: ScriptedBackend, name: str
) -> None:
    (tmp_path / "tokenport.toml").write_text(toml(one_site(backend.site().url)))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("not a directory")
    finished = await run_command("serve", "--config", str(tmp_path / "tokenport.toml"))
    assert finished.status == 2
    assert "gateway.data_dir" in finished.stderr and str(tmp_path / "var") in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1


async def test_several_workers_serve_one_port_and_one_export(tmp_path: Path, backend: ScriptedBackend) -> None:
    content: dict[str, Any] = one_site(backend.site().url)
    content["gateway"]["workers"] = 2
    async with Gateway(tmp_path, toml(content)) as gateway:
        assert len(gateway.workers()) == 2
        seen = await asyncio.gather(*(stream(gateway.url, KEY, Ask(script=Script(tokens=4))) for _ in range(40)))
        rows = await gateway.rows(40)
        verified = await gateway.verify()
    assert [each.tokens for each in seen] == [4] * 40
    assert {row["export_id"] for row in rows} == {each.export_id for each in seen}
    assert len({row["route_version"] for row in rows}) == 1
    assert verified.status == 0, verified.stdout
