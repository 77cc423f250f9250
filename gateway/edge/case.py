"""One request as data: what it is, and what became of it so far. `Exchange` moves it on, `settling` writes it down."""

from gateway.clock import wall
from gateway.edge.caller import Caller
from gateway.edge.connection import ClientConnection
from gateway.edge.counting import Counts, Progress
from gateway.edge.course import Course
from gateway.edge.delivery import Delivery
from gateway.edge.desk import Desk
from gateway.edge.metering import Permit
from gateway.edge.relay import Attempt
from gateway.wire.http1 import RequestHead
from gateway.wire.openai import RequestFacts
from gateway.wire.openai_answer import AnswerFacts
from routing.demand import Demand

# In place of one that is not needed any more.
_NO_HEAD = RequestHead("", b"", "1.1", [], keep_alive=True, chunked=False, expect_continue=False, host="")


class Case:
    """Facts first, then what is held, then how it went.

    In slots, here and in what is built on it: there is one for every stream, and beyond 30 attributes an object has a
    dict of its own, of 1.2 KiB.
    """

    __slots__ = (
        "admitted_at",
        "admitted_wall",
        "answer",
        "attempt",
        "body",
        "body_bytes",
        "caller",
        "connection",
        "counts",
        "course",
        "delivery",
        "demand",
        "desk",
        "facts",
        "failure",
        "head",
        "left_with",
        "outcome",
        "permit",
        "status",
        "ttft_s",
    )

    facts: RequestFacts
    demand: Demand
    permit: Permit
    course: Course
    delivery: Delivery

    def __init__(
        self,
        desk: Desk,
        connection: ClientConnection,
        head: RequestHead,
        body: bytes,
        caller: Caller,
    ) -> None:
        self.desk = desk
        self.connection = connection
        self.head = head
        self.body = body
        self.body_bytes = len(body)
        self.caller = caller
        self.admitted_at = desk.now()
        self.admitted_wall = wall()
        self.attempt: Attempt | None = None  # the one that serves, or may
        self.answer: AnswerFacts | None = None  # of a non-streaming answer
        self.counts: Counts | None = None  # if they had to be known before the end
        self.left_with: Progress | None = None  # what a client that left had taken
        self.ttft_s: float | None = None  # None: no content was handed over
        self.status: int | None = None
        self.outcome = ""
        self.failure = ""  # what ended the attempt, if not the end of the answer

    def let_go(self) -> None:
        """The answer has begun and nothing is sent again: of its request only the facts are kept. Streams are long, and
        there are many at once."""
        self.body = b""
        self.head = _NO_HEAD
        self.connection.let_go()
