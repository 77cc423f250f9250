"""How long an answer is waited for: a plain one longer than a first token, and the text of an error hardly at all."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.edge.worker import Worker, working
from tests.fakes.backend import ScriptedBackend, Site
from tests.fakes.client import Response
from tests.fakes.configurations import Document, one_site
from tests.fakes.gateway import eventually
from tests.fakes.script import Script

SILENT = Script(tokens=4, hold_before_head=True)


@pytest.fixture
def site(backend: ScriptedBackend) -> Site:
    return backend.site()


def content(site: Site, *, rule: dict[str, Any] | None = None, limits: dict[str, Any] | None = None) -> Document:
    document = one_site(site.url)
    document["limits"] |= {"connections_max": 16, **(limits or {})}
    document["routes"][0] |= rule or {}
    return document


async def begin(worker: Worker, site: Site, script: Script, **members: Any) -> asyncio.Task[Response]:
    """Ask for an answer, a plain one unless told otherwise. Returns when the backend has the request."""
    asked = len(site.log)
    answer = asyncio.create_task(worker.ask("m", script, **members))
    await eventually(lambda: len(site.log) > asked, "the request")
    return answer


async def test_a_plain_answer_may_take_longer_than_the_first_token_of_a_stream(tmp_path: Path, site: Site) -> None:
    async with working(tmp_path, content(site)) as worker:
        answer = await begin(worker, site, SILENT)
        await worker.pass_time(3000)
        site.release()
        response = await answer
        [row] = await worker.rows(1)
    assert response.status == 200
    assert response.json["choices"][0]["message"]["content"] == SILENT.answer()
    assert (row["outcome"], row["attempts"], row["delivered_tokens"]) == ("completed", 1, 4)


async def test_a_rule_that_sets_the_default_sets_it_for_plain_answers_too(tmp_path: Path, site: Site) -> None:
    async with working(tmp_path, content(site, rule={"first_content_s": 60.0})) as worker:
        answer = await begin(worker, site, SILENT)
        await worker.pass_time(61)
        assert (await answer).status == 504


@pytest.mark.parametrize("where", ["rule", "limits"])
async def test_a_limit_that_somebody_set_is_for_plain_answers_as_well(tmp_path: Path, site: Site, where: str) -> None:
    more: dict[str, Any] = {where: {"first_content_s": 5.0}}
    async with working(tmp_path, content(site, **more)) as worker:
        answer = await begin(worker, site, SILENT)
        await worker.pass_time(4)
        assert worker.plane.proxy.in_flight == 1, "given up before its time"
        await worker.pass_time(2)
        response = await answer
        [row] = await worker.rows(1)
    assert (response.status, response.error["code"]) == (504, "deadline")
    assert (row["outcome"], row["status"], row["billed_output_tokens"]) == ("deadline", 504, 0)


async def test_the_whole_time_of_an_answer_bounds_a_plain_one_too(tmp_path: Path, site: Site) -> None:
    async with working(tmp_path, content(site, rule={"stream_s": 600.0, "first_content_s": 3000.0})) as worker:
        answer = await begin(worker, site, SILENT)
        await worker.pass_time(599)
        assert worker.plane.proxy.in_flight == 1, "given up before its time"
        await worker.pass_time(2)
        assert (await answer).status == 504


async def test_a_plain_answer_that_has_begun_may_not_pause_for_longer_than_a_gap(tmp_path: Path, site: Site) -> None:
    async with working(tmp_path, content(site, rule={"gap_s": 7.0})) as worker:
        answer = await begin(worker, site, Script(tokens=4, body_hold=20))
        waited_s = 0
        while not answer.done():
            assert waited_s <= 9
            await worker.pass_time(1)
            waited_s += 1
        assert waited_s >= 7
        response = await answer
        [row] = await worker.rows(1)
    assert response.status == 504
    assert (row["outcome"], row["billed_output_tokens"]) == ("deadline", 0)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("status", "told"), [(400, 400), (413, 413), (429, 503), (500, 502)])
async def test_the_text_of_an_error_is_not_waited_for_long(
    tmp_path: Path, site: Site, status: int, told: int, streamed: bool
) -> None:
    async with working(tmp_path, content(site)) as worker:
        answer = await begin(worker, site, Script(status=status, body_hold=9), stream=streamed)
        waited_s = 0.0
        while not answer.done():
            assert waited_s <= 4
            await worker.pass_time(0.5)
            waited_s += 0.5
        response = await answer
        [row] = await worker.rows(1)
    assert response.status == told
    assert response.error["message"]
    assert (row["outcome"], row["status"]) == ("upstream_refused", told)
    assert [entry.status for entry in site.log] == [status]


async def test_an_error_found_late_is_told_before_silence_is_broken(tmp_path: Path, site: Site) -> None:
    """When a heartbeat is due in the same look."""
    async with working(tmp_path, content(site)) as worker:
        answer = await begin(worker, site, Script(status=422, body_hold=9), stream=True)
        await eventually(lambda: site.log[0].status == 422, "the head is sent")
        for _ in range(5):
            await worker.pass_time(0)  # and is read
        await worker.pass_time(12)
        response = await answer
        [row] = await worker.rows(1)
    assert (response.status, row["status"]) == (422, 422)
