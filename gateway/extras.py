"""Packages that only some installations have: imported when they are needed, and named when they are missing."""

import importlib
from types import ModuleType


class MissingExtra(Exception):
    """The message is one line that says what to install."""


def extra(name: str, *modules: str) -> list[ModuleType]:
    """The modules of an extra.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise MissingExtra(f"needs the extra {name}: pip install 'tokenport[{name}]' ({error})") from error
