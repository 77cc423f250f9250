"""The scrape: what the workers counted, summed, and gauges made on the spot, in Prometheus' text formats.

A counter never goes down while the gateway runs: the last counts of a worker that has ended stay in the sums, and a
worker that did not answer in time is represented by what it said before.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway import telemetry as names
from gateway.admin.fleet import Fleet, Status, merge
from gateway.admin.plane import ControlPlane
from gateway.admin.status import VERSION
from gateway.clock import wall
from gateway.telemetry import Metric

Labels = tuple[str, ...]
Counts = dict[Labels, float]
Gauge = tuple[Metric, list[tuple[Labels, float]]]


class _Histogram:
    """Buckets (not cumulative) and sum of one label set."""

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * buckets
        self.sum = 0.0

    def add(self, buckets: Iterable[int], total: float) -> None:
        self.buckets = [ours + theirs for ours, theirs in zip(self.buckets, buckets, strict=True)]
        self.sum += total


class Sums:
    """Counts of several workers, added up by metric and label set."""

    def __init__(self) -> None:
        self.counters: dict[str, Counts] = {}
        self.histograms: dict[str, dict[Labels, _Histogram]] = {}

    def add(self, status: Status) -> None:
        """One worker's `counters` and `histograms`."""
        for name, series in status["counters"].items():
            counts = self.counters.setdefault(name, {})
            for *labels, number in series:
                counts[tuple(labels)] = counts.get(tuple(labels), 0) + number
        for name, histogram in status["histograms"].items():
            found = self.histograms.setdefault(name, {})
            for *labels, buckets, total in histogram["series"]:
                found.setdefault(tuple(labels), _Histogram(len(buckets))).add(buckets, total)

    def as_status(self) -> dict[str, Any]:
        """The form workers use."""
        return {
            "counters": {
                name: [[*labels, number] for labels, number in counts.items()] for name, counts in self.counters.items()
            },
            "histograms": {
                name: {"series": [[*labels, each.buckets, each.sum] for labels, each in found.items()]}
                for name, found in self.histograms.items()
            },
        }


class Totals:
    """What all workers have counted since the supervisor started, those that ended since included."""

    def __init__(self) -> None:
        self._ended = Sums()
        self._last: dict[int, Status] = {}  # by log

    def take(self, statuses: Iterable[Status]) -> Sums:
        """The sums with these newest answers."""
        for status in statuses:
            before = self._last.get(status["log"])
            if before is not None and before["pid"] != status["pid"]:
                self._ended.add(before)
            self._last[status["log"]] = status
        sums = Sums()
        sums.add(self._ended.as_status())
        for status in self._last.values():
            sums.add(status)
        return sums


async def scrape(plane: ControlPlane, totals: Totals, accept: str) -> tuple[bytes, str]:
    """The metrics in the format a scraper asks for, and its content type."""
    statuses = [status for status in await plane.ask_workers("status") if status is not None]
    sums, fleet = totals.take(statuses), merge(statuses)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(sums, list(_gauges(plane, fleet, wall()))))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Scrape(Collector):
    """One scrape's families, in the order of `telemetry`."""

    def __init__(self, sums: Sums, gauges: list[Gauge]) -> None:
        self._sums = sums
        self._gauges = gauges

    def collect(self) -> Iterator[Family]:
        for metric in names.COUNTED:
            if metric.kind == "histogram":
                yield _histogram(metric, self._sums.histograms.get(metric.name, {}))
            else:
                yield _counter(metric, self._sums.counters.get(metric.name, {}))
        for metric, samples in self._gauges:
            make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = make(metric.name, metric.help, labels=metric.labels)
            for labels, number in samples:
                family.add_metric(labels, number)
            yield family


def _counter(metric: Metric, counts: Mapping[Labels, float]) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, number in sorted(counts.items()):
        family.add_metric(labels, number)
    return family


