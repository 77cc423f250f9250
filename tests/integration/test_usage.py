"""Whose count it is: usage asked for and hidden, claims believed or not, and what stands where there is none."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.script import Script
from tests.integration.recomputation import differences
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCENES = ("plain", "running", "several", "many")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    settings: dict[str, dict[str, Any]] = {"running": {"usage": "continuous"}, "several": {"tokens_per_event_max": 4}}
    directory = tmp_path_factory.mktemp("usage")
    async with staged(directory, dict.fromkeys(SCENES, 2), settings=settings) as stage:
        yield stage


async def test_usage_is_always_asked_and_shown_only_to_those_who_asked(stage: Stage) -> None:
    quiet = await stage.stream("plain", Script(tokens=4))
    entry = stage.site("plain").log[-1]
    assert entry.json["stream_options"] == {"include_usage": True}
    assert quiet.usages == [] and not any(b"usage" in event for event in quiet.raw)
    asking = await stage.stream("plain", Script(tokens=4), members={"stream_options": {"include_usage": True}})
    assert [usage["completion_tokens"] for usage in asking.usages] == [4]
    declined = await stage.stream("plain", Script(tokens=4), members={"stream_options": {"include_usage": False}})
    assert declined.usages == []
    for seen in (quiet, asking, declined):
        assert (await stage.row(seen))["count_source"] == "upstream"


async def test_running_usage_is_cut_out_of_every_event(stage: Stage) -> None:
    script = Script(tokens=6, usage="continuous")
    seen = await stage.stream("running", script)
    entry = stage.site("running").log[-1]
    assert entry.json["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert (seen.tokens, seen.done, seen.usages) == (6, True, [])
    assert not any(b"usage" in event for event in seen.raw)
    row = await stage.row(seen)
    assert (row["delivered_tokens"], row["count_source"], row["input_tokens"]) == (6, "upstream", 12)


async def test_a_cut_with_running_usage_is_counted_by_it(stage: Stage) -> None:
    seen = await stage.stream("running", Script(tokens=9, usage="continuous", cut_after=4))
    assert seen.error is not None
    row = await stage.row(seen)
    assert (row["delivered_tokens"], row["output_tokens"], row["count_source"]) == (4, 4, "continuous")
    assert (row["input_tokens"], "input_estimated" in row["count_flags"]) == (12, False)


async def test_a_cut_without_running_usage_estimates_its_input_and_says_so(stage: Stage) -> None:
    row = await stage.row(await stage.stream("plain", Script(tokens=9, cut_after=4)))
    assert "input_estimated" in row["count_flags"].split(";")
    assert row["input_tokens"] > 0 and row["cached_input_tokens"] == 0
    assert (row["delivered_tokens"], row["count_source"]) == (4, "counted")


CLAIMS = {
    "zero": (Script(tokens=5, usage_claim=0), "counted"),
    "negative": (Script(tokens=5, usage_claim=-3), "counted"),
    "text": (Script(tokens=5, usage_claim="many"), "counted"),
    "null": (Script(tokens=5, usage_claim=None), "counted"),
    "too_many": (Script(tokens=5, usage_claim=10**6), "counted"),
    "double": (Script(tokens=5, usage_claim=10), "counted"),
    "too_few": (Script(tokens=5, usage_claim=4), "counted"),
    "missing": (Script(tokens=5, usage="none"), "counted"),
    "no_object": (Script(tokens=5, usage_whole="12"), "counted"),
    "empty": (Script(tokens=5, usage_whole={}), "counted"),
    "null_members": (Script(tokens=5, usage_null=True), "upstream"),
    "twice": (Script(tokens=5, usage_times=2), "upstream"),
}


@pytest.mark.parametrize("name", CLAIMS)
async def test_a_usage_claim_never_raises_what_is_billed(stage: Stage, name: str) -> None:
    script, source = CLAIMS[name]
    seen = await stage.stream("plain", script)
    assert (seen.tokens, seen.done, seen.usages) == (5, True, [])
    row = await stage.row(seen)
    assert (row["outcome"], row["count_source"]) == ("completed", source)
    assert (row["output_tokens"], row["delivered_tokens"], row["billed_output_tokens"]) == (5, 5, 5)
    # What is wrong with a claim is said, whether or not its number is believed.
    assert (row["count_flags"] == "") == (name == "null_members")
    assert differences(row) == {}


async def test_cached_and_reasoning_tokens_are_parts(stage: Stage) -> None:
    script = Script(tokens=8, reasoning_tokens=3, prompt_tokens=100, cached_tokens=60)
    row = await stage.row(await stage.stream("plain", script))
    assert (row["input_tokens"], row["cached_input_tokens"]) == (100, 60)
    assert (row["output_tokens"], row["reasoning_tokens"], row["count_source"]) == (8, 3, "upstream")
    assert differences(row) == {}


async def test_several_tokens_per_event_are_counted_by_usage(stage: Stage) -> None:
    seen = await stage.stream("several", Script(tokens=11, tokens_per_event=3))
    row = await stage.row(seen)
    assert (seen.events, seen.tokens) == (4, 11)
    assert (row["delivered_tokens"], row["count_source"]) == (11, "upstream")


async def test_a_cut_at_a_backend_of_several_tokens_per_event_is_an_estimate_within_bounds(stage: Stage) -> None:
    seen = await stage.stream("several", Script(tokens=30, tokens_per_event=3, cut_after=4))
    row = await stage.row(seen)
    assert row["count_source"] == "estimated"
    assert seen.events <= row["delivered_tokens"] <= 4 * seen.events
    assert row["billed_output_tokens"] <= row["delivered_tokens"] <= row["output_tokens"]


async def test_every_choice_must_finish_and_all_are_counted(stage: Stage) -> None:
    seen = await stage.stream("many", Script(tokens=4), members={"n": 3})
    assert (seen.tokens, seen.finishes, seen.done) == (12, 3, True)
    assert (await stage.row(seen))["delivered_tokens"] == 12
    cut = await stage.stream("many", Script(tokens=4, cut_after=12), members={"n": 3})
    assert cut.error is not None
    assert (await stage.row(cut))["outcome"] == "upstream_cut"


async def test_completions_stream_and_answer_like_chats(stage: Stage) -> None:
    seen = await stage.stream("plain", Script(tokens=5), path="/v1/completions")
    assert (seen.tokens, seen.done) == (5, True)
    assert (await stage.row(seen))["delivered_tokens"] == 5
    response = await stage.post("plain", Script(tokens=5), path="/v1/completions", prompt="p")
    assert response.json["choices"][0]["text"] == Script(tokens=5).answer()
    assert (await stage.row(response))["count_source"] == "upstream"
    assert stage.site("plain").log[-1].path.endswith("/v1/completions")


async def test_a_plain_answer_without_usage_is_an_estimate(stage: Stage) -> None:
    response = await stage.post("plain", Script(tokens=20, usage="none"))
    assert response.status == 200
    row = await stage.row(response)
    assert (row["outcome"], row["count_source"]) == ("completed", "estimated")
    assert row["delivered_tokens"] > 0 and "usage_missing" in row["count_flags"]
