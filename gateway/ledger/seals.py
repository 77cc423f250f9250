"""Seals: what a closed segment held, signed, so that later nobody can say that it held something else.

    ledger/K/NNNNNN.jsonl.zst   the segment, compressed (`frames`)
    ledger/K/NNNNNN.seal        its seal: one JSON object, in canonical form, and a newline

Canonical: members in order of their names, no spaces, ASCII. The signature (Ed25519, `sealkey`) is over the canonical
form of all members but `signature`. So a seal has one spelling, and any other byte in its file is a finding.

Seals of a log are chained like its lines: `previous` is the SHA-256 of the seal before it (its file without the
newline), so a seal that is gone shows, with or without its segment. A segment that was found damaged has no seal, and
the chain passes over it. `follows`, `count_before` and `seq_before` say where the segment begins in the log, and
`last_hash` where it ends: two seals prove that nothing lies between them.

`sums` and `outcomes` are what its terminal records add up to, and `frames` has lines, plain bytes, compressed bytes and
CRC-32 of each frame of the compressed file: a change is located without unpacking.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from gateway.ledger.segment import NO_HASH, logs, sealed_path

SEAL_VERSION = 1

_SUFFIX = ".seal"
_HEX = re.compile("[0-9a-f]+")
_BYTES_MAX = 16 * 1024 * 1024  # a segment of 64 MiB has a seal of 4 KiB


class BadSeal(ValueError):
    """A file that is no seal, or not as it was written; says which and what."""


class Frame(NamedTuple):
    """A part of the compressed file that unpacks alone."""

    lines: int
    plain_bytes: int
    sealed_bytes: int
    crc32: int  # of the compressed bytes; only to find the frame that changed, the proof is the SHA-256 of the file


@dataclass(frozen=True, slots=True)
class Seal:
    """A manifest as it stands in its file. Hashes are SHA-256 in hex, moments RFC 3339."""

    version: int
    log: int
    segment: int
    count: int  # records, its first one included
    rows: int  # terminal records
    refused: int  # requests in its `refused` records
    follows: str  # hash of the line before its first; zeros at the beginning of a log
    count_before: int  # records of the log before it
    seq_before: int  # terminal records of the log before it
    first_hash: str  # of its first line
    last_hash: str  # of its last line
    plain_bytes: int
    plain_sha256: str
    sealed_bytes: int
    sealed_sha256: str  # of the compressed file
    frames: tuple[Frame, ...]
    first_ended_at: str  # the earliest and the latest end in it; "" without rows
    last_ended_at: str
    sums: Mapping[str, int]  # over its rows: exported_tokens and the columns that add up
    outcomes: Mapping[str, int]  # rows by outcome
    sealed_at: str
    previous: str  # hash of the log's seal before this one; zeros if there is none
    public_key: str  # 64 hex digits
    signature: str  # 128 hex digits

    @property
    def hash(self) -> str:
        """What the next seal of the log names as `previous`."""
        return sha256(self.encoded()).hexdigest()

    def encoded(self, *, signed: bool = True) -> bytes:
        """The canonical form: the bytes of its file, or (unsigned) what the signature is over."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        if not signed:
            del members["signature"]
        return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")

    def signed_by(self, public_key: str) -> bool:
        """Whether the signature is that of a key (64 hex digits)."""
        # Here, because workers read seals to find frames, check none, and do without 7 MB of cryptography.
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
            key.verify(bytes.fromhex(self.signature), self.encoded(signed=False))
        except (ValueError, InvalidSignature):
            return False
        return True


def seal_path(directory: Path, segment: int) -> Path:
    return directory / f"{segment:06d}{_SUFFIX}"


def seal_numbers(directory: Path) -> list[int]:
    """The segments of a log that have a seal, readable or not, in order."""
    stems = [path.stem for path in directory.glob(f"*{_SUFFIX}")]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def read_seal(directory: Path, segment: int) -> Seal:
    """The seal of a segment. Its signature is not checked.

    Raises:
        FileNotFoundError: it has none.
        BadSeal: the file is not one that was written so.
    """
    path = seal_path(directory, segment)
    with path.open("rb") as file:
        data = file.read(_BYTES_MAX)
    name = f"{directory.name}/{path.name}"
    try:
        seal = _decoded(json.loads(data))
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, BadSeal):
            raise BadSeal(f"{name} {error}") from None
        raise BadSeal(f"{name} is not readable") from None
    if data != seal.encoded() + b"\n":
        raise BadSeal(f"{name} is not as it was written")
    if str(seal.log) != directory.name or seal.segment != segment:
        raise BadSeal(f"{name} is the seal of {seal.log}/{seal.segment:06d}")
    return seal


def _decoded(members: Any) -> Seal:
    if not isinstance(members, dict):
        raise BadSeal("is not a JSON object")
    version = members.get("version")
    if isinstance(version, int) and version > SEAL_VERSION:
        raise BadSeal(f"is of version {version}, later than this software")
    wrong = [name for name, sound in _SOUND.items() if not sound(members.get(name))]
    if wrong:
        raise BadSeal(f"has no good {wrong[0]}")
    members["frames"] = tuple(Frame(*numbers) for numbers in members["frames"])
    return Seal(**members)


def _is_number(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_hex(value: object) -> bool:
    """Lower case only: a signature must have one spelling."""
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def _is_moment(value: object) -> bool:
    return isinstance(value, str)


def _are_sums(value: object) -> bool:
    return isinstance(value, dict) and all(type(number) is int for number in value.values())


def _are_frames(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, list) and all(map(_is_number, each)) for each in value)


_SOUND: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(
        ("version", "log", "segment", "count", "rows", "refused", "count_before", "seq_before"), _is_number
    ),
    **dict.fromkeys(("plain_bytes", "sealed_bytes"), _is_number),
    **dict.fromkeys(("follows", "first_hash", "last_hash", "plain_sha256", "sealed_sha256", "previous"), _is_hex),
    **dict.fromkeys(("public_key", "signature"), _is_hex),
    **dict.fromkeys(("first_ended_at", "last_ended_at", "sealed_at"), _is_moment),
    **dict.fromkeys(("sums", "outcomes"), _are_sums),
    "frames": _are_frames,
}


def read_seals(ledger: Path) -> list[Seal]:
    """All seals below a ledger directory, in order of log and segment. Signatures are not checked.

    Raises:
        BadSeal: one of them is not readable, and what rests on them would rest on nothing.
    """
    directories = [ledger / str(log) for log in logs(ledger)]
    return [read_seal(directory, segment) for directory in directories for segment in seal_numbers(directory)]


def sealed_segments(directory: Path) -> list[int]:
    """The segments of a log that are sealed and whole: a readable seal beside a compressed file of the size it names.
    Only these may ever be deleted."""
    found: list[int] = []
    for segment in seal_numbers(directory):
        try:
            size = sealed_path(directory, segment).stat().st_size
            seal = read_seal(directory, segment)
        except (BadSeal, OSError):
            continue
        if size == seal.sealed_bytes:
            found.append(segment)
    return found


def previous_hash(directory: Path, segment: int) -> str:
    """What the seal of a segment has to name as `previous`. Raises BadSeal if the seal before it is not readable."""
    before = [number for number in seal_numbers(directory) if number < segment]
    return read_seal(directory, before[-1]).hash if before else NO_HASH
