"""`tokenport explain`: which route would a request take now, what each would cost, and what ruled the others out.

Asks the running gateway by its admin address; without one it says "cold" and decides from configured values alone.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from random import Random
from typing import Any

import httpx

from gateway.clock import PriceTime, wall
from gateway.commands.output import UsageError, fail, moment, print_rows, report_problems, settings_of, zone
from gateway.config import ConfigError, Settings
from gateway.config.build import read_curves
from gateway.edge.explaining import ExplainRequest, explanation
from gateway.edge.live import Live
from gateway.errors import ApiError

COLUMNS = (
    "backend",
    "link",
    "region",
    "ttft_ms",
    "energy",
    "tokens",
    "link_cost",
    "capacity",
    "time",
    "total",
    "verdict",
)


def run(arguments: Namespace) -> int:
    try:
        settings = settings_of(arguments)
        at = moment(arguments.at, zone("UTC"), "--at")
    except ConfigError as error:
        return report_problems(error)
    except UsageError as error:
        return fail(str(error))
    demand = {name: getattr(arguments, name) for name in ("model", "tenant", "input_tokens", "max_tokens")}
    try:
        request = ExplainRequest.from_json({**demand, "destination": arguments.destination.upper(), "at": at})
    except ApiError as error:
        return fail(error.message)
    answer = _ask(settings, request)
    if answer is None:
        answer = _cold(settings, request)
    _print(answer, arguments.format)
    return 0 if answer["route"] is not None else 1


def _ask(settings: Settings, request: ExplainRequest) -> dict[str, Any] | None:
    gateway = settings.gateway
    headers = {"authorization": f"Bearer {gateway.admin_token}"} if gateway.admin_token else {}
    try:
        response = httpx.post(
            f"http://{gateway.admin_listen}/explain",
            json=request.to_json(),
            headers=headers,
            timeout=5,
            trust_env=False,
        )
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError):
        return None
    return answer


def _cold(settings: Settings, request: ExplainRequest) -> dict[str, Any]:
    now = wall()
    live = Live(settings, read_curves(settings, now), PriceTime(settings.price_clock, now), Random(0))
    return {**explanation(live, request, 0.0, now), "state": "cold"}


def _print(answer: Mapping[str, Any], form: str) -> None:
    if form == "json":
        json.dump(answer, sys.stdout, indent=2)
        print()
        return
    if form == "table":
        for line in answer["summary"]:
            print(line)
        print()
    print_rows(answer["candidates"], COLUMNS, form)
