"""A control plane of plain values: real settings and prices, and workers that answer what a test tells them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.clock import PriceTime
from gateway.config import Settings, load_text
from gateway.config.build import price_book, read_curves
from gateway.control.sealing import SealsNow
from gateway.shipping.shipper import Condition
from pricing.book import PriceBook

TOKEN = "a-token-of-the-operator"

CONFIGURATION = """
[gateway]
edge = "edge"
currency = "USD"
data_dir = "var"
admin_listen = "127.0.0.1:0"
{gateway}

[price_clock]
start = "2024-05-06T10:30:00Z"
speed = 0.01

[fx]
CNY = 0.14
EUR = 1.1

[regions.edge]
country = "DE"
[regions.south]
country = "CN"
label = "{label}"
power = {{ tariff = "south" }}
pue = 1.2
[regions.north]
country = "NO"
power = {{ feed = "nordic" }}
[regions.shop]
country = "US"

[tariffs.south]
currency = "CNY"
timezone = "UTC"
price_per_mwh = 400.0
periods = [{{ hours = "12-20", price_per_mwh = 600.0 }}]

[feeds.nordic]
kind = "csv"
path = "nordic.csv"
currency = "EUR"

[[backends]]
name = "south-1"
region = "south"
url = "http://127.0.0.1:9/v1"
models = {{ "m" = "M" }}
slots = 4
joules_per_token = {{ prefill = 0.2, decode = 1.0 }}
[[backends]]
name = "north-1"
region = "north"
url = "http://127.0.0.1:9/v1"
models = {{ "m" = "M" }}
slots = 4
joules_per_token = {{ prefill = 0.2, decode = 1.0 }}
[[backends]]
name = "shop-1"
region = "shop"
url = "http://127.0.0.1:9/v1"
models = {{ "m" = "M" }}
slots = 4
price_per_mtok = {{ input = 0.1, output = 0.5 }}

[[links]]
from = "south"
to = "edge"
rtt_ms = 180
billing = "per_gb"
price_per_gb = 0.12
transit = ["SG"]
[[links]]
from = "north"
to = "edge"
rtt_ms = 20
billing = "flat"
price_per_month = 500.0
[[links]]
from = "shop"
to = "edge"
rtt_ms = 90
billing = "per_gb"
price_per_gb = 0.0

[[routes]]
model = "m"
backends = ["south-1", "north-1", "shop-1"]

[[tenants]]
name = "acme"
keys = ["sha256:{key}"]
"""

PRICES = "utc_start,price_per_mwh\n" + "".join(
    f"2024-05-{day:02d}T{hour:02d}:00:00Z,{40 + hour}\n" for day in (5, 6, 7) for hour in range(24)
)


def settings(directory: Path, *, label: str = "distance simulated", token: str = "", listen: str = "") -> Settings:
    """The configuration above, read as the gateway reads it."""
    (directory / "nordic.csv").write_text(PRICES)
    gateway = 'admin_token_env = "ADMIN"\n' if token else ""
    text = CONFIGURATION.format(gateway=gateway, label=label, key="0" * 64)
    if listen:
        text = text.replace('admin_listen = "127.0.0.1:0"', f'admin_listen = "{listen}"')
    return load_text(text, directory, {"ADMIN": token} if token else {})


@dataclass
class Feed:
    fetched_at: float | None = None
    problem: str = ""


@dataclass
class Desk:
    """Prices in force."""

    book: PriceBook
    feeds: dict[str, Feed] = field(default_factory=lambda: {"nordic": Feed(time.time() - 60)})


@dataclass
class Ledger:
    """Answers every question for sums with the rows of the dimensions asked for."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    failure: Exception | None = None
    asked: int = 0

    async def sums(
        self, by: Sequence[str], period: str | None, tz: str, start: float | None, end: float | None
    ) -> list[dict[str, Any]]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return [row for row in self.rows if ("period" in row) == (period is not None) and row["by"] == tuple(by)]


