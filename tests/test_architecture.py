"""The house keeps its rules: direction, purity, no cycles, sizes, names; and each rule can fail."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests import architecture as rules

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = frozenset({"var", "dist", "build", "__pycache__"})


def read_sources() -> dict[str, str]:
    """Every text file of the repository, by its path in it."""
    sources = {}
    for top in ROOT.iterdir():
        if top.name in NOT_OURS or (top.name.startswith(".") and top.name != ".ci"):
            continue
        for path in top.rglob("*") if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                with suppress(UnicodeDecodeError):  # a database, an image
                    sources[path.relative_to(ROOT).as_posix()] = path.read_text("utf-8")
    return sources


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    found = read_sources()
    assert {"pricing", "routing", "gateway"} <= {rules.package_of(path) for path in found}
    return found


def test_imports_point_downwards_only(sources):
    assert rules.wrong_directions(sources) == []


def test_pure_packages_touch_no_clock_chance_file_or_socket(sources):
    assert rules.impurities(sources) == []


def test_wire_does_no_input_or_output(sources):
    assert rules.wire_input_output(sources) == []


def test_modules_do_not_import_each_other_in_circles(sources):
    assert rules.import_cycles(sources) == []


def test_files_and_functions_are_of_a_readable_size(sources):
    assert rules.oversized(sources) == []


def test_module_names_say_what_is_inside(sources):
    assert rules.vague_names(sources) == []


def test_no_file_mentions_a_machine_or_a_package_index(sources):
    assert rules.mentions(sources) == []


WRONG_DIRECTIONS = {
    "pricing knows routing": {"pricing/book.py": "from routing.table import Route\n"},
    "routing knows gateway": {"routing/decide.py": "import gateway.config\n"},
    "pricing knows routing by a relative import": {"pricing/feeds/csv.py": "from ...routing import table\n"},
    "a package from outside": {"routing/plan.py": "import numpy as np\n"},
    "inside a function": {"pricing/units.py": "def f():\n    import gateway\n"},
}

IMPURITIES = {
    "clock": "import time\n",
    "clock of datetime": "from datetime import UTC, datetime\nt = datetime.now(UTC)\n",
    "clock of the module": "import datetime\nt = datetime.datetime.utcnow()\n",
    "clock under another name": "from datetime import datetime as d\nt = d.now()\n",
    "today": "from datetime import date\nd = date.today()\n",
    "chance": "import random\nx = random.random()\n",
    "chance by name": "from random import choice\n",
    "environment": "import os\n",
    "environment by name": "from os import environ\n",
    "socket": "import socket\n",
    "path": "from pathlib import Path\n",
    "file": "text = open('prices.csv').read()\n",
    "async": "import asyncio\n",
    "coroutine": "async def f():\n    return 1\n",
    "log": "import logging\n",
    "terminal": "print('here')\n",
    "http": "from urllib.request import urlopen\n",
}


@pytest.mark.parametrize("example", WRONG_DIRECTIONS.values(), ids=WRONG_DIRECTIONS)
def test_a_wrong_direction_is_found(example):
    assert len(rules.wrong_directions(example)) == 1


def test_the_right_directions_are_no_finding():
    right = {
        "pricing/book.py": "from pricing.units import nano\nimport decimal\n",
        "routing/decide.py": "from pricing import book\nfrom .table import Route\n",
        "gateway/app.py": "import aiohttp\nfrom routing import decide\nfrom pricing import book\n",
    }
    assert rules.wrong_directions(right) == []


@pytest.mark.parametrize("text", IMPURITIES.values(), ids=IMPURITIES)
@pytest.mark.parametrize("path", ["pricing/book.py", "routing/simulator/world.py"])
def test_an_impurity_is_found(path, text):
    assert len(rules.impurities({path: text})) == 1
    assert rules.impurities({path.replace(path.split("/")[0], "gateway"): text}) == []


def test_time_and_chance_as_arguments_are_pure():
    text = (
        "from datetime import datetime\nfrom random import Random\nimport random\n\n"
        "def f(now: datetime, rng: random.Random) -> float:\n    return rng.random() + now.timestamp()\n"
    )
    assert rules.impurities({"routing/decide.py": text}) == []


@pytest.mark.parametrize("module", ["asyncio", "aiohttp.web", "httpx", "socket"])
def test_input_or_output_in_wire_is_found(module):
    assert len(rules.wire_input_output({"gateway/wire/sse.py": f"import {module}\n"})) == 1
    assert rules.wire_input_output({"gateway/edge/relay.py": f"import {module}\n"}) == []


def test_a_circle_of_imports_is_found_once():
    circle = {
        "gateway/a.py": "from gateway import b\n",
        "gateway/b.py": "def f():\n    from gateway.c import g\n",
        "gateway/c.py": "from .a import h\n",
        "gateway/d.py": "import gateway.a\n",
        "gateway/__init__.py": "",
    }
    assert rules.import_cycles(circle) == ["gateway.a -> gateway.b -> gateway.c -> gateway.a"]
    assert rules.import_cycles({**circle, "gateway/c.py": "import json\n"}) == []


def test_a_package_that_gathers_its_modules_is_no_circle():
    gathered = {"pricing/__init__.py": "from pricing.book import Book\n", "pricing/book.py": "import pricing.units\n"}
    assert rules.import_cycles({**gathered, "pricing/units.py": ""}) == []
    assert rules.import_cycles({**gathered, "pricing/units.py": "from pricing import Book\n"}) == [
        "pricing -> pricing.book -> pricing.units -> pricing"
    ]


def test_a_long_file_and_a_long_function_are_found():
    assert rules.oversized({"gateway/app.py": "x = 1\n" * 421}) == ["gateway/app.py: 421 lines"]
    assert rules.oversized({"gateway/app.py": "x = 1\n" * 420}) == []
    assert rules.oversized({"gateway/edge/connection.py": "x = 1\n" * 421}) == []
    long = "def f():\n" + "    x = 1\n" * 65
    assert rules.oversized({"tests/test_app.py": long}) == ["tests/test_app.py:1 f: 66 lines"]
    assert rules.oversized({"tests/test_app.py": long.replace("    x = 1\n", "", 1)}) == []


@pytest.mark.parametrize("path", ["gateway/utils.py", "routing/common/__init__.py", "tests/helpers.py"])
def test_a_vague_name_is_found(path):
    assert rules.vague_names({path: "", "gateway/wire/sse.py": ""}) == [path]


@pytest.mark.parametrize("text", rules.UNMENTIONABLE)
def test_a_mention_of_a_machine_or_a_package_index_is_found(text):
    assert len(rules.mentions({"README.md": f"first\nsee {text} for more\n"})) == 1
    assert rules.mentions({"README.md": "see the package index\n"}) == []
