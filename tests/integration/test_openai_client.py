"""The official client: what a developer who changes one base URL sees."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.fakes.configurations import KEY, tenant
from tests.fakes.gateway import eventually
from tests.fakes.script import Script
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

POOR, HASTY, PARTED = "tp-key-of-poor", "tp-key-of-hasty", "tp-key-of-parted"
SCENES = ("talk", "cut", "failing", "gone", "last", "abroad")
QUESTION: Any = [{"role": "user", "content": "count"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    tenants = [
        tenant(),
        tenant("poor", POOR, budget={"tokens": 60, "period": "year"}),
        tenant("hasty", HASTY, limits={"requests_per_minute": 2}),
        tenant("parted", PARTED, deny_origins=["NO"]),
    ]
    rules = {"abroad": {"deny_origins": ["NO"]}}
    scenes = dict.fromkeys(SCENES, 1)
    async with staged(tmp_path_factory.mktemp("sdk"), scenes, tenants=tenants, rules=rules) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def client(stage: Stage) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def scripted(script: Script) -> Any:
    return {"user": script.to_json()}


async def ask_often(client: openai.AsyncOpenAI, times: int, tokens: int) -> None:
    for _ in range(times):
        await client.chat.completions.create(
            model="talk", messages=QUESTION, max_tokens=20, extra_body=scripted(Script(tokens=tokens))
        )


async def listen(answer: openai.AsyncStream[Any], heard: list[str]) -> None:
    async for chunk in answer:
        heard += [chunk.choices[0].delta.content or ""]


async def test_a_stream_arrives_as_it_was_said(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="talk", messages=QUESTION, stream=True, extra_body=scripted(Script(tokens=12))
    )
    chunks = [chunk async for chunk in answer]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == Script(tokens=12).answer()
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stream_ends_with_its_usage_when_asked(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="talk",
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=scripted(Script(tokens=7, prompt_tokens=31, cached_tokens=11)),
    )
    chunks = [chunk async for chunk in answer]
    usage = chunks[-1].usage
    assert usage is not None and usage.prompt_tokens_details is not None
    assert (usage.completion_tokens, usage.prompt_tokens) == (7, 31)
    assert usage.prompt_tokens_details.cached_tokens == 11


async def test_a_plain_answer_carries_its_usage_and_its_export_id(stage: Stage, client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="talk",
        messages=QUESTION,
        extra_body=scripted(Script(tokens=5)),
        extra_headers={"x-request-id": "mine-1"},
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == Script(tokens=5).answer()
    assert answer.usage is not None and answer.usage.completion_tokens == 5
    assert raw.headers["x-request-id"] == "mine-1"
    row = await stage.gateway.row(raw.headers["x-tokenport-export-id"])
    assert (row["request_id"], row["tenant"], row["dialect"]) == ("mine-1", "acme", "openai")
    assert (row["origin_country"], row["destination_country"]) == ("NO", "DE")
    assert (row["destination_method"], row["exported"]) == ("contract", True)
    assert KEY not in str(row)


async def test_completions_and_models_answer_as_well(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="talk", prompt="count", extra_body=scripted(Script(tokens=3)))
    assert answer.choices[0].text == Script(tokens=3).answer()
    assert sorted([model.id async for model in client.models.list()]) == sorted(SCENES)


async def test_a_wrong_key_is_an_authentication_error(stage: Stage) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="talk", messages=QUESTION)
    assert caught.value.code == "invalid_api_key"


async def test_an_unknown_model_is_a_not_found_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="talc", messages=QUESTION)
    assert "talc" in str(caught.value)


async def test_a_malformed_request_is_a_bad_request_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="talk", messages=QUESTION, extra_body={"stream": "yes"})


@pytest.mark.parametrize(("key", "model"), [(PARTED, "talk"), (KEY, "abroad")])
async def test_residency_is_a_permission_error_that_names_its_rule(stage: Stage, key: str, model: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await client.chat.completions.create(model=model, messages=QUESTION)
    assert caught.value.code == "residency"
    assert "NO" in str(caught.value) or "deny_origins" in str(caught.value)


async def test_over_budget_is_a_rate_limit_error_that_says_when(stage: Stage) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key=POOR, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await ask_often(client, 10, tokens=20)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.response.headers["x-should-retry"] == "false"
    rows = [row for row in await stage.gateway.export() if row["tenant"] == "poor"]
    assert rows, "nothing fitted the budget"
    assert sum(row["input_tokens"] + row["billed_output_tokens"] for row in rows) <= 60


async def refusals(stage: Stage) -> list[dict[str, Any]]:
    finished = await stage.gateway.command("report", "--refusals", "--format", "json")
    rows: list[dict[str, Any]] = finished.json
    return rows


async def test_over_the_rate_is_a_rate_limit_error_that_may_be_retried(stage: Stage) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key=HASTY, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await ask_often(client, 3, tokens=1)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert "x-should-retry" not in caught.value.response.headers
    # Counted by minute and reason, and no row of its own.
    async with asyncio.timeout(10):
        while not any(each["tenant"] == "hasty" for each in await refusals(stage)):
            pass


async def test_a_cut_stream_raises(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="cut", messages=QUESTION, stream=True, extra_body=scripted(Script(tokens=9, cut_after=4))
    )
    heard: list[str] = []
    with pytest.raises(openai.APIError) as caught:
        await listen(answer, heard)
    assert "".join(heard) == Script(tokens=4).answer()
    assert caught.value.code == "upstream_cut"


async def test_an_error_inside_the_backends_stream_raises(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="failing", messages=QUESTION, stream=True, extra_body=scripted(Script(tokens=9, error_after=4))
    )
    with pytest.raises(openai.APIError) as caught:
        await listen(answer, [])
    assert caught.value.code == "upstream_error"


async def test_a_backend_that_answers_nothing_is_a_server_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="last", messages=QUESTION, extra_body=scripted(Script(status=500)))
    assert caught.value.status_code == 502


async def test_leaving_a_stream_cancels_the_backend(stage: Stage, client: openai.AsyncOpenAI) -> None:
    site = stage.site("gone")
    answer = await client.chat.completions.create(
        model="gone", messages=QUESTION, stream=True, extra_body=scripted(Script(tokens=500, hold_after=5))
    )
    heard = 0
    async for chunk in answer:
        heard += bool(chunk.choices[0].delta.content)
        if heard == 5:
            break
    await answer.close()
    await eventually(lambda: site.log[-1].ended == "peer_gone", "the backend is cancelled", 2.0)
    row = await stage.gateway.row(answer.response.headers["x-tokenport-export-id"])
    assert (row["outcome"], row["status"], row["delivered_tokens"]) == ("client_gone", 499, 5)
