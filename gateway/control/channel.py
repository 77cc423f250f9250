"""The line between supervisor and worker: JSON messages, one a line, over a socket pair.

Both ends speak the same three words: a `tell` needs no answer; an `ask` carries a number and gets one `answer`. When
the other end is gone the channel ends, which is how a worker learns that its supervisor died.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

logger = logging.getLogger("tokenport.channel")

# One message: a configuration of hundreds of backends with a year of hourly prices stays far below this.
MESSAGE_BYTES_MAX = 64 * 1024 * 1024

Message = dict[str, Any]
Handler = Callable[[Message], Awaitable[Any]]


class ChannelClosed(Exception):
    """The other process is gone."""


class Channel:
    """One end of the line. `run` reads until the other end closes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._working: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        reader, writer = await asyncio.open_connection(sock=end, limit=MESSAGE_BYTES_MAX)
        return cls(reader, writer)

    def tell(self, what: str, **fields: Any) -> None:
        """Send without waiting. Lost if the other end is gone; `run` says so."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps({"what": what, **fields}) + b"\n")

    async def ask(self, what: str, *, timeout_s: float = 5.0, **fields: Any) -> Any:
        """Send and wait for the answer.

        Raises:
            ChannelClosed: the other end went away.
            TimeoutError: no answer in time.
        """
        if self._writer.is_closing():
            raise ChannelClosed
        number = self._next = self._next + 1
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self.tell(what, ask=number, **fields)
        try:
            return await asyncio.wait_for(future, timeout_s)
        finally:
            self._asked.pop(number, None)

    async def run(self, handler: Handler) -> None:
        """Hand every message of the other end to `handler` until the line ends. What it returns answers an `ask`."""
        try:
            while line := await self._reader.readline():
                self._received(orjson.loads(line), handler)
        except (ConnectionError, ValueError):
            pass
        finally:
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(ChannelClosed())
            self._writer.close()

    def _received(self, message: Message, handler: Handler) -> None:
        if message["what"] == "answer":
            future = self._asked.get(message["ask"])
            if future is not None and not future.done():
                future.set_result(message["value"])
            return
        task = asyncio.ensure_future(self._work(message, handler))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _work(self, message: Message, handler: Handler) -> None:
        value = None
        try:
            value = await handler(message)
        except Exception:
            # The other side is told "nothing" instead of waiting for its timeout.
            logger.exception("a message could not be handled", extra={"what": message["what"]})
        if "ask" in message:
            self.tell("answer", ask=message["ask"], value=value)
