"""Settings as they were loaded, each with where it comes from. No secret is read for this: where it is is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from proxyroute.config import snapshot
from proxyroute.config_values import ClusterConfig
from proxyroute.jsonable import jsonable
from proxyroute.policy import AGGRESSIVE
from proxyroute.standing import Standing
from proxyroute.web.loaded import masked
from proxyroute.web.pages.overview import Reader, TheHub, named
from proxyroute.web.pages.shell import page

router = APIRouter(include_in_schema=False)

_SECTIONS = ("failover", "serve", "lease")
_FIRST = ("account", "replication", "servers", "switchover", "failover", "serve", "lease", "proxies", "scripts")
"""The sections in the order of the reference; what is not named here comes after."""
_NO_SETTINGS = ("aside", "rebuilt", "profile")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field."""

    name: str
    """Its path below the cluster, e.g. ``switchover.max_lag``."""
    value: str
    origin: str
    """E.g. ``line 12``, ``default``."""
    given: bool
    """It stands in the file."""


def settings_of(config: ClusterConfig, standing: Standing | None = None) -> dict[str, list[Setting]]:
    """Returns every field of a cluster by its section."""
    values = dict(snapshot(config)["cluster"])
    for section in _SECTIONS:
        own = getattr(config, section)
        values[section] = own.to_json() if section == "lease" else dataclasses.asdict(own)
    found: dict[str, list[Setting]] = {}
    rank = {name: number for number, name in enumerate(_FIRST)}
    for section in sorted(values, key=lambda name: rank.get(name, len(rank))):
        fields = [
            Setting(name, value, *_origin(config, name, standing))
            for name, value in _flat(section, jsonable(values[section]))
            if name.rpartition(".")[2] not in _NO_SETTINGS or name in config.lines
        ]
        if fields:
            found[section] = fields
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and not _reference(value):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _flat(f"{name}[{number}]", item)
    else:
        yield name, _told(masked(name, value))


def _reference(value: Mapping[str, Any]) -> bool:
    """Tells whether it says where a secret is."""
    return len(value) == 1 and next(iter(value)) in ("file", "env", "credential")


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        kind, where = next(iter(value.items()))
        return f"kept in {'the variable' if kind == 'env' else 'the ' + kind} {where}"
    if isinstance(value, list):
        return ", ".join(map(_told, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in (None, "") else str(value)


def _origin(config: ClusterConfig, name: str, standing: Standing | None) -> tuple[str, bool]:
    if standing is not None and standing.ranks and name in ("switchover.prefer", "switchover.never"):
        return "the file, and the standing orders above it", True
    if (line := config.lines.get(name)) is not None:
        return f"line {line}", True
    above = name
    while "." in above or "[" in above:
        above = above[: max(above.rfind("."), above.rfind("["))]
        line = config.lines.get(above)
        if line is not None and not any(other.startswith((f"{above}.", f"{above}[")) for other in config.lines):
            return f"line {line}", True  # written in short
    if name.startswith("failover.") and config.failover.profile == "aggressive" and name[9:] in AGGRESSIVE:
        return "profile: aggressive", False
    return "default", False


@router.get("/settings")
def settings(request: Request, hub: TheHub, principal: Reader) -> Response:
    """Whose settings can be looked at, and those of the web."""
    web = request.app.state.settings
    told = {
        "listen": str(web.listen),
        "TLS": "yes" if web.tls else "by what stands in front of it" if web.plain else "no (only on this host)",
        "session": f"{web.session:g} s",
        "origins": ", ".join(web.origins) or "none",
        "hosts": ", ".join(web.hosts) or "none",
        "trusted_proxies": ", ".join(web.trusted_proxies) or "none",
    }
    files = {name: hub.config(name).file for name in hub.names}
    return page(request, "settings.html", principal=principal, files=files, web=told)


@router.get("/clusters/{cluster}/settings")
def settings_page(request: Request, hub: TheHub, principal: Reader, cluster: str) -> Response:
    """The settings of one cluster."""
    state = named(hub, cluster)
    standing = state.glance.standing if state.glance is not None else None
    return page(
        request, "settings_of.html", principal=principal, cluster=cluster, file=state.config.file,
        sections=settings_of(state.config, standing), orders=standing.lines() if standing is not None else (),
    )  # fmt: skip
