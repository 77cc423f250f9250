"""What a client that left had taken, to the event."""

from pathlib import Path
from typing import cast

import pytest

from gateway.edge.connection import ClientConnection
from gateway.edge.delivery import Delivery
from gateway.ledger.board import Board


class Client:
    """A client whose socket has taken so many bytes."""

    def __init__(self) -> None:
        self.closed = False
        self.framed = True
        self.written = 0
        self.taken = 0

    @property
    def unsent_bytes(self) -> int:
        return self.written - self.taken

    def send(self, data: bytes) -> None:
        self.written += len(data)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def delivery(client: Client, tmp_path: Path) -> Delivery:
    slot = Board.create(tmp_path / "board", 1).claim(bytes(16), b"{}")
    assert slot is not None
    return Delivery(cast(ClientConnection, client), slot)


def test_of_single_events_those_that_left_whole_are_delivered(client: Client, delivery: Delivery) -> None:
    for number in (1, 2, 3):
        delivery.events([(b"x" * 20, number, None, None)])
    client.taken = 26 + 23  # the first chunk, and all but a byte of the second one's event
    assert delivery.progress().events == 1
    client.taken = 26 + 24
    assert delivery.progress().events == 2


@pytest.mark.parametrize(
    ("taken", "events"), [(0, 0), (3 + 9, 0), (3 + 10, 1), (3 + 29, 1), (3 + 30, 2), (3 + 36, 3), (41, 3)]
)
def test_of_a_row_that_left_in_part_its_whole_events_are(
    client: Client, delivery: Delivery, taken: int, events: int
) -> None:
    # One chunk of 36 bytes: a size line of 4, then events that end after 10, 30 and 36.
    delivery.events([(b"x" * 36, 3, None, [10, 20, 6])])
    client.taken = taken + 1
    assert delivery.progress().events == events
    assert delivery.handed_over.events == 3
