"""The scrape, read back by Prometheus' own parser."""

import time
from collections.abc import Iterable

import pytest
from aiohttp import ClientSession
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format
from prometheus_client.samples import Sample

from gateway import telemetry
from gateway.shipping.shipper import Condition
from gateway.telemetry import OVERHEAD, REQUESTS, TOKENS, TTFT, Counters
from tests.admin.conftest import Serve
from tests.admin.plane import Feed, Plane, backend, status

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def by_name(samples: Iterable[Sample]) -> Samples:
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def scrape(client: ClientSession) -> Samples:
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")
        families = list(text_format(await response.text()))
    return by_name(sample for family in families for sample in family.samples)


def counted(log: int, pid: int, requests: int, *ttfts: float) -> dict[str, object]:
    counters = Counters()
    counters.add(REQUESTS, ("acme", "m", "completed"), requests)
    for ttft_s in ttfts:
        counters.observe(TTFT, ("south-1",), ttft_s)
    return status(log, pid, **counters.snapshot())


async def test_a_scrape_shows_the_sums_of_all_workers(serve: Serve, plane: Plane) -> None:
    plane.workers = [counted(0, 100, 3, 0.04), counted(1, 101, 4, 0.04, 7.0, 90.0)]
    seen = await scrape(await serve(plane))
    assert seen[key("tokenport_requests_total", tenant="acme", model="m", outcome="completed")] == 7
    assert seen[key("tokenport_ttft_seconds_bucket", backend="south-1", le="0.025")] == 0
    assert seen[key("tokenport_ttft_seconds_bucket", backend="south-1", le="0.05")] == 2
    assert seen[key("tokenport_ttft_seconds_bucket", backend="south-1", le="10.0")] == 3
    assert seen[key("tokenport_ttft_seconds_bucket", backend="south-1", le="+Inf")] == 4
    assert seen[key("tokenport_ttft_seconds_count", backend="south-1")] == 4
    assert seen[key("tokenport_ttft_seconds_sum", backend="south-1")] == pytest.approx(97.08)
    assert seen[key("tokenport_workers")] == 2
    assert seen[key("tokenport_requests_in_flight")] == 4


async def test_a_counter_never_goes_down_when_a_worker_is_replaced_or_silent(serve: Serve, plane: Plane) -> None:
    client = await serve(plane)
    total = key("tokenport_requests_total", tenant="acme", model="m", outcome="completed")
    plane.workers = [counted(0, 100, 10, 0.1), counted(1, 101, 20)]
    assert (await scrape(client))[total] == 30
    plane.workers = [counted(0, 100, 11, 0.1)]  # worker 1 is silent
    assert (await scrape(client))[total] == 31
    plane.workers = [counted(0, 102, 1), counted(1, 101, 21)]  # worker 0 was killed; its successor begins anew
    seen = await scrape(client)
    assert seen[total] == 33
    assert seen[key("tokenport_ttft_seconds_count", backend="south-1")] == 1
    plane.workers = [counted(0, 103, 1), counted(1, 101, 21)]
    assert (await scrape(client))[total] == 34


async def test_user_text_in_labels_cannot_add_a_metric(serve: Serve, plane: Plane) -> None:
    hostile = 'm"} 1\ntokenport_requests_total{tenant="x"} 99\n\\'
    counters = Counters()
    counters.add(REQUESTS, ("acme", hostile, "completed"))
    plane.workers = [status(backends=[backend(hostile, "south")], **counters.snapshot())]
    seen = await scrape(await serve(plane))
    found = {labels: number for (name, labels), number in seen.items() if name == "tokenport_requests_total"}
    assert found == {frozenset({("tenant", "acme"), ("model", hostile), ("outcome", "completed")}): 1}


