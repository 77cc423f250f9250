"""A request waits for its own record only so long: then it is refused, and written down once."""

from pathlib import Path

import pytest

from gateway.edge import course
from tests.edge.worker import asking, working
from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient
from tests.fakes.configurations import EDGE, document
from tests.fakes.configurations import backend as backend_entry
from tests.fakes.gateway import eventually
from tests.fakes.script import Script

# Waiting with an answer in hand, and waiting before a second route is tried.
SCRIPTS = {"an_answer": Script(tokens=3), "a_second_route": Script(status=500)}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_commit_that_takes_too_long_refuses_the_request_and_is_one_row(
    tmp_path: Path, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, name: str, streamed: bool
) -> None:
    monkeypatch.setattr(course, "DURABLE_S_MAX", 0.2)
    backends = [backend_entry(each, EDGE, backend.site(each).url) for each in ("first", "second")]
    async with working(tmp_path, document(backends, limits={"connections_max": 16})) as worker:
        worker.disk.hang()
        response = await worker.ask("m", SCRIPTS[name], stream=streamed)
        assert (response.status, response.error["code"]) == (503, "ledger")
        assert 1 <= int(response.headers["retry-after"]) <= 5
        worker.disk.turn()
        [row] = await worker.rows(1)
    assert (row["outcome"], row["status"]) == ("refused:ledger", 503)
    assert (row["delivered_tokens"], row["billed_output_tokens"], row["bytes_to_client"]) == (0, 0, 0)


async def test_a_client_that_does_not_wait_for_the_commit_is_one_row(tmp_path: Path, backend: ScriptedBackend) -> None:
    site = backend.site()
    content = document([backend_entry("near", EDGE, site.url)], limits={"connections_max": 16})
    async with working(tmp_path, content) as worker:
        worker.disk.hang()
        async with RawClient.connect(worker.url) as client:
            await client.send(asking("m", Script(tokens=3), stream=True))
            await eventually(lambda: site.log and site.log[0].ended == "whole", "the answer")
            client.reset()
        await eventually(lambda: not worker.plane.proxy.in_flight, "the request ends")
        worker.disk.turn()
        [row] = await worker.rows(1)
    assert (row["outcome"], row["status"], row["delivered_tokens"]) == ("client_gone", 499, 0)
