"""Where an answer goes: the destination country, and how it is known.

In order: what the tenant's contract declares; a header from a trusted proxy that knows better; the client's address in
the country database; unknown. Forwarding headers count only from trusted peers: walking `X-Forwarded-For` from its
right end, the first address that is no trusted proxy is the client. The database gives the country an address block is
registered in, which is not always where the client sits; the method column says which of the four it was.
"""

from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import NamedTuple

import geoip2.database
import geoip2.errors

from gateway.wire.http1 import RequestHead

Network = IPv4Network | IPv6Network

# Addresses whose country is remembered: a look-up in the database costs several microseconds, a dictionary none.
REMEMBERED_MAX = 16_384


class Destination(NamedTuple):
    """Country as ISO 3166 alpha-2, "" where unknown; method as the export column `destination_method`."""

    country: str
    method: str


UNKNOWN = Destination("", "unknown")


class Locator:
    """Finds destinations. Holds the open country database."""

    def __init__(self, database: Path, trusted_proxies: Iterable[Network] = (), destination_header: str = "") -> None:
        self._reader = geoip2.database.Reader(database)
        self._trusted: tuple[Network, ...] = tuple(trusted_proxies)
        self._header = destination_header.lower().encode()
        self._remembered: OrderedDict[str, str] = OrderedDict()
        self._trusts: OrderedDict[str, bool] = OrderedDict()

    def locate(self, peer: str, head: RequestHead, declared: str) -> Destination:
        """The destination of a request from `peer` (an address, "" if none)."""
        if declared:
            return Destination(declared, "contract")
        trusted = bool(self._trusted) and self._is_trusted(peer)
        if trusted and self._header:
            told = (head.get(self._header) or b"").decode("latin-1").strip().upper()
            if len(told) == 2 and told.isalpha() and told.isascii():
                return Destination(told, "header")
        country = self._country(self._client(peer, head) if trusted else peer)
        return Destination(country, "address") if country else UNKNOWN

    def close(self) -> None:
        self._reader.close()

    def _client(self, peer: str, head: RequestHead) -> str:
        fields = [value for name, value in head.headers if name == b"x-forwarded-for"]
        if not fields:
            return peer
        told = b",".join(fields).decode("latin-1").split(",")
        hops = [hop.strip().removeprefix("::ffff:") for hop in told if hop.strip()]
        for hop in reversed(hops):
            if not self._is_trusted(hop):
                return hop
        return hops[0] if hops else peer

    def _is_trusted(self, address: str) -> bool:
        known = self._trusts.get(address)
        if known is None:
            known = self._trusts[address] = self._belongs(address)
            if len(self._trusts) > REMEMBERED_MAX:
                self._trusts.popitem(last=False)
        return known

    def _belongs(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def _country(self, address: str) -> str:
        remembered = self._remembered.get(address)
        if remembered is not None:
            return remembered
        try:
            country = self._reader.country(address).country.iso_code or ""
        except (geoip2.errors.AddressNotFoundError, ValueError):
            country = ""
        self._remembered[address] = country
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return country
