"""A pytest plugin: the real model of the demo, for tests that need real tokens.

The model is fetched into the demo's cache folder if it is not there yet. Where it cannot be had, the tests that use it
fail with the reason; they are not skipped, since a green run must mean that real tokens flowed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.demo.checks import NotReadyError
from gateway.demo.model import ensure_model
from gateway.demo.model_server import command

END_S = 10
ENVIRON = dict(os.environ)  # as it was before the tests cleared it: it may name another cache folder


@pytest.fixture(scope="session")
def real_model_file() -> Path:
    """The model's file."""
    try:
        return ensure_model(ENVIRON, lambda text: print(text, file=sys.stderr))
    except NotReadyError as error:
        pytest.fail(f"the real model is needed and cannot be had: {error}", pytrace=False)


@pytest.fixture(scope="session")
def real_model(real_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL ("http://127.0.0.1:41234/v1") of a real model on one thread, for as long as the tests run."""
    log = tmp_path_factory.mktemp("model") / "model-server.log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            command(str(real_model_file), threads=1), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            pytest.fail(f"the model server did not start: {log.read_text()[-2000:]}", pytrace=False)
        yield json.loads(line)["address"] + "/v1"
        server.stdin.close()  # the leash: it ends with its parent
        assert server.wait(END_S) == 0
