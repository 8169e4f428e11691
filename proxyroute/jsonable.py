"""Our values as JSON: one rule for all of them, so that ``--json`` says the same names as the code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from proxyroute.model import Address, Epoch


def jsonable(value: Any) -> Any:
    """Returns ``value`` as JSON values: positions, epochs and addresses as the text people know."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Address | Epoch | Path):
        return str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(jsonable(item) for item in value)
    if hasattr(value, "to_json"):  # a position
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dump(value: Any, *, indent: int | None = 2) -> str:
    """Returns ``value`` as JSON text."""
    return json.dumps(jsonable(value), indent=indent, ensure_ascii=False)
