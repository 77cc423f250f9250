"""How a worker takes connections from the one listening socket of all workers, so that each gets its share.

All workers wait for the same socket, and the kernel wakes all of them: whoever is quickest would take everything, one
wake-up would take all that waits, and a connection stays where it is for its life. So a worker takes one connection per
wake-up, and stands back while it holds clearly more than the least loaded of the others that are alive, as their cells
tell. Standing back is looking the other way for half a millisecond and looking again: by then the other has taken it,
or has caught up. It does not depend on the other: after `PATIENCE_S` in which nobody took what waits, this worker does,
and one that has stopped sweeping is not counted at all.

A lone connection never waits for this: the least loaded worker takes it at its next turn.
"""

import asyncio
import errno
import logging
import select
import socket
from collections.abc import Callable

from gateway.edge.port import Port

logger = logging.getLogger("tokenport.accepting")

# A turn of a busy worker's loop is about that long.
STAND_BACK_S = 0.0005
PATIENCE_S = 0.01
# Out of descriptors or memory: what waits goes on waiting in the backlog.
EXHAUSTED_S = 0.1
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# More than the least loaded by one, and by an eighth of it: near enough, and a burst is not taken one by one.
AHEAD_SHARE = 8


class Accepting:
    """One worker's side of the listening socket, from `start` to `close`."""

    def __init__(self, listener: socket.socket, port: Port, connection: Callable[[], asyncio.BaseProtocol]) -> None:
        """`connection` makes the protocol of a client that has just connected."""
        self._listener = listener
        self._port = port
        self._loop = port.loop
        self._connection = connection
        self._opening: set[asyncio.Task[object]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._stood_back_at: float | None = None  # from the same connection, as far as this worker knows
        self._waiting = select.poll()

    def start(self) -> None:
        self._listener.setblocking(False)
        self._waiting.register(self._listener.fileno(), select.POLLIN)
        self._loop.add_reader(self._listener.fileno(), self._ready)

    def close(self) -> None:
        """Take no more; twice is once."""
        if self._listener.fileno() < 0:
            return
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _ready(self) -> None:
        """Something waits, as far as this worker knows."""
        if self._is_ahead():
            self._stand_back(STAND_BACK_S)
            return
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            # Another worker was quicker, or the client is gone.
            self._stood_back_at = None
            return
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            logger.error("a connection could not be accepted", extra={"problem": str(error)})
            self._stand_back(EXHAUSTED_S)
            return
        self._stood_back_at = None
        accepted.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, accepted))
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _is_ahead(self) -> bool:
        """Whether somebody else should take it, and there is still time for them to."""
        port = self._port
        if port.workers.alone:
            return False
        now = self._loop.time()
        fewest = port.workers.fewest(now)
        if fewest < 0 or port.held + len(self._opening) <= fewest + 1 + fewest // AHEAD_SHARE:
            return False
        if self._stood_back_at is None:
            self._stood_back_at = now
        return now - self._stood_back_at < PATIENCE_S

    def _stand_back(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._later = self._loop.call_later(seconds, self._look_again)

    def _look_again(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._ready)
        if self._waiting.poll(0):
            self._ready()
        else:
            self._stood_back_at = None

    def _opened(self, task: "asyncio.Task[object]") -> None:
        self._opening.discard(task)
        if not task.cancelled() and isinstance(task.exception(), OSError):
            return  # it was gone before it was there
