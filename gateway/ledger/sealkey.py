"""The key that seals are signed with: `data_dir/seal.key`, Ed25519, PEM (PKCS 8), for its owner alone.

Made once, at the first start, and never written over: a file that exists is used or complained about. Its public half
is in every seal and is printed by `tokenport keys seal`; who keeps it elsewhere can check a copy of the ledger there.

Apart from `seals`: workers read sealed segments, sign nothing, and do without the 7 MB of cryptography.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.ledger.seals import SEAL_VERSION, Seal

KEY_NAME = "seal.key"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_KEY_HEX_CHARS = 64
_KEY_BYTES_MAX = 64 * 1024


class SealKeyError(Exception):
    """The key cannot be used; one line that says what to do."""


def load_key(data_dir: Path) -> Ed25519PrivateKey:
    """The key of a data directory.

    Raises:
        FileNotFoundError: there is none.
        SealKeyError: there is one, and it cannot be used.
    """
    path = data_dir / KEY_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SealKeyError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise SealKeyError(f"{path}: is not a file")
        if mode & _OTHERS:
            raise SealKeyError(f"{path}: others may use it (mode {stat.S_IMODE(mode):04o}); chmod 600 it")
        data = os.read(descriptor, _KEY_BYTES_MAX)
    finally:
        os.close(descriptor)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SealKeyError(f"{path}: is not an Ed25519 key without a password, as PEM; restore it from your backup")
    return key


def load_or_make_key(data_dir: Path) -> Ed25519PrivateKey:
    """The key of a data directory, made now if there is none.

    Raises:
        SealKeyError: there is one, and it cannot be used, or none can be made.
    """
    try:
        return load_key(data_dir)
    except FileNotFoundError:
        pass
    try:
        _make(data_dir)
    except OSError as error:
        raise SealKeyError(f"{data_dir / KEY_NAME}: cannot be made: {error.strerror}") from None
    return load_key(data_dir)


def _make(data_dir: Path) -> None:
    """Whole or not at all, and never in place of another one: a link fails where a name is taken."""
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fresh = data_dir / f"{KEY_NAME}.{os.getpid()}.new"
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):  # another process was first: its key is the key
            os.link(fresh, data_dir / KEY_NAME)
    finally:
        fresh.unlink()
    directory = os.open(data_dir, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half, as seals have it."""
    return key.public_key().public_bytes_raw().hex()


def parse_public_key(text: str) -> str:
    """A public key given as 64 hex digits, or as a file that holds them or PEM; as seals have it.

    Raises:
        SealKeyError: it is neither.
    """
    found = _hex_key(text)
    if found:
        return found
    try:
        with Path(text).open("rb") as file:
            data = file.read(_KEY_BYTES_MAX)
    except (OSError, ValueError):
        raise SealKeyError(
            f"{text}: give a public key as {_KEY_HEX_CHARS} hex digits, or a file that holds it"
        ) from None
    found = _hex_key(data.decode("ascii", "replace"))
    if found:
        return found
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SealKeyError(f"{text}: holds no Ed25519 public key, neither as {_KEY_HEX_CHARS} hex digits nor as PEM")
    return key.public_bytes_raw().hex()


def _hex_key(text: str) -> str:
    text = text.strip().lower()
    sound = len(text) == _KEY_HEX_CHARS and all(char in "0123456789abcdef" for char in text)
    return text if sound else ""


# ---- signatures


def sign(members: Mapping[str, Any], key: Ed25519PrivateKey) -> Seal:
    """The seal of these members, which are all but version, public_key and signature."""
    public_key = public_hex(key)
    unsigned = Seal(version=SEAL_VERSION, public_key=public_key, signature="", **members)
    signature = key.sign(unsigned.encoded(signed=False)).hex()
    return Seal(version=SEAL_VERSION, public_key=public_key, signature=signature, **members)
