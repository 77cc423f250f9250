"""The demo's configuration: world.toml, with the addresses of this start filled in.

The world itself (places, prices, distances, labels) stands in world.toml and nowhere else; the relays take their
round-trip times from its links. Nothing here starts anything.
"""

import hashlib
import json
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gateway import data

API_KEY = "tp-demo-key"
MODEL = "smollm2"
FEEDS = {"no2": "prices/no2.csv", "de_lu": "prices/de_lu.csv", "au_nsw": "prices/au_nsw.csv"}


@dataclass(frozen=True)
class World:
    """What is chosen at a start."""

    data_dir: Path = Path("var/demo")
    port: int = 8080
    admin_port: int = 8081
    speed: float = 1.0  # seconds of prices per second


def configuration(world: World, relay_ports: Mapping[str, int]) -> str:
    """The text of the configuration; relay_ports has the port of each producing region's relay."""
    values: dict[str, object] = {
        "listen": f"127.0.0.1:{world.port}",
        "admin_listen": f"127.0.0.1:{world.admin_port}",
        "data_dir": str(world.data_dir.resolve()),
        "speed": world.speed,
        "key": f"sha256:{hashlib.sha256(API_KEY.encode()).hexdigest()}",
    }
    values |= {name: str(data.path(file)) for name, file in FEEDS.items()}
    values |= {_placeholder(region): f"http://127.0.0.1:{port}/v1" for region, port in relay_ports.items()}
    return _template().substitute({name: json.dumps(value, ensure_ascii=False) for name, value in values.items()})


def round_trips_s() -> dict[str, float]:
    """Each producing region's round-trip time to the edge, from the links."""
    template = _template()
    unfilled = template.substitute(dict.fromkeys(template.get_identifiers(), "0"))
    return {link["from"]: link["rtt_ms"] / 1000 for link in tomllib.loads(unfilled)["links"]}


def _template() -> string.Template:
    return string.Template(files(__package__).joinpath("world.toml").read_text("utf-8"))


def _placeholder(region: str) -> str:
    return region.replace("-", "_")
