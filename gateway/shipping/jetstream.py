"""NATS JetStream: a message for each row and each count of refused requests, in the order of the log.

    SUBJECT.GATEWAY.LOG    JSON: the columns of the contract and `gateway`; or minute, tenant, reason, count (`record`
                           is "refused" then)

A batch is published as one atomic batch, on the condition that the subject ends where this gateway left it. So the
server takes all of it in order, or nothing; and what it took unseen (its answer was lost) it refuses when it comes
again, however much later. Where a log goes on is read from the subject's last message, which names its place in the
log. Only if there is none, because the stream let it go, the cursor file counts; for that case there is `Nats-Msg-Id`,
the export id, by which the server drops what it has seen within its duplicate window.

The client runs in an event loop of its own, so that it answers pings while there is nothing to ship.
"""

import asyncio
import base64
import ssl
import threading
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

import nats
import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from gateway.ledger.following import Position
from gateway.shipping.batch import Batch, Mark, Refusal, Row
from gateway.shipping.shipper import SinkError
from pricing.export import NAMES

CONNECT_S = 10
ANSWER_S = 20.0  # of the server, to a whole batch
DUPLICATES_S = 600.0  # the server's memory of message ids; it holds them in RAM
LOGS_MAX = 1024  # subjects of one gateway that are looked for at a start

_PLACE = "Tokenport-Place"  # header: segment, offset behind the line, its hash, next seq
_WRONG_LAST = 10071
_SEEN_BEFORE = 10201

Result = TypeVar("Result")
Message = tuple[str, Mark, bytes]  # its id, the mark behind it, the payload


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="ship-nats", daemon=True)
        self._thread.start()

    async def _serve(self) -> None:
        stopped = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), stopped))
        await stopped.wait()

    def run(self, work: Coroutine[Any, Any, Result], seconds: float) -> Result:
        loop, _ = self._started.result()
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), loop).result()

    def stop(self) -> None:
        loop, stopped = self._started.result()
        loop.call_soon_threadsafe(stopped.set)
        self._thread.join(CONNECT_S)


