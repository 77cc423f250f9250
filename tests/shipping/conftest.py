from collections.abc import Iterator

import pytest

from tests.shipping import servers


@pytest.fixture(scope="package")
def postgres() -> Iterator[servers.Postgres]:
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="package")
def nats() -> Iterator[servers.Nats]:
    with servers.nats() as server:
        yield server


@pytest.fixture
def database(postgres: servers.Postgres) -> str:
    """The URL of an empty database."""
    return postgres.database()
