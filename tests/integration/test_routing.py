"""The route pays: traffic follows prices and links, stays where the law says, and the gateway can show its sums."""

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import ScriptedBackend
from tests.fakes.configurations import (
    EDGE,
    KEY,
    MODEL,
    Document,
    crossing_prices,
    document,
    link,
    per_gb,
    region,
    tenant,
    toml,
    two_regions,
)
from tests.fakes.configurations import (
    backend as backend_entry,
)
from tests.fakes.gateway import Gateway, eventually, run_command
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, Stream, stream
from tests.integration.recomputation import differences

CROSSING = datetime(2026, 3, 4, 12, tzinfo=UTC)


async def ask(gateway: Gateway, key: str = KEY, **more: Any) -> Stream:
    return await stream(gateway.url, key, Ask(script=Script(tokens=8), **more))


def origin(seen: Stream) -> str:
    return seen.headers["x-tokenport-origin"]


async def answers_until(gateway: Gateway, region_name: str, timeout_s: float = 20.0) -> list[Stream]:
    """Ask again and again until a region answers."""
    seen: list[Stream] = []
    async with asyncio.timeout(timeout_s):
        while not seen or origin(seen[-1]) != region_name:
            seen.append(await ask(gateway))
    return seen


def candidates(explained: Any) -> dict[str, Any]:
    return {each["backend"]: each for each in explained["candidates"]}


@pytest.fixture
def urls(backend: ScriptedBackend) -> tuple[str, str]:
    return backend.site("north").url, backend.site("south").url


async def test_when_prices_cross_traffic_moves_and_every_row_shows_the_cheaper_price(
    tmp_path: Path, urls: tuple[str, str]
) -> None:
    content = crossing_prices(*urls, tmp_path, crossing=CROSSING, before_s=60, speed=20)
    async with Gateway(tmp_path, toml(content)) as gateway:
        seen = await answers_until(gateway, "south")
        rows = {row["export_id"]: row for row in await gateway.rows(len(seen))}
    origins = [origin(each) for each in seen]
    assert origins[0] == "north", "the crossing was over before the first request"
    assert origins == ["north"] * (len(seen) - 1) + ["south"]
    for each in seen:
        row = rows[each.export_id]
        # 10 per MWh is 0.01 per kWh; at no moment was the dear one taken.
        assert row["unit_energy_nano_per_kwh"] == 10_000_000
        assert row["zone"] == origin(each)
        assert differences(row) == {}
    assert {row["price_version"] for row in rows.values()}


async def test_explain_shows_the_sums_on_both_sides_of_a_crossing(tmp_path: Path, urls: tuple[str, str]) -> None:
    content = crossing_prices(*urls, tmp_path, crossing=CROSSING, before_s=60, speed=1)
    config = tmp_path / "cold.toml"
    config.write_text(toml(content))

    async def explain(at: datetime) -> Any:
        finished = await run_command(
            "explain", "--config", str(config), "--model", MODEL, "--format", "json", "--at", at.isoformat()
        )
        assert finished.status == 0, finished.stderr
        return finished.json

    before = await explain(CROSSING - timedelta(minutes=1))
    after = await explain(CROSSING + timedelta(minutes=1))
    assert (before["state"], before["route"], after["route"]) == ("cold", "north-1/north-edge", "south-1/south-edge")
    for explained, cheap, dear in ((before, "north-1", "south-1"), (after, "south-1", "north-1")):
        sums = candidates(explained)
        assert sums[dear]["energy"] == pytest.approx(40 * sums[cheap]["energy"])
        assert sums[cheap]["verdict"] == "chosen"
        for each in sums.values():
            parts = (each[name] for name in ("energy", "tokens", "link_cost", "capacity", "time"))
            assert each["total"] == pytest.approx(sum(parts))