class JetStreamSink:
    """The way into one stream. Used by one thread at a time."""

    keyed = False

    def __init__(self, url: str, gateway: str, stream: str, subject: str, ca_file: Path | None) -> None:
        self._url = url
        self._gateway = gateway
        self._stream = stream
        self._subject = f"{subject}.{gateway}"
        self._subjects = f"{subject}.>"
        self._ca_file = ca_file
        self._loop: _Loop | None = None
        self._client: Client | None = None
        self._last: dict[int, int] = {}  # sequence in the stream of a log's last message

    def open(self) -> Mapping[int, Mark]:
        self._loop = _Loop()
        return self._run(self._open(), CONNECT_S + 2 * ANSWER_S)

    def deliver(self, batch: Batch) -> None:
        self._run(self._deliver(batch), 3 * ANSWER_S)

    def close(self) -> None:
        loop, self._loop = self._loop, None
        client, self._client = self._client, None
        if loop is not None:
            try:
                if client is not None and not client.is_closed:
                    loop.run(client.close(), CONNECT_S)
            finally:
                loop.stop()

    def _run(self, work: Coroutine[Any, Any, Result], seconds: float) -> Result:
        assert self._loop is not None
        try:
            return self._loop.run(work, seconds)
        except (NatsError, OSError, TimeoutError) as error:
            reason = " ".join(str(error).split()) or "no answer in time"
            raise SinkError(f"NATS, stream {self._stream}: {reason}") from error

    # ---- connecting

    async def _open(self) -> Mapping[int, Mark]:
        client = self._client = await self._connect()
        await self._prepare(client)
        self._last = {}
        return {log: mark for log in await self._logs(client) if (mark := await self._look(client, log)) is not None}

    async def _connect(self) -> Client:
        parts = urlsplit(self._url)
        user, password = (unquote(text) if text else None for text in (parts.username, parts.password))
        login = {"user": user, "password": password} if password else {"token": user}
        secure = parts.scheme == "tls" or self._ca_file is not None
        return await nats.connect(
            urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])),
            allow_reconnect=False,  # the shipper begins anew, and asks the stream where to go on
            connect_timeout=CONNECT_S,
            error_cb=_ignore,  # what matters comes back from the call that failed
            name="tokenport",
            tls=ssl.create_default_context(cafile=self._ca_file) if secure else None,
            **{name: value for name, value in login.items() if value},
        )

    async def _prepare(self, client: Client) -> None:
        context = client.jetstream(timeout=ANSWER_S)
        try:
            config = (await context.stream_info(self._stream)).config
        except NotFoundError:
            wanted = StreamConfig(
                name=self._stream, subjects=[self._subjects], duplicate_window=DUPLICATES_S, allow_atomic=True
            )
            config = (await context.add_stream(wanted)).config
        if not config.allow_atomic:
            raise SinkError(
                f"NATS, stream {self._stream}: does not take atomic batches; set allow_atomic (NATS 2.12 or later)"
            )

    async def _logs(self, client: Client) -> list[int]:
        """The logs of this gateway that the stream has messages of."""
        answer = await self._ask(client, "STREAM.INFO", {"subjects_filter": f"{self._subject}.*"})
        names = [subject.rpartition(".")[2] for subject in (answer["state"].get("subjects") or {})]
        return sorted(int(name) for name in names[:LOGS_MAX] if name.isdigit())

    async def _look(self, client: Client, log: int) -> Mark | None:
        """The mark of a log's last message in the stream, and its sequence."""
        answer = await self._ask(client, "STREAM.MSG.GET", {"last_by_subj": f"{self._subject}.{log}"})
        message = answer.get("message")
        self._last[log] = message["seq"] if message else 0
        return _mark(base64.b64decode(message.get("hdrs", ""))) if message else None

    async def _ask(self, client: Client, what: str, question: Mapping[str, str]) -> dict[str, Any]:
        answer = await client.request(f"$JS.API.{what}.{self._stream}", orjson.dumps(question), timeout=ANSWER_S)
        found: dict[str, Any] = orjson.loads(answer.data)
        problem = found.get("error")
        if problem and problem.get("code") != 404:
            raise SinkError(f"NATS, stream {self._stream}: {problem.get('description')}")
        return found

    # ---- delivering

    async def _deliver(self, batch: Batch) -> None:
        client, messages = self._client, list(_messages(batch, self._gateway))
        assert client is not None
        if batch.log not in self._last:
            await self._look(client, batch.log)
        answer = await self._publish(client, batch.log, messages)
        if _code(answer) == _WRONG_LAST and await self._look(client, batch.log) is None:
            answer = await self._publish(client, batch.log, messages)  # the stream let the last message go
        if _code(answer) == _SEEN_BEFORE:
            # The stream let messages go that this gateway does not remember: those it still knows the ids of are
            # dropped, one by one.
            for message in messages:
                answer = await self._publish(client, batch.log, [message])
                if _code(answer) not in (0, _SEEN_BEFORE):
                    break
                self._taken(batch.log, answer)
            else:
                return
        if _code(answer) == _WRONG_LAST:
            raise SinkError(
                f"NATS, stream {self._stream}: somebody else ships as {self._gateway}: is gateway.id a copy?"
            )
        if _code(answer):
            raise SinkError(f"NATS, stream {self._stream}: {answer['error'].get('description')}")
        self._taken(batch.log, answer)

    def _taken(self, log: int, answer: Mapping[str, Any]) -> None:
        self._last[log] = max(self._last[log], answer.get("seq", 0))

    async def _publish(self, client: Client, log: int, messages: list[Message]) -> dict[str, Any]:
        """The server's answer to one atomic batch."""
        subject, batch_id = f"{self._subject}.{log}", uuid4().hex
        for number, (message_id, mark, payload) in enumerate(messages, 1):
            headers = {
                "Nats-Batch-Id": batch_id,
                "Nats-Batch-Sequence": str(number),
                "Nats-Msg-Id": message_id,
                _PLACE: " ".join(map(str, (*mark.position, mark.hash, mark.seq))),
            }
            if number == 1:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(self._last[log])
            if number < len(messages):
                await client.publish(subject, payload, headers=headers)
        headers["Nats-Batch-Commit"] = "1"
        request = asyncio.ensure_future(client.request(subject, payload, timeout=ANSWER_S, headers=headers))
        while not request.done():  # a connection that is lost answers nothing
            await asyncio.wait({request}, timeout=0.1)
            if client.is_closed and not request.done():
                request.cancel()
                raise ConnectionError("the connection was lost")
        answer: dict[str, Any] = orjson.loads((await request).data)
        return answer


def _messages(batch: Batch, gateway: str) -> Iterator[Message]:
    seq = batch.start.seq
    items: Iterator[Row | Refusal] = merge(batch.rows, batch.refusals, key=attrgetter("position"))
    for item in items:
        if isinstance(item, Row):
            seq = item.record["seq"] + 1
            told = {name: item.record[name] for name in NAMES} | {"gateway": gateway}
            yield item.record["export_id"], item.mark, orjson.dumps(told)
        else:
            told = {name: item.record[name] for name in ("record", "minute", "tenant", "reason", "count")}
            told |= {"gateway": gateway, "log": batch.log}
            yield item.hash, Mark(item.position, item.hash, seq), orjson.dumps(told)


def _mark(headers: bytes) -> Mark | None:
    """What the header of a message of ours says; None if somebody else wrote it."""
    for line in headers.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name == _PLACE:
            segment, offset, hashed, seq = value.split()
            return Mark(Position(int(segment), int(offset)), hashed, int(seq))
    return None


def _code(answer: Mapping[str, Any]) -> int:
    error = answer.get("error")
    return int(error.get("err_code") or 1) if error else 0


async def _ignore(error: Exception) -> None:
    """Called by the client for what it also raises."""
