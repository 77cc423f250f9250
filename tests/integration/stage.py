"""A gateway with scripted backends behind it, shared by the tests of a module.

Every scene has a model, and backends, of its own, so that what one test does to the health or the learned figures of a
backend is no other test's business. A scene's first backend is the cheapest and always asked first.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.backend import ScriptedBackend, Site
from tests.fakes.client import RawClient, Response, request
from tests.fakes.configurations import KEY, backend, document, link, region, tenant, toml
from tests.fakes.gateway import POLL_S, Gateway, Row
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, Stream, stream

# Where the first, second and third backend of a scene stand: from cheap to dear.
REGIONS = {"north": region("NO", 10.0), "middle": region("FR", 100.0), "south": region("IT", 1000.0)}


@dataclass(frozen=True, slots=True)
class Stage:
    """The gateway, the backends, and how to ask."""

    scripted: ScriptedBackend
    gateway: Gateway

    def site(self, scene: str, number: int = 1) -> Site:
        """A scene's backend, from 1."""
        return self.scripted.site(f"{scene}-{number}")

    async def stream(self, scene: str, script: Script | None = None, **more: Any) -> Stream:
        """A streamed answer of this scene's model; `script` is what every backend does with it."""
        key = more.pop("key", KEY)
        return await stream(self.gateway.url, key, Ask(model=scene, script=script, **more))

    async def post(
        self, scene: str, script: Script | None = None, *, path: str = "/v1/chat/completions", **members: Any
    ) -> Response:
        """A request on a connection of its own, and its whole response."""
        body: dict[str, Any] = {"model": scene, "messages": [{"role": "user", "content": "count"}], **members}
        if script is not None:
            body["user"] = script.to_json()
        return await self.send(request(path=path, key=KEY, json_body=body))

    async def send(self, raw: bytes) -> Response:
        async with RawClient.connect(self.gateway.url) as client:
            await client.send(raw)
            return await client.response()

    async def row(self, answer: Stream | Response) -> Row:
        """The ledger's row of an answer."""
        return await self.gateway.row(answer.headers["x-tokenport-export-id"])


@asynccontextmanager
async def staged(
    directory: Path,
    scenes: Mapping[str, int],
    *,
    limits: Mapping[str, Any] | None = None,
    tenants: Iterable[dict[str, Any]] | None = None,
    gateway: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    rules: Mapping[str, Mapping[str, Any]] | None = None,
) -> AsyncIterator[Stage]:
    """A running stage. `scenes` says how many backends each scene has; `settings` and `rules` change a scene's."""
    async with ScriptedBackend() as scripted:
        backends, routes = [], []
        for scene, count in scenes.items():
            names = [f"{scene}-{number}" for number in range(1, count + 1)]
            for name, where in zip(names, REGIONS, strict=False):
                more = {"models": {scene: f"{name}-model"}, **(settings or {}).get(scene, {})}
                backends.append(backend(name, where, scripted.site(name).url, **more))
            route = {"model": scene, "backends": names, "objective": "cheapest"}
            routes.append({**route, **(rules or {}).get(scene, {})})
        content = document(
            backends,
            regions=REGIONS,
            links=[link(where) for where in REGIONS],
            routes=routes,
            tenants=[tenant()] if tenants is None else tenants,
            limits=limits,
            gateway=gateway,
        )
        async with Gateway(directory, toml(content)) as running:
            yield Stage(scripted, running)
            await nothing_is_held(running)


async def nothing_is_held(gateway: Gateway) -> None:
    """After every way out: nothing in flight, all permits back."""
    loop = asyncio.get_running_loop()
    until = loop.time() + 10
    while held := _held(await gateway.status()):
        assert loop.time() < until, f"still held: {held}"
        await asyncio.sleep(POLL_S)


def _held(status: Any) -> list[Any]:
    counts = [("requests", status["requests_in_flight"])]
    counts += [(each["name"], each["in_flight"]) for each in status["backends"]]
    counts += [(each["name"], each["streams"]) for each in status["tenants"]]
    counts += [(each["name"], each["budget"]["reserved"]) for each in status["tenants"] if each["budget"]]
    return [(name, count) for name, count in counts if count]
