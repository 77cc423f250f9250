"""TLS on both sides: a port that is encrypted counts like one that is not, and only verified backends get requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.fakes.backend import ScriptedBackend, Site
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import KEY, backend, document, link, toml
from tests.fakes.gateway import Gateway, eventually
from tests.fakes.script import Script
from tests.fakes.streaming import Ask
from tests.fakes.tls import Authority, TlsClient
from tests.integration.recomputation import differences
from tests.integration.stage import REGIONS, nothing_is_held
from tests.integration.test_connections import unread

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Backends that must not be spoken to: who signed their certificate, whose name is on it, and whom we trust.
UNTRUSTED = ("another_authority", "another_name", "no_authority_named")


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway behind TLS, backends without it and behind it, and the authority that vouches for all but two."""

    gateway: Gateway
    authority: Authority
    plain: ScriptedBackend
    verified: ScriptedBackend
    untrusted: dict[str, ScriptedBackend]

    def client(self, **options: Any) -> Any:
        """A client that has shaken hands with the gateway."""
        return TlsClient.secured(self.gateway.url, self.authority.client(), **options)

    def site(self) -> Site:
        return self.plain.site("open")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("tls")
    ours, foreign = Authority(directory / "ours"), Authority(directory / "foreign")
    contexts = {
        "another_authority": foreign.server(),
        "another_name": ours.server("elsewhere.test"),
        "no_authority_named": ours.server(),
    }
    trust = {"ca_file": str(ours.file)}
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(ScriptedBackend())
        verified = await stack.enter_async_context(ScriptedBackend(tls=ours.server()))
        backends = [_backend("open", "north", plain), _backend("sealed", "north", verified, **trust)]
        untrusted: dict[str, ScriptedBackend] = {}
        for name, tls in contexts.items():
            untrusted[name] = await stack.enter_async_context(ScriptedBackend(tls=tls))
            more = {} if name == "no_authority_named" else trust
            backends += [_backend(f"{name}-1", "north", untrusted[name], **more), _backend(f"{name}-2", "south", plain)]
        content = document(
            backends,
            regions=REGIONS,
            links=[link(where) for where in REGIONS],
            routes=[{"model": model, "objective": "cheapest"} for model in ("open", "sealed", *UNTRUSTED)],
            gateway={"tls": ours.server_files()},
            limits={"head_s": 1.0},
        )
        for route in content["routes"]:
            route["backends"] = [each["name"] for each in backends if route["model"] in each["models"]]
        gateway = await stack.enter_async_context(Gateway(directory, toml(content)))
        yield Scene(gateway, ours, plain, verified, untrusted)
        await nothing_is_held(gateway)


