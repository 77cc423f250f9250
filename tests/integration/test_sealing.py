"""A running gateway seals what is closed, and its ledger is verified elsewhere."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from gateway.ledger.segment import segment_path
from gateway.telemetry import SEGMENT_DAMAGED
from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import KEY, one_site, toml
from tests.fakes.gateway import Gateway, GatewayFailed, eventually, run_command
from tests.fakes.streaming import Ask, stream
from tests.ledger.sealing import names, write_small


async def sealed(gateway: Gateway) -> dict[str, object]:
    """What `/status` says of it."""
    async with RawClient.connect(gateway.admin_url) as client:
        await client.send(request("GET", "/status", host=gateway.admin_url.removeprefix("http://")))
        told: dict[str, object] = json.loads((await client.response()).body)["ledger"]["sealed"]
    return told


async def until_sealed(gateway: Gateway, segments: int) -> dict[str, object]:
    async with asyncio.timeout(60):
        while (told := await sealed(gateway))["segments"] != segments:  # noqa: ASYNC110  another process does it
            await asyncio.sleep(0.05)
    return told


def configuration(backend: ScriptedBackend, plain_s: float = 0.0) -> str:
    return toml({**one_site(backend.site().url), "ledger": {"plain_s": plain_s}})


async def test_what_is_closed_is_sealed_and_everything_reads_on_in_it(tmp_path: Path, backend: ScriptedBackend) -> None:
    directory = write_small(tmp_path / "var")
    behind = segment_path(directory, 3).read_bytes().count(b'"seq":') - 1  # rows of the open segment
    async with Gateway(tmp_path, configuration(backend)) as gateway:
        told = await until_sealed(gateway, 2)
        await eventually(lambda: not segment_path(directory, 2).exists(), "plain files gone", 60)
        await stream(gateway.url, KEY, Ask())
        rows = await gateway.rows(behind + 1)
        shown = await gateway.command("keys", "seal", "--format", "json")
    assert told["problem"] == ""
    assert told["damaged"] == []
    assert len(rows) == 11
    assert names(directory)[:4] == ["000001.jsonl.zst", "000001.seal", "000002.jsonl.zst", "000002.seal"]
    (key,) = (each["public_key"] for each in shown.json)
    copy = shutil.copytree(tmp_path / "var" / "ledger", tmp_path / "copy")
    good = await run_command("verify", "--ledger", str(copy), "--public-key", key)
    assert (good.status, "believed" in good.stderr) == (0, False)
    assert "2 segments checked by their seals" in good.stderr
    other = await run_command("verify", "--ledger", str(tmp_path / "var"), "--public-key", "0" * 64, "--format", "json")
    assert other.status == 1
    assert {each["segment"] for each in other.json} == {"0/000001.seal", "0/000002.seal"}


async def test_a_damaged_segment_is_named_once_and_serving_goes_on(tmp_path: Path, backend: ScriptedBackend) -> None:
    directory = write_small(tmp_path / "var")
    path = segment_path(directory, 1)
    path.write_bytes(path.read_bytes().replace(b'"acme"', b'"evil"', 1))
    async with Gateway(tmp_path, configuration(backend)) as gateway:
        told = await until_sealed(gateway, 1)
        assert (await stream(gateway.url, KEY, Ask())).done
        assert gateway.stderr.count(SEGMENT_DAMAGED) == 1
    assert [(each["segment"], each["line"]) for each in told["damaged"]] == [(1, 4)]  # type: ignore[attr-defined]
    assert path.exists()


async def test_a_gateway_whose_key_others_may_use_does_not_start(tmp_path: Path, backend: ScriptedBackend) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "seal.key").write_text("a key")
    (tmp_path / "var" / "seal.key").chmod(0o644)
    with pytest.raises(GatewayFailed, match=r"(?s)ended with 2.*seal.key: others may use it .mode 0644.; chmod 600 it"):
        await Gateway(tmp_path, configuration(backend)).start()


async def test_a_killed_gateway_takes_its_sealing_child_with_it(tmp_path: Path, backend: ScriptedBackend) -> None:
    directory = write_small(tmp_path / "var")
    gateway = Gateway(tmp_path, configuration(backend))
    await gateway.start()
    gateway.kill_group()
    await gateway.ended()
    async with gateway:
        await until_sealed(gateway, 2)
        assert (await gateway.verify()).status == 0
    assert not list(directory.glob("*.new"))


async def test_what_is_not_to_be_kept_goes_and_reports_stay_as_they_were(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    directory = write_small(tmp_path / "var")
    content = {**one_site(backend.site().url), "ledger": {"plain_s": 0.0}}
    asked = ("report", "--by", "tenant,outcome", "--format", "json")
    async with Gateway(tmp_path, toml(content)) as gateway:
        await until_sealed(gateway, 2)
        await eventually(lambda: not segment_path(directory, 2).exists(), "plain files gone", 60)
        before = (await gateway.command(*asked)).json
    content["ledger"] = {"plain_s": 0.0, "keep_bytes": 1}
    async with Gateway(tmp_path, toml(content)) as gateway:
        await eventually(lambda: "segment expired" in gateway.stderr, "a segment expires", 60)
        await eventually(lambda: not (directory / "000001.jsonl.zst").exists(), "its rows are gone")
        assert (await gateway.command(*asked)).json == before
        assert (await gateway.command("verify")).status == 0
    assert (directory / "000001.rollup.jsonl").exists()
