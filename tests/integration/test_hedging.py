"""A second attempt beside a late first one: who serves, what the row says, and that nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.configurations import KEY
from tests.fakes.gateway import Row, eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask, Stream, stream
from tests.integration.recomputation import differences
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELD = Script(hold_before_head=True)
HEDGED = {"hedge_after_ms": 60}
SCENES = ("late", "first", "refused", "falls", "silent", "leaver", "plain", "stale", "thrice")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    scenes = {**dict.fromkeys(SCENES, 2), "off": 2, "thrice": 3}
    limits = {"first_content_s": 2.0, "hedges_min": 1000, "retries_min": 1000, "eject_failures": 1000}
    rules = dict.fromkeys(SCENES, HEDGED)
    directory = tmp_path_factory.mktemp("hedging")
    async with staged(directory, scenes, limits=limits, rules=rules) as stage:
        yield stage


def attempts(row: Row) -> list[tuple[str, str, bool]]:
    return [(each["backend"], each["cause"], each["serving"]) for each in row["attempts_list"]]


async def ask(stage: Stage, scene: str, first: Script, second: Script, **more: Any) -> Stream:
    stage.site(scene, 1).queue.append(first)
    stage.site(scene, 2).queue.append(second)
    return await stage.stream(scene, **more)


async def test_the_rival_serves_when_it_answers_first(stage: Stage) -> None:
    seen = await ask(stage, "late", HELD, Script(tokens=7))
    assert (seen.tokens, seen.done, seen.error) == (7, True, None)
    assert seen.headers["x-tokenport-backend"] == "late-2"
    row = await stage.row(seen)
    assert (row["outcome"], row["origin_backend"], row["attempts"]) == ("completed", "late-2", 2)
    assert attempts(row) == [("late-1", "hedged", False), ("late-2", "", True)]
    assert (row["output_tokens"], row["delivered_tokens"], row["billed_output_tokens"]) == (7, 7, 7)
    lost = row["attempts_list"][0]
    assert (lost["output_tokens"], row["input_tokens"]) == (0, 12)
    assert 0 < lost["cost_energy_nano"] <= row["cost_waste_nano"]
    assert lost["bytes_to_backend"] > 0
    assert differences(row) == {}
    await eventually(lambda: stage.site("late", 1).log[-1].ended == "peer_gone", "the loser is cancelled")


async def test_the_first_serves_when_it_answers_first_after_all(stage: Stage) -> None:
    seen = await ask(stage, "first", Script(tokens=5, head_s=0.4), HELD)
    assert (seen.tokens, seen.done) == (5, True)
    row = await stage.row(seen)
    assert (row["outcome"], row["origin_backend"]) == ("completed", "first-1")
    assert attempts(row) == [("first-2", "hedged", False), ("first-1", "", True)]
    assert (row["output_tokens"], row["bytes_from_backend"] > 0, differences(row)) == (5, True, {})
    await eventually(lambda: stage.site("first", 2).log[-1].ended == "peer_gone", "the loser is cancelled")


async def test_a_rival_that_is_refused_leaves_the_first_alone(stage: Stage) -> None:
    seen = await ask(stage, "refused", Script(tokens=5, head_s=0.4), Script(status=500))
    assert (seen.tokens, seen.done) == (5, True)
    row = await stage.row(seen)
    assert attempts(row) == [("refused-2", "status", False), ("refused-1", "", True)]
    assert differences(row) == {}


async def test_the_rival_takes_over_from_a_first_that_fails(stage: Stage) -> None:
    seen = await ask(stage, "falls", Script(head_s=0.3, raw=""), Script(tokens=6, head_s=0.6))
    assert (seen.tokens, seen.done) == (6, True)
    row = await stage.row(seen)
    assert attempts(row) == [("falls-1", "reset", False), ("falls-2", "", True)]
    assert differences(row) == {}


async def test_when_both_fail_a_third_is_tried(stage: Stage) -> None:
    stage.site("thrice", 3).queue.append(Script(tokens=4))
    seen = await ask(stage, "thrice", Script(head_s=0.4, raw=""), Script(head_s=0.2, status=502))
    assert (seen.tokens, seen.done) == (4, True)
    row = await stage.row(seen)
    causes = [("thrice-2", "status", False), ("thrice-1", "reset", False), ("thrice-3", "", True)]
    assert attempts(row) == causes
    assert differences(row) == {}


async def test_when_both_are_silent_the_caller_hears_it_in_time(stage: Stage) -> None:
    seen = await ask(stage, "silent", HELD, HELD)
    assert seen.status == 504
    row = await stage.row(seen)
    assert (row["outcome"], row["status"], row["origin_backend"]) == ("deadline", 504, None)
    assert sorted(attempts(row)) == [("silent-1", "late", False), ("silent-2", "late", False)]
    assert differences(row) == {}


async def test_a_client_that_leaves_between_cancels_both(stage: Stage) -> None:
    for number in (1, 2):
        stage.site("leaver", number).queue.append(HELD)
    before = stage.gateway.terminal_records()
    leaving = asyncio.ensure_future(stage.stream("leaver", request_id="leaver"))
    await eventually(lambda: stage.site("leaver", 2).served("leaver"), "the rival is under way")
    leaving.cancel()
    await eventually(lambda: stage.gateway.terminal_records() > before, "the row")
    [row] = [row for row in await stage.gateway.export() if row["request_id"] == "leaver"]
    assert (row["outcome"], row["delivered_tokens"]) == ("client_gone", 0)
    assert attempts(row) == [("leaver-2", "hedged", False), ("leaver-1", "", True)]
    assert differences(row) == {}
    for number in (1, 2):
        await eventually(lambda: stage.site("leaver", number).log[-1].ended == "peer_gone", "cancelled")  # noqa: B023


async def test_a_stale_connection_of_the_rival_is_no_failure(stage: Stage) -> None:
    stage.site("stale", 1).queue.append(HELD)
    await ask(stage, "stale", HELD, Script(tokens=1))  # now the second has an idle connection
    stage.site("stale", 1).queue.clear()
    seen = await ask(stage, "stale", HELD, Script(tokens=3, drop_reused=True))
    assert seen.tokens == 3
    assert attempts(await stage.row(seen)) == [("stale-1", "hedged", False), ("stale-2", "", True)]


async def test_a_plain_answer_is_not_late(stage: Stage) -> None:
    stage.site("plain", 1).queue.append(Script(tokens=3, head_s=0.4))
    response = await stage.post("plain")
    assert response.status == 200
    assert (await stage.row(response))["attempts"] == 1
    assert stage.site("plain", 2).log == []


async def test_nothing_is_hedged_unless_the_rule_says_so(stage: Stage) -> None:
    stage.site("off", 1).queue.append(Script(tokens=3, head_s=0.4))
    seen = await stage.stream("off")
    assert (await stage.row(seen))["attempts"] == 1
    assert stage.site("off", 2).log == []


async def test_hedges_have_a_budget(tmp_path: Path) -> None:
    limits = {"hedges_min": 1, "hedge_share": 0.0}
    async with staged(tmp_path, {"m": 2}, limits=limits, rules={"m": HEDGED}) as stage:
        seen = [await ask(stage, "m", Script(tokens=2, head_s=0.4), HELD) for _ in range(2)]
        assert [(await stage.row(each))["attempts"] for each in seen] == [2, 1]


async def test_after_a_kill_both_attempts_are_in_the_row(tmp_path: Path) -> None:
    async with staged(tmp_path, {"m": 2}, rules={"m": HEDGED}) as stage:
        stage.site("m", 1).queue.append(HELD)
        stage.site("m", 2).queue.append(HELD)
        asking = asyncio.ensure_future(stream(stage.gateway.url, KEY, Ask(model="m", request_id="killed")))
        await eventually(lambda: stage.site("m", 2).served("killed"), "the rival is under way")
        stage.gateway.kill_worker()
        await asyncio.gather(asking, return_exceptions=True)
        [row] = await stage.gateway.rows(1, 20.0)
        assert row["outcome"] == "recovered"
        assert attempts(row) == [("m-2", "hedged", False), ("m-1", "", True)]
        assert differences(row) == {}
        assert (await stage.gateway.verify()).status == 0
