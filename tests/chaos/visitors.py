"""The clients of the campaign, each with one way to behave, on raw sockets.

A visitor never waits without a bound. What it saw of each request is an `Account`; whether that is right is judged
later, when the books are closed.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.chaos.faults import Fate
from tests.chaos.plan import Errand, Visit
from tests.edge.smuggling import BEHIND, REFUSED
from tests.fakes.backend import ScriptedBackend
from tests.fakes.client import RawClient, Truncated, request
from tests.fakes.configurations import KEY
from tests.fakes.streaming import Stream

# The longest any errand can take: three silent attempts, or a reader that is given up, on a machine that is busy.
HUNG_S = 40.0
PAUSE_S = 0.02
# Beyond the campaign's `write_stall_s` by more than any sweep on a busy machine.
STALLED_S = 12.0
BODY_BYTES_MAX = 1 << 20
JSON_BODY = ("content-type", "application/json")


@dataclass(slots=True)
class Account:
    """What came of one request."""

    errand: Errand
    manner: str
    began_at: float
    seen: Stream = field(default_factory=Stream)
    ended_at: float = 0.0
    asked: bool = True  # False: the connection was lost before its turn
    lost: bool = False  # the connection ended, and it was not the visitor who ended it
    hung: bool = False
    sending_s: float = 0.0  # what it took to send all, of one that does not send at once
    expected: tuple[int, ...] = ()  # of what is refused
    closed: bool | None = None  # whether the connection ended behind a refusal that ends it
    trouble: str = ""


def asking(errand: Errand, *, version: str = "1.1", fields: Iterable[tuple[str, str]] = ()) -> bytes:
    """The request of an errand; its backends' scripts travel in it."""
    fate = errand.fate
    fields = [("x-request-id", errand.request_id), *fields]
    return request(path=path_of(fate), key=KEY, fields=fields, json_body=body_of(fate), version=version)


def path_of(fate: Fate) -> str:
    return "/v1/chat/completions" if fate.shape == "chat" else "/v1/completions"


def body_of(fate: Fate) -> dict[str, Any]:
    body: dict[str, Any] = {"model": fate.scene, "stream": fate.streamed}
    if fate.shape == "chat":
        body["messages"] = [{"role": "user", "content": "count"}]
    else:
        body["prompt"] = "count"
    if fate.choices > 1:
        body["n"] = fate.choices
    if fate.include_usage:
        body["stream_options"] = {"include_usage": True}
    return {**body, "user": json.dumps([script.changes() for script in fate.scripts])}


