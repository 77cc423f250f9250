"""Fresh prices: every feed is read when it is due, and a good batch becomes the curve in force.

A batch that is bad in any point is rejected whole and named in the log; the last good curve stays, ages, and is
finally dropped for what stands behind it (that is the price book's rule, not ours). Feeds are sans-I/O
(`pricing.feeds`); this is the only place that fetches them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.clock import wall
from gateway.config import FeedSettings, Settings
from gateway.config.build import FEED_BYTES_MAX, feed_curve, price_book, price_feed
from gateway.control.processes import StartupError
from pricing.book import PriceBook
from pricing.energy import PriceCurve

logger = logging.getLogger("tokenport.prices")

FETCH_TIMEOUT_S = 30.0


@dataclass(slots=True)
class FeedState:
    """How a feed is doing: shown on the page and in metrics."""

    fetched_at: float | None = None
    failed_at: float | None = None
    problem: str = ""


class Prices:
    """The feeds of one configuration and the price book they make."""

    def __init__(self, settings: Settings, changed: Callable[[], Awaitable[object]]) -> None:
        self._settings = settings
        self._changed = changed
        self._tasks: list[asyncio.Task[None]] = []
        self.curves: dict[str, PriceCurve] = {}
        self.feeds: dict[str, FeedState] = {}
        self.book: PriceBook

    async def start(self) -> None:
        """Read every feed once, then keep them fresh. A feed that fails at start is reported and tried again.

        Raises:
            StartupError: a feed cannot be read and nothing stands behind it.
        """
        self.feeds = {name: self.feeds.get(name, FeedState()) for name in self._settings.feeds}
        await asyncio.gather(*(self._refresh(feed) for feed in self._settings.feeds.values()))
        try:
            self.book = price_book(self._settings, self.curves)
        except ValueError as error:
            raise StartupError(f"feeds: {error}; give the feed a fallback or mend it") from None
        self._tasks = [asyncio.create_task(self._keep_fresh(feed)) for feed in self._settings.feeds.values()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def install(self, settings: Settings) -> None:
        """Take a new configuration: feeds that are gone are forgotten, new ones read before this returns."""
        await self.stop()
        self._settings = settings
        self.curves = {name: curve for name, curve in self.curves.items() if name in settings.feeds}
        await self.start()

    async def _keep_fresh(self, feed: FeedSettings) -> None:
        while True:
            await asyncio.sleep(feed.refresh_s)
            before = self.curves.get(feed.name)
            await self._refresh(feed)
            after = self.curves.get(feed.name)
            if after is not None and not _same_prices(before, after):
                try:
                    self.book = price_book(self._settings, self.curves)
                    await self._changed()
                except Exception:
                    logger.exception("new prices not taken", extra={"feed": feed.name})

    async def _refresh(self, feed: FeedSettings) -> None:
        state = self.feeds[feed.name]
        try:
            body = await _fetch(feed)
            self.curves[feed.name] = feed_curve(feed, body, wall())
        except (OSError, httpx.HTTPError, ValueError) as error:
            state.failed_at, state.problem = wall(), str(error)
            logger.error("feed not taken", extra={"feed": feed.name, "problem": str(error)})
            return
        state.fetched_at, state.problem = wall(), ""


async def _fetch(feed: FeedSettings) -> bytes:
    source = price_feed(feed).request()
    if feed.path is not None:
        return await asyncio.to_thread(Path(source).read_bytes)
    async with (
        httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, follow_redirects=False) as client,
        client.stream("GET", source) as response,
    ):
        response.raise_for_status()
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > FEED_BYTES_MAX:
                raise ValueError(f"answer larger than {FEED_BYTES_MAX} bytes")
        return bytes(body)


def _same_prices(old: PriceCurve | None, new: PriceCurve) -> bool:
    same: Mapping[str, object] = {} if old is None else {"starts": old.starts, "prices": old.prices}
    return same == {"starts": new.starts, "prices": new.prices}
