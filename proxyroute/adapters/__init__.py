"""Finds the adapters: classes under the entry-point group ``proxyroute.adapters``, ours and those of other packages."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from proxyroute.errors import ConfigError

GROUP = "proxyroute.adapters"
_VERBS = ("check", "prepare", "hold", "release", "apply", "settle", "observe", "routes", "close")


def installed_adapters() -> dict[str, EntryPoint]:
    """Returns what is installed, by name, nothing of it imported. Raises ConfigError when two share a name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"two packages bring an adapter called {point.name!r}: {_origin(other)} and {_origin(point)}; "
                "uninstall one of them"
            )
    return found


def find_adapter(name: str) -> type[Any]:
    """Imports and returns the adapter ``name``.

    Raises ConfigError, which says whether it is not installed, cannot be imported, or is not an adapter.
    """
    found = installed_adapters()
    if name not in found:
        raise ConfigError(
            f"no adapter {name!r} is installed; there are: {', '.join(sorted(found)) or 'none'}. "
            "Install the package that brings it into the environment of proxyroute"
        )
    return _loaded(found[name])


def find_adapters() -> dict[str, type[Any]]:
    """Imports and returns all adapters by name. Raises ConfigError for the first that is broken, see find_adapter."""
    return {name: _loaded(point) for name, point in installed_adapters().items()}


def _loaded(entry: EntryPoint) -> type[Any]:
    try:
        loaded = entry.load()
    except Exception as error:
        raise ConfigError(
            f"the adapter {entry.name!r} is installed ({_origin(entry)}) and cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(loaded, type):
        raise ConfigError(f"the adapter {entry.name!r} ({_origin(entry)}) is misconfigured: it names no class")
    missing = [verb for verb in _VERBS if not callable(getattr(loaded, verb, None))]
    if missing:
        raise ConfigError(
            f"the adapter {entry.name!r} ({_origin(entry)}) is misconfigured: {loaded.__name__} has no "
            f"{', '.join(missing)}; see proxyroute.ports.Adapter"
        )
    settings = getattr(loaded, "Settings", None)
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        raise ConfigError(
            f"the adapter {entry.name!r} ({_origin(entry)}) is misconfigured: {loaded.__name__}.Settings is not a "
            "dataclass"
        )
    return loaded


def _origin(entry: EntryPoint) -> str:
    package = f" of {entry.dist.name}" if entry.dist is not None else ""
    return f"{entry.value}{package}"
