"""Configurations for tests, as plain documents: build one, change what the test is about, and turn it into TOML.

Everything listens on free ports of the loopback, drains quickly and belongs to one tenant unless a test says otherwise.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

KEY = "tp-test-key-of-acme"
MODEL = "m"
EDGE = "edge"

Document = dict[str, Any]


def key_hash(key: str) -> str:
    """A key as the configuration knows it."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def region(country: str, price_per_mwh: float | None = 50.0, **more: Any) -> dict[str, Any]:
    """A region with a fixed price of power."""
    power = {} if price_per_mwh is None else {"power": {"price_per_mwh": price_per_mwh}}
    return {"country": country, **power, **more}


def backend(name: str, region_name: str, url: str, **more: Any) -> dict[str, Any]:
    """A backend with room for everything, whose every event is one token."""
    return {
        "name": name,
        "region": region_name,
        "url": url,
        "models": {MODEL: f"{name}-model"},
        "slots": 512,
        "queue_max": 512,
        "joules_per_token": {"prefill": 0.25, "decode": 1.5},
        "tokens_per_event_max": 1,
        **more,
    }


def link(origin: str, **more: Any) -> dict[str, Any]:
    """A road to the edge: near and free unless told otherwise."""
    return {"from": origin, "to": EDGE, "rtt_ms": 1, "billing": "flat", "price_per_month": 0.0, **more}


def per_gb(origin: str, price_per_gb: float, **more: Any) -> dict[str, Any]:
    """A road paid by the byte."""
    return {"from": origin, "to": EDGE, "rtt_ms": 1, "billing": "per_gb", "price_per_gb": price_per_gb, **more}


def tenant(name: str = "acme", key: str = KEY, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "keys": [key_hash(key)],
        "tariff_per_mtok": {"input": 0.30, "cached_input": 0.03, "output": 1.20},
        "country": "DE",
        **more,
    }


def document(
    backends: Iterable[dict[str, Any]],
    *,
    regions: Mapping[str, dict[str, Any]] | None = None,
    links: Iterable[dict[str, Any]] = (),
    routes: Iterable[dict[str, Any]] | None = None,
    tenants: Iterable[dict[str, Any]] | None = None,
    limits: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
) -> Document:
    """A configuration. By default one edge region in Germany, which holds all backends, and one rule for MODEL."""
    listed = list(backends)
    ours = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "edge": EDGE, "data_dir": "var"}
    rule = {"model": MODEL, "backends": [each["name"] for each in listed], "objective": "cheapest"}
    return {
        "gateway": {**ours, **(gateway or {})},
        # Probes and spare connections stay out of the way of what is tested; draining does not make a test wait.
        "limits": {
            "accept_s": 0.0,
            "drain_s": 3.0,
            "exit_s": 2.0,
            "backoff_ms_max": 25.0,
            "probe_s": 600.0,
            "spare_connections": 0,
            **(limits or {}),
        },
        "regions": {EDGE: region("DE"), **(regions or {})},
        "links": list(links),
        "backends": listed,
        "routes": [rule] if routes is None else list(routes),
        "tenants": [tenant()] if tenants is None else list(tenants),
    }


def one_site(url: str, **more: Any) -> Document:
    """One backend "near" at the edge itself."""
    return document([backend("near", EDGE, url, **more)])


def two_regions(
    north_url: str, south_url: str, *, north_price: float = 20.0, south_price: float = 200.0, gb_price: float = 0.0
) -> Document:
    """Two producing regions abroad, both served over links of equal length: north (NO) and south (IT)."""
    return document(
        [backend("north-1", "north", north_url), backend("south-1", "south", south_url)],
        regions={"north": region("NO", north_price), "south": region("IT", south_price)},
        links=[per_gb("north", gb_price), per_gb("south", gb_price)],
    )


def crossing_prices(
    north_url: str, south_url: str, directory: Path, *, crossing: datetime, before_s: float, speed: float
) -> Document:
    """Two regions whose power changes places at `crossing`, an hour's beginning in UTC.

    North is cheap (10 per MWh) before it and dear (400) after it; south the other way round. North's prices come from
    a feed, south's from a time-of-use tariff. The price clock starts `before_s` ahead of the crossing and runs `speed`
    times as fast as the wall clock.
    """
    first = crossing.replace(hour=0)
    hours = [first + timedelta(hours=n) for n in range(48)]
    lines = [f"{hour.strftime('%Y-%m-%dT%H:%M:%SZ')},{10.0 if hour < crossing else 400.0}" for hour in hours]
    (directory / "north.csv").write_text("\n".join(["utc_start,price_per_mwh", *lines]) + "\n")
    content = two_regions(north_url, south_url)
    content["regions"]["north"]["power"] = {"feed": "north"}
    content["regions"]["south"]["power"] = {"tariff": "south"}
    content["feeds"] = {"north": {"kind": "csv", "path": "north.csv", "currency": "USD"}}
    periods = [{"hours": f"00-{crossing.hour:02d}", "price_per_mwh": 400.0}]
    content["tariffs"] = {"south": {"currency": "USD", "timezone": "UTC", "price_per_mwh": 10.0, "periods": periods}}
    start = crossing - timedelta(seconds=before_s)
    content["price_clock"] = {"start": start.strftime("%Y-%m-%dT%H:%M:%SZ"), "speed": speed}
    return content


def toml(content: Mapping[str, Any]) -> str:
    """A document as TOML text."""
    lines: list[str] = []
    for section, value in content.items():
        if isinstance(value, list):
            for entry in value:
                lines += [f"[[{section}]]", *_pairs(entry)]
        elif value and all(isinstance(each, dict) for each in value.values()):
            for name, entry in value.items():
                lines += [f"[{section}.{json.dumps(name)}]", *_pairs(entry)]
        else:
            lines += [f"[{section}]", *_pairs(value)]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{json.dumps(key)} = {_value(value)}" for key, value in table.items()]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_pairs(value)) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
