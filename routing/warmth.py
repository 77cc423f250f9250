"""What of a prompt is still in the prefix caches of the backends: a bounded model of each, made of what was sent there.

A prompt is a row of blocks, each named by a number that stands for it and for all before it, so equal numbers are equal
prefixes and nothing of the text is kept. Servers drop what was used least recently, so the model is an LRU of the same
size. Only the leading blocks count: a cache serves a prefix without a hole.

    expected hit = leading blocks that are there x tokens of a block x ratio,  less than the prompt

The ratio is what backends report as cached over what was expected of them: a cache that is smaller than configured,
shared with others, or not there at all, is soon believed no more than it delivers.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

BLOCK_TOKENS: Final = 512
# A report counts for what is left of it after so many expected tokens more: some dozen long prompts.
MEMORY_TOKENS: Final = 200_000.0
NOTHING_WARM: Final[Mapping[str, float]] = MappingProxyType({})


class Warmth:
    """One backend's cache."""

    __slots__ = ("_blocks", "_expected", "_reported", "blocks_max", "ratio")

    def __init__(self, blocks_max: int) -> None:
        self.blocks_max = blocks_max
        self._blocks: OrderedDict[int, None] = OrderedDict()
        # Believed at first, on the strength of a few prompts.
        self._expected = self._reported = MEMORY_TOKENS / 8
        self.ratio = 1.0

    def __len__(self) -> int:
        return len(self._blocks)

    def leading(self, blocks: Sequence[int]) -> int:
        """How many of the first blocks are there."""
        known, count = self._blocks, 0
        for block in blocks:
            if block not in known:
                break
            count += 1
        return count

    def touch(self, blocks: Sequence[int]) -> None:
        """A prompt was served. Its beginning is worth most, so it is the last to go."""
        known = self._blocks
        for block in reversed(blocks):
            known[block] = None
            known.move_to_end(block)
        while len(known) > self.blocks_max:
            known.popitem(last=False)

    def reported(self, cached_tokens: float, expected_tokens: float) -> None:
        """What a backend had in its cache of a prompt, and what the blocks that are known to be there would make of it.
        More than that came from elsewhere and says nothing about the model."""
        if expected_tokens <= 0.0:
            return
        kept = max(1.0 - expected_tokens / MEMORY_TOKENS, 0.0)
        self._expected = self._expected * kept + expected_tokens
        self._reported = self._reported * kept + min(cached_tokens, expected_tokens)
        self.ratio = self._reported / self._expected

    def resize(self, blocks_max: int) -> None:
        self.blocks_max = blocks_max
        while len(self._blocks) > blocks_max:
            self._blocks.popitem(last=False)


def expected_hits(
    caches: Mapping[str, Warmth], blocks: Sequence[int], block_tokens: float, input_tokens: int
) -> dict[str, float]:
    """By backend, where any are expected: tokens of a prompt that need not be computed there."""
    found = {}
    for name, cache in caches.items():
        count = cache.leading(blocks)
        if count:
            found[name] = min(count * block_tokens * cache.ratio, input_tokens - 1.0)
    return found
