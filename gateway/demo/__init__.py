"""`tokenport demo`: a world on one machine, with a real model, to try the gateway on.

One process each: the model server, the relays that simulate distance, and the gateway as anyone would start it
(`tokenport serve --config FILE`). This one starts them, says what to try, and ends them all at the first Ctrl-C.
Which parts are real is stated in world.toml, on the page and in what is printed.
"""

import argparse
import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import cast
from urllib.parse import urlsplit

from gateway.demo import checks, distance, hints, model_server
from gateway.demo.checks import NotReadyError
from gateway.demo.children import Child, Children
from gateway.demo.model import ensure_model
from gateway.demo.world import World, configuration, round_trips_s

__all__ = ["run"]

READY_S = 60.0
POLL_S = 0.05
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a closed terminal ends the demo too


def run(arguments: argparse.Namespace) -> int:
    """Plays until a signal comes. Takes speed, port, admin_port and data_dir."""
    started = time.monotonic()
    world = World(arguments.data_dir, arguments.port, arguments.admin_port, arguments.speed)
    try:
        with interruptible():
            checks.require_packages()
            checks.require_speed(world.speed)
            checks.require_ports({"--port": world.port, "--admin-port": world.admin_port})
            checks.require_memory(checks.available_memory_bytes())
            with held(world.data_dir):
                model = ensure_model(os.environ, say)
                return asyncio.run(play(world, model, started))
    except NotReadyError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("ended")
        return 0


async def play(world: World, model: Path, started: float) -> int:
    """Starts everything and waits. A signal cancels this task, wherever it is, once."""
    task = asyncio.current_task()
    assert task is not None
    stop = once(task.cancel)
    for number in ENDINGS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        async with Children(world.data_dir / "log") as children:
            config = await set_up(world, model, children)
            print(hints.ready(world, config, time.monotonic() - started), flush=True)
            child = await children.first_to_end()
            await asyncio.sleep(POLL_S)  # Ctrl-C reaches the gateway as well: then it did not fail
            say(f"{child.account()}; ending the demo")
            return 1
    except asyncio.CancelledError:
        say("ended")
        return 0


async def set_up(world: World, model: Path, children: Children) -> Path:
    """Model, relays, configuration, gateway, in the order in which each needs the one before; the configuration."""
    say("starting the model server")
    threads = 1 if (os.cpu_count() or 1) < 4 else 2
    served = await children.start_helper("the model server", model_server.command(str(model), threads=threads))
    address = urlsplit(str(served["address"]))
    assert address.hostname is not None and address.port is not None
    say("starting the relays that simulate distance")
    relays = distance.command((address.hostname, address.port), round_trips_s())
    ports = cast("dict[str, int]", await children.start_helper("the relays", relays))
    config = world.data_dir / "tokenport.toml"
    config.write_text(configuration(world, ports), "utf-8")
    say("starting the gateway")
    gateway = await children.start_gateway([sys.executable, "-m", "gateway", "serve", "--config", str(config)])
    await until_ready(gateway, world.port)
    return config


async def until_ready(gateway: Child, port: int) -> None:
    """Waits until the public port says that it takes traffic."""
    deadline = time.monotonic() + READY_S
    while not await answers_ready(port):
        if not gateway.running:
            raise NotReadyError(gateway.account())
        if time.monotonic() > deadline:
            raise NotReadyError(f"the gateway was not ready in {READY_S:.0f} s (log: {gateway.log})")
        await asyncio.sleep(POLL_S)


async def answers_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Holds the folder: a second demo on it would rewrite the configuration under the first one's gateway."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "demo.lock").open("w")
    except OSError as error:
        raise NotReadyError(
            f"the folder {data_dir} cannot be used ({error.strerror}): choose one with --data-dir"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NotReadyError(
                f"another demo runs on {data_dir}: end it, or choose a folder with --data-dir"
            ) from None
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes every ending signal a KeyboardInterrupt, also where the shell has us ignore SIGINT (a job behind `&`)."""
    before = {number: signal.signal(number, interrupt) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def once(act: Callable[[], object]) -> Callable[[], None]:
    """Acts at the first call only: a second Ctrl-C must not cut short the ending of the children."""
    left = [act]

    def first() -> None:
        if left:
            left.pop()()

    return first


def say(text: str) -> None:
    """Progress and failures: to stderr, one line each."""
    print(f"tokenport demo: {text}", file=sys.stderr, flush=True)
