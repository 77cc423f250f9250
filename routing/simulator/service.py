"""A site at work: first come first served on its slots, and what its prefix cache still holds.

    start  = max(sent, first moment a slot is free)
    hold   = thin x ((prompt - hit) / prefill rate + output x ITL)
    hit    = 512 x leading blocks of the row that are in the cache now, at most the prompt less one token

The cache is an LRU of block ids. In the order of service a row first counts its hits and then touches its blocks from
the last to the first, so that the first ends most recent; the least recent go. The next row sees them, finished or
not. Rows must therefore be given in the order (time sent, request id); the replay and the costs both do, and this is
the only place where a row's time is worked out.
"""

import heapq
from collections import OrderedDict
from typing import Final, NamedTuple

from routing.simulator.world import Request, Site

BLOCK_TOKENS: Final = 512


class Served(NamedTuple):
    start_s: float
    hold_s: float
    hit_tokens: int

    @property
    def end_s(self) -> float:
        return self.start_s + self.hold_s


class Service:
    """One site. Its state is the moments its slots become free, and the cache."""

    def __init__(self, site: Site, thin: float) -> None:
        self._site = site
        self._thin = thin
        self._free_at: list[float] = []  # heap; a slot that was never used is not in it
        self._cache: OrderedDict[int, None] = OrderedDict()

    def serve(self, request: Request, sent_s: float) -> Served:
        site = self._site
        start_s = sent_s
        if len(self._free_at) == site.slots:
            start_s = max(sent_s, heapq.heappop(self._free_at))
        hit_tokens = self._hit(request) if site.cache_blocks and request.prefix_blocks else 0
        prefill_s = (request.prompt_tokens - hit_tokens) / site.prefill_tokens_per_s
        hold_s = self._thin * (prefill_s + request.output_tokens * site.itl_s)
        heapq.heappush(self._free_at, start_s + hold_s)
        return Served(start_s, hold_s, hit_tokens)

    def _hit(self, request: Request) -> int:
        cache, blocks = self._cache, request.prefix_blocks
        hits = next((number for number, block in enumerate(blocks) if block not in cache), len(blocks))
        for block in reversed(blocks):
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > self._site.cache_blocks:
            cache.popitem(last=False)
        return min(BLOCK_TOKENS * hits, request.prompt_tokens - 1)
