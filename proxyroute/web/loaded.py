"""The settings of a cluster as they were loaded, each with where it comes from; never a secret. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from proxyroute.config import snapshot
from proxyroute.config_lease import LeaseConfig
from proxyroute.config_values import ClusterConfig
from proxyroute.config_web import WebConfig
from proxyroute.config_yaml import dotted
from proxyroute.jsonable import jsonable
from proxyroute.policy import AGGRESSIVE

Where = tuple[str | int, ...]
_SECRETS = frozenset({"file", "env", "credential"})
_NAMES = ("password", "secret", "token", "key")
_ADDRESS = re.compile(r"://(?P<user>[^\s/]*@)?(?P<host>\[[^\]\s]*\]|[^\s/?#:]*)(?P<rest>\S*)")
_PLAIN = re.compile(r"(:\d+)?/?")


@dataclass(frozen=True)
class Setting:
    """One value."""

    name: str
    """As it would stand in the file, e.g. ``switchover.max_lag`` or ``servers.db1.address``."""
    value: Any
    """A JSON value; of a secret in which file, variable or credential it is. Durations in seconds."""
    origin: str
    """``file``, ``default``, or ``profile`` (of ``failover.profile``)."""
    line: int | None = None
    """In the file."""


def settings_of(config: ClusterConfig) -> tuple[Setting, ...]:
    """Returns every setting of a cluster, in the order of the reference."""
    values = dict(snapshot(config)["cluster"])
    values |= {"serve": asdict(config.serve), "failover": asdict(config.failover), "lease": config.lease.to_json()}
    named = ((dotted(where), value) for where, value in _leaves(values, ()))
    return tuple(_setting(config, name, masked(name, value)) for name, value in named)


def masked(name: str, value: Any) -> Any:
    """Returns what may be shown of the value of a setting: an address only as far as its host if it has more.

    What stands before the host, or comes after it, may be what lets one in. Where a secret is kept is no secret.
    """
    if isinstance(value, list):
        return [masked(name, item) for item in value]
    if not isinstance(value, str):
        return value
    if name.rpartition(".")[2] in _NAMES and value and not value.startswith("/"):
        return "(not shown)"
    return _ADDRESS.sub(_host_alone, value)


def _host_alone(found: re.Match[str]) -> str:
    plain = not found["user"] and _PLAIN.fullmatch(found["rest"])
    return found[0] if plain else f"://{found['host']}/…"


def web_settings(settings: WebConfig) -> tuple[Setting, ...]:
    """Returns the settings of the web; one that differs from its default stands in the file."""
    default = WebConfig()
    found = []
    for part in fields(settings):
        value = getattr(settings, part.name)
        origin = "default" if value == getattr(default, part.name) else "file"
        found.append(Setting(f"web.{part.name}", jsonable(value), origin))
    return tuple(found)


def _leaves(value: Any, where: Where) -> Iterator[tuple[Where, Any]]:
    if isinstance(value, Mapping) and value and not _is_secret(value):
        for name, item in value.items():
            yield from _leaves(item, (*where, name))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, (*where, number))
    else:
        yield where, _told(value)


def _is_secret(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and set(value) <= _SECRETS


def _told(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_told(item) for item in value] if isinstance(value, list | tuple) else value


def _setting(config: ClusterConfig, name: str, value: Any) -> Setting:
    line = _line(config.lines, name)
    if line is not None:
        return Setting(name, value, "file", line)
    section, _, field = name.partition(".")
    of_profile = config.failover.profile == "aggressive" and section == "failover" and field in AGGRESSIVE
    if section == "lease" and config.lease != LeaseConfig():
        return Setting(name, value, "file")  # one that stands beside the clusters
    return Setting(name, value, "profile" if of_profile else "default")


def _line(lines: Mapping[str, int], name: str) -> int | None:
    """Returns where a value stands; also that of a short form, which stands for the fields that it does not name."""
    if name in lines:
        return lines[name]
    above = name[: max(name.rfind("."), name.rfind("["), 0)]
    short = above in lines and not any(other.startswith((f"{above}.", f"{above}[")) for other in lines)
    return lines[above] if short else None
