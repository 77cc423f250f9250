"""Overload is refused early and said plainly, on real sockets: fair shares, queues, and what a refusal looks like."""

from pathlib import Path

from tests.integration.flood import RISE_S_MAX, flooded

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
        refused = (await flood.gateway.command("report", "--refusals", "--format", "json")).json
        counted = sum(each["count"] for each in refused if (each["tenant"], each["reason"]) == ("loud", "fair_share"))
        assert counted > 0.9 * flood.loud.statuses[503]
        unfair = await flood.measure(REQUESTS, loud=True, fair=False)
        assert unfair.p95_s - alone.p95_s > RISE_S_MAX
