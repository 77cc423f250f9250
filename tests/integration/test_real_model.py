"""A real model's tokens through the gateway, by the official client."""

from pathlib import Path
from typing import Any

import openai

from tests.fakes.configurations import EDGE, KEY, MODEL, backend, document, toml
from tests.fakes.gateway import Gateway
from tests.integration.recomputation import differences

QUESTION: Any = [{"role": "user", "content": "Name three rivers of Europe."}]


async def test_a_real_model_streams_and_is_counted(real_model: str, tmp_path: Path) -> None:
    content = document([backend("model", EDGE, real_model, tokens_per_event_max=8)])
    async with (
        Gateway(tmp_path, toml(content)) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
            temperature=0,
        )
        chunks = [chunk async for chunk in answer]
        row = await gateway.row(answer.response.headers["x-tokenport-export-id"])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usage = chunks[-1].usage
    assert len(text.split()) > 3
    assert usage is not None and 0 < usage.completion_tokens <= 24
    assert (row["outcome"], row["count_source"], row["status"]) == ("completed", "upstream", 200)
    assert row["delivered_tokens"] == row["billed_output_tokens"] == usage.completion_tokens
    assert row["input_tokens"] == usage.prompt_tokens
    assert 0 < row["ttft_ms"] <= row["duration_ms"]
    assert differences(row) == {}


async def test_a_real_models_plain_answer_is_counted(real_model: str, tmp_path: Path) -> None:
    content = document([backend("model", EDGE, real_model)])
    async with (
        Gateway(tmp_path, toml(content)) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=12)
        answer = raw.parse()
        row = await gateway.row(raw.headers["x-tokenport-export-id"])
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert (row["outcome"], row["count_source"]) == ("completed", "upstream")
    assert row["delivered_tokens"] == answer.usage.completion_tokens
    assert differences(row) == {}
