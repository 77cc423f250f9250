"""Small worlds for tests of the simulator: two with published costs, and changes to them."""

import copy
import tomllib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from gateway.rehearsal import Inputs, read_inputs
from routing.simulator.policies import MONEY, Policy
from routing.simulator.replay import replay
from routing.simulator.scenario import world_of
from routing.simulator.world import Assignment, Request, World

DATA = Path(__file__).parent / "data"

Document = dict[str, Any]


@cache
def inputs(name: str) -> Inputs:
    return read_inputs(DATA / f"{name}.toml")


@cache
def _document(name: str) -> Document:
    return tomllib.loads((DATA / f"{name}.toml").read_text("utf-8"))


def document(name: str) -> Document:
    """To be changed."""
    return copy.deepcopy(_document(name))


def world(name: str, change: Callable[[Document], None] | None = None) -> World:
    content = document(name)
    if change is not None:
        change(content)
    return world_of(content)


def part(content: Document, kind: str, name: str) -> Document:
    """A site, link, region or tenant of a document."""
    found: Document = next(item for item in content[kind] if item["id"] == name)
    return found


def decided(
    world: World, policy: Policy = MONEY, requests: Sequence[Request] | None = None, seed: int = 0
) -> list[Assignment]:
    """Every decision of a replay of the smoke requests, in order."""
    smoke = inputs("smoke")
    return list(replay(world, smoke.prices, requests or smoke.requests, policy, rng=Random(seed)))


def last_of(decisions: Iterable[Assignment]) -> dict[int, Assignment]:
    """The assignments: a row's last decision stands."""
    return {decision.request_id: decision for decision in decisions}


def fault(kind: str, target: str, from_s: float, to_s: float) -> Document:
    return {"kind": kind, "target": target, "from_s": from_s, "to_s": to_s}


def troubled(content: Document) -> None:
    """Outages and cuts that begin while rows are on their way, and a feed that dies."""
    content["faults"] = [
        fault("site_down", "tx", 4000.0, 5200.0),
        fault("link_cut", "gz-iepl", 6100.0, 8000.0),
        fault("feed_dead", "SG_SGD", 7000.0, 11500.0),
        fault("site_down", "gz", 9000.0, 9900.0),
        fault("link_cut", "tx-p95", 11000.0, 12000.0),
        fault("feed_dead", "*", 13000.0, 15000.0),
        fault("site_down", "tx", 14000.0, 15500.0),
        fault("site_down", "gz", 14800.0, 15300.0),
        fault("link_cut", "tx-ip", 17000.0, 19000.0),
    ]
    # So slow that several rows run into an outage before anybody knows.
    content["publication"]["fault_detect_s"] = 40.0
    content["publication"]["fault_fail_s"] = 30.0