class Seals:
    """A ledger of which two segments are sealed."""

    def __init__(self) -> None:
        self.now = SealsNow(2, 9000, time.time() - 600)


@dataclass
class Shipping:
    """Stores, as their shippers last told."""

    sinks: list[Condition] = field(default_factory=list)

    def conditions(self) -> list[Condition]:
        return self.sinks


class Planning:
    """Half an hour ago a plan was made of two hours."""

    problem = ""

    def __init__(self) -> None:
        self.planned_at: float | None = time.time() - 1800
        self.followed_at: float | None = time.time() - 20

    def outlook(self, now: float) -> list[dict[str, Any]]:
        return [{"since": now // 3600 * 3600 + ahead * 3600, "slot_per_hour": {"gz-1": 0.02}} for ahead in range(2)]


class Plane:
    """What the admin port sees."""

    def __init__(self, of: Settings, *, replayed: bool = True) -> None:
        self.settings = of
        self.prices = Desk(price_book(of, read_curves(of, time.time())))
        self.planner = Planning()
        self.books = Ledger()
        self.seals = Seals()
        self.shipping = Shipping()
        self.ready = True
        self.started_at = time.time() - 3 * 3600
        self.price_time = PriceTime(of.price_clock if replayed else None, time.time())
        self.workers: list[dict[str, Any] | None] = [status()]
        self.explanations: list[dict[str, Any] | None] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.problems: list[str] = []

    async def ask_workers(self, what: str, **fields: Any) -> list[Any]:
        self.asked.append((what, fields))
        return list(self.workers if what == "status" else self.explanations)

    async def reload(self) -> list[str]:
        return self.problems


def status(log: int = 0, pid: int = 100, /, **parts: Any) -> dict[str, Any]:
    """One worker's answer; parts replace those of an idle worker."""
    idle = {
        "log": log,
        "pid": pid,
        "connections": 3,
        "in_flight": 2,
        "draining": False,
        "ledger": {"writable": True, "reason": ""},
        "route_version": "0123456789ab",
        "price_version": "ba9876543210",
        "backends": [backend("south-1", "south"), backend("north-1", "north")],
        "tenants": [{"name": "acme", "streams": 1, "budget": None}],
        "decisions": [],
        "counters": {},
        "histograms": {},
    }
    return {**idle, **parts}


def backend(name: str, region: str, **parts: Any) -> dict[str, Any]:
    healthy = {
        "name": name,
        "region": region,
        "in_flight": 1,
        "slots": 4,
        "queue_max": 4,
        "available": True,
        "barred": "",
        "ttft_ms": 120.0,
        "itl_ms": 20.0,
        "tokens_per_event": 1.0,
        "slot_per_hour": 0.0125,
    }
    return {**healthy, **parts}


def decision(at: float, backend_name: str = "south-1", **parts: Any) -> dict[str, Any]:
    usual = {
        "at": at,
        "tenant": "acme",
        "model": "m",
        "destination": "DE",
        "backend": backend_name,
        "link": "south-edge",
        "region": "south",
        "total": 0.0000521,
        "energy": 0.00004,
        "tokens": 0.0,
        "link_cost": 0.000012,
        "capacity": 0.0,
        "time": 0.0000001,
        "second": "north-1",
        "second_total": 0.000071,
    }
    return {**usual, **parts}


def sums(by: Sequence[str] = (), **figures: Any) -> dict[str, Any]:
    """A row of sums by some dimensions; what is not given is 0."""
    nothing: dict[str, Any] = dict.fromkeys(
        (
            "requests",
            "exported_tokens",
            "delivered_tokens",
            "revenue_nano",
            "cost_energy_nano",
            "cost_tokens_nano",
            "cost_link_nano",
            "cost_waste_nano",
            "cost_nano",
        ),
        0,
    )
    return {"by": tuple(by), "currency": "USD", **nothing, **figures}
