"""`tokenport demo` as a newcomer meets it: one command, what it prints, Ctrl-C."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

READY_S = 60
END_S = 8  # the gateway closes its ledger; nothing waits for an answer to finish


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "demo", "--data-dir", str(folder), *options]


def is_prose(text: str) -> bool:
    """Whether this can be a real model's answer. It is sampled, so no single word is certain."""
    return len(re.findall(r"\b[A-Za-z]{2,}\b", text)) >= 5


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def command_lines() -> dict[int, str]:
    """Every process of this machine with its arguments."""
    found = {}
    if not Path("/proc/self/cmdline").exists():
        listing = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True)
        return {int(pid): words for pid, words in (line.split(None, 1) for line in listing.stdout.splitlines())}
    for entry in Path("/proc").iterdir():  # not every Linux has ps
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


def member(group: int, module: str) -> int:
    """The process of a group that runs a module."""
    for pid, words in command_lines().items():
        with suppress(ProcessLookupError, PermissionError):
            if module in words and os.getpgid(pid) == group:
                return pid
    raise LookupError(module)


@dataclass(frozen=True, slots=True)
class Demo:
    process: subprocess.Popen[str]
    folder: Path
    said: str

    def block(self, title: str) -> str:
        """What stands below a title, up to the next empty line."""
        match = re.search(rf"^{re.escape(title)}[^\n]*\n\n(.*?)\n(\n|$)", self.said, re.DOTALL | re.MULTILINE)
        assert match is not None, f"{title} is not in: {self.said}"
        return match[1]

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)


@contextmanager
def demo(folder: Path, model: Path) -> Iterator[Demo]:
    options = ["--port", str(free_port()), "--admin-port", str(free_port()), "--speed", "600"]
    with (folder / "progress").open("w") as progress:
        process = subprocess.Popen(
            command(folder / "data", *options),
            stdout=subprocess.PIPE,
            stderr=progress,
            text=True,
            start_new_session=True,
            env={**os.environ, "TOKENPORT_MODEL": str(model)},
        )
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if " export " in line:
                break
        else:
            pytest.fail(f"the demo did not start: {(folder / 'progress').read_text()}", pytrace=False)
        yield Demo(process, folder / "data", "".join(lines))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def running(real_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for the tests that only look."""
    with demo(tmp_path_factory.mktemp("demo"), real_model_file) as started:
        yield started


def test_the_printed_curl_streams_real_text(running):
    words = shlex.split(running.block("An answer, streamed").replace("\\\n", " "))
    assert words[:2] == ["curl", "-N"]
    headers = dict(words[n + 1].split(": ") for n, word in enumerate(words) if word == "-H")
    body = words[words.index("-d") + 1]
    with httpx.stream("POST", words[2], headers=headers, content=body, timeout=READY_S, trust_env=False) as answer:
        assert answer.status_code == 200
        events = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    text = "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1])
    assert is_prose(text)


def test_the_printed_lines_of_the_sdk_print_an_answer(running):
    code = running.block("The same with the OpenAI SDK")
    assert len(code.splitlines()) == 5
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=READY_S, check=True)
    assert is_prose(done.stdout)


def test_the_printed_commands_explain_and_export(running):
    explain, export = (shlex.split(line) for line in running.block("Which region answers now").splitlines())
    done = subprocess.run(explain, capture_output=True, text=True, timeout=READY_S, check=True)
    assert "norway-1" in done.stdout
    done = subprocess.run(export, capture_output=True, text=True, timeout=READY_S, check=True)
    assert done.stdout.startswith("export_id,")


def test_the_page_answers(running):
    page = re.search(r"The page: (\S+)", running.said)
    assert page is not None
    assert httpx.get(page[1], timeout=READY_S, trust_env=False).status_code == 200


def test_a_second_demo_on_the_same_folder_is_refused(running):
    done = subprocess.run(
        command(running.folder, "--port", str(free_port()), "--admin-port", str(free_port())),
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"tokenport demo: another demo runs on .* --data-dir\n", done.stderr)


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = subprocess.run(
            command(tmp_path, "--port", port), capture_output=True, text=True, timeout=READY_S, check=False
        )
    assert done.returncode == 2
    assert re.fullmatch(rf"tokenport demo: port {port} .* --port\n", done.stderr)


def test_the_first_ctrl_c_ends_every_process_and_a_second_start_works(real_model_file, tmp_path):
    for _ in range(2):
        with demo(tmp_path, real_model_file) as started:
            started.interrupt()
            assert started.process.wait(END_S) == 0
            deadline = time.monotonic() + END_S
            while not group_is_gone(started.process.pid):
                assert time.monotonic() < deadline, "a process of the demo is left"


def test_a_child_that_dies_ends_the_demo_and_is_named(real_model_file, tmp_path):
    with demo(tmp_path, real_model_file) as started:
        os.kill(member(started.process.pid, "gateway.demo.model_server"), signal.SIGKILL)
        assert started.process.wait(END_S) == 1
        assert "the model server was ended by SIGKILL" in (tmp_path / "progress").read_text()
