"""Who is asking, and whether there is room: key -> tenant -> permit.

Keys are known by the SHA-256 of their bytes alone. A presented key is hashed, looked up and compared in constant time;
a wrong, missing, malformed or revoked key gets one and the same answer, before the body is read.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.config import TenantSettings
from gateway.edge.metering import Budget, Meter, Permit
from gateway.errors import ApiError
from gateway.wire.http1 import RequestHead

# Longer than any key in use; hashing is bounded by it.
KEY_BYTES_MAX = 512


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated caller: its tenant, and which of the tenant's keys it used (never the key itself)."""

    tenant: TenantSettings
    key_digest: bytes
    key_id: str
    meter: Meter


class Admission:
    """The tenants of one configuration and their live meters."""

    def __init__(self, tenants: Iterable[TenantSettings], used: Mapping[str, int]) -> None:
        self._clients: dict[bytes, Client] = {}
        self._meters: dict[str, Meter] = {}
        self.install(tenants, used)

    def install(self, tenants: Iterable[TenantSettings], used: Mapping[str, int]) -> None:
        """Swap the configured tenants whole; what was used lives on.

        `used` is what the ledger says of each tenant's current period: where a budget begins that was not there before.
        """
        old = self._meters
        meters: dict[str, Meter] = {}
        clients: dict[bytes, Client] = {}
        for tenant in tenants:
            meter = _meter(tenant, used.get(tenant.name, 0))
            if tenant.name in old:
                old[tenant.name].adopt(meter)
                meter = old[tenant.name]
            meters[tenant.name] = meter
            for key_hash in tenant.key_hashes:
                digest = bytes.fromhex(key_hash)
                clients[digest] = Client(tenant, digest, key_hash[:12], meter)
        self._meters, self._clients = meters, clients

    def authenticate(self, head: RequestHead) -> Client:
        """The caller of a request.

        Raises:
            ApiError: 401, the same for every cause.
        """
        key = _presented_key(head)
        if key is not None:
            digest = hashlib.sha256(key).digest()
            client = self._clients.get(digest)
            if client is not None and hmac.compare_digest(digest, client.key_digest):
                return client
        raise ApiError(
            401,
            "The API key is missing or not valid here. Send it as `Authorization: Bearer <key>`.",
            type="authentication_error",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )

    def admit(self, client: Client, tokens: int, now: float, wall_s: float) -> Permit:
        """Reserve room for one request of about `tokens` tokens, or raise `Refused`."""
        return client.meter.admit(tokens, now, wall_s)

    def usage(self) -> Mapping[str, Meter]:
        """The live meters by tenant, for status."""
        return self._meters


def _meter(tenant: TenantSettings, used: int) -> Meter:
    limits, budget = tenant.limits, None
    if tenant.budget is not None:
        budget = Budget(tenant.budget.tokens, tenant.budget.period, used)
    return Meter(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        streams=limits.streams,
        budget=budget,
    )


def _presented_key(head: RequestHead) -> bytes | None:
    """The key a request carries, as `Authorization: Bearer` or `x-api-key`; both at once are no key."""
    authorization, api_key = head.get(b"authorization"), head.get(b"x-api-key")
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        if api_key is not None or scheme.lower() != b"bearer":
            return None
        key = key.strip()
    else:
        key = api_key or b""
    return key if 0 < len(key) <= KEY_BYTES_MAX else None
