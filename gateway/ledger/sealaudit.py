"""The seals' part of the audit: is a sealed segment what its seal says, and is the seal one of ours?

By its seal a segment is checked at the speed of SHA-256, without unpacking: the compressed file has the hash that was
signed, and what it holds was checked before it was sealed. Only a file that is not as it was is unpacked, to see where.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

from gateway.ledger.frames import FrameDamaged, FrameFile
from gateway.ledger.seals import Seal
from gateway.ledger.segment import Line
from gateway.ledger.segmentfile import SegmentFile

_HASHED_BYTES = 1024 * 1024  # read at a time

Advance = Callable[[int], None]  # told how many bytes more are done


class SealKeys:
    """Whose seals are believed: those of the keys that were given; without any, those of one key, whichever it is."""

    def __init__(self, given: Sequence[str]) -> None:
        self.given = tuple(given)
        self.trusted = ""  # the key of the first seal, if none was given

    def problem(self, seal: Seal) -> str:
        """What is wrong with who signed a seal; empty if nothing."""
        if not seal.signed_by(seal.public_key):
            return "is not signed by the key it names"
        if self.given:
            return "" if seal.public_key in self.given else f"is signed by another key, {seal.public_key}"
        self.trusted = self.trusted or seal.public_key
        return "" if seal.public_key == self.trusted else f"is signed by another key than the others, {seal.public_key}"


def file_hash(path: Path, advance: Advance) -> str:
    """SHA-256 of a file. Raises FileNotFoundError."""
    digest = sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(_HASHED_BYTES):
            digest.update(data)
            advance(len(data))
    return digest.hexdigest()


def in_frame(seal: Seal | None, frame: int) -> str:
    """Which lines of the segment a frame has, if that is known."""
    if seal is None or not 0 < frame <= len(seal.frames):
        return f"frame {frame}"
    before = sum(each.lines for each in seal.frames[: frame - 1])
    return f"frame {frame} (lines {before + 1} to {before + seal.frames[frame - 1].lines})"


def changed_frames(file: FrameFile, seal: Seal) -> list[int]:
    """The frames, from 1, whose bytes are not those that were sealed. Of a file of another length the first one: what
    is behind it lies elsewhere."""
    changed: list[int] = []
    offset = 0
    for number, frame in enumerate(seal.frames, 1):
        data = file.stored(offset, frame.sealed_bytes)
        offset += frame.sealed_bytes
        if crc32(data) != frame.crc32:
            changed.append(number)
    if file.sealed_bytes != seal.sealed_bytes:
        return changed[:1] or [len(seal.frames) + 1]
    return changed


def unpacked_lines(file: FrameFile, seal: Seal | None, segment: int) -> Iterator[list[Line] | FrameDamaged]:
    """The lines of each frame, or why it does not unpack. Lines behind such a frame have their right numbers as far as
    its seal says how many were in it."""
    number = offset = 0
    known = seal.frames if seal is not None and len(seal.frames) == len(file.frames) else file.frames
    for index, frame in enumerate(file.frames):
        try:
            data = file.unpack(index)
        except FrameDamaged as damage:
            yield damage
        else:
            lines: list[Line] = []
            pieces = data.split(b"\n")
            rest = pieces.pop()
            at = offset
            for count, piece in enumerate(pieces, 1):
                lines.append(Line(segment, number + count, at, piece, True))
                at += len(piece) + 1
            if rest:
                lines.append(Line(segment, number + len(lines) + 1, at, rest, False))
            yield lines
            if not known[index].lines:
                number += len(lines)
        number += known[index].lines
        offset += frame.plain_bytes
    if file.problem is not None:
        yield file.problem


def first_difference(file: FrameFile, seal: Seal, plain: SegmentFile) -> int:
    """The first line in which a plain file differs from the compressed one; 0 if that cannot be said."""
    lines = plain.lines()
    number = 0
    for part in unpacked_lines(file, seal, seal.segment):
        if isinstance(part, FrameDamaged):
            return 0
        for sealed in part:
            number = sealed.number
            line = next(lines, None)
            if line is None or (line.data, line.whole) != (sealed.data, sealed.whole):
                return number
    return number + 1 if next(lines, None) is not None else 0


def differing(seal: Seal, members: Mapping[str, Any]) -> list[str]:
    """What a seal says otherwise than the segment it is for."""
    return [name for name, value in members.items() if getattr(seal, name) != value]
