"""Who is asking, and whether there is room: key -> tenant -> permit.

Keys are known by the SHA-256 of their bytes alone. A presented key is hashed, looked up and compared in constant time;
a wrong, missing, malformed or revoked key gets one and the same answer, before the body is read.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.config import TenantSettings
from gateway.edge.metering import Meter, Permit, Spent
from gateway.errors import ApiError
from gateway.ledger.cells import Cells
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

    def __init__(self, tenants: Iterable[TenantSettings], cells: Cells, log: int, now: float) -> None:
        """`log` is this worker's, by which the ledger knows what it used."""
        self._cells = cells
        self._log = log
        self._clients: dict[bytes, Client] = {}
        self._meters: dict[str, Meter] = {}
        self._drawing: set[Meter] = set()  # on limits, since the last sweep or two
        self._leaving: dict[str, Meter] = {}  # of tenants that a reload took away, with requests under way
        # Budgets begin with what the ledger says, which is not known before this worker's log is recovered.
        self._install(tenants, now)

    def install(self, tenants: Iterable[TenantSettings], spent: Spent, now: float) -> None:
        """Swap the configured tenants whole; what was used lives on.

        A budget that was not there before begins with what the ledger says of it.
        """
        for name in self._install(tenants, now):
            self._begin(name, spent)

    def begin(self, spent: Spent) -> None:
        """The log is recovered, and nothing is under way yet: this is what was used."""
        for name in self._meters:
            self._begin(name, spent)

    def _install(self, tenants: Iterable[TenantSettings], now: float) -> list[str]:
        """Returns the tenants whose budgets are new."""
        old, new, begun = self._meters | self._leaving, dict[str, Meter](), list[str]()
        clients: dict[bytes, Client] = {}
        for tenant in tenants:
            name = tenant.name
            meter = new[name] = old.pop(name) if name in old else Meter(self._cells, name, self._drawing)
            if meter.install(tenant.limits, tenant.budget, now):
                begun.append(name)
            for key_hash in tenant.key_hashes:
                digest = bytes.fromhex(key_hash)
                clients[digest] = Client(tenant, digest, key_hash[:12], meter)
        self._meters, self._clients, self._leaving = new, clients, old
        return begun

    def _begin(self, name: str, spent: Spent) -> None:
        budget = self._meters[name].budget
        if budget is not None:
            budget.begin(spent.wall_s, *spent.of(name, self._log))

    def sweep(self, now: float) -> None:
        """Give back what was drawn on limits and lies idle, and the rows of tenants that are gone."""
        for meter in [meter for meter in self._drawing if not meter.rest()]:
            self._drawing.discard(meter)
        for name in [name for name, meter in self._leaving.items() if not meter.streams]:
            del self._leaving[name]
            self._cells.release("tenant", name)

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

    def elsewhere(self) -> dict[str, int]:
        """Requests that tenants have under way in other workers; those with none left out."""
        counts = {name: meter.streams_elsewhere() for name, meter in self._meters.items()}
        return {name: count for name, count in counts.items() if count}

    def usage(self) -> Mapping[str, Meter]:
        """The live meters by tenant, for status."""
        return self._meters


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
