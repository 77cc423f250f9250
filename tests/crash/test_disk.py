"""A disk that takes nothing any more: intake stops and says why, what is under way ends, and all of it is in the ledger
once there is room again, without a restart.
"""

import asyncio
import json
import resource
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.backend import ScriptedBackend, Site
from tests.fakes.client import RawClient, Response, request
from tests.fakes.configurations import KEY, MODEL, one_site, toml
from tests.fakes.gateway import Gateway, Row, eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, Stream, stream
from tests.integration.recomputation import differences

MIB = 1 << 20
# A head fits, and no record.
FILE_BYTES = 300
DISK_MIB = 120
UNDER_WAY = 5
IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


async def ask(gateway: Gateway) -> Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "count"}], "user": Script(tokens=3).to_json()}
    async with RawClient.connect(gateway.url) as client:
        await client.send(request(key=KEY, json_body=body))
        return await client.response()


async def ready(gateway: Gateway) -> int:
    async with RawClient.connect(gateway.url) as client:
        await client.send(request("GET", "/readyz"))
        return (await client.response()).status


@dataclass
class Crowd:
    """Streams that are under way until their site is released."""

    running: list[asyncio.Task[Stream]] = field(default_factory=list)

    async def begin(self, gateway: Gateway) -> None:
        heard = [asyncio.Event() for _ in range(UNDER_WAY)]
        script = Script(tokens=9, hold_after=4)
        for number, event in enumerate(heard):
            asking = Ask(script=script, request_id=f"live-{number}")
            self.running.append(asyncio.create_task(stream(gateway.url, KEY, asking, event)))
        async with asyncio.timeout(20):
            for event in heard:
                await event.wait()

    async def end(self, site: Site) -> list[Stream]:
        site.release()
        async with asyncio.timeout(20):
            return list(await asyncio.gather(*self.running))


async def refused_until(gateway: Gateway, status: int) -> list[Response]:
    """Ask until the status changes to this one; all answers, in order."""
    answers: list[Response] = []
    async with asyncio.timeout(20):
        while not answers or answers[-1].status != status:
            answers.append(await ask(gateway))
    return answers


async def assert_all_is_recorded(gateway: Gateway, site: Site, seen: list[Stream], answers: list[Response]) -> None:
    """Whatever reached a client or a backend has its row, and the ledger is whole. Read from a copy, for the commands
    run outside of the gateway's namespace."""
    served = {response.headers["x-tokenport-export-id"] for response in answers if response.status == 200}
    ids = {each.export_id for each in seen} | served
    await eventually(lambda: ids <= {json.loads(line)["export_id"] for line in gateway.ends()}, "all ends", 20)
    copy = Gateway(gateway.directory / "copy", toml(one_site(site.url)))
    shutil.copytree(gateway.data_dir, copy.data_dir)
    found: dict[str, Row] = {row["export_id"]: row for row in await copy.export()}
    for each in seen:
        row = found[each.export_id]
        assert each.done and each.tokens == 9
        assert (row["outcome"], row["delivered_tokens"], row["billed_output_tokens"]) == ("completed", 9, 9)
    asked = {entry.request_id for entry in site.log if entry.request_id}
    assert asked <= {row["request_id"] for row in found.values()}
    for row in found.values():
        assert differences(row) == {}
        if row["export_id"] not in ids and row["outcome"] != "completed":
            assert (row["outcome"], row["delivered_tokens"]) == ("refused:ledger", 0)
    verified = await copy.verify()
    assert verified.status == 0, verified.stdout + verified.stderr


async def test_writes_that_fail_stop_the_intake_and_nothing_else_and_it_goes_on_by_itself(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    site = backend.site()
    async with Gateway(tmp_path, toml(one_site(site.url))) as gateway:
        answers = [await ask(gateway)]
        crowd = Crowd()
        await crowd.begin(gateway)
        [worker] = gateway.workers()
        limits = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        # The kernel lets no file of this process grow beyond: neither the segment nor the one that would follow it.
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (FILE_BYTES, limits[1]))
        refused = await refused_until(gateway, 503)
        assert [each.status for each in refused] == [503], "served without a record"
        assert 1 <= int(refused[-1].headers["retry-after"]) <= 5
        error = (await ask(gateway)).error
        assert error["code"] == "ledger" and "File too large" in error["message"]
        assert await ready(gateway) == 503
        seen = await crowd.end(site)
        assert not any(b'"live-' in line for line in gateway.ends()), "their ends wait in memory"
        assert (await ask(gateway)).status == 503
        resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
        answers += await refused_until(gateway, 200)
        assert await ready(gateway) == 200
        assert gateway.workers() == [worker], "without a restart"
        await assert_all_is_recorded(gateway, site, seen, answers)


def _may_mount() -> bool:
    """Whether a file system of one's own can be had here: user namespaces may be forbidden."""
    command = [*IN_A_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


if _may_mount():

    async def test_a_full_disk_stops_the_intake_before_it_is_full_and_loses_nothing_when_it_is(
        tmp_path: Path, backend: ScriptedBackend
    ) -> None:
        """On a file system of its own, which is filled below the reserve, then to the last byte, then emptied."""
        site = backend.site()
        directory = tmp_path / "var"
        directory.mkdir()
        script = f'mount -t tmpfs -o size={DISK_MIB}m tmpfs "{directory}" && exec "$@"'
        content = one_site(site.url)
        content["limits"]["connections_max"] = 64
        async with Gateway(tmp_path, toml(content), before=[*IN_A_NAMESPACE, "sh", "-c", script, "sh"]) as gateway:
            # Seen from here: the mount exists in the gateway's namespace alone.
            gateway.data_dir = Path(f"/proc/{gateway.pid}/root") / directory.relative_to("/")
            answers = [await ask(gateway)]
            crowd = Crowd()
            await crowd.begin(gateway)
            ballast = gateway.data_dir / "ballast"
            ballast.write_bytes(bytes((DISK_MIB - 40) * MIB))
            refused = await refused_until(gateway, 503)
            answers += refused
            assert "MiB of disk are free, the reserve is 64 MiB" in refused[-1].error["message"]
            fill(ballast)
            seen = await crowd.end(site)
            assert (await ask(gateway)).status == 503
            ballast.unlink()
            answers += await refused_until(gateway, 200)
            await assert_all_is_recorded(gateway, site, seen, answers)


def fill(path: Path) -> None:
    """Write until the disk takes no byte more."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(MIB))
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(b"0")
