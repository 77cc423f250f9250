"""The configuration of a campaign: a scene (a model with backends of its own) for everything that may go wrong."""

from typing import Any

from tests.chaos.visitors import BODY_BYTES_MAX
from tests.fakes.backend import ScriptedBackend
from tests.fakes.configurations import Document, backend, document, link, region, tenant

REGIONS = {"near": region("NL", 5.0), "north": region("NO", 10.0), "middle": region("FR", 100.0)}
SCENES: dict[str, dict[str, Any]] = {
    "exact": {},
    "running": {"usage": "continuous"},
    "loose": {"tokens_per_event_max": 4},
    "silent": {},
    "full": {},
    "locked": {},
}
# Long where a busy machine could be taken for a fault, short where visitors wait for it.
LIMITS: dict[str, Any] = {
    "head_s": 3.0,
    "body_s": 3.0,
    "write_stall_s": 4.0,
    "first_content_s": 30.0,
    "gap_s": 30.0,
    "body_bytes_max": BODY_BYTES_MAX,
    "retries_min": 100_000,
    "eject_failures": 10_000,
    "eject_share": 1.0,
    "probe_s": 0.5,
    "slow_start_s": 0.5,
    "drain_s": 5.0,
}
SILENCE_S = 1.0


def configuration(
    scripted: ScriptedBackend, dead_url: str, *, near: bool, price: float, gateway: dict[str, Any]
) -> Document:
    """All scenes. `near` adds the cheapest backend of one of them, `price` is what the north's power costs."""
    backends, routes = [], []
    for scene, more in SCENES.items():
        names = []
        for where in REGIONS:
            if where == "near" and not (near and scene == "exact"):
                continue
            names.append(f"{scene}-{where}")
            url = scripted.site(names[-1]).url
            backends.append(backend(names[-1], where, url, **{"models": {scene: f"{names[-1]}-model"}, **more}))
        if scene != "exact":
            names.append(f"{scene}-third")
            url = scripted.site(names[-1]).url
            backends.append(backend(names[-1], "middle", url, **{"models": {scene: f"{names[-1]}-model"}, **more}))
        rule: dict[str, Any] = {"model": scene, "backends": names, "objective": "cheapest"}
        if scene == "silent":
            rule |= {"first_content_s": SILENCE_S, "gap_s": SILENCE_S}
        routes.append(rule)
    backends.append(backend("exact-third", "middle", scripted.site("exact-third").url, models={"exact": "third"}))
    routes[0]["backends"].append("exact-third")
    for scene, names in {"dead": ["dead-near"], "half_dead": ["half_dead-near", "half_dead-north"]}.items():
        for name, where in zip(names, REGIONS, strict=False):
            url = dead_url if where == "near" else scripted.site(name).url
            backends.append(backend(name, where, url, models={scene: "m"}))
        routes.append({"model": scene, "backends": names, "objective": "cheapest"})
    regions = {**REGIONS, "north": region("NO", price)}
    return document(
        backends,
        regions=regions,
        links=[link(where) for where in regions],
        routes=routes,
        tenants=[tenant(budget={"tokens": 10**15, "period": "year"})],
        limits=LIMITS,
        gateway=gateway,
    )