def _backend(name: str, where: str, server: ScriptedBackend, **more: Any) -> dict[str, Any]:
    """The only one, or the first or second, of the model its name begins with."""
    return backend(name, where, server.site(name).url, models={name.partition("-")[0]: f"{name}-model"}, **more)


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(scene: Scene) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, told to trust our authority."""
    transport = openai.DefaultAsyncHttpxClient(verify=scene.authority.client())
    async with openai.AsyncOpenAI(
        base_url=f"{scene.gateway.url}/v1", api_key=KEY, max_retries=0, http_client=transport
    ) as client:
        yield client


async def said(sdk: openai.AsyncOpenAI, model: str, script: Script) -> tuple[str, str]:
    """What a streamed answer says, and its export id."""
    raw = await sdk.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": "count"}],
        stream=True,
        extra_body={"user": script.to_json()},
    )
    chunks = [chunk async for chunk in raw.parse()]
    assert chunks[-1].choices[0].finish_reason == "stop"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    return text, raw.headers["x-tokenport-export-id"]


# ---- the public port


async def test_the_official_client_streams_through_tls(scene: Scene, sdk: openai.AsyncOpenAI) -> None:
    assert scene.gateway.url.startswith("https://")
    script = Script(tokens=200, word_bytes_min=400)  # several TLS records
    text, export_id = await said(sdk, "open", script)
    assert text == script.answer()
    row = await scene.gateway.row(export_id)
    assert (row["outcome"], row["delivered_tokens"], row["count_source"]) == ("completed", 200, "upstream")
    assert differences(row) == {}


async def test_a_client_that_does_not_trust_the_certificate_is_no_trouble(scene: Scene) -> None:
    async with openai.AsyncOpenAI(base_url=f"{scene.gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.models.list()
    async with scene.client() as client:
        await client.send(Ask(model="open", script=Script(tokens=1)).bytes(KEY))
        assert (await client.response()).status == 200


async def test_requests_follow_each_other_on_a_tls_connection(scene: Scene) -> None:
    ask = Ask(model="open", script=Script(tokens=3)).bytes(KEY)
    async with scene.client() as client:
        for pieces in ([ask], [ask[:7], ask[7:]], [ask]):
            await client.send(*pieces)
            events = [event async for event in client.events(await client.head())]
            assert events[-1] == b"data: [DONE]\n\n"


async def test_a_request_and_a_goodbye_in_one_segment_are_one_row(scene: Scene) -> None:
    """The client has left in the very read that brought its request."""
    before = scene.gateway.terminal_records()
    for number in range(5):
        async with scene.client() as client:
            await client.send_and_leave(Ask(model="open", request_id=f"hasty-{number}").bytes(KEY))
            assert await client.ended()
    rows = await scene.gateway.rows(before + 5)
    hasty = [row for row in rows if row["request_id"].startswith("hasty-")]
    assert sorted(row["request_id"] for row in hasty) == [f"hasty-{number}" for number in range(5)]
    assert {(row["outcome"], row["status"], row["delivered_tokens"]) for row in hasty} == {("client_gone", 499, 0)}
    await nothing_is_held(scene.gateway)


@pytest.mark.parametrize("how", ["goodbye", "fin", "reset"])
async def test_what_a_tls_client_that_leaves_had_taken_is_delivered(scene: Scene, how: str) -> None:
    site, received, leaves_after = scene.site(), 0, 4
    ask = Ask(model="open", script=Script(tokens=9, hold_after=6), request_id=f"leaves-by-{how}")
    async with scene.client() as client:
        await client.send(ask.bytes(KEY))
        head = await client.head()
        async for event in client.events(head):
            received += b'"content": "t' in event
            if received == leaves_after:
                break
        if how == "goodbye":
            await client.say_goodbye()
        elif how == "fin":
            client.half_close()
        else:
            client.reset()
        [entry] = site.served(ask.request_id)
        await eventually(lambda: entry.ended, "the backend is told", 2)
    row = await scene.gateway.row(head.headers["x-tokenport-export-id"])
    assert (row["outcome"], row["status"], entry.ended) == ("client_gone", 499, "peer_gone")
    assert received <= row["delivered_tokens"] <= row["output_tokens"] <= entry.tokens == 6
    assert row["billed_output_tokens"] == row["delivered_tokens"]
    assert differences(row) == {}


@pytest.mark.parametrize("how", ["goodbye", "fin"])
async def test_what_a_tls_reader_left_in_our_buffer_is_not_delivered(scene: Scene, how: str) -> None:
    site = scene.site()
    script = Script(tokens=3000, word_bytes_min=900, role_events=0)
    ask = Ask(model="open", script=script, request_id=f"unread-by-{how}")
    async with scene.client(receive_bytes=4096) as client:
        await client.send(ask.bytes(KEY))
        head = await client.head()
        await unread(site, ask.request_id)
        if how == "goodbye":
            await client.say_goodbye()
            received = 0  # what comes after a goodbye of its own cannot be read
        else:
            client.half_close()
            received = (await client.rest()).count(b'"finish_reason": null}]}\n\n')
        row = await scene.gateway.row(head.headers["x-tokenport-export-id"], 5)
    assert (row["outcome"], row["status"]) == ("client_gone", 499)
    assert received <= row["delivered_tokens"] < row["output_tokens"]
    assert how == "goodbye" or received == row["delivered_tokens"]
    # No more than what kernels and its own receive buffer hold; ours holds as much again.
    assert row["delivered_tokens"] * 1100 < 140_000


async def test_a_slow_tls_reader_gets_the_whole_of_an_answer_that_closes(scene: Scene) -> None:
    script = Script(tokens=2000, word_bytes_min=450)
    body = {"model": "open", "messages": [{"role": "user", "content": "x"}], "user": script.to_json()}
    async with scene.client(receive_bytes=4096) as client:
        before = scene.gateway.terminal_records()
        await client.send(request(key=KEY, fields=[("connection", "close")], json_body=body))
        await eventually(lambda: scene.gateway.terminal_records() > before, "the row")
        await asyncio.sleep(2.6)  # the reader's own slowness, longer than a lingering close waits for an idle one
        response = await client.response()  # raises Truncated if it was cut
    assert response.json["choices"][0]["message"]["content"] == script.answer()


async def test_a_handshake_that_does_not_end_is_ended(scene: Scene) -> None:
    async with RawClient.connect(scene.gateway.url) as silent, RawClient.connect(scene.gateway.url) as plain:
        await plain.send(request("GET", "/healthz"))
        assert not (await plain.rest()).startswith(b"HTTP")
        assert await silent.ended()


# ---- backends


async def test_a_backend_behind_tls_is_verified_and_its_connection_used_again(
    scene: Scene, sdk: openai.AsyncOpenAI
) -> None:
    site = scene.verified.site("sealed")
    for _ in range(2):
        text, export_id = await said(sdk, "sealed", Script(tokens=40, word_bytes_min=1000))
        assert len(text.split()) == 40
        row = await scene.gateway.row(export_id)
        assert (row["outcome"], row["origin_backend"], row["delivered_tokens"]) == ("completed", "sealed", 40)
    first, second = site.log[-2:]
    assert (first.connection, first.turn + 1) == (second.connection, second.turn)


@pytest.mark.parametrize("name", UNTRUSTED)
async def test_a_backend_that_is_not_who_it_should_be_gets_nothing(
    scene: Scene, sdk: openai.AsyncOpenAI, name: str
) -> None:
    text, export_id = await said(sdk, name, Script(tokens=5))
    assert text == Script(tokens=5).answer()
    row = await scene.gateway.row(export_id)
    assert (row["outcome"], row["attempts"], row["origin_backend"]) == ("completed", 2, f"{name}-2")
    failed = row["attempts_list"][0]
    assert (failed["backend"], failed["cause"], failed["bytes_to_backend"]) == (f"{name}-1", "connect", 0)
    assert scene.untrusted[name].log == []
