"""What a reload changes while connections are open, and what it says it cannot change."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import KEY, document, link, one_site, region, toml
from tests.fakes.configurations import backend as site_of
from tests.fakes.gateway import POLL_S, Gateway, eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, stream


async def reload(gateway: Gateway, content: dict[str, Any]) -> None:
    """Have this configuration in force."""
    taken = gateway.stderr.count("configuration reloaded")
    gateway.configure(toml(content))
    gateway.signal(signal.SIGHUP)
    await eventually(lambda: gateway.stderr.count("configuration reloaded") > taken, "the reload")


async def all_serve(gateway: Gateway, workers: int) -> None:
    async with asyncio.timeout(20):
        while len((await gateway.status())["workers"]) < workers:  # noqa: ASYNC110  it happens in other processes
            await asyncio.sleep(POLL_S)


async def test_limits_of_heads_and_bodies_change_for_connections_that_are_there(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    content = one_site(backend.site().url)
    large_head = request("GET", "/healthz", fields=[("x-padding", "p" * 3000)])
    large_body = Ask(script=Script(tokens=1), members={"padding": "p" * 4000}).bytes(KEY)
    async with Gateway(tmp_path, toml(content)) as gateway:
        async with RawClient.connect(gateway.url) as one, RawClient.connect(gateway.url) as other:
            for client, raw in ((one, large_head), (other, large_body)):
                await client.send(raw)
                assert (await client.response()).status == 200
            content["limits"] |= {"head_bytes_max": 1024, "body_bytes_max": 2048}
            await reload(gateway, content)
            for client, raw, status in ((one, large_head, 431), (other, large_body, 413)):
                await client.send(raw)
                assert (await client.response()).status == status
                assert await client.ended()
        async with RawClient.connect(gateway.url) as client:
            await client.send(large_head)
            assert (await client.response()).status == 431


@pytest.mark.parametrize(
    ("name", "value"), [("eject_failures", 1), ("probe_s", 0.05), ("connections_max", 9), ("commit_rows_max", 2)]
)
async def test_a_limit_that_something_was_made_from_needs_a_restart(
    tmp_path: Path, backend: ScriptedBackend, name: str, value: float
) -> None:
    content = one_site(backend.site().url)
    async with Gateway(tmp_path, toml(content)) as gateway:
        content["limits"][name] = value
        content["backends"][0]["slots"] = 7
        gateway.configure(toml(content))
        gateway.signal(signal.SIGHUP)
        await eventually(lambda: f"limits.{name}: cannot change" in gateway.stderr, "it is said")
        assert "restart" in next(line for line in gateway.stderr.splitlines() if f"limits.{name}" in line)
        # Nothing of the file is in force, and the gateway serves on.
        assert (await gateway.status())["backends"][0]["slots"] == 512
        assert (await stream(gateway.url, KEY, Ask(script=Script(tokens=2)))).tokens == 2
        assert "configuration reloaded" not in gateway.stderr


async def test_a_reload_does_not_wait_for_a_worker_that_is_starting_and_reaches_it(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    content = one_site(backend.site().url)
    content["gateway"]["workers"] = 2
    async with Gateway(tmp_path, toml(content)) as gateway:
        await all_serve(gateway, 2)
        before = set(gateway.workers())
        gateway.kill_worker()
        await eventually(lambda: set(gateway.workers()) - before, "a successor")
        [successor] = set(gateway.workers()) - before
        os.kill(successor, signal.SIGSTOP)
        content["backends"][0]["slots"] = 7
        await reload(gateway, content)
        os.kill(successor, signal.SIGCONT)
        await all_serve(gateway, 2)
        status = await gateway.status()
        assert len(status["versions"]["routes"]) == 1
        assert (status["backends"][0]["slots"], status["backends"][0]["workers"]) == (7, 2)
        assert "did not take the configuration" not in gateway.stderr


async def test_an_attempt_that_fails_after_a_reload_goes_past_the_backends_it_removed(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    regions = {"first": region("NO", 5.0), "removed": region("FR", 50.0), "left": region("IT", 100.0)}
    backend.site("first").script = Script(hold_before_head=True, status=500)
    sites = [site_of(name, name, backend.site(name).url) for name in regions]
    content = document(sites, regions=regions, links=[link(name) for name in regions])
    async with Gateway(tmp_path, toml(content)) as gateway:
        asked = asyncio.create_task(stream(gateway.url, KEY, Ask()))
        await eventually(lambda: backend.site("first").log, "the first attempt")
        content["backends"] = [each for each in sites if each["name"] != "removed"]
        content["routes"][0]["backends"] = ["first", "left"]
        await reload(gateway, content)
        backend.site("first").release()
        seen = await asked
    assert (seen.status, seen.headers.get("x-tokenport-backend"), seen.done) == (200, "left", True)
    assert backend.site("removed").log == []