async def test_prices_feeds_backends_and_ledgers_are_gauges(serve: Serve, plane: Plane) -> None:
    plane.prices.feeds = {"nordic": Feed(1_700_000_000.0, "unreadable"), "new": Feed()}
    budget = {"tokens": 1000, "period": "day", "used": 400, "reserved": 50, "ends": None}
    ejected = backend("north-1", "north", available=False, barred="ejected", in_flight=0)
    plane.workers = [
        status(tenants=[{"name": "acme", "streams": 0, "budget": budget}]),
        status(1, 101, ledger={"writable": False, "reason": "full"}, backends=[ejected]),
    ]
    seen = await scrape(await serve(plane))
    assert seen[key("tokenport_power_price_per_mwh", region="south", quality="live")] == 56.0
    assert seen[key("tokenport_link_price_per_gb", link="south-edge")] == 0.12
    assert seen[key("tokenport_feed_fetched_seconds", feed="nordic")] == 1_700_000_000.0
    assert key("tokenport_feed_fetched_seconds", feed="new") not in seen
    assert seen[key("tokenport_feed_failing", feed="nordic")] == 1
    assert seen[key("tokenport_feed_failing", feed="new")] == 0
    assert seen[key("tokenport_backend_available", backend="north-1")] == 0.5
    assert seen[key("tokenport_backend_in_flight", backend="north-1")] == 1
    assert seen[key("tokenport_ledger_writable", log="0")] == 1
    assert seen[key("tokenport_ledger_writable", log="1")] == 0
    assert seen[key("tokenport_budget_tokens", tenant="acme", part="used")] == 400
    assert seen[key("tokenport_ready")] == 1


async def test_open_metrics_is_spoken_to_who_asks_for_it(serve: Serve, plane: Plane) -> None:
    counters = Counters()
    counters.add(TOKENS, ("delivered", "CN", "DE"), 12)
    counters.observe(OVERHEAD, (), 0.0003)
    plane.workers = [status(**counters.snapshot())]
    client = await serve(plane)
    async with client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        families = list(open_metrics(await response.text()))  # type: ignore[no-untyped-call]
    seen = by_name(sample for family in families for sample in family.samples)
    assert seen[key("tokenport_tokens_total", kind="delivered", origin="CN", destination="DE")] == 12
    assert seen[key("tokenport_gateway_overhead_seconds_count")] == 1


async def test_a_gateway_that_has_done_nothing_can_be_scraped(admin: ClientSession) -> None:
    seen = await scrape(admin)
    assert seen[key("tokenport_workers")] == 1
    assert not [name for name, _ in seen if name == "tokenport_requests_total"]


def test_every_counted_metric_says_what_it_is_in_seconds_or_counts() -> None:
    for metric in telemetry.COUNTED:
        assert metric.name.endswith("_seconds" if metric.kind == "histogram" else "_total")
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert bool(metric.bounds) == (metric.kind == "histogram")


async def test_a_scrape_shows_how_far_behind_each_store_is(serve: Serve, plane: Plane) -> None:
    plane.shipping.sinks = [
        Condition("pg", "postgres", reachable=True, rows=70, skipped=2, failures=3),
        Condition("js", "nats", reachable=False, lag_rows=5, lag_bytes=9000, oldest_at=time.time() - 60),
    ]
    seen = await scrape(await serve(plane))
    assert seen[key("tokenport_sink_rows_total", sink="pg")] == 70
    assert seen[key("tokenport_sink_failures_total", sink="pg")] == 3
    assert seen[key("tokenport_sink_skipped_lines_total", sink="pg")] == 2
    assert [seen[key("tokenport_sink_up", sink=sink)] for sink in ("pg", "js")] == [1, 0]
    assert [seen[key("tokenport_sink_lag_rows", sink=sink)] for sink in ("pg", "js")] == [0, 5]
    assert [seen[key("tokenport_sink_lag_bytes", sink=sink)] for sink in ("pg", "js")] == [0, 9000]
    assert seen[key("tokenport_sink_lag_seconds", sink="pg")] == 0
    assert seen[key("tokenport_sink_lag_seconds", sink="js")] == pytest.approx(60, abs=10)
