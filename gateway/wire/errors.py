"""What a codec says about bytes it will not take.

A framing error leaves no trustworthy position in the byte stream, so whoever catches one from a head or a chunk
closes that connection. A BadRequest about the content of a body (bad JSON, a wrong type) leaves the framing whole; the
caller knows which codec it called.
"""


class FramingError(ValueError):
    """Bytes that break the protocol, from either side. `reason` never quotes them: it is safe to log and to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadRequest(FramingError):
    """The client's fault: `status` is what it is told, `param` names the member of the body that is wrong."""

    def __init__(self, status: int, reason: str, param: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.param = param


class BadResponse(FramingError):
    """The backend's fault."""


class EventTooLarge(FramingError):
    """One event of a backend's stream is larger than any we will hold."""
