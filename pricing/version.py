"""A short name for content: the first 12 hex digits of the SHA-256 of its canonical JSON.

Equal content has an equal version in every process, whatever order mappings were filled in and whether a whole number
was written 400 or 400.0. Fields of dataclasses that take no part in comparison are no content.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date


def version_of(content: object) -> str:
    canonical = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return int(value) if value.is_integer() else value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, Set):
        return sorted((_plain(member) for member in value), key=repr)
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value) if item.compare}
    raise TypeError(f"{type(value).__name__} has no canonical form")
