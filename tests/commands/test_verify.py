"""`tokenport verify` and `tokenport keys seal`: what they print, and what they say about what it rests on."""

import io
import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.commands.progress import Progress
from gateway.ledger.sealkey import load_key, load_or_make_key, public_hex
from gateway.ledger.segment import sealed_path, segment_path
from tests.ledger.sealing import seal_whole, write_small

from .test_commands import CONFIGURATION


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A sealed ledger, and a configuration beside it."""
    (tmp_path / "tokenport.toml").write_text(CONFIGURATION)
    write_small(tmp_path / "var")
    seal_whole(tmp_path / "var")
    return tmp_path / "var"


def config(data_dir: Path) -> list[str]:
    return ["--config", str(data_dir.parent / "tokenport.toml")]


def test_verify_prints_the_sums_and_says_whose_seals_it_believed(data_dir, capsys):
    assert main(["verify", *config(data_dir), "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["rows"] == 10
    assert "2 segments checked by their seals, 1 line by line" in printed.err
    assert f"they all name one key, {public_hex(load_key(data_dir))}; give --public-key" in printed.err


def test_verify_works_on_a_copied_ledger_directory_with_a_key(data_dir, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    (data_dir / "ledger").rename(moved)
    key = public_hex(load_key(data_dir))
    assert main(["verify", "--ledger", str(moved), "--public-key", key]) == 0
    assert "name one key" not in capsys.readouterr().err
    assert main(["verify", "--ledger", str(moved), "--public-key", "0" * 64, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found[0] == {"segment": "0/000001.seal", "line": 0, "problem": f"is signed by another key, {key}"}


def test_verify_of_what_is_no_ledger_or_no_key_says_so(data_dir, tmp_path, capsys):
    assert main(["verify", "--ledger", str(tmp_path / "nowhere")]) == 2
    assert "there is no ledger" in capsys.readouterr().err
    assert main(["verify", *config(data_dir), "--public-key", "abc"]) == 2
    assert "64 hex digits" in capsys.readouterr().err


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_verify_names_the_frame_that_does_not_unpack(data_dir, capsys, deep):
    path = sealed_path(data_dir / "ledger" / "0", 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["verify", *config(data_dir), *deep]) == 1
    printed = capsys.readouterr()
    assert "0/000001.jsonl.zst" in printed.out
    assert "frame 1 (lines 1 to " in printed.out
    assert "does not unpack" in printed.out


def test_verify_names_the_line_that_differs_in_a_plain_file_that_is_still_there(data_dir, capsys):
    directory = data_dir / "ledger" / "0"
    good = segment_path(directory, 3).read_bytes()
    segment_path(directory, 2).write_bytes(good)
    assert main(["verify", *config(data_dir), "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"segment": "0/000002.jsonl", "line": 1, "problem": "is not what was sealed"}
    ]


def test_keys_seal_prints_the_public_key_and_makes_none(data_dir, capsys):
    key = public_hex(load_key(data_dir))
    assert main(["keys", "seal", *config(data_dir)]) == 0
    assert capsys.readouterr().out == f"public_key\n{key}\n"
    assert main(["keys", "seal", *config(data_dir), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"public_key": key}]
    (data_dir / "seal.key").unlink()
    assert main(["keys", "seal", *config(data_dir)]) == 1
    assert "the gateway makes it at its first start" in capsys.readouterr().err
    assert not (data_dir / "seal.key").exists()
    load_or_make_key(data_dir)
    (data_dir / "seal.key").chmod(0o644)
    assert main(["keys", "seal", *config(data_dir)]) == 1
    assert "chmod 600" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_shows_its_progress_on_a_terminal_and_clears_it():
    now, out = [0.0], Terminal()
    with Progress(4000, "rows", out=out, clock=lambda: now[0]) as progress:
        progress.advance(1000)
        assert out.getvalue() == ""  # short work shows nothing
        now[0] = 2.0
        progress.advance(1000)
        assert "50%  2k of 4k rows  0:02 left" in out.getvalue()
    assert out.getvalue().endswith("\r" + " " * 79 + "\r")


def test_work_of_unknown_length_shows_its_rate_and_a_pipe_sees_nothing():
    for out, shown in ((Terminal(), "5k rows  2.5k a second"), (io.StringIO(), "")):
        now = [0.0]
        with Progress(0, "rows", out=out, clock=lambda now=now: now[0]) as progress:
            now[0] = 2.0
            progress.advance(5000)
            assert shown in out.getvalue() and bool(shown) == bool(out.getvalue())
