"""Many streaming requests at once, each watched to the token.

A `Stream` says what one client received: content events, tokens (the scripted backends' words), how it ended. A client
can leave at a chosen event, in each of the ways clients leave.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.client import RawClient, Truncated, request
from tests.fakes.script import Script


@dataclass(frozen=True, slots=True)
class Ask:
    """One streaming request and when its client leaves."""

    model: str = "m"
    script: Script | None = None
    request_id: str = ""
    leave_after: int | None = None  # content events
    leave: str = "reset"  # reset | close | half_close
    members: dict[str, Any] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    fields: tuple[tuple[str, str], ...] = ()

    def bytes(self, key: str) -> bytes:
        body: dict[str, Any] = {"model": self.model, "stream": True}
        if self.path.endswith("chat/completions"):
            body["messages"] = [{"role": "user", "content": "count"}]
        else:
            body["prompt"] = "count"
        if self.script is not None:
            body["user"] = self.script.to_json()
        fields = [*self.fields, ("x-request-id", self.request_id)] if self.request_id else self.fields
        return request(path=self.path, key=key, fields=fields, json_body=body | self.members)


@dataclass(slots=True)
class Stream:
    """What a client received."""

    request_id: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: int = 0  # content events
    tokens: int = 0
    text: str = ""
    finishes: int = 0
    usages: list[Any] = field(default_factory=list)
    error: Any = None
    done: bool = False
    framed: bool = False  # the HTTP body ended as HTTP says
    left: bool = False
    comments: int = 0
    raw: list[bytes] = field(default_factory=list)
    body: bytes = b""  # of an answer that is no stream

    @property
    def export_id(self) -> str:
        return self.headers.get("x-tokenport-export-id", "")

    @property
    def looks_whole(self) -> bool:
        """Whether an SDK would take this for a whole answer."""
        return self.framed and (self.done or self.finishes > 0) and self.error is None

    def take(self, event: bytes) -> bool:
        """Note one event. Returns whether it had content."""
        self.raw.append(event)
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if not data:
            self.comments += 1
            return False
        if data == b"[DONE]":
            self.done = True
            return False
        message = json.loads(data)
        if "error" in message:
            self.error = message["error"]
            return False
        if message.get("usage") is not None:
            self.usages.append(message["usage"])
        contents = [self._choice(choice) for choice in message.get("choices", ())]
        return any(contents)

    def _choice(self, choice: Any) -> bool:
        delta = choice.get("delta") or {}
        text = delta.get("content") or delta.get("reasoning_content") or choice.get("text") or ""
        if choice.get("finish_reason"):
            self.finishes += 1
        if not text:
            return False
        self.events += 1
        self.tokens += len(text.split())
        self.text += text
        return True


async def stream(url: str, key: str, ask: Ask, heard: asyncio.Event | None = None) -> Stream:
    """One request to its end, or to where its client leaves. `heard` is set at the first content event."""
    seen = Stream(request_id=ask.request_id)
    async with RawClient.connect(url) as client:
        await client.send(ask.bytes(key))
        if ask.leave_after == 0:
            _leave(client, ask.leave, seen)
            return seen
        try:
            await _read(client, ask, seen, heard)
        except (Truncated, ConnectionError):
            return seen
        if seen.left and ask.leave == "half_close":
            await client.rest()
    return seen


async def _read(client: RawClient, ask: Ask, seen: Stream, heard: asyncio.Event | None) -> None:
    head = await client.head()
    seen.status, seen.headers = head.status, head.headers
    if not head.headers.get("content-type", "").startswith("text/event-stream"):
        seen.body = b"".join([piece async for piece in client.body(head)])
        seen.framed = True
        return
    async for event in client.events(head):
        if seen.take(event) and heard is not None:
            heard.set()
        if ask.leave_after is not None and seen.events >= ask.leave_after:
            _leave(client, ask.leave, seen)
            return
    seen.framed = True


def _leave(client: RawClient, how: str, seen: Stream) -> None:
    seen.left = True
    if how == "half_close":
        client.half_close()
    elif how == "close":
        client.close()
    else:
        client.reset()


async def streams(url: str, key: str, asks: Iterable[Ask], at_once: int = 64) -> list[Stream]:
    """All of them, so many at a time, in the order given."""
    room = asyncio.Semaphore(at_once)

    async def one(ask: Ask) -> Stream:
        async with room:
            return await stream(url, key, ask)

    return list(await asyncio.gather(*(one(ask) for ask in asks)))
