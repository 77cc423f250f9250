"""Whatever happens, no process of the demo is left behind, and the one that failed is named."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.demo.checks import NotReadyError
from gateway.demo.children import Children

WAIT_S = 10
HELPER = """
from gateway.leash import leave_with_parent
import os, threading
leave_with_parent()
print('{"pid": %d}' % os.getpid(), flush=True)
threading.Event().wait()
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: open(sys.argv[1], "a").write("asked "))
open(sys.argv[1], "w").close()
while True:
    signal.pause()
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_helpers_end_with_the_block_that_started_them(tmp_path):
    async with Children(tmp_path) as children:
        said = await children.start_helper("the helper", python(HELPER))
        pid = said["pid"]
        assert isinstance(pid, int)
        assert not is_gone(pid)
    assert is_gone(pid)


async def test_helpers_end_when_the_block_fails(tmp_path):
    started = []

    async def fail() -> None:
        async with Children(tmp_path) as children:
            started.append(await children.start_helper("the helper", python(HELPER)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert is_gone(started[0]["pid"])


async def test_a_helper_that_ends_at_its_start_is_named_with_its_last_words(tmp_path):
    failing = python("import sys; sys.exit('no such model')")
    with pytest.raises(NotReadyError, match="the model server ended with status 1: no such model"):
        async with Children(tmp_path) as children:
            await children.start_helper("the model server", failing)


async def test_the_first_child_to_end_is_named(tmp_path):
    async with Children(tmp_path) as children:
        await children.start_helper("the relays", python(HELPER))
        said = await children.start_helper("the model server", python(HELPER))
        os.kill(int(str(said["pid"])), signal.SIGKILL)
        child = await asyncio.wait_for(children.first_to_end(), WAIT_S)
    assert child.account().startswith("the model server was ended by SIGKILL")


async def test_a_gateway_is_asked_twice_and_then_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.demo.children.END_S", 0.3)
    asked = tmp_path / "asked"
    async with Children(tmp_path / "log") as children:
        child = await children.start_gateway(python(STUBBORN, str(asked)))
        async with asyncio.timeout(WAIT_S):
            while not asked.exists():  # noqa: ASYNC110 - another process makes the file
                await asyncio.sleep(0.01)
    assert asked.read_text() == "asked asked "
    assert child.process.returncode == -signal.SIGKILL


def test_a_helper_ends_when_its_parent_is_killed():
    with subprocess.Popen(python(HELPER), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as helper:
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdout.readline()
        helper.stdin.close()  # what a killed parent leaves behind
        assert helper.wait(WAIT_S) == 0


def test_a_helper_leaves_ctrl_c_to_its_parent():
    code = """
import signal
from gateway.leash import leave_with_parent
leave_with_parent()
signal.raise_signal(signal.SIGINT)
print("still here")
"""
    with subprocess.Popen(python(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as helper:
        assert helper.stdout is not None
        assert helper.stdout.read() == "still here\n"


def test_a_helper_ends_when_it_is_told():
    with subprocess.Popen(python(HELPER), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as helper:
        assert helper.stdout is not None
        helper.stdout.readline()
        helper.send_signal(signal.SIGTERM)
        assert helper.wait(WAIT_S) == 0


async def test_logs_hold_what_children_say(tmp_path: Path):
    async with Children(tmp_path) as children:
        child = await children.start_gateway(python("print('ready to serve')"))
        await asyncio.wait_for(children.first_to_end(), WAIT_S)
    assert child.account() == f"the gateway ended with status 0: ready to serve (log: {tmp_path / 'gateway.log'})"
