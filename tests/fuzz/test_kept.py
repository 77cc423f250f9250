"""Every input that was ever interesting, replayed without a fuzzer."""

import importlib

import pytest

from tests.fuzz.inputs import case_of, input_of, kept

HARNESSES = ["port", "chunks", "backend_response", "stream", "request_body", "answer"]


@pytest.mark.parametrize("name", HARNESSES)
def test_every_kept_input_holds(name: str) -> None:
    check = importlib.import_module(f"tests.fuzz.{name}").check
    inputs = kept(name)
    assert inputs
    for data in inputs:
        check(data)


@pytest.mark.parametrize("name", HARNESSES)
def test_every_kept_input_holds_in_pieces_of_any_size(name: str) -> None:
    check = importlib.import_module(f"tests.fuzz.{name}").check
    for data in kept(name):
        whole = case_of(data).whole
        for size in (1, 7, 50):
            check(input_of(whole, options=data[0], sizes=bytes([size - 1] * 7)))


@pytest.mark.parametrize("name", HARNESSES)
@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff", b"\x00\x07", bytes(16)])
def test_nothing_much_is_an_input_too(name: str, data: bytes) -> None:
    importlib.import_module(f"tests.fuzz.{name}").check(data)