async def test_a_tenfold_link_price_moves_traffic_back(tmp_path: Path, urls: tuple[str, str]) -> None:
    # North's power is cheaper by more than its link costs, until the link costs ten times as much.
    content = two_regions(*urls, north_price=20.0, south_price=80.0, gb_price=0.0)
    content["links"][0]["price_per_gb"] = 0.05
    content["gateway"]["admin_listen"] = f"127.0.0.1:{free_port()}"
    async with Gateway(tmp_path, toml(content)) as gateway:
        # Enough answers for the learned lengths and sizes to settle.
        for _ in range(20):
            assert origin(await ask(gateway)) == "north"
        before = candidates(await gateway.explain("--model", MODEL))
        content["links"][0]["price_per_gb"] *= 10
        gateway.configure(toml(content))
        await answers_until(gateway, "south")
        explained = await gateway.explain("--model", MODEL)
    after = candidates(explained)
    assert (explained["state"], explained["route"]) == ("live", "south-1/south-edge")
    assert before["north-1"]["verdict"] == after["south-1"]["verdict"] == "chosen"
    assert after["north-1"]["total"] > after["south-1"]["total"]

    def link_to_energy(sums: dict[str, Any]) -> float:
        return float(sums["north-1"]["link_cost"] / sums["north-1"]["energy"])

    # What is learned of sizes and lengths meanwhile moves both sums, the price only one.
    assert link_to_energy(after) > 3 * link_to_energy(before)


async def test_time_is_money_where_the_rule_says_so(tmp_path: Path, urls: tuple[str, str]) -> None:
    content = two_regions(*urls, north_price=20.0, south_price=80.0)
    content["links"][0]["rtt_ms"] = 400
    content["routes"] = [
        {"model": "patient", "backends": ["north-1", "south-1"], "objective": "cheapest"},
        {"model": "hasty", "backends": ["north-1", "south-1"], "objective": {"value_per_second": 0.01}},
        {"model": "fast", "backends": ["north-1", "south-1"], "objective": "fastest"},
    ]
    for each in content["backends"]:
        each["models"] = {name: name for name in ("patient", "hasty", "fast")}
    async with Gateway(tmp_path, toml(content)) as gateway:
        found = {model: origin(await ask(gateway, model=model)) for model in ("patient", "hasty", "fast")}
    assert found == {"patient": "north", "hasty": "south", "fast": "south"}


async def test_bought_tokens_and_own_power_are_compared_in_one_currency(tmp_path: Path, urls: tuple[str, str]) -> None:
    content = two_regions(*urls, north_price=500.0)
    bought = content["backends"][1]
    del bought["joules_per_token"]
    # A token at home costs 1.5 J x 500 per MWh = 0.21 per million; bought it is 0.5 CNY = 0.07.
    bought["price_per_mtok"] = {"input": 0.1, "cached_input": 0.01, "output": 0.5, "currency": "CNY"}
    content["fx"] = {"CNY": 0.14}
    async with Gateway(tmp_path, toml(content)) as gateway:
        seen = await ask(gateway)
        row = await gateway.row(seen.export_id)
    assert origin(seen) == "south"
    assert (row["unit_output_nano_per_mtok"], row["unit_energy_nano_per_kwh"]) == (70_000_000, 0)
    assert row["cost_tokens_nano"] > 0 and row["energy_uwh"] == 0 and row["zone"] in ("", None)
    assert differences(row) == {}


# ---- places


def residency(urls: tuple[str, str]) -> Document:
    content = two_regions(*urls)
    content["links"][1]["transit"] = ["CH"]
    content["tenants"] = [
        tenant(),
        tenant("no-north", "key-no-north", deny_origins=["NO"]),
        tenant("no-transit", "key-no-transit", deny_origins=["NO", "CH"]),
        tenant("placeless", "key-placeless", country=""),
    ]
    content["routes"] = [
        {"model": MODEL, "destinations": ["DE"], "backends": ["north-1", "south-1"], "objective": "cheapest"},
        {"model": "anywhere", "backends": ["north-1", "south-1"], "objective": "cheapest"},
    ]
    for each in content["backends"]:
        each["models"] = {MODEL: MODEL, "anywhere": "anywhere"}
    return content


