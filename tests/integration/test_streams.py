"""What passes through, byte for byte, and what does not; and how a stream ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.backend import Served
from tests.fakes.client import RawClient
from tests.fakes.configurations import KEY
from tests.fakes.gateway import eventually
from tests.fakes.script import Question, Script
from tests.fakes.streaming import Ask
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCENES = ("plain", "passing", "held", "large", "shapes", "odd", "splice")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("streams")
    async with staged(directory, dict.fromkeys(SCENES, 2)) as stage:
        yield stage


def upstream_events(entry: Served, script: Script, **more: Any) -> list[bytes]:
    """The events a backend wrote for a request, as bytes without the chunk framing."""
    plain = Script.from_json(json.dumps(json.loads(script.to_json()) | {"framing": "close"}))
    question = Question("chat", model=entry.json["model"], stream=True, include_usage=True, **more)
    body = b"".join(step.data for step in plain.steps(question)).partition(b"\r\n\r\n")[2]
    return [event + b"\n\n" for event in body.split(b"\n\n") if event]


# ---- bytes


async def test_event_bytes_go_through_untouched_and_only_usage_is_withheld(stage: Stage) -> None:
    script = Script(tokens=6, comments=False)
    seen = await stage.stream("passing", script)
    sent = upstream_events(stage.site("passing").log[-1], script)
    assert seen.raw == [event for event in sent if b'"usage"' not in event]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096])
async def test_chunks_blind_to_events_change_nothing_for_the_client(stage: Stage, size: int) -> None:
    script = Script(tokens=12, chunk_bytes=size)
    seen = await stage.stream("passing", script)
    sent = upstream_events(stage.site("passing").log[-1], Script(tokens=12))
    assert seen.raw == [event for event in sent if b'"usage"' not in event]


async def test_events_may_end_with_carriage_returns(stage: Stage) -> None:
    seen = await stage.stream("shapes", Script(tokens=5, newline="\r\n"))
    assert (seen.tokens, seen.done, seen.error, seen.usages) == (5, True, None, [])
    assert (await stage.row(seen))["outcome"] == "completed"


async def test_a_close_delimited_stream_with_its_end_is_whole(stage: Stage) -> None:
    seen = await stage.stream("shapes", Script(tokens=5, framing="close"))
    assert (seen.tokens, seen.done, seen.framed) == (5, True, True)
    assert (await stage.row(seen))["outcome"] == "completed"


async def test_large_events_pass_whole(stage: Stage) -> None:
    seen = await stage.stream("large", Script(tokens=4, word_bytes_min=300_000))
    assert (seen.tokens, seen.done) == (4, True)
    assert len(seen.text) == 4 * 300_001


async def test_an_event_beyond_its_bound_ends_the_stream(stage: Stage) -> None:
    seen = await stage.stream("large", Script(tokens=3, malformed_after=2, malformed_data="x" * 1_200_000))
    assert (seen.tokens, seen.done, seen.framed) == (2, False, True)
    row = await stage.row(seen)
    assert (row["outcome"], row["delivered_tokens"]) == ("upstream_malformed", 2)


async def test_up_to_three_bad_events_are_dropped_and_counted_for_nothing(stage: Stage) -> None:
    seen = await stage.stream("odd", Script(tokens=5, malformed_after=2, malformed=3))
    assert (seen.tokens, seen.done, seen.error) == (5, True, None)
    row = await stage.row(seen)
    assert (row["outcome"], row["delivered_tokens"], row["count_source"]) == ("completed", 5, "upstream")


async def test_nothing_follows_done(stage: Stage) -> None:
    late = 'data: {"choices":[{"index":0,"delta":{"content":"late "}}]}\n\n'
    seen = await stage.stream("odd", Script(tokens=3, after_done=late))
    assert (seen.tokens, seen.raw[-1]) == (3, b"data: [DONE]\n\n")
    assert (await stage.row(seen))["delivered_tokens"] == 3


@pytest.mark.parametrize(
    "script",
    [
        Script(tokens=4, done=False),
        Script(tokens=4, done=False, framing="close"),
        Script(tokens=4, done=False, end="fin"),
        Script(tokens=4, done=False, end="rst"),
    ],
)
async def test_a_missing_done_is_supplied_once_the_answer_is_whole(stage: Stage, script: Script) -> None:
    seen = await stage.stream("shapes", script)
    assert (seen.tokens, seen.finishes, seen.done, seen.framed, seen.error) == (4, 1, True, True, None)
    assert seen.raw.count(b"data: [DONE]\n\n") == 1
    assert (await stage.row(seen))["outcome"] == "completed"


async def test_comments_and_role_events_do_not_count(stage: Stage) -> None:
    seen = await stage.stream("shapes", Script(tokens=4, comments=True, role_events=3))
    assert (seen.tokens, seen.events, seen.done) == (4, 4, True)
    row = await stage.row(seen)
    assert (row["delivered_tokens"], row["count_source"]) == (4, "upstream")


async def test_the_head_waits_for_the_first_content_and_names_the_route(stage: Stage) -> None:
    site = stage.site("held")
    ask = Ask(model="held", script=Script(tokens=2, role_events=2, hold_after=0), request_id="held-1")
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(ask.bytes(KEY))
        await eventually(lambda: site.served("held-1"), "the request")
        head = asyncio.ensure_future(client.head())
        # The role events have been written; were they forwarded, the head would be here before the release.
        await eventually(lambda: site.served("held-1")[0].bytes_written > 300, "the role events")
        await asyncio.wait({head}, timeout=0.1)
        assert not head.done()
        site.release()
        found = await head
    assert found.status == 200
    assert found.headers["x-tokenport-origin"] == "north"
    assert found.headers["x-tokenport-backend"] == "held-1"
    assert found.headers["x-request-id"] == "held-1"
    assert found.headers["content-type"].startswith("text/event-stream")
    assert found.headers["x-tokenport-export-id"]


# ---- what a backend gets


async def test_a_body_is_spliced_at_model_and_stream_options_only(stage: Stage) -> None:
    body = (
        b'{ "messages":[{"role":"user","content":"caf\xc3\xa9 \\u00e9 \\"model\\":\\"x\\""}] ,\n'
        b'  "model" : "splice","x_unknown":[1.0,1e3,-0,{"model":"inner"}],"seed":12345678901234567890, "stream":true }'
    )
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: splice-1\r\n"
        b"traceparent: 00-1-2-03\r\nx-secret: no\r\ncookie: no\r\n\r\n"
    ) % (KEY.encode(), len(body))
    response = await stage.send(head + body)
    assert response.status == 200
    [entry] = stage.site("splice").served("splice-1")
    renamed = body.replace(b'"splice"', b'"splice-1-model"')
    asked = entry.body
    # What was added is one member; without it the body is the client's, byte for byte.
    options = b'"stream_options":{"include_usage":true}'
    assert options in asked.replace(b" ", b"")
    start = asked.index(b'"stream_options"')
    end = asked.index(b"}", start) + 1
    rest = asked[:start] + asked[end:]
    assert rest.replace(b",", b"").replace(b" ", b"") == renamed.replace(b",", b"").replace(b" ", b"")
    headers = entry.headers
    assert headers["traceparent"] == "00-1-2-03"
    assert not {"x-secret", "cookie", "authorization"} & headers.keys()
    assert "x-tokenport-export-id" not in headers


async def test_the_answers_model_stays_the_backends(stage: Stage) -> None:
    response = await stage.post("plain", Script(tokens=2))
    assert response.json["model"] == "plain-1-model"
    row = await stage.row(response)
    assert (row["model"], row["upstream_model"]) == ("plain", "plain-1-model")


async def test_the_byte_columns_are_what_the_backend_read_and_wrote(stage: Stage) -> None:
    response = await stage.post("plain", Script(tokens=30))
    row = await stage.row(response)
    entry = stage.site("plain").log[-1]
    assert (row["bytes_to_backend"], row["bytes_from_backend"]) == (entry.bytes_read, entry.bytes_written)
    assert row["bytes_to_client"] == len(response.body)
    seen = await stage.stream("passing", Script(tokens=30))
    row = await stage.row(seen)
    entry = stage.site("passing").log[-1]
    assert row["bytes_to_backend"] == entry.bytes_read
    # The end of the chunked coding may or may not have been read when [DONE] settles the request.
    assert entry.bytes_written - len(b"0\r\n\r\n") <= row["bytes_from_backend"] <= entry.bytes_written
    assert row["bytes_to_client"] == sum(map(len, seen.raw))
