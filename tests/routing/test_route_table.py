"""The route table: names resolved into routes, and a version all workers agree on."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from routing.link import Link
from routing.policy import Objective
from routing.table import RouteTable, RuleSpec
from tests.routing.world import EDGE, MODEL, backend

ROOT = Path(__file__).resolve().parents[2]
A, B, HOME = backend("a", region="r1"), backend("b", region="r2"), backend("home", region=EDGE)
LINKS = (Link("l1", "r1", EDGE, 0.1), Link("l2", "r2", EDGE, 0.2, transit=("SG", "HK")))
RULE = RuleSpec(MODEL, backends=("a", "b"))


def names(table: RouteTable, rule: int = 0) -> list[str]:
    return [route.name for route in table.rules[rule].routes]


def test_a_route_is_a_backend_over_a_link() -> None:
    links = (*LINKS, Link("l3", "r2", EDGE, 0.3), Link("elsewhere", "r2", "other-edge", 0.1))
    table = RouteTable.build(EDGE, [B, A], links, [RULE])
    assert names(table) == ["a/l1", "b/l2", "b/l3"]
    assert table.rules[0].routes[1].countries == {"NO", "SG", "HK"}


def test_a_region_stands_for_its_backends_that_serve_the_model() -> None:
    other = backend("other", region="r1", models={"another": "x"})
    table = RouteTable.build(EDGE, [A, B, other], LINKS, [RuleSpec(MODEL, regions=("r1",), backends=("b",))])
    assert names(table) == ["a/l1", "b/l2"]


def test_a_backend_at_the_edge_needs_no_link() -> None:
    table = RouteTable.build(EDGE, [HOME, A], LINKS, [RuleSpec(MODEL, backends=("home",))])
    assert names(table) == ["home/local"]
    assert table.links["local"] == Link("local", EDGE, EDGE, 0.0)
    own = RouteTable.build(EDGE, [HOME], [Link("lan", EDGE, EDGE, 0.001)], [RuleSpec(MODEL, backends=("home",))])
    assert names(own) == ["home/lan"]


def test_models_and_matches_follow_the_order_of_the_rules() -> None:
    site = backend("a", region="r1", models={MODEL: "x", "tiny": "y"})
    rules = [
        RuleSpec("tiny", backends=("a",), destinations=("DE", "FR")),
        RuleSpec(MODEL, backends=("a",), destinations=("DE",), ttft_slo_s=1.0),
        RuleSpec(MODEL, backends=("a",), destinations=("*",), ttft_slo_s=2.0),
    ]
    table = RouteTable.build(EDGE, [site], LINKS, rules)
    assert table.models() == ("tiny", MODEL)
    found = [table.match(MODEL, destination) for destination in ("DE", "US", "")]
    assert [rule and rule.ttft_slo_s for rule in found] == [1.0, 2.0, 2.0]
    assert table.match("tiny", "") is None
    assert table.match("unknown", "DE") is None


@pytest.mark.parametrize(
    ("backends", "links", "rule", "offence"),
    [
        ([A, A], LINKS, RULE, "backend 'a' is there twice"),
        ([A, B], (*LINKS, LINKS[0]), RULE, "link 'l1' is there twice"),
        ([A], LINKS, RULE, "no backend is called 'b'"),
        ([A, B], LINKS[:1], RULE, "no link from 'r2' to 'edge'"),
        ([A, B], LINKS, replace(RULE, model="tiny"), "backend 'a' does not serve it"),
        ([A, B], LINKS, RuleSpec(MODEL, regions=("r3",)), "no backend in region 'r3'"),
        ([A, B], LINKS, RuleSpec(MODEL), "neither backends nor regions"),
        ([A, B, HOME], (*LINKS, Link("local", "r1", EDGE, 0.1)), RULE, "link 'local'"),
    ],
)
def test_what_does_not_fit_is_named(
    backends: list[object], links: tuple[Link, ...], rule: RuleSpec, offence: str
) -> None:
    with pytest.raises(ValueError, match=offence):
        RouteTable.build(EDGE, backends, links, [rule])  # type: ignore[arg-type]


def version(**changes: object) -> str:
    parts: dict[str, object] = {"edge": EDGE, "backends": [A, B], "links": LINKS, "rules": [RULE], **changes}
    return RouteTable.build(**parts).version  # type: ignore[arg-type]


def test_the_version_does_not_depend_on_an_order_without_meaning() -> None:
    assert len(version()) == 12
    assert version(backends=[B, A], links=LINKS[::-1], rules=[replace(RULE, backends=("b", "a"))]) == version()


@pytest.mark.parametrize(
    "change",
    [
        {"backends": [replace(A, slots=11), B]},
        {"backends": [replace(A, url="http://127.0.0.1:8/v1"), B]},
        {"links": (replace(LINKS[0], rtt_s=0.11), LINKS[1])},
        {"rules": [replace(RULE, objective=Objective("cheapest"))]},
        {"rules": [replace(RULE, deny_origins=frozenset({"CN"}))]},
        {"rules": [replace(RULE, backends=("a",))]},
        {"rules": [RULE, RULE]},
        {"power_caps_w": {"r1": 100.0}},
    ],
)
def test_the_version_changes_with_the_content(change: dict[str, object]) -> None:
    assert version(**change) != version()


def test_a_new_credential_is_not_a_new_table_and_never_shows() -> None:
    secret = replace(A, api_key="sk-secret")
    assert version(backends=[secret, B]) == version()
    assert "sk-secret" not in repr(RouteTable.build(EDGE, [secret, B], LINKS, [RULE]))


def test_the_version_is_equal_in_every_process() -> None:
    rule = replace(RULE, deny_origins=frozenset({"CN", "US", "SG", "KR"}))
    program = (
        "from tests.routing.test_route_table import *\n"
        "rule = replace(RULE, deny_origins=frozenset({'KR', 'SG', 'US', 'CN'}))\n"
        "print(version(rules=[rule]))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert printed == [version(rules=[rule])] * 2
