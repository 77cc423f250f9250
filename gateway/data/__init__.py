"""The data that ships: the country database, recorded prices, the world map. NOTICE states origins and licences.

    country.mmdb     country of an IPv4 address, opened with geoip2
    prices/*.csv     hourly power prices that the demo replays, in the format of a csv feed
    world.json       outlines and points of countries for the page's map

Everything is package data, so it is found in an installed wheel as in a checkout.
"""

from importlib.resources import files
from pathlib import Path


def path(name: str) -> Path:
    """Where a data file lies, by its name in this folder ("country.mmdb", "prices/no2.csv")."""
    found = Path(str(files(__name__).joinpath(name)))
    if not found.is_file():
        raise FileNotFoundError(f"the data file {name} is missing from this installation of tokenport")
    return found