class Visitor:
    """Comes once."""

    def __init__(self, url: str, backend: ScriptedBackend, visit: Visit) -> None:
        self._url = url
        self._backend = backend
        self._visit = visit
        self._rng = Random(visit.seed)
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.accounts = [Account(errand, visit.manner, now) for errand in visit.errands]
        self._account = self.accounts[0]

    async def come(self) -> list[Account]:
        """The visit, to its end or to its bound."""
        manner: Callable[[], Awaitable[None]] = getattr(self, "_" + self._visit.manner)
        try:
            async with asyncio.timeout(HUNG_S):
                await manner()
        except TimeoutError:
            self._account.hung = True
        except (Truncated, ConnectionError):
            self._account.lost = True
        except Exception as error:
            self._account.trouble = f"{type(error).__name__}: {error}"
        for account in self.accounts:
            account.ended_at = account.ended_at or self._loop.time()
        return self.accounts

    # ---- those who stay

    async def _patient(self) -> None:
        async with RawClient.connect(self._url) as client:
            await client.send(asking(self._account.errand))
            await self._read(client)

    async def _session(self) -> None:
        """One after the other on one connection."""
        for account in self.accounts:
            account.asked = False
        async with RawClient.connect(self._url) as client:
            for account in self.accounts:
                self._account = account
                account.asked, account.began_at = True, self._loop.time()
                await client.send(asking(account.errand))
                await self._read(client)
                account.ended_at = self._loop.time()
                if self._rng.random() < 0.3:
                    await asyncio.sleep(PAUSE_S)

    async def _pipelined(self) -> None:
        """All in one write; the answers come in order."""
        for account in self.accounts:
            # Whoever has no answer when the connection ends, or never comes about, has lost it.
            account.lost = True
        async with RawClient.connect(self._url) as client:
            await client.send(b"".join(asking(account.errand) for account in self.accounts))
            for account in self.accounts:
                self._account = account
                await self._read(client)
                account.lost, account.ended_at = False, self._loop.time()

    async def _chunked(self) -> None:
        """The body in chunks of its own."""
        errand = self._account.errand
        body = json.dumps(body_of(errand.fate)).encode()
        head = request(
            path=path_of(errand.fate),
            key=KEY,
            fields=[("x-request-id", errand.request_id), JSON_BODY, ("transfer-encoding", "chunked")],
        )
        size = self._rng.choice((7, 100, 10_000))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        async with RawClient.connect(self._url) as client:
            await client.send(head, *self._cut(framed))
            await self._read(client)

    async def _expecting(self) -> None:
        """Waits for 100 Continue before the body."""
        head, _, body = asking(self._account.errand, fields=[("expect", "100-continue")]).partition(b"\r\n\r\n")
        async with RawClient.connect(self._url) as client:
            await client.send(head + b"\r\n\r\n")
            interim = await client.head(interim=True)
            assert interim.status == 100, interim.status
            await client.send(body)
            self._account.sending_s = self._loop.time() - self._account.began_at
            await self._read(client)

    async def _one_zero(self) -> None:
        async with RawClient.connect(self._url) as client:
            await client.send(asking(self._account.errand, version="1.0"))
            await self._read(client)
            assert await client.ended(), "an answer to HTTP/1.0 that does not end"

    async def _slow_reader(self) -> None:
        async with RawClient.connect(self._url, receive_bytes=65_536) as client:
            await client.send(asking(self._account.errand))
            await self._read(client, pause_s=0.001)

    async def _slow_head(self) -> None:
        message = asking(self._account.errand)
        await self._slowly(message, message.index(b"\r\n\r\n"))

    async def _slow_body(self) -> None:
        await self._slowly(asking(self._account.errand), None)

    async def _slowly(self, message: bytes, end: int | None) -> None:
        """In pieces with pauses, cut within the first `end` bytes (or behind them)."""
        first = message.index(b"\r\n\r\n") + 4 if end is None else 0
        places = sorted(self._rng.randrange(first, end or len(message)) for _ in range(3))
        async with RawClient.connect(self._url) as client:
            for at, until in zip([0, *places], [*places, len(message)], strict=True):
                await client.send(message[at:until])
                await asyncio.sleep(PAUSE_S)
            self._account.sending_s = self._loop.time() - self._account.began_at
            await self._read(client)

    # ---- those who leave

    async def _leaver(self) -> None:
        """After some event; at once, for none."""
        account = self._account
        async with RawClient.connect(self._url) as client:
            await client.send(asking(account.errand))
            script = account.errand.fate.serving
            events = -(-script.tokens // script.tokens_per_event) * account.errand.fate.choices
            leave_after = self._rng.randint(0, events)
            if leave_after:
                await self._read(client, leave_after=leave_after)
            await self._leave(client)

    async def _pipelining_leaver(self) -> None:
        """In the midst of the first of several answers; the others may have been begun or not."""
        async with RawClient.connect(self._url) as client:
            await client.send(b"".join(asking(account.errand) for account in self.accounts))
            await self._read(client, leave_after=self._rng.randint(1, 4))
            await self._leave(client)

    async def _early_leaver(self) -> None:
        """Before the request is whole."""
        message = asking(self._account.errand)
        async with RawClient.connect(self._url) as client:
            await client.send(message[: self._rng.randrange(1, len(message) - 1)])
            await self._leave(client)

    async def _stalled(self) -> None:
        """Reads no further, and stays."""
        account = self._account
        async with RawClient.connect(self._url, receive_bytes=4096) as client:
            await client.send(asking(account.errand))
            if account.errand.fate.streamed:
                await self._read(client, leave_after=self._rng.randint(1, 5))
            else:
                account.seen.headers = (await client.head()).headers
            stopped_at = self._loop.time()
            while not self._given_up(stopped_at):  # noqa: ASYNC110  what is waited for happens in another process
                await asyncio.sleep(PAUSE_S)
            await client.rest()

    def _given_up(self, stopped_at: float) -> bool:
        """Whether the gateway must have closed by now. A backend that was cut off shows it; one whose whole answer went
        into the kernel's buffers, which may be large, does not."""
        entries = self._backend.served.get(self._account.errand.request_id, ())
        cut_off = any(entry.ended != "whole" for entry in entries)
        return all(entry.ended for entry in entries) and (cut_off or self._loop.time() > stopped_at + STALLED_S)

    async def _leave(self, client: RawClient) -> None:
        how = self._rng.choice(("reset", "close", "half_close"))
        if how == "reset":
            client.reset()
        elif how == "close":
            client.close()
        else:
            # A connection whose worker was killed meanwhile has no side left to shut.
            with suppress(OSError):
                client.half_close()
            await client.rest()

    # ---- those who are refused

    async def _malformed(self) -> None:
        status, message = REFUSED[self._visit.message]
        self._account.expected = (status,)
        async with RawClient.connect(self._url) as client:
            await client.send(*self._cut(message + BEHIND))
            await self._refusal(client, closes=True)

    async def _oversize(self) -> None:
        too_large = [JSON_BODY, ("content-length", str(BODY_BYTES_MAX + 1))]
        message, status = self._rng.choice(
            (
                (request(key=KEY, fields=too_large), 413),
                (request("GET", "/" + "a" * 8200), 414),
                (request("GET", "/healthz", fields=[(f"x-{n}", "v" * 1000) for n in range(17)]), 431),
                (request("GET", "/healthz", fields=[(f"x-{n}", "v") for n in range(120)]), 431),
            )
        )
        self._account.expected = (status,)
        async with RawClient.connect(self._url) as client:
            await client.send(message)
            await self._refusal(client, closes=True)

    async def _unwelcome(self) -> None:
        chat = {"model": "exact", "messages": [{"role": "user", "content": "count"}]}
        message, status = self._rng.choice(
            (
                (request(key="wrong", json_body=chat), 401),
                (request(json_body=chat), 401),
                (request(key=KEY, json_body={**chat, "model": "unknown"}), 404),
                (request(key=KEY, path="/v1/nothing", json_body=chat), 404),
                (request("DELETE", "/v1/models", key=KEY), 405),
                (request(key=KEY, fields=[("content-encoding", "gzip")], json_body=chat), 415),
                (request(key=KEY, body=b"{'model':1}"), 400),
                (request(key=KEY, json_body={**chat, "n": "two"}), 400),
                (request(key=KEY, body=b'{"model":"exact","model":"loose","messages":[{}]}'), 400),
            )
        )
        self._account.expected = (status,)
        async with RawClient.connect(self._url) as client:
            for _ in range(2):
                await client.send(message)
                await self._refusal(client, closes=False)

    async def _too_slow_head(self) -> None:
        await self._too_slow(asking(self._account.errand).partition(b"\r\n\r\n")[0])

    async def _too_slow_body(self) -> None:
        await self._too_slow(asking(self._account.errand)[:-1])

    async def _too_slow(self, beginning: bytes) -> None:
        self._account.expected = (408,)
        async with RawClient.connect(self._url) as client:
            await client.send(beginning)
            await self._refusal(client, closes=True)

    async def _silent_visitor(self) -> None:
        async with RawClient.connect(self._url) as client:
            if self._rng.random() < 0.5:
                client.reset()
            else:
                client.close()

    # ---- reading

    async def _refusal(self, client: RawClient, *, closes: bool) -> None:
        response = await client.response()
        self._account.seen.status = response.status
        assert response.error["message"]
        if closes:
            self._account.closed = await client.ended()

    async def _read(self, client: RawClient, *, leave_after: int | None = None, pause_s: float = 0.0) -> None:
        """One answer, or as many of its content events as the visitor stays for."""
        seen = self._account.seen
        head = await client.head()
        seen.status, seen.headers = head.status, head.headers
        if not head.headers.get("content-type", "").startswith("text/event-stream"):
            async for piece in client.body(head):
                seen.body += piece
            seen.framed = True
            return
        async for event in client.events(head):
            seen.take(event)
            if leave_after is not None and seen.events >= leave_after:
                return
            if pause_s:
                await asyncio.sleep(pause_s)
        seen.framed = True

    def _cut(self, message: bytes) -> list[bytes]:
        """Whole, or in three pieces."""
        if self._rng.random() < 0.5:
            return [message]
        first, second = sorted(self._rng.randrange(len(message)) for _ in range(2))
        return [message[:first], message[first:second], message[second:]]
