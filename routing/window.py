"""How many things happened in the last few seconds, in constant memory.

A ring of buckets, each a hundredth of the window long. The count covers the whole window and at most one bucket more,
so a rate limit built on it never lets more through than it says.
"""

BUCKETS = 100  # 100 ms for a window of 10 s: far below what a budget or an ejection can notice


class Window:
    """Counts events of the last `length_s` seconds. Time that runs backwards is taken to stand still."""

    __slots__ = ("_buckets", "_head", "_sum", "_width_s")

    def __init__(self, length_s: float) -> None:
        self._width_s = length_s / BUCKETS
        self._buckets = [0] * (BUCKETS + 1)
        self._head = 0  # number of the newest bucket since time zero
        self._sum = 0

    def add(self, now: float) -> None:
        number = int(now / self._width_s)
        if number > self._head:
            self._advance(number)
        self._buckets[self._head % (BUCKETS + 1)] += 1
        self._sum += 1

    def count(self, now: float) -> int:
        """Reading never writes: what has grown old is left out of the sum, not cleared."""
        behind = int(now / self._width_s) - self._head
        if behind <= 0 or self._sum == 0:
            return self._sum
        if behind > BUCKETS:
            return 0
        size = BUCKETS + 1
        return self._sum - sum(self._buckets[(self._head + k) % size] for k in range(1, behind + 1))

    def clear(self) -> None:
        self._buckets = [0] * (BUCKETS + 1)
        self._sum = 0

    def _advance(self, number: int) -> None:
        size = BUCKETS + 1
        if number - self._head > BUCKETS:
            self.clear()
        else:
            for k in range(self._head + 1, number + 1):
                self._sum -= self._buckets[k % size]
                self._buckets[k % size] = 0
        self._head = number
