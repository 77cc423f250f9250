"""The public port, byte by byte: what it takes, what it refuses, and in which state it leaves the connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.client import RawClient, Response, request
from tests.fakes.configurations import KEY, tenant
from tests.fakes.script import Script
from tests.fakes.streaming import Ask
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY_MAX = 65_536
CHAT = {"model": "m", "messages": [{"role": "user", "content": "count"}]}
GOOD = request(key=KEY, json_body={**CHAT, "user": Script(tokens=2).to_json()})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    limits = {"body_bytes_max": BODY_MAX, "bodies_bytes_max": 4 * BODY_MAX}
    async with staged(tmp_path_factory.mktemp("port"), {"m": 1}, limits=limits, tenants=[tenant()]) as stage:
        yield stage


async def exchange(stage: Stage, *pieces: bytes) -> tuple[Response, bool]:
    """A response, and whether the connection serves another request after it."""
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(*pieces)
        response = await client.response()
        if response.headers.get("connection") == "close":
            assert await client.ended(), "announced the end of the connection and did not end it"
            return response, False
        await client.send(GOOD)
        assert (await client.response()).status == 200
        return response, True


# ---- well-formed requests, however they are cut


@pytest.mark.parametrize("size", [1, 2, 7, 61])
async def test_a_request_may_arrive_in_pieces_of_any_size(stage: Stage, size: int) -> None:
    response, kept = await exchange(stage, *[GOOD[n : n + size] for n in range(0, len(GOOD), size)])
    assert (response.status, kept) == (200, True)


async def test_a_chunked_body_is_one_body(stage: Stage) -> None:
    head, _, body = GOOD.partition(b"\r\n\r\n")
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"content-length"))
    chunks = [b"%x;ignored=1\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:6], body[6:])]
    framed = head + b"\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\nx-trailer: 1\r\n\r\n"
    response, kept = await exchange(stage, *[framed[n : n + 3] for n in range(0, len(framed), 3)])
    assert (response.status, kept) == (200, True)
    assert stage.site("m").log[-1].json["messages"] == CHAT["messages"]


async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    asks = [request(key=KEY, json_body={**CHAT, "user": Script(tokens=n).to_json()}) for n in (3, 1, 2)]
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(b"".join(asks))
        texts = [(await client.response()).json["choices"][0]["message"]["content"] for _ in asks]
    assert [len(text.split()) for text in texts] == [3, 1, 2]


async def test_a_hundred_requests_in_one_write_are_answered(stage: Stage) -> None:
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(request("GET", "/healthz") * 100)
        assert [(await client.response()).status for _ in range(100)] == [200] * 100


async def test_a_request_may_follow_a_stream_on_its_connection(stage: Stage) -> None:
    ask = Ask(script=Script(tokens=3)).bytes(KEY)
    async with RawClient.connect(stage.gateway.url) as client:
        for _ in range(3):
            await client.send(ask)
            head = await client.head()
            assert [event async for event in client.events(head)][-1] == b"data: [DONE]\n\n"


async def test_leading_blank_lines_are_tolerated(stage: Stage) -> None:
    assert (await exchange(stage, b"\r\n" + GOOD))[0].status == 200


async def test_http_1_0_is_answered_and_closed(stage: Stage) -> None:
    raw = request(key=KEY, json_body={**CHAT, "user": Script(tokens=2).to_json()}, version="1.0")
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(raw)
        response = await client.response()
        assert response.status == 200 and await client.ended()


async def test_a_stream_to_http_1_0_is_delimited_by_its_end(stage: Stage) -> None:
    body = {**CHAT, "stream": True, "user": Script(tokens=2).to_json()}
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(request(key=KEY, json_body=body, version="1.0"))
        head = await client.head()
        assert "transfer-encoding" not in head.headers
        assert [event async for event in client.events(head)][-1] == b"data: [DONE]\n\n"


async def test_an_offer_to_upgrade_is_ignored(stage: Stage) -> None:
    fields = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")]
    raw = request(key=KEY, fields=fields, json_body={**CHAT, "user": Script(tokens=2).to_json()})
    assert (await exchange(stage, raw))[0].status == 200


# ---- Expect


async def test_continue_comes_before_the_body_and_after_the_key(stage: Stage) -> None:
    head, _, body = GOOD.partition(b"\r\n\r\n")
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert (await client.head(interim=True)).status == 100
        await client.send(body)
        assert (await client.response()).status == 200
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(head.replace(KEY.encode(), b"wrong") + b"\r\nexpect: 100-continue\r\n\r\n")
        assert (await client.head(interim=True)).status == 401


async def test_another_expectation_is_417(stage: Stage) -> None:
    raw = request(key=KEY, fields=[("expect", "a-miracle")], json_body=CHAT)
    assert (await exchange(stage, raw))[0].status == 417


# ---- what is not there, not allowed, not understood

REFUSED = {
    "unknown_path": (request(path="/v1/nothing", key=KEY, json_body=CHAT), 404, True),
    "path_with_dots": (request(path="/v1/../v1/chat/completions", key=KEY, json_body=CHAT), 404, True),
    "encoded_path": (request(path="/v1/chat%2fcompletions", key=KEY, json_body=CHAT), 404, True),
    "get_of_a_post": (request("GET", "/v1/chat/completions", key=KEY), 405, True),
    "delete": (request("DELETE", "/v1/models", key=KEY), 405, True),
    "no_key": (request(json_body=CHAT), 401, True),
    "wrong_key": (request(key="wrong", json_body=CHAT), 401, True),
    "key_with_a_space": (request(key=KEY + " x", json_body=CHAT), 401, True),
    "basic_auth": (request(fields=[("authorization", "Basic eDp5")], json_body=CHAT), 401, True),
    "both_credentials": (request(key=KEY, fields=[("x-api-key", KEY)], json_body=CHAT), 401, True),
    "models_without_key": (request("GET", "/v1/models"), 401, True),
    "text_body": (
        request(key=KEY, fields=[("content-type", "text/plain"), ("content-length", "2")]) + b"{}",
        415,
        True,
    ),
    "gzip_body": (request(key=KEY, fields=[("content-encoding", "gzip")], json_body=CHAT), 415, True),
    "not_json": (request(key=KEY, body=b"{'model':1}"), 400, True),
    "not_an_object": (request(key=KEY, body=b"[1]"), 400, True),
    "no_body": (request(key=KEY), 400, True),
    "bad_utf8": (request(key=KEY, body=b'{"model":"m","messages":[{"content":"\xff"}]}'), 400, True),
    "model_twice": (request(key=KEY, body=b'{"model":"m","model":"n","messages":[{}]}'), 400, True),
    "stream_twice": (request(key=KEY, body=b'{"model":"m","stream":true,"stream":false,"messages":[{}]}'), 400, True),
    "too_deep": (request(key=KEY, body=b'{"model":"m","messages":' + b"[" * 65 + b"]" * 65 + b"}"), 400, True),
    "model_is_a_number": (request(key=KEY, json_body={**CHAT, "model": 7}), 400, True),
    "stream_is_text": (request(key=KEY, json_body={**CHAT, "stream": "true"}), 400, True),
    "negative_max_tokens": (request(key=KEY, json_body={**CHAT, "max_tokens": -1}), 400, True),
    "unknown_model": (request(key=KEY, json_body={**CHAT, "model": "x"}), 404, True),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_is_json_and_leaves_the_connection_in_order(stage: Stage, name: str) -> None:
    raw, status, kept = REFUSED[name]
    asked = len(stage.site("m").log)
    response, still_open = await exchange(stage, raw)
    assert response.status == status, response.body
    assert response.error["message"]
    assert {"message", "type", "code", "param"} <= response.error.keys()
    assert still_open == kept
    assert len(stage.site("m").log) == asked + kept, "a refused request reached a backend"


async def test_every_cause_of_a_401_gives_one_body(stage: Stage) -> None:
    causes = ("no_key", "wrong_key", "key_with_a_space", "basic_auth", "both_credentials", "models_without_key")
    bodies = {(await exchange(stage, REFUSED[name][0]))[0].body for name in causes}
    assert len(bodies) == 1


async def test_a_key_is_judged_before_the_body_is_read(stage: Stage) -> None:
    head = request(key="wrong", fields=[("content-type", "application/json"), ("content-length", "50000")])
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(head)
        assert (await client.response()).status == 401
        assert await client.ended()


async def test_the_key_may_come_as_x_api_key(stage: Stage) -> None:
    raw = request(fields=[("x-api-key", KEY)], json_body={**CHAT, "user": Script(tokens=2).to_json()})
    assert (await exchange(stage, raw))[0].status == 200


async def test_a_refusal_after_a_head_request_has_its_body(stage: Stage) -> None:
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(request("HEAD", "/healthz"))
        assert (await client.head()).status == 200
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.response()).error["message"]


async def test_head_is_get_without_a_body(stage: Stage) -> None:
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(request("HEAD", "/healthz"))
        head = await client.head()
        assert head.status == 200 and int(head.headers["content-length"]) > 0
        await client.send(request("GET", "/healthz"))
        assert (await client.response()).status == 200


# ---- too much

TOO_MUCH = {
    "body": (request(key=KEY, fields=[("content-type", "application/json"), ("content-length", "65537")]), 413),
    "chunked_body": (
        request(key=KEY, fields=[("content-type", "application/json"), ("transfer-encoding", "chunked")])
        + b"10001\r\n"
        + b"x" * 65_537
        + b"\r\n",
        413,
    ),
    "absurd_length": (request(key=KEY, fields=[("content-length", "999999999999999")]), 413),
    "request_line": (request("GET", "/" + "a" * 8200), 414),
    "unfinished_request_line": (b"GET /" + b"a" * 17_000, 414),
    "head": (request("GET", "/healthz", fields=[(f"x-{n}", "v" * 1000) for n in range(17)]), 431),
    "unfinished_head": (b"GET / HTTP/1.1\r\n" + b"x-a: " + b"b" * 17_000, 431),
    "fields": (request("GET", "/healthz", fields=[(f"x-{n}", "v") for n in range(120)]), 431),
}


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_too_much_is_refused_and_the_connection_ends(stage: Stage, name: str) -> None:
    raw, status = TOO_MUCH[name]
    response, kept = await exchange(stage, raw)
    assert (response.status, kept) == (status, False)
    assert response.error["message"]


# ---- what clients do


async def test_text_of_the_request_never_becomes_a_header_of_the_response(stage: Stage) -> None:
    raw = request(key=KEY, fields=[("x-request-id", "i" * 300)], json_body={**CHAT, "user": Script(tokens=2).to_json()})
    response, _ = await exchange(stage, raw)
    assert response.headers["x-request-id"] == "i" * 128
    raw = request(key=KEY, fields=[("x-request-id", "caf\xe9")], json_body={**CHAT, "user": Script(tokens=2).to_json()})
    response, _ = await exchange(stage, raw)
    assert response.status == 200
    assert "\xe9" not in response.headers.get("x-request-id", "")


async def test_a_half_close_is_a_client_that_left(stage: Stage) -> None:
    site = stage.site("m")
    ask = Ask(script=Script(tokens=50, hold_after=2), request_id="half")
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(ask.bytes(KEY))
        head = await client.head()
        client.half_close()
        assert b"[DONE]" not in await client.rest()
    row = await stage.gateway.row(head.headers["x-tokenport-export-id"])
    assert (row["outcome"], row["status"]) == ("client_gone", 499)
    assert site.served("half")[0].ended == "peer_gone"


async def test_a_half_close_between_requests_ends_the_connection_quietly(stage: Stage) -> None:
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(GOOD)
        assert (await client.response()).status == 200
        client.half_close()
        assert await client.ended()


async def test_clients_that_connect_and_say_nothing_are_no_trouble(stage: Stage) -> None:
    async with asyncio.timeout(10):
        for _ in range(50):
            async with RawClient.connect(stage.gateway.url) as client:
                client.reset()
        assert (await exchange(stage, GOOD))[0].status == 200
