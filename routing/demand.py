"""Demand: what one request needs of a backend. Sizes, destination, residency, value of time; nothing of HTTP."""

from typing import NamedTuple


class Demand(NamedTuple):
    model: str  # its public name
    tenant: str
    input_tokens: int  # estimated
    output_tokens: float  # expected, all choices together
    request_bytes: int  # head and body as they go to the backend
    max_tokens: int | None = None
    destination: str = ""  # country; "": unknown
    deny_origins: frozenset[str] = (
        frozenset()
    )  # the tenant's residency rule: countries that may neither serve nor carry
    value_per_second: float = 0.0  # the tenant's, in the gateway's currency
    dialect: str = "openai"
    stream: bool = True
    choices: int = 1
