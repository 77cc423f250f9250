"""Ways to cut bytes into reads."""

from collections.abc import Iterator

from hypothesis import strategies as st


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def in_two(data: bytes, step: int = 1) -> Iterator[list[bytes]]:
    """Every way to cut the bytes into two reads (or every `step`-th, for long ones)."""
    return ([data[:at], data[at:]] for at in range(0, len(data) + 1, step))


def reads(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Cut anywhere, in any number of places."""
    cuts = st.lists(st.integers(0, len(data)), max_size=8).map(sorted)
    return cuts.map(
        lambda places: [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]
    )
