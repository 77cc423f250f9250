"""What a backend claims and cannot be: found out, flagged by a documented name, and not believed.

Backends of the scene `plain` say that an event is one token, so what is counted is known exactly. Those of `several`
may put up to four into one: there a wrong claim could pass for a right one.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.client import Response
from tests.fakes.gateway import eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Stream
from tests.integration.recomputation import differences
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "running": {"usage": "continuous"},
    "several": {"tokens_per_event_max": 4},
    "both": {"usage": "continuous", "tokens_per_event_max": 4},
    "learning": {"tokens_per_event_max": 4},
    "thinking": {"tokens_per_event_max": 4},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("claims")
    async with staged(directory, dict.fromkeys(SETTINGS, 1), settings=SETTINGS) as stage:
        yield stage


async def row_of(stage: Stage, seen: Stream | Response) -> dict[str, Any]:
    """The terminal record as the log has it: a command for each of so many would take longer than all else."""
    found: list[dict[str, Any]] = []
    needle = f'"{seen.headers["x-tokenport-export-id"]}"'.encode()

    def there() -> bool:
        found[:] = [json.loads(line) for line in stage.gateway.ends() if needle in line]
        return bool(found)

    await eventually(there, "its end")
    [row] = found
    return row


def flags_of(row: dict[str, Any]) -> set[str]:
    return set(filter(None, row["count_flags"].split(";")))


WRONG = {
    "missing": (Script(tokens=5, usage="none"), {"usage_missing", "input_estimated"}),
    "no object": (Script(tokens=5, usage_whole=7), {"usage_missing", "input_estimated"}),
    "empty": (Script(tokens=5, usage_whole={}), {"output_missing", "input_missing", "input_estimated"}),
    "without output": (Script(tokens=5, usage_whole={"prompt_tokens": 12}), {"output_missing"}),
    "zero": (Script(tokens=5, usage_claim=0), {"output_zero"}),
    "negative": (Script(tokens=5, usage_claim=-3), {"output_negative"}),
    "text": (Script(tokens=5, usage_claim="many"), {"output_not_a_number"}),
    "a fraction": (Script(tokens=5, usage_claim=5.0), {"output_not_a_number"}),
    "true": (Script(tokens=5, usage_claim=True), {"output_not_a_number"}),
    "a list": (Script(tokens=5, usage_claim=[5]), {"output_not_a_number"}),
    "beyond all bounds": (Script(tokens=5, usage_claim=2**64 - 1), {"output_too_large"}),
    "too much": (Script(tokens=5, usage_claim=22), {"usage_implausible"}),
    "too little": (Script(tokens=5, usage_claim=4), {"usage_implausible"}),
    "twice and different": (Script(tokens=5, usage_times=2, usage_second=9), {"usage_contradictory"}),
    "twice and zero": (Script(tokens=5, usage_times=2, usage_second=0), {"usage_contradictory", "output_zero"}),
    "before the end": (Script(tokens=5, usage_after=3, usage_claim=9), {"usage_early"}),
    "before all": (Script(tokens=5, usage_after=0, usage_claim=9), {"usage_early"}),
}


@pytest.mark.parametrize("scene", ["plain", "several"])
@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_output_is_flagged_and_not_believed(stage: Stage, scene: str, name: str) -> None:
    script, flags = WRONG[name]
    seen = await stage.stream(scene, script)
    assert (seen.tokens, seen.done) == (5, True)
    row = await row_of(stage, seen)
    assert flags <= flags_of(row), row["count_flags"]
    assert (row["output_tokens"], row["delivered_tokens"], row["billed_output_tokens"]) == (5, 5, 5)
    assert row["count_source"] == ("counted" if scene == "plain" else "estimated")
    assert differences(row) == {}


INPUTS = {
    "missing": (Script(tokens=5, usage_whole={"completion_tokens": 5}), {"input_missing"}),
    "zero": (Script(tokens=5, prompt_tokens=0), {"input_zero"}),
    "negative": (Script(tokens=5, prompt_tokens=-1), {"input_negative"}),
    "beyond all bounds": (Script(tokens=5, prompt_tokens=10**15), {"input_too_large", "total_too_large"}),
    "twice and different": (
        Script(tokens=5, usage_times=2, usage_second_input=10**6),
        {"input_contradictory", "usage_contradictory", "total_contradictory", "usage_implausible"},
    ),
}


@pytest.mark.parametrize("name", INPUTS)
async def test_an_input_that_cannot_be_is_estimated_instead(stage: Stage, name: str) -> None:
    script, flags = INPUTS[name]
    row = await row_of(stage, await stage.stream("plain", script))
    assert flags_of(row) == flags | {"input_estimated"}
    assert 0 < row["input_tokens"] < 100 and row["cached_input_tokens"] == 0
    assert row["delivered_tokens"] == 5
    assert differences(row) == {}


PARTS = {
    "total": (Script(tokens=5, usage_total=99), "total_contradictory"),
    "cached above input": (Script(tokens=5, cached_tokens=13), "cached_above_input"),
    "reasoning above output": (Script(tokens=5, usage_reasoning=6), "reasoning_above_output"),
    "cached negative": (Script(tokens=5, cached_tokens=-1), "cached_negative"),
    "reasoning in words": (Script(tokens=5, usage_reasoning="much"), "reasoning_not_a_number"),
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", PARTS)
async def test_a_part_that_contradicts_its_whole_is_flagged_and_the_whole_judged_by_itself(
    stage: Stage, name: str, streamed: bool
) -> None:
    script, flag = PARTS[name]
    if streamed:
        row = await row_of(stage, await stage.stream("plain", script))
    else:
        row = await row_of(stage, await stage.post("plain", script))
    assert flags_of(row) == {flag}
    assert (row["count_source"], row["delivered_tokens"], row["input_tokens"]) == ("upstream", 5, 12)
    assert (row["cached_input_tokens"], row["reasoning_tokens"]) == (0, 0)
    assert differences(row) == {}


async def test_a_plain_answers_wrong_claim_is_no_count(stage: Stage) -> None:
    for claim, flag in ((0, "output_zero"), (-1, "output_negative"), (10**6, "usage_implausible")):
        row = await row_of(stage, await stage.post("plain", Script(tokens=20, usage_claim=claim)))
        assert flag in flags_of(row)
        assert row["count_source"] == "estimated"
        assert 0 < row["billed_output_tokens"] < 40


# ---- running counts

RUNNING = {
    "backwards": (Script(tokens=8, usage="continuous", running=(1, 2, 9, 5, 6)), {"usage_decreasing"}),
    "backwards and up again": (Script(tokens=8, usage="continuous", running=(2, 1, 3, 4, 5)), {"usage_decreasing"}),
    "no more": (Script(tokens=8, usage="continuous", running=(1, 2, 20, None, None)), {"usage_early"}),
    "too much": (Script(tokens=8, usage="continuous", running=(1, 2, 3, 4, 21)), {"usage_implausible"}),
    "too little": (Script(tokens=8, usage="continuous", running=(1, 1, 1, 1, 1)), {"usage_implausible"}),
    "in words": (Script(tokens=8, usage="continuous", running=("a", "b", "c", "d", "e")), {"output_not_a_number"}),
    "beyond the board": (Script(tokens=8, usage="continuous", running=(1, 2, 3, 4, 2**64 - 1)), {"output_too_large"}),
    "zero": (Script(tokens=8, usage="continuous", running=(0, 0, 0, 0, 0)), {"output_zero", "usage_implausible"}),
}


@pytest.mark.parametrize("scene", ["running", "both"])
@pytest.mark.parametrize("name", RUNNING)
async def test_a_wrong_running_count_is_flagged_and_not_believed_on_a_cut(stage: Stage, scene: str, name: str) -> None:
    script, flags = RUNNING[name]
    seen = await stage.stream(scene, Script(**{**script.changes(), "cut_after": 5}))
    assert seen.error is not None and seen.tokens == 5
    row = await row_of(stage, seen)
    assert flags <= flags_of(row), row["count_flags"]
    assert (row["output_tokens"], row["delivered_tokens"], row["billed_output_tokens"]) == (5, 5, 5)
    assert row["count_source"] == ("counted" if scene == "running" else "estimated")
    assert differences(row) == {}


async def test_a_running_count_is_exact_on_a_cut_however_many_tokens_an_event_has(stage: Stage) -> None:
    script = Script(tokens=30, tokens_per_event=3, usage="continuous", cut_after=4, cached_tokens=4)
    row = await row_of(stage, await stage.stream("both", script))
    assert (row["output_tokens"], row["delivered_tokens"], row["billed_output_tokens"]) == (12, 12, 12)
    assert (row["count_source"], row["count_flags"]) == ("continuous", "")
    assert (row["input_tokens"], row["cached_input_tokens"]) == (12, 4)


async def test_a_running_count_that_skips_events_counts_from_where_it_speaks_again(stage: Stage) -> None:
    script = Script(tokens=30, tokens_per_event=3, usage="continuous", running=(3, None, None, 12), cut_after=4)
    row = await row_of(stage, await stage.stream("both", script))
    assert (row["delivered_tokens"], row["count_source"], row["count_flags"]) == (12, "continuous", "")


async def test_a_running_count_that_went_backwards_takes_the_final_one_with_it(stage: Stage) -> None:
    row = await row_of(
        stage, await stage.stream("both", Script(tokens=6, usage="continuous", running=(1, 9, 3, 4, 5, 6)))
    )
    assert (row["outcome"], row["count_source"], row["delivered_tokens"]) == ("completed", "estimated", 6)
    assert "usage_decreasing" in flags_of(row)


# ---- the ratio that is learned


async def test_a_cut_is_estimated_by_the_tokens_per_event_of_whole_answers(stage: Stage) -> None:
    before = await row_of(stage, await stage.stream("learning", Script(tokens=30, tokens_per_event=3, cut_after=4)))
    assert (before["count_source"], before["delivered_tokens"]) == ("estimated", 4)
    for _ in range(3):
        await stage.stream("learning", Script(tokens=30, tokens_per_event=3))
    row = await row_of(stage, await stage.stream("learning", Script(tokens=30, tokens_per_event=3, cut_after=4)))
    assert (row["count_source"], row["delivered_tokens"], row["output_tokens"]) == ("estimated", 12, 12)
    assert row["billed_output_tokens"] == 12


async def test_reasoning_that_no_event_showed_teaches_nothing_about_events(stage: Stage) -> None:
    for _ in range(3):
        told = {"prompt_tokens": 12, "completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 20}}
        whole = await row_of(
            stage, await stage.stream("thinking", Script(tokens=20, tokens_per_event=2, usage_whole=told))
        )
        assert (whole["count_source"], whole["output_tokens"], whole["reasoning_tokens"]) == ("upstream", 40, 20)
    row = await row_of(stage, await stage.stream("thinking", Script(tokens=20, tokens_per_event=2, cut_after=5)))
    assert (row["count_source"], row["delivered_tokens"]) == ("estimated", 10)
