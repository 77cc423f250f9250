"""The backends as this worker reaches them: a pool and a ready-made request head per backend.

What does not depend on the request (credential, authority, path prefix, the head of a probe) is worked out when the
configuration is installed. Request fields never choose a host.
"""

from collections.abc import Iterable

from gateway.config import BackendSettings, Limits
from gateway.upstream.pool import Origin, Pool
from gateway.wire.http1 import RequestHead
from gateway.wire.http1_encode import encode_request_head, request_start, sendable
from gateway.wire.openai import BackendUsage

# What a client's request tells a backend besides its body. Everything else stays here.
FORWARDED = frozenset(
    (
        b"accept",
        b"user-agent",
        b"traceparent",
        b"tracestate",
        b"anthropic-version",
        b"anthropic-beta",
        b"openai-beta",
    )
)


_USAGE: dict[str, BackendUsage] = {"final": "final", "continuous": "continuous", "none": "none"}


class Upstream:
    """One backend: where it is and how to speak to it."""

    def __init__(self, settings: BackendSettings, limits: Limits) -> None:
        self.settings = settings
        self._limits = _of_pool(limits)
        self.usage: BackendUsage = _USAGE[settings.usage]
        ca_file = str(settings.ca_file) if settings.ca_file is not None else ""
        origin = Origin.of(settings.url, ca_file)
        connect_s, head_bytes_max, spares = self._limits
        self.pool = Pool(origin, connect_s=connect_s, head_bytes_max=head_bytes_max, spares=spares)
        self._authority = origin.authority
        self._base_path = origin.base_path
        credential = settings.credential()
        # What a backend's error text may not carry to a client.
        self.hidden_words = tuple({origin.host, origin.authority, settings.url, settings.api_key} - {""})
        self._starts: dict[str, bytes] = {}  # of forwarded requests' heads, by endpoint: there are a few
        self._fixed = [("accept-encoding", "identity"), *([credential] if credential is not None else [])]

    def is_same(self, settings: BackendSettings, limits: Limits) -> bool:
        """Whether this is that backend, reached under those limits: its warm connections may stay."""
        return self.settings == settings and self._limits == _of_pool(limits)

    def request_head(self, path: str, client: RequestHead, request_id: str, body_bytes: int) -> bytes:
        """The head of a forwarded request. `path` is the endpoint's, below the backend's base path."""
        start = self._starts.get(path)
        if start is None:
            fields = [("content-type", "application/json"), *self._fixed]
            start = request_start("POST", self._base_path + path, self._authority, fields)
            self._starts[path] = start
        told = b"x-request-id: %b\r\n" % sendable(request_id) if request_id else b""
        return b"%b%b%bcontent-length: %d\r\n\r\n" % (start, client.lines_of(FORWARDED), told, body_bytes)

    def probe_head(self) -> bytes:
        """A cheap question that a serving backend answers with 200, credentials included."""
        return encode_request_head("GET", self._base_path + "/models", self._authority, self._fixed)


def _of_pool(limits: Limits) -> tuple[float, int, int]:
    return limits.connect_s, limits.upstream_head_bytes_max, limits.spare_connections


class Backends:
    """All backends of the configuration in force."""

    def __init__(self) -> None:
        self._upstreams: dict[str, Upstream] = {}

    def install(self, backends: Iterable[BackendSettings], limits: Limits) -> None:
        """Swap whole. Backends that did not change keep their warm connections; streams on removed ones finish."""
        old, new = self._upstreams, {}
        for settings in backends:
            kept = old.get(settings.name)
            stays = kept is not None and kept.is_same(settings, limits)
            new[settings.name] = kept if kept is not None and stays else Upstream(settings, limits)
        for name, upstream in old.items():
            if new.get(name) is not upstream:
                upstream.pool.close()
        self._upstreams = new

    def __getitem__(self, name: str) -> Upstream:
        return self._upstreams[name]

    def get(self, name: str) -> Upstream | None:
        return self._upstreams.get(name)

    def sweep(self, now: float) -> None:
        for upstream in self._upstreams.values():
            upstream.pool.sweep(now)

    def close(self) -> None:
        for upstream in self._upstreams.values():
            upstream.pool.close()
