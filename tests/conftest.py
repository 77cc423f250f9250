"""What every test starts from: no proxies in the environment, and the fixtures of the fakes."""

import importlib.util
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.backend import ScriptedBackend

pytest_plugins = ["tests.fixtures_model"] if importlib.util.find_spec("tests.fixtures_model") else []

# A busy machine is slow, not wrong: no example has a deadline. All else is hypothesis's own choice, CI's included.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def _no_proxies() -> Iterator[None]:
    """Clients must reach the loopback directly, and the gateway must not be configured by the environment."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("TOKENPORT_"):
            patch.delenv(name)
    yield
    patch.undo()


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    """A scripted backend in this test's event loop."""
    async with ScriptedBackend() as scripted:
        yield scripted
