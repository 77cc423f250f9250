"""Request smuggling against the real port: what two parsers could read differently is refused, and nothing gets behind.

Every message is followed, in the same bytes, by a good request with a good key. If the port took any of it for a
request, a backend would see it; so none may arrive there, the message is refused and the connection ends. A second
table holds what looks like it and is in order: there both the message and the request behind it are served.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.edge.smuggling import BEHIND, BODY, CHAT, HOST, KEYED, LENGTH, POST, REFUSED, TAKEN
from tests.fakes.client import RawClient, request
from tests.fakes.configurations import tenant
from tests.integration.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")


def cut(message: bytes, piece_bytes: int) -> list[bytes]:
    """In pieces of this size; 0: whole."""
    size = piece_bytes or len(message)
    return [message[at : at + size] for at in range(0, len(message), size)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("smuggling"), {"m": 1}, tenants=[tenant()]) as stage:
        yield stage


@pytest.mark.parametrize("piece_bytes", [0, 7], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", REFUSED)
async def test_what_could_be_read_in_two_ways_is_refused_and_nothing_gets_behind_it(
    stage: Stage, name: str, piece_bytes: int
) -> None:
    status, raw = REFUSED[name]
    asked = len(stage.scripted.log)
    message = raw + BEHIND
    pieces = (
        [message[at : at + piece_bytes] for at in range(0, len(message), piece_bytes)] if piece_bytes else [message]
    )
    async with RawClient.connect(stage.gateway.url) as client:
        # On a connection that was in good order before; a HEAD, because the refusal is not to be taken for its answer.
        await client.send(request("HEAD", "/healthz"))
        assert (await client.response(to_head_request=True)).status == 200
        try:
            await client.send(*pieces)
        except ConnectionError:
            assert piece_bytes, "closed before it was sent"
        response = await client.response()
        assert (response.status, response.headers.get("connection")) == (status, "close")
        assert response.error["message"]
        assert await client.ended(), "what followed was answered"
    assert len(stage.scripted.log) == asked, "something reached a backend"


@pytest.mark.parametrize("piece_bytes", [0, 7], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", TAKEN)
async def test_what_only_looks_like_it_is_one_request_and_the_next_is_another(
    stage: Stage, name: str, piece_bytes: int
) -> None:
    raw, statuses, arrived = TAKEN[name]
    asked = len(stage.scripted.log)
    message = raw + BEHIND
    # A refusal by the head alone goes on only where the body is there already.
    pieces = (
        [message[at : at + piece_bytes] for at in range(0, len(message), piece_bytes)] if piece_bytes else [message]
    )
    if statuses[0] == 401:
        pieces = [message]
    async with RawClient.connect(stage.gateway.url) as client:
        await client.send(*pieces)
        assert tuple([(await client.response()).status for _ in statuses]) == statuses
    log = stage.scripted.log[asked:]
    assert len(log) == arrived
    assert log[-1].request_id == "behind"
    assert all(entry.json["messages"] == CHAT["messages"] for entry in log)


async def test_a_request_that_ends_its_connection_has_none_behind_it(stage: Stage) -> None:
    asked = len(stage.scripted.log)
    for head in (POST + b"connection: close\r\n", b"POST /v1/chat/completions HTTP/1.0\r\n"):
        async with RawClient.connect(stage.gateway.url) as client:
            await client.send(head + HOST + KEYED + LENGTH + b"\r\n" + BODY + BEHIND)
            assert (await client.response()).status == 200
            assert await client.ended()
    assert len(stage.scripted.log) == asked + 2
    assert not any(entry.request_id == "behind" for entry in stage.scripted.log[asked:])