async def test_residency_is_kept_on_every_attempt_and_fails_closed(
    tmp_path: Path, backend: ScriptedBackend, urls: tuple[str, str]
) -> None:
    async with Gateway(tmp_path, toml(residency(urls))) as gateway:
        assert origin(await ask(gateway)) == "north"
        assert origin(await ask(gateway, key="key-no-north")) == "south"
        asked = len(backend.log)
        refused = await ask(gateway, key="key-no-transit")
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (403, "residency")
        # The only route that is allowed fails: the forbidden one is no way out.
        backend.site("south").queue.append(Script(status=500))
        assert (await ask(gateway, key="key-no-north")).status == 502
        # An unknown destination matches no rule for a country, and only rules for anywhere.
        assert (await ask(gateway, key="key-placeless")).status == 403
        assert origin(await ask(gateway, key="key-placeless", model="anywhere")) == "north"
        in_order = sorted(backend.log, key=lambda entry: entry.started_at)
        assert [entry.site for entry in in_order[asked:]] == ["south", "north"]
    refusals = await gateway.command("report", "--refusals", "--format", "json")
    assert {"no-transit", "placeless"} <= {each["tenant"] for each in refusals.json}


async def test_an_ejected_site_is_avoided_and_returns_when_probes_are_good(
    tmp_path: Path, backend: ScriptedBackend, urls: tuple[str, str]
) -> None:
    content = two_regions(*urls)
    content["limits"] |= {"probe_s": 0.05, "slow_start_s": 0.0, "eject_failures": 3, "retries_min": 100}
    north = backend.site("north")
    north.script = Script(status=500)
    north.probe_status = 500
    async with Gateway(tmp_path, toml(content)) as gateway:
        for _ in range(6):
            seen = await stream(gateway.url, KEY, Ask())
            assert origin(seen) == "south" and seen.done
        assert len(north.log) == 3, "asked although it was out"
        north.script, north.probe_status = Script(), 200
        await answers_until(gateway, "north")


async def test_refused_credentials_take_a_site_out_at_once_even_if_it_is_the_last(
    tmp_path: Path, backend: ScriptedBackend, urls: tuple[str, str]
) -> None:
    backend.site("north").script = backend.site("south").script = Script(status=401)
    async with Gateway(tmp_path, toml(two_regions(*urls))) as gateway:
        first = await stream(gateway.url, KEY, Ask())
        second = await stream(gateway.url, KEY, Ask())
    assert first.status == 502
    assert second.status in (502, 503)
    assert len(backend.log) == 2


async def test_the_last_site_standing_is_used_although_it_is_out(tmp_path: Path, backend: ScriptedBackend) -> None:
    site = backend.site("near")
    content = document([backend_entry("near", EDGE, site.url)], limits={"eject_failures": 2})
    site.script = Script(status=500)
    async with Gateway(tmp_path, toml(content)) as gateway:
        for _ in range(4):
            assert (await stream(gateway.url, KEY, Ask())).status == 502
        site.script = Script(tokens=3)
        assert (await stream(gateway.url, KEY, Ask())).tokens == 3


Fields = tuple[tuple[str, str], ...]


