"""How the bytes of a fuzzer become a case, and how cases are kept.

    options  one byte: whatever a harness chooses by
    cuts     one byte: how many, up to seven
    sizes    one byte each: the sizes of the first reads; what is left comes in a last one
    whole    what the parser reads

So one input says both what is read and in which pieces, and a mutation of either is a small change.

Kept cases are lines of `corpus/NAME.txt`: a Python bytes literal each, so that they can be read and reviewed; a line
that begins with `#` says what the next ones were.
"""

import ast
from pathlib import Path
from typing import NamedTuple

CORPUS = Path(__file__).parent / "corpus"
CUTS_MAX = 7


class Case(NamedTuple):
    """An input taken apart."""

    options: int
    reads: list[bytes]
    whole: bytes


def case_of(data: bytes) -> Case:
    """Every sequence of bytes is a case."""
    options, count = (data[0] if data else 0), (data[1] % (CUTS_MAX + 1) if len(data) > 1 else 0)
    sizes, whole = data[2 : 2 + count], data[2 + count :]
    reads, at = [], 0
    for size in sizes:
        reads.append(whole[at : at + size + 1])
        at += size + 1
    reads.append(whole[at:])
    return Case(options, [read for read in reads if read], whole)


def input_of(whole: bytes, *, options: int = 0, sizes: bytes = b"") -> bytes:
    """The input that makes this case."""
    assert len(sizes) <= CUTS_MAX
    return bytes([options, len(sizes)]) + sizes + whole


def kept(name: str) -> list[bytes]:
    """The kept inputs of a harness."""
    lines = (CORPUS / f"{name}.txt").read_text("ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line.startswith(("b'", 'b"'))]
