"""What the bench's backend says, and what a client behind anything must therefore receive: bytes made once.

A request tells the backend which answer it wants in its `user` member, which every proxy passes on as it is. Events are
of the size and form that today's servers send, one chunk each; their texts differ, as a model's do. Where the way of an
event is timed, its text is the moment of the backend's write, on the clock that all processes of a machine share.
"""

import json
import re
from dataclasses import dataclass

KEY = "tp-bench-key"
CLIENT_ADDRESS = "193.99.144.80"  # in Germany
ANSWER_TOKENS = 5
INPUT_TOKENS = 12
WORDS = [f" word{n}" for n in range(56)] + [" a", ".", ",", " naïve", " 東京", "\n", ' "quoted"', " the"]

# The moment of a write, as text of a fixed width.
STAMP = b"%017.6f"
stamps = re.compile(rb'"content":" @([0-9]{10}\.[0-9]{6})"').findall
_unstamped = re.compile(rb'"content":" @[0-9]{10}\.[0-9]{6}"').sub
NEVER = STAMP % 0.0

_PLAN = re.compile(rb'"user": ?"([0-9]+)/([0-9]+)/([0-9.]+)/([0-9.]+)/([01])"').search
_CHUNK = {
    "id": "chatcmpl-7f3c2a9d5b604e0f8a1c6d2e9b7f4a30",
    "object": "chat.completion.chunk",
    "created": 1_767_225_600,
    "model": "bench/large-instruct",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How an answer is given. No events: a small whole one."""

    events: int = 0  # of content
    burst: int = 1  # how many of them a single write holds
    gap_s: float = 0.0  # between writes; 0: as fast as they are taken
    first_s: float = 0.0  # from the request to the first byte
    stamped: bool = False  # each event of content carries the moment it was written

    def request(self, prompt_bytes: int = 0) -> bytes:
        """A chat completion request for this answer, with its head; about so long, if that is more than a line."""
        plan = f"{self.events}/{self.burst}/{self.gap_s}/{self.first_s}/{int(self.stamped)}"
        body = json.dumps(
            {
                "model": "large",
                "user": plan,
                "stream": self.events > 0,
                "temperature": 0.7,
                "messages": [
                    {"role": "system", "content": "You are a helpful assistant."},
                    *_history(prompt_bytes),
                    {"role": "user", "content": "How far is it from here to the sea?"},
                ],
            }
        ).encode()
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\naccept: application/json\r\nuser-agent: bench/1.0\r\n"
            b"x-forwarded-for: %b\r\ncontent-length: %d\r\n\r\n"
        )
        return head % (KEY.encode(), CLIENT_ADDRESS.encode(), len(body)) + body

    @classmethod
    def of(cls, body: bytes) -> "Plan":
        """The plan a request asks for."""
        match = _PLAN(body)
        if match is None:
            raise ValueError("the request names no plan")
        events, burst, gap_s, first_s, stamped = match.groups()
        return cls(int(events), int(burst), float(gap_s), float(first_s), stamped == b"1")

    def payload(self) -> bytes:
        """The event stream a client gets, its stamps set to 0: usage, for which it did not ask, is not in it."""
        if self.stamped:
            return ROLE + (STAMPED % NEVER) * self.events + FINISH + DONE
        content = [CONTENT[n % len(CONTENT)] for n in range(self.events)]
        return b"".join([ROLE, *content, FINISH, DONE])


def unstamped(payload: bytes) -> bytes:
    """What came, with its stamps set to 0."""
    return _unstamped(b'"content":" @%b"' % NEVER, payload)


def _history(prompt_bytes: int) -> list[dict[str, str]]:
    """Turns of an agent that reads files: prose and code, about so many bytes in all."""
    turn = "".join(WORDS) * 20 + 'def f(x):\n    return {"y": x}\n'
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": turn} for n in range(prompt_bytes // len(json.dumps(turn)))]


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    return (
        b"data: "
        + json.dumps({**_CHUNK, "choices": choices, **more}, ensure_ascii=False, separators=(",", ":")).encode()
        + b"\n\n"
    )


def _choice(delta: dict[str, object], reason: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ROLE = _event([_choice({"role": "assistant", "content": ""})])
CONTENT = [_event([_choice({"content": word})]) for word in WORDS]
STAMPED = _event([_choice({"content": " @STAMP"})]).replace(b"%", b"%%").replace(b"STAMP", b"%b")
FINISH = _event([_choice({}, "stop")])
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"

ANSWER = json.dumps(
    {
        **_CHUNK,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "About ninety kilometres."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": ANSWER_TOKENS,
            "total_tokens": INPUT_TOKENS + ANSWER_TOKENS,
        },
    },
    separators=(",", ":"),
).encode()
ANSWER_RESPONSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
)


def usage(events: int) -> bytes:
    """The event with the counts, sent if the request asked for it."""
    counts = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": events, "total_tokens": INPUT_TOKENS + events}
    return _event([], usage=counts)


def dechunked(data: bytes) -> bytes:
    """The payload of a whole chunked body. ValueError if it is not whole."""
    pieces = []
    at = 0
    while True:
        line_end = data.index(b"\r\n", at)
        size = int(data[at:line_end], 16)
        at = line_end + 2
        pieces.append(data[at : at + size])
        if data[at + size : at + size + 2] != b"\r\n":
            raise ValueError("a chunk does not end where its size says")
        at += size + 2
        if size == 0:
            break
    if at != len(data):
        raise ValueError("something follows the last chunk")
    return b"".join(pieces)
