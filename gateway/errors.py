"""What can go wrong, as nouns with consequences.

Two families that never mix:

`UpstreamError` is a backend's failure as the gateway sees it. Its class says which kind it is (`routing.retry` knows
which kinds may be tried on another route), whether the backend is to blame, and which outcome the ledger records; no
handler compares status codes.

`ApiError` is what a caller is told. It carries the HTTP status and the fields of the error body; the dialect's codec
renders it. `Refused` is an `ApiError` that the ledger counts (per minute, tenant and reason).
"""

from collections.abc import Mapping
from typing import ClassVar


class UpstreamError(Exception):
    """A backend failed.

    cause    the kind of failure, one of `routing.retry`'s; the word used in attempts, metrics and logs
    blame    the backend's health record takes a failure
    outcome  what the ledger row says if this failure ends the request after content was delivered
    give_up  status the caller gets if no route is left: 502 broken, 503 saturated, 504 too slow
    """

    cause: ClassVar[str] = "reset"
    blame: ClassVar[bool] = True
    outcome: ClassVar[str] = "upstream_cut"
    give_up: ClassVar[int] = 502


class ConnectFailed(UpstreamError):
    """No connection: refused, unreachable, name not found, TLS not verified."""

    cause = "connect"


class ConnectTimeout(ConnectFailed):
    """No connection within `connect_s`."""

    give_up = 504


class StaleConnection(UpstreamError):
    """A reused connection was closed before a byte of the answer: the commonest fault of healthy servers."""

    cause = "reset"
    blame = False


class UpstreamReset(UpstreamError):
    """The connection ended before a response head."""

    cause = "reset"


class UpstreamCut(UpstreamError):
    """The connection ended before the answer was whole."""

    cause = "cut"


class UpstreamStall(UpstreamError):
    """Silence between two events for longer than `gap_s`."""

    cause = "stall"
    outcome = "upstream_stall"
    give_up = 504


class FirstContentTimeout(UpstreamStall):
    """No content event within `first_content_s`."""

    cause = "late"


class StreamDeadline(UpstreamStall):
    """The whole answer took longer than `stream_s`."""

    cause = "deadline"


class UpstreamBadHead(UpstreamError):
    """No HTTP response, or one beyond our bounds."""

    cause = "bad_head"
    outcome = "upstream_malformed"


class UpstreamMalformed(UpstreamError):
    """A body that breaks its framing, or too many unparsable events."""

    cause = "malformed"
    outcome = "upstream_malformed"


class UpstreamErrorEvent(UpstreamError):
    """The backend said `error` inside its stream."""

    cause = "error_event"
    outcome = "upstream_error"


class UpstreamStatus(UpstreamError):
    """A status other than 200. Subclasses say what the status means for the route."""

    def __init__(self, status: int, body: bytes = b"", retry_after_s: float | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s


class RequestRejected(UpstreamStatus):
    """400, 404, 413, 422: this request is wrong everywhere; the backend did its job."""

    cause = "rejected"
    blame = False


class CredentialsRejected(UpstreamStatus):
    """401, 402, 403: our key or account at this backend does not work; it leaves service until that is mended."""

    cause = "credentials"


class BackendSaturated(UpstreamStatus):
    """429, 503, 529: it is full. It cools off; that is not a fault of health."""

    cause = "saturated"
    blame = False
    give_up = 503


class BackendTimeout(UpstreamStatus):
    """408, 425, 504."""

    cause = "status"
    give_up = 504


class Redirected(UpstreamStatus):
    """3xx: never followed."""

    cause = "redirect"


class BackendBroken(UpstreamStatus):
    """500, 502 and every status nobody expects."""

    cause = "status"


_STATUS_CLASSES: dict[int, type[UpstreamStatus]] = {
    **dict.fromkeys((400, 404, 413, 422), RequestRejected),
    **dict.fromkeys((401, 402, 403), CredentialsRejected),
    **dict.fromkeys((429, 503, 529), BackendSaturated),
    **dict.fromkeys((408, 425, 504), BackendTimeout),
}


def from_status(status: int, body: bytes, retry_after_s: float | None) -> UpstreamStatus:
    """The failure that a backend's status other than 200 stands for."""
    default = Redirected if 300 <= status < 400 else BackendBroken
    return _STATUS_CLASSES.get(status, default)(status, body, retry_after_s)


class ApiError(Exception):
    """What a caller is told instead of an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


class Refused(ApiError):
    """An answer of the port's own rules: limit, budget, residency, overload. Counted per minute and reason."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        should_retry: bool = True,
        type: str | None = None,
        param: str | None = None,
    ) -> None:
        type = type or ("server_error" if status >= 500 else "invalid_request_error")
        headers: dict[str, str] = {}
        if retry_after_s is not None:
            headers["retry-after"] = str(retry_after_s)
        if not should_retry:
            headers["x-should-retry"] = "false"
        super().__init__(status, message, type=type, code=reason, param=param, headers=headers)
        self.reason = reason
