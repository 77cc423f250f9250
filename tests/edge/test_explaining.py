"""`explain` says what it cannot explain, at once and at both of its doors."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import wall
from tests.edge.worker import working
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import Document, document, region, toml
from tests.fakes.configurations import backend as backend_entry
from tests.fakes.gateway import Gateway

ABSURD: dict[str, dict[str, Any]] = {
    "at_beyond_all_dates": {"at": 1e300},
    "at_the_end_of_dates": {"at": 253_402_300_799},
    "at_before_all_dates": {"at": -1e18},
    "at_before_the_epoch": {"at": -1},
    "negative_input": {"input_tokens": -5},
    "no_input": {"input_tokens": 0},
    "endless_input": {"input_tokens": 10**12},
    "input_beyond_integers": {"input_tokens": 10**25},
    "negative_output": {"max_tokens": -1},
}
# The first and the last that are taken.
EDGES: list[dict[str, Any]] = [
    {"at": 0, "input_tokens": 1, "max_tokens": 1},
    {"at": 253_086_767_999, "input_tokens": 10**9, "max_tokens": 10**9},
]


@pytest.fixture
def content() -> Document:
    """A region whose price of power changes with the hours of a place far east, on some days of the year."""
    content = document([backend_entry("east-1", "east", "http://127.0.0.1:9/v1")], regions={"east": region("JP")})
    content["regions"]["east"]["power"] = {"tariff": "east"}
    content["links"] = [{"from": "east", "to": "edge", "rtt_ms": 9, "billing": "flat", "price_per_month": 0.0}]
    periods = [{"hours": "8-20", "days": "mon-fri", "months": "2", "price_per_mwh": 90.0}]
    content["tariffs"] = {
        "east": {"currency": "USD", "timezone": "Asia/Tokyo", "price_per_mwh": 30.0, "periods": periods}
    }
    content["limits"] |= {"connections_max": 16}
    return content


@pytest.mark.parametrize("name", ABSURD)
async def test_what_makes_no_sense_is_said(tmp_path: Path, content: Document, name: str) -> None:
    async with working(tmp_path, content) as worker:
        answer = worker.plane.explain({"demand": {"model": "m", **ABSURD[name]}}, worker.now(), wall())
    assert list(answer) == ["error"]
    assert next(iter(ABSURD[name])) in answer["error"]


@pytest.mark.parametrize("demand", EDGES)
async def test_what_is_only_far_away_is_explained(tmp_path: Path, content: Document, demand: dict[str, Any]) -> None:
    async with working(tmp_path, content) as worker:
        answer = worker.plane.explain({"demand": {"model": "m", **demand}}, worker.now(), wall())
    assert [each["backend"] for each in answer["candidates"]] == ["east-1"]


async def test_both_doors_refuse_at_once(tmp_path: Path, content: Document) -> None:
    async with Gateway(tmp_path, toml(content)) as gateway:
        for demand in ABSURD.values():
            body = json.dumps({"model": "m", **demand}).encode()
            async with RawClient.connect(gateway.admin_url) as client, asyncio.timeout(2):
                await client.send(request(path="/explain", host=gateway.admin_url.removeprefix("http://"), body=body))
                response = await client.response()
            assert response.status == 400, demand
        for option in (("--at", "9999-12-31T23:59:59Z"), ("--input-tokens", "-5"), ("--max-tokens", "0")):
            finished = await gateway.command("explain", "--model", "m", *option)
            assert (finished.status, finished.stdout, len(finished.stderr.splitlines())) == (2, "", 1)