def _histogram(metric: Metric, found: Mapping[Labels, _Histogram]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    edges = [*map(str, metric.bounds), "+Inf"]
    for labels, histogram in sorted(found.items()):
        buckets = list(zip(edges, map(float, accumulate(histogram.buckets)), strict=True))
        family.add_metric(labels, buckets=buckets, sum_value=histogram.sum)
    return family


def _gauges(plane: ControlPlane, fleet: Fleet, wall_s: float) -> Iterator[Gauge]:
    edge = plane.settings.gateway.edge
    yield names.BUILD, [((VERSION, edge), 1)]
    yield names.STARTED, [((), plane.started_at)]
    yield names.READY, [((), plane.ready)]
    yield names.WORKERS, [((), len(fleet.workers))]
    yield names.CONNECTIONS, [((), fleet.connections)]
    yield names.IN_FLIGHT, [((), fleet.in_flight)]
    backends = fleet.backends
    yield names.BACKEND_IN_FLIGHT, [((backend.name,), backend.in_flight) for backend in backends]
    yield names.BACKEND_SLOTS, [((backend.name,), backend.slots) for backend in backends]
    yield names.BACKEND_AVAILABLE, [((each.name,), each.available_in / each.workers) for each in backends]
    yield names.BACKEND_TTFT, [((backend.name,), backend.ttft_ms / 1000) for backend in backends]
    yield names.LEDGER_WRITABLE, [((str(worker.log),), worker.ledger_writable) for worker in fleet.workers]
    seals = plane.seals.now
    yield names.SEALED_SEGMENTS, [((), seals.segments)]
    yield names.SEALED_BYTES, [((), seals.sealed_bytes)]
    if seals.last_sealed_at is not None:
        yield names.SEALED_AGE, [((), max(0.0, wall_s - seals.last_sealed_at))]
    yield names.SEGMENTS_DAMAGED, [((), len(seals.damaged))]
    yield from _prices(plane, wall_s)
    yield from _sinks(plane, wall_s)
    yield (
        names.BUDGET,
        [
            ((tenant.name, part), number)
            for tenant in fleet.tenants
            if (budget := tenant.budget) is not None
            for part, number in (("limit", budget.tokens), ("used", budget.used), ("reserved", budget.reserved))
        ],
    )


def _sinks(plane: ControlPlane, wall_s: float) -> Iterator[Gauge]:
    found = plane.shipping.conditions()
    yield names.SINK_ROWS, [((sink.name,), sink.rows) for sink in found]
    yield names.SINK_SKIPPED_LINES, [((sink.name,), sink.skipped) for sink in found]
    yield names.SINK_FAILURES, [((sink.name,), sink.failures) for sink in found]
    yield names.SINK_UP, [((sink.name,), sink.reachable is True) for sink in found]
    yield names.SINK_LAG_ROWS, [((sink.name,), sink.lag_rows) for sink in found]
    yield names.SINK_LAG_BYTES, [((sink.name,), sink.lag_bytes) for sink in found]
    yield names.SINK_LAG, [((sink.name,), sink.lag_s(wall_s)) for sink in found]


def _prices(plane: ControlPlane, wall_s: float) -> Iterator[Gauge]:
    book, feeds = plane.prices.book, plane.prices.feeds
    prices = book.at(plane.price_time.at(wall_s))
    points = {region: point for region in book.regions if (point := prices.power(region)) is not None}
    yield names.POWER_PRICE, [((region, point.quality), point.price_per_mwh) for region, point in points.items()]
    yield (
        names.LINK_PRICE,
        [
            ((link,), float(book.exchange(price.currency)) * price.marginal_per_gb())
            for link, price in book.transit.items()
        ],
    )
    yield (
        names.FEED_FETCHED,
        [((feed,), state.fetched_at) for feed, state in feeds.items() if state.fetched_at is not None],
    )
    yield names.FEED_FAILING, [((feed,), bool(state.problem)) for feed, state in feeds.items()]
