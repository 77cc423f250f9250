"""Price feeds: one file per feed, without input or output.

A feed says what to fetch and turns the bytes that came back into prices. Who fetches, how often and with what patience
is the gateway's business; what a price means is PriceCurve's, which also refuses a bad batch.
"""

from typing import Protocol


class PriceFeed(Protocol):
    def request(self) -> str:
        """The path or URL to fetch."""
        ...

    def parse(self, body: bytes) -> list[tuple[float, float]]:
        """(start in UTC epoch seconds, price per MWh) in the order of the source, or ValueError naming the place."""
        ...
