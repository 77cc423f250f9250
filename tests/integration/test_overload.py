"""Overload is refused early and said plainly, on real sockets: fair shares, queues, and what a refusal looks like."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import EDGE, KEY, MODEL, document, one_site, tenant, toml
from tests.fakes.configurations import backend as backend_entry
from tests.fakes.gateway import Gateway, eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, stream, streams
from tests.integration.flood import RISE_S_MAX, Flood, flooded

# Of the quiet tenant, each time: some three seconds. `python -m tests.integration.flood` takes 2,000.
REQUESTS = 60


async def test_a_quiet_tenant_hardly_notices_one_that_sends_twenty_times_its_share(tmp_path: Path) -> None:
    async with flooded(tmp_path) as flood:
        alone = await flood.measure(REQUESTS, loud=False)
        beside = await flood.measure(REQUESTS, loud=True)
        assert beside.p95_s - alone.p95_s <= RISE_S_MAX
        assert flood.loud.codes == {"fair_share"}
        assert flood.loud.statuses[503] > 0.9 * flood.loud.statuses.total() and flood.loud.statuses[200] > 0
        assert flood.loud.retry_after_s == {1, 2, 3, 4, 5}
        told = flood.loud.statuses[503]
        async with asyncio.timeout(10):
            while await counted(flood) < told:  # noqa: ASYNC110  they reach the ledger once a second
                await asyncio.sleep(0.2)
        unfair = await flood.measure(REQUESTS, loud=True, fair=False)
        assert unfair.p95_s - alone.p95_s > RISE_S_MAX


async def counted(flood: Flood) -> int:
    """The refusals of the loud tenant, as reported."""
    refused = (await flood.gateway.command("report", "--refusals", "--format", "json")).json
    return sum(each["count"] for each in refused if (each["tenant"], each["reason"]) == ("loud", "fair_share"))


async def test_a_queue_that_breaks_the_objective_is_refused_before_it_grows(tmp_path: Path) -> None:
    """Four slots of half a second: two requests may wait 300 ms for one, and the others hear so at once."""
    script = Script(tokens=1, first_s=0.5)
    async with ScriptedBackend() as scripted:
        site = scripted.site()
        site.slots = asyncio.Semaphore(4)
        rule = {"model": MODEL, "backends": ["near"], "objective": "cheapest", "ttft_slo_ms": 600}
        content = document([backend_entry("near", EDGE, site.url, slots=4, queue_max=40)], routes=[rule])
        async with Gateway(tmp_path, toml(content)) as gateway:
            # How long a slot takes is learned; before that nobody is refused.
            first = await streams(gateway.url, KEY, [Ask(script=script)] * 8, at_once=4)
            assert {seen.status for seen in first} == {200}
            second = await streams(gateway.url, KEY, [Ask(script=script)] * 20)
            refused = [seen for seen in second if seen.status == 503]
            assert 4 <= len(second) - len(refused) <= 8
            assert {json.loads(seen.body)["error"]["code"] for seen in refused} == {"ttft_slo"}
            assert {int(seen.headers["retry-after"]) for seen in refused} <= {1, 2, 3, 4, 5}
            # Room again: a backend without a queue always serves.
            assert (await stream(gateway.url, KEY, Ask(script=script))).status == 200
            counted = await reasons(gateway)
            assert counted == {("acme", "ttft_slo"): len(refused)}


async def test_connections_bodies_and_streams_have_bounds_that_say_so(tmp_path: Path) -> None:
    async with ScriptedBackend() as scripted:
        content = one_site(scripted.site().url)
        content["limits"] |= {"connections_max": 4, "body_bytes_max": 2048, "bodies_bytes_max": 3000}
        content["tenants"] = [tenant(), tenant("few", "few", limits={"streams": 1})]
        async with Gateway(tmp_path, toml(content)) as gateway, AsyncExitStack() as stack:

            async def connect() -> RawClient:
                return await stack.enter_async_context(RawClient.connect(gateway.url))

            first, second, third, fourth = [await connect() for _ in range(4)]
            over = await (await connect()).response()
            assert (over.status, over.error["code"], over.headers["connection"]) == (503, "overloaded", "close")
            assert 1 <= int(over.headers["retry-after"]) <= 5

            body = request(key=KEY, json_body={"model": MODEL, "messages": [{"role": "user", "content": "x" * 1900}]})
            await first.send(body[:-1])
            await second.send(body[:-1])
            told = await second.response()
            assert (told.status, told.error["code"]) == (503, "overloaded")
            assert 1 <= int(told.headers["retry-after"]) <= 5
            await first.send(body[-1:])
            assert (await first.response()).status == 200

            await third.send(Ask(script=Script(hold_after=1)).bytes("few"))
            assert (await third.head()).status == 200
            await fourth.send(Ask().bytes("few"))
            limited = await fourth.response()
            assert (limited.status, limited.error["code"]) == (429, "streams_limit")
            assert int(limited.headers["retry-after"]) >= 1
            assert (await reasons(gateway))[("few", "streams_limit")] == 1


async def reasons(gateway: Gateway) -> dict[tuple[str, str], int]:
    """What `report --refusals` says, once a second has passed over the last of them."""
    await eventually(lambda: any(b'"refused"' in line for line in gateway.records()), "the refusals")
    rows = (await gateway.command("report", "--refusals", "--format", "json")).json
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        found[row["tenant"], row["reason"]] += row["count"]
    return dict(found)
