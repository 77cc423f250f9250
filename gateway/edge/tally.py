"""Metrics of ended requests, summed up per kind of request and handed to the counters a few times a second.

A request that ends touches a dozen series under half a dozen label sets. Those of the same tenant, model, route and
outcome touch the same ones: their sums are kept in one small object, so that a request costs one look-up.
"""

from gateway.telemetry import ATTEMPTS, BYTES, REQUESTS, TOKENS, Counters

# Tenant, model, outcome, backend ("" if none served), origin and destination country, whether the attempt served.
Kind = tuple[str, str, str, str, str, str, bool]


class Sums:
    """Of the requests of one kind, since they were last told."""

    __slots__ = (
        "billed",
        "delivered",
        "from_backend",
        "from_client",
        "generated",
        "input",
        "requests",
        "to_backend",
        "to_client",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.input = 0
        self.generated = 0
        self.delivered = 0
        self.billed = 0
        self.from_client = 0
        self.to_client = 0
        self.to_backend = 0
        self.from_backend = 0


class Tally:
    """Belongs to the event loop's thread. Bounded by what can end between two sweeps."""

    __slots__ = ("_counters", "_kinds")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._kinds: dict[Kind, Sums] = {}

    def of(self, kind: Kind) -> Sums:
        """Where to add."""
        sums = self._kinds.get(kind)
        if sums is None:
            sums = self._kinds[kind] = Sums()
        return sums

    def sweep(self, now: float) -> None:
        self.tell()

    def tell(self) -> None:
        """Hand the sums to the counters."""
        kinds, self._kinds = self._kinds, {}
        for kind, sums in kinds.items():
            self._tell(kind, sums)

    def _tell(self, kind: Kind, sums: Sums) -> None:
        tenant, model, outcome, backend, origin, destination, served = kind
        counters = self._counters
        counters.add(REQUESTS, (tenant, model, outcome), sums.requests)
        if backend:
            counters.add(TOKENS, ("input", origin, destination), sums.input)
            counters.add(TOKENS, ("generated", origin, destination), sums.generated)
            counters.add(TOKENS, ("delivered", origin, destination), sums.delivered)
            counters.add(TOKENS, ("billed", origin, destination), sums.billed)
        if served:
            counters.add(ATTEMPTS, (backend, "served"), sums.requests)
        for direction in ("from_client", "to_client", "to_backend", "from_backend"):
            size = getattr(sums, direction)
            if size:
                counters.add(BYTES, (direction,), size)