@pytest.mark.parametrize(
    ("key", "fields", "trusted", "expected"),
    [
        (KEY, (("x-forwarded-for", "8.8.8.8"),), True, ("DE", "contract")),
        ("key-placeless", (), True, (None, "unknown")),
        ("key-placeless", (("cf-ipcountry", "jp"),), True, ("JP", "header")),
        ("key-placeless", (("cf-ipcountry", "jp"),), False, (None, "unknown")),
        ("key-placeless", (("x-forwarded-for", "8.8.8.8"),), True, ("US", "address")),
        ("key-placeless", (("x-forwarded-for", "8.8.8.8"),), False, (None, "unknown")),
        ("key-placeless", (("x-forwarded-for", "not an address"),), True, (None, "unknown")),
    ],
)
async def test_the_destination_is_known_by_contract_header_address_or_not_at_all(
    tmp_path: Path,
    backend: ScriptedBackend,
    key: str,
    fields: Fields,
    trusted: bool,
    expected: tuple[str | None, str],
) -> None:
    proxies = {"trusted_proxies": ["127.0.0.0/8"] if trusted else ["10.0.0.0/8"], "destination_header": "CF-IPCountry"}
    content = document(
        [backend_entry("near", EDGE, backend.site().url)],
        gateway=proxies,
        tenants=[tenant(), tenant("placeless", "key-placeless", country="")],
    )
    async with Gateway(tmp_path, toml(content)) as gateway:
        seen = await ask(gateway, key=key, fields=fields)
        row = await gateway.row(seen.export_id)
    assert ((row["destination_country"] or None), row["destination_method"]) == expected
    exported = None if expected[0] is None else expected[0] != "DE"
    assert row["exported"] is exported


async def test_a_port_for_both_families_knows_ipv4_proxies(tmp_path: Path, backend: ScriptedBackend) -> None:
    content = document(
        [backend_entry("near", EDGE, backend.site().url)],
        gateway={"listen": "[::]:0", "trusted_proxies": ["127.0.0.0/8"], "destination_header": "CF-IPCountry"},
        tenants=[tenant(country="")],
    )
    ways = {"header": ("cf-ipcountry", "jp"), "address": ("x-forwarded-for", "8.8.8.8")}
    async with Gateway(tmp_path, toml(content)) as gateway:
        ipv4 = "http://127.0.0.1:" + gateway.url.rpartition(":")[2]
        seen = [await stream(ipv4, KEY, Ask(script=Script(tokens=1), fields=(field,))) for field in ways.values()]
        rows = [await gateway.row(each.export_id) for each in seen]
    assert [row["destination_method"] for row in rows] == list(ways)
    assert [row["destination_country"] for row in rows] == ["JP", "US"]


async def test_a_request_that_could_never_be_served_is_no_refusal_of_ours(
    tmp_path: Path, backend: ScriptedBackend
) -> None:
    """Only what a limit, the law or our own trouble turned away is counted; a typing error is the caller's."""
    content = document(
        [backend_entry("near", EDGE, backend.site().url, context_tokens=20)],
        tenants=[tenant(), tenant("parted", "key-parted", deny_origins=["DE"])],
    )
    async with Gateway(tmp_path, toml(content)) as gateway:
        long = {"messages": [{"role": "user", "content": "word " * 200}]}
        unserved = [
            await stream(gateway.url, KEY, Ask(model="unknown")),
            await stream(gateway.url, KEY, Ask(members=long)),
            await stream(gateway.url, "key-parted", Ask()),
        ]
        # They are written down together: with the last, the others would be there.
        await eventually(lambda: any(b'"refused"' in line for line in gateway.records()), "the refusals")
        refused = [line for line in map(json.loads, gateway.records()) if line["record"] == "refused"]
        assert gateway.opens() == [] and await gateway.export() == []
    assert [each.status for each in unserved] == [404, 400, 403]
    assert [(each["tenant"], each["reason"], each["count"]) for each in refused] == [("parted", "residency", 1)]
    assert backend.log == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_site_at_the_edge_needs_no_link(tmp_path: Path, backend: ScriptedBackend) -> None:
    content = document(
        [backend_entry("near", EDGE, backend.site("near").url), backend_entry("far", "far", backend.site("far").url)],
        regions={"far": region("NO", 10.0)},
        links=[link("far"), per_gb("far", 5.0, name="far-dear")],
    )
    async with Gateway(tmp_path, toml(content)) as gateway:
        seen = await ask(gateway)
        explained = await gateway.explain("--model", MODEL)
    assert origin(seen) == "far"
    assert {each["link"] for each in explained["candidates"]} == {"local", "far-edge", "far-dear"}
    assert explained["route"] == "far/far-edge"
