"""Properties of reading: nothing unknown passes, nothing breaks, every key has a place."""

import json
import tempfile
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.config.positions import item, member, positions
from tests.config.configurations import WHOLE, problems

TREE = tomllib.loads(WHOLE)
Steps = tuple[str | int, ...]


def toml(value: Any) -> str:
    """A value as TOML, tables inline. JSON's texts are TOML's, but for what the tests below leave out."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, float) else repr(value)


def document(tree: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(key, ensure_ascii=False)} = {toml(value)}" for key, value in tree.items())


def nodes(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Everything in a tree, with the way to it."""
    if steps:
        yield steps, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from nodes(inner, (*steps, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from nodes(inner, (*steps, index))


def path_of(steps: Steps) -> str:
    path = ""
    for step in steps:
        path = item(path, step) if isinstance(step, int) else member(path, step)
    return path


def at(tree: Any, steps: Steps) -> Any:
    for step in steps:
        tree = tree[step]
    return tree


# Reading a whole configuration takes milliseconds, but machines that test are busy: no deadline for an example.
patient = settings(deadline=None, max_examples=60)

# The keys of models are the writer's own.
TABLES = [(), *(steps for steps, value in nodes(TREE) if isinstance(value, dict) and steps[-1] != "models")]
WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: "null" not in json.dumps(value) and "Infinity" not in json.dumps(value))


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_the_tree_is_good_before_anything_is_done_to_it(directory):
    assert problems(document(TREE), directory) == ()


@patient
@given(steps=st.sampled_from(TABLES), word=WORDS)
@example(steps=("regions", "eu-edge", "power"), word="tari")  # near a key that would contradict the one that is there
def test_an_unknown_key_anywhere_is_found_alone(directory, steps, word):
    tree = deepcopy(TREE)
    at(tree, steps)[f"x-{word}"] = 1
    lines = problems(document(tree), directory)
    assert len(lines) == 1, lines
    assert lines[0].startswith(path_of((*steps, f"x-{word}")) + ": ")


@patient
@given(steps=st.sampled_from([steps for steps, _ in nodes(TREE)]), value=VALUES)
def test_any_value_anywhere_is_taken_or_reported_in_whole_lines(directory, steps, value):
    tree = deepcopy(TREE)
    at(tree, steps[:-1])[steps[-1]] = value
    for line in problems(document(tree), directory):
        assert line.isprintable()
        assert ": " in line


@patient
@given(steps=st.sampled_from([steps for steps, _ in nodes(TREE)]))
def test_anything_may_be_missing_and_the_rest_is_still_read(directory, steps):
    tree = deepcopy(TREE)
    del at(tree, steps[:-1])[steps[-1]]
    tree["x-end"] = 1
    assert any(line.startswith("x-end: ") for line in problems(document(tree), directory))


@patient
@given(tree=st.dictionaries(TEXTS, VALUES, max_size=5))
def test_every_key_of_a_text_has_a_position(tree):
    text = document(tree)
    tomllib.loads(text)
    assert set(positions(text)) == {path_of(steps) for steps, _ in nodes(tree)}


def test_positions_are_those_of_the_keys():
    text = '''# a comment [not.a.table]
[a]
b.c = """x = 1
[no]
quote "" and end"""
'd e' = ['#', "]", { f = 'x', g = [
  1, # one
  2979-05-27 07:32:00,
] }]
[[h]]
i = 1
[[h]]
  [h.j]
  k = "\\"x\\\\"
  "l\\u00e9" = \'\'\''quoted\'\'\'\'
[h.j.m]
'''
    tomllib.loads(text)
    assert positions(text) == {
        "a": (2, 1),
        "a.b": (3, 1),
        "a.b.c": (3, 1),
        'a."d e"': (6, 1),
        'a."d e"[0]': (6, 10),
        'a."d e"[1]': (6, 15),
        'a."d e"[2]': (6, 20),
        'a."d e"[2].f': (6, 22),
        'a."d e"[2].g': (6, 31),
        'a."d e"[2].g[0]': (7, 3),
        'a."d e"[2].g[1]': (8, 3),
        "h": (10, 1),
        "h[0]": (10, 1),
        "h[0].i": (11, 1),
        "h[1]": (12, 1),
        "h[1].j": (13, 3),
        "h[1].j.k": (14, 3),
        'h[1].j."l\\xe9"': (15, 3),
        "h[1].j.m": (16, 1),
    }
