"""Status and outcome of every way a request can go: the table of the rules of behaviour, row by row."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.gateway import Row, eventually
from tests.fakes.script import Script
from tests.integration.recomputation import differences
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a backend does instead of answering, and what the caller gets if nobody else can answer.
BROKEN = {
    "status_500": (Script(status=500), 502),
    "status_502": (Script(status=502), 502),
    "status_418": (Script(status=418), 502),
    "status_204": (Script(status=204, body=""), 502),
    "redirect_301": (Script(status=301, headers={"location": "http://127.0.0.1:1/v1"}), 502),
    "redirect_307": (Script(status=307, headers={"location": "http://127.0.0.1:1/v1"}), 502),
    "credentials_401": (Script(status=401), 502),
    "credentials_402": (Script(status=402), 502),
    "credentials_403": (Script(status=403), 502),
    "saturated_429": (Script(status=429), 503),
    "saturated_503": (Script(status=503), 503),
    "saturated_529": (Script(status=529), 503),
    "slow_408": (Script(status=408), 504),
    "slow_425": (Script(status=425), 504),
    "slow_504": (Script(status=504), 504),
    "dropped_before_head": (Script(raw=""), 502),
    "not_http": (Script(raw="SSH-2.0-OpenSSH_9.6\r\n\r\n"), 502),
    "head_of_two_lengths": (Script(raw="HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"), 502),
    "huge_head": (Script(headers={"x-padding": "p" * 40_000}), 502),
    "html_200": (Script(content_type="text/html", body="<h1>welcome</h1>"), 502),
    "cut_before_content": (Script(cut_after=0), 502),
    "reset_before_content": (Script(cut_after=0, cut="rst"), 502),
    "clean_end_before_content": (Script(cut_after=0, cut="clean"), 502),
    "error_before_content": (Script(error_after=0), 502),
    "bad_events_before_content": (Script(malformed_after=0, malformed=4), 502),
    "silent_before_head": (Script(hold_before_head=True), 504),
    "silent_before_content": (Script(hold_after=0), 504),
}
# Faults of this very request: told as they are, tried nowhere else.
REJECTED = (400, 404, 413, 422)


@dataclass(frozen=True, slots=True)
class Cut:
    """A stream that ends early after content."""

    script: Script
    outcome: str
    tokens: int


CUTS = {
    "fin": Cut(Script(cut_after=3), "upstream_cut", 3),
    "rst": Cut(Script(cut_after=3, cut="rst"), "upstream_cut", 3),
    "mid_event": Cut(Script(cut_after=3, cut_inside="event"), "upstream_cut", 3),
    "mid_chunk": Cut(Script(cut_after=3, cut_inside="chunk"), "upstream_cut", 3),
    "clean_end": Cut(Script(cut_after=3, cut="clean"), "upstream_cut", 3),
    "half_event_and_clean_end": Cut(Script(cut_after=3, cut="clean", cut_inside="event"), "upstream_cut", 3),
    "close_delimited": Cut(Script(cut_after=3, framing="close"), "upstream_cut", 3),
    "no_finish_reason": Cut(Script(tokens=3, finish=None, done=False, usage="none"), "upstream_cut", 3),
    "done_without_finish_reason": Cut(Script(tokens=3, finish=None, usage="none"), "upstream_cut", 3),
    "stall": Cut(Script(hold_after=3), "upstream_stall", 3),
    "error_event": Cut(Script(error_after=3), "upstream_error", 3),
    "four_bad_events": Cut(Script(malformed_after=3, malformed=4), "upstream_malformed", 3),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    scenes = {f"two-{name}": 2 for name in BROKEN} | {f"one-{name}": 1 for name in BROKEN}
    scenes |= {f"cut-{name}": 2 for name in CUTS} | {f"plain-{name}": 2 for name in BROKEN}
    scenes |= {f"rejected-{status}": 2 for status in REJECTED}
    scenes |= {"plain-cut": 2, "plain-cut-alone": 1, "plain-torn": 2}
    scenes |= dict.fromkeys(("whole", "leaver", "hiding", "three", "all-three"), 3)
    # Short deadlines, so that silence ends soon; the silent scripts hold for ever.
    limits = {"first_content_s": 0.5, "gap_s": 0.5, "retries_min": 1000}
    async with staged(tmp_path_factory.mktemp("outcomes"), scenes, limits=limits) as stage:
        yield stage


def failed_attempt(row: Row, number: int = 0) -> dict[str, Any]:
    attempt: dict[str, Any] = row["attempts_list"][number]
    assert attempt["serving"] is False
    assert attempt["cause"]
    return attempt


async def test_a_whole_answer_is_completed(stage: Stage) -> None:
    seen = await stage.stream("whole", Script(tokens=9))
    assert (seen.status, seen.tokens, seen.done, seen.framed, seen.error) == (200, 9, True, True, None)
    row = await stage.row(seen)
    assert (row["outcome"], row["status"], row["attempts"]) == ("completed", 200, 1)
    assert (row["output_tokens"], row["delivered_tokens"], row["billed_output_tokens"]) == (9, 9, 9)
    assert (row["origin_backend"], row["origin_country"], row["count_source"]) == ("whole-1", "NO", "upstream")
    assert differences(row) == {}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_route_is_left_for_the_next_before_any_content(stage: Stage, name: str) -> None:
    stage.site(f"two-{name}", 1).queue.append(BROKEN[name][0])
    seen = await stage.stream(f"two-{name}", Script(tokens=5))
    assert (seen.status, seen.tokens, seen.done, seen.error) == (200, 5, True, None)
    row = await stage.row(seen)
    assert (row["outcome"], row["origin_backend"], row["attempts"]) == ("completed", f"two-{name}-2", 2)
    assert failed_attempt(row)["backend"] == f"two-{name}-1"
    assert row["attempts_list"][1]["serving"] is True
    assert (row["output_tokens"], row["delivered_tokens"]) == (5, 5)
    assert differences(row) == {}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_route_without_another_is_told_plainly(stage: Stage, name: str) -> None:
    script, status = BROKEN[name]
    seen = await stage.stream(f"one-{name}", script)
    assert seen.status == status, seen.body
    assert b'"error"' in seen.body and b"127.0.0.1" not in seen.body and b"<h1>" not in seen.body
    if status == 503:
        assert 1 <= int(seen.headers["retry-after"]) <= 5
    row = await stage.row(seen)
    assert row["outcome"] in (("upstream_refused", "deadline") if status == 504 else ("upstream_refused",))
    if name.startswith("silent"):
        assert row["outcome"] == "deadline"
    assert (row["status"], row["attempts"], row["origin_backend"]) == (status, 1, None)
    assert (row["delivered_tokens"], row["billed_output_tokens"], row["revenue_nano"]) == (0, 0, 0)
    assert failed_attempt(row)["backend"] == f"one-{name}-1"
    assert differences(row) == {}


@pytest.mark.parametrize("name", [name for name in BROKEN if "content" not in name])
async def test_a_plain_answer_is_tried_on_the_next_route_as_well(stage: Stage, name: str) -> None:
    stage.site(f"plain-{name}", 1).queue.append(BROKEN[name][0])
    response = await stage.post(f"plain-{name}", Script(tokens=5))
    assert response.status == 200
    assert response.json["choices"][0]["message"]["content"] == Script(tokens=5).answer()
    row = await stage.row(response)
    assert (row["outcome"], row["origin_backend"], row["attempts"]) == ("completed", f"plain-{name}-2", 2)
    assert (row["stream"], row["delivered_tokens"], row["count_source"]) == (False, 5, "upstream")


@pytest.mark.parametrize(
    ("scene", "script"),
    [
        ("plain-cut", Script(body_cut=30)),
        ("plain-cut", Script(body_cut=30, cut="rst")),
        ("plain-torn", Script(body='{"choices":[{"message":{"content":"t0 ')),
    ],
)
async def test_a_plain_answer_that_is_not_whole_is_never_handed_on(stage: Stage, scene: str, script: Script) -> None:
    stage.site(scene, 1).queue.append(script)
    response = await stage.post(scene, Script(tokens=5))
    assert response.json["choices"][0]["message"]["content"] == Script(tokens=5).answer()
    row = await stage.row(response)
    assert (row["outcome"], row["origin_backend"], row["attempts"]) == ("completed", f"{scene}-2", 2)
    assert differences(row) == {}


async def test_a_cut_plain_answer_without_another_route_is_502(stage: Stage) -> None:
    response = await stage.post("plain-cut-alone", Script(tokens=5, body_cut=30))
    assert response.status == 502 and b"t0" not in response.body
    row = await stage.row(response)
    assert (row["outcome"], row["delivered_tokens"]) == ("upstream_refused", 0)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("status", REJECTED)
async def test_a_rejected_request_is_told_as_it_is_and_not_tried_elsewhere(
    stage: Stage, status: int, streamed: bool
) -> None:
    scene = f"rejected-{status}"
    site, other = stage.site(scene, 1), stage.site(scene, 2)
    body = '{"error":{"message":"too long by 7","type":"invalid_request_error","code":"too_long","param":"messages"}}'
    site.queue.append(Script(status=status, body=body))
    response = await stage.post(scene, stream=streamed)
    assert response.status == status
    told = {name: response.error[name] for name in ("message", "type", "code", "param")}
    assert told == {
        "message": "too long by 7",
        "type": "invalid_request_error",
        "code": "too_long",
        "param": "messages",
    }
    row = await stage.row(response)
    assert (row["outcome"], row["status"], row["attempts"]) == ("upstream_refused", status, 1)
    assert not other.log
    # Not blamed: the next request goes there first again.
    assert (await stage.row(await stage.stream(scene, Script(tokens=2))))["origin_backend"] == f"{scene}-1"


async def test_what_a_backend_says_of_itself_is_hidden_in_its_errors(stage: Stage) -> None:
    site = stage.site("hiding", 1)
    host = site.url.removeprefix("http://").partition("/")[0]
    site.queue.append(Script(status=400, body=f'{{"error":{{"message":"at {host}: bad","type":"x"}}}}'))
    response = await stage.post("hiding")
    assert response.status == 400
    assert "bad" in response.error["message"]
    assert host not in response.body.decode() and host.partition(":")[0] not in response.body.decode()


@pytest.mark.parametrize("name", CUTS)
async def test_a_stream_that_ends_early_ends_with_an_error_event(stage: Stage, name: str) -> None:
    cut = CUTS[name]
    other = stage.site(f"cut-{name}", 2)
    seen = await stage.stream(f"cut-{name}", cut.script)
    assert (seen.status, seen.framed, seen.done, seen.finishes) == (200, True, False, 0)
    assert seen.tokens == cut.tokens
    assert seen.error is not None, "no error event"
    assert seen.raw[-1].startswith(b'data: {"error"'), "the error event is not the last"
    assert {"message", "type", "code", "param"} <= seen.error.keys()
    assert (seen.error["code"], seen.error["export_id"]) == (cut.outcome, seen.export_id)
    row = await stage.row(seen)
    assert (row["outcome"], row["status"], row["attempts"]) == (cut.outcome, 200, 1)
    assert (row["delivered_tokens"], row["billed_output_tokens"]) == (cut.tokens, cut.tokens)
    assert (row["output_tokens"], row["count_source"]) == (cut.tokens, "counted")
    assert not other.log, "sent again after content"
    assert differences(row) == {}


async def test_three_routes_are_tried_and_no_more(stage: Stage) -> None:
    for number in (1, 2):
        stage.site("three", number).queue.append(Script(status=500))
    row = await stage.row(await stage.stream("three", Script(tokens=4)))
    assert (row["outcome"], row["attempts"], row["origin_backend"]) == ("completed", 3, "three-3")
    assert [attempt["serving"] for attempt in row["attempts_list"]] == [False, False, True]
    assert differences(row) == {}


async def test_when_all_routes_fail_the_waste_of_each_is_in_the_row(stage: Stage) -> None:
    seen = await stage.stream("all-three", Script(status=500))
    assert seen.status == 502
    row = await stage.row(seen)
    assert (row["outcome"], row["attempts"], row["origin_backend"]) == ("upstream_refused", 3, None)
    assert [attempt["backend"] for attempt in row["attempts_list"]] == ["all-three-1", "all-three-2", "all-three-3"]
    assert (row["cost_nano"], row["unit_energy_nano_per_kwh"]) == (row["cost_waste_nano"], 0)
    assert differences(row) == {}


@pytest.mark.parametrize("how", ["reset", "close", "half_close"])
async def test_a_client_that_leaves_cancels_the_backend_and_is_not_its_fault(stage: Stage, how: str) -> None:
    site = stage.site("leaver", 1)
    before = len(site.log)
    seen = await stage.stream("leaver", Script(tokens=1000, hold_after=5), leave_after=5, leave=how)
    await eventually(lambda: site.log[before].ended == "peer_gone", "the backend is cancelled", 2.0)
    row = await stage.row(seen)
    assert (row["outcome"], row["status"], row["attempts"]) == ("client_gone", 499, 1)
    assert (row["delivered_tokens"], row["output_tokens"], row["count_source"]) == (5, 5, "counted")
    assert differences(row) == {}
    # The cheapest is still the first to be asked.
    assert (await stage.row(await stage.stream("leaver", Script(tokens=2))))["origin_backend"] == "leaver-1"
