"""Our three files on this host: what they say, whose they are, how they are replaced together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from proxyroute.errors import AdapterError, ConfigError
from proxyroute.haproxy import files
from proxyroute.haproxy.render import MARK, Rendered, render
from proxyroute.haproxy.routemap import RouteMap, parse_file
from proxyroute.haproxy.settings import Settings
from proxyroute.model import Endpoint, RouteTable


@dataclass(frozen=True)
class OnDisk:
    """The files as they are; None for one that is not there."""

    config: str | None
    map: str | None
    lua: str | None

    @property
    def foreign(self) -> bool:
        """The configuration is somebody else's."""
        return bool((self.config or "").strip()) and not (self.config or "").startswith(f"# {MARK}")

    @property
    def route(self) -> RouteMap | None:
        """The route in the map file; None when there is none, or it cannot be understood."""
        try:
            return RouteMap.parse(parse_file(self.map)) if self.map is not None else None
        except ValueError:
            return None


def read(proxy: str, settings: Settings) -> OnDisk:
    """Reads the files. Raises AdapterError for one that is there and cannot be read."""
    try:
        return OnDisk(files.read(settings.config_file), files.read(settings.map_file), files.read(settings.lua_file))
    except OSError as error:
        raise AdapterError(proxy, f"cannot read {error.filename}: {error.strerror}") from None


def write(proxy: str, settings: Settings, rendered: Rendered) -> list[str]:
    """Writes what differs, the configuration last. Returns the names of the files written.

    Raises AdapterError when one cannot be written; those before it are in place, and each is whole.
    """
    texts = {
        settings.lua_file: rendered.lua,
        settings.map_file: rendered.map,
        settings.config_file: rendered.config,
    }
    return [file.name for file, text in texts.items() if files.replace(proxy, file, text)]


def write_map(proxy: str, settings: Settings, table: RouteTable) -> list[str]:
    """Writes the map file alone; returns its name if it differed. Raises AdapterError when it cannot be written."""
    file = settings.map_file
    return [file.name] if files.replace(proxy, file, RouteMap.of(table).text()) else []


def restore(proxy: str, settings: Settings, before: OnDisk) -> None:
    """Puts the configuration and its Lua file back as they were; the map stays, it says the truth."""
    for file, text in ((settings.lua_file, before.lua), (settings.config_file, before.config)):
        if text is not None:
            files.replace(proxy, file, text)


def rehearse(proxy: str, settings: Settings, rendered: Rendered) -> None:
    """Shows that the disk would take the files. Raises AdapterError when it would not."""
    files.rehearse(proxy, settings.map_file, rendered.map)
    files.rehearse(proxy, settings.config_file, rendered.config)


def refuse_foreign(proxy: str, settings: Settings, disk: OnDisk) -> None:
    """Raises AdapterError, with the cure, when the configuration file is not ours to overwrite."""
    if disk.foreign:
        raise AdapterError(proxy, f"{settings.config_file} was not written by ProxyRoute; {foreign_cure(settings)}")


def foreign_cure(settings: Settings) -> str:
    return (
        f"move it away (mv {settings.config_file} {settings.config_file}.before-proxyroute) and put what you need "
        "from it into a template of your own (template: …)"
    )


def differences(cluster: str, servers: tuple[Endpoint, ...], settings: Settings, disk: OnDisk) -> Iterator[str]:
    """Yields, in words, where the files are not what the route in the map file renders to."""
    if disk.config is None:
        yield f"{settings.config_file} is missing"
        return
    if disk.foreign:
        yield f"{settings.config_file} was not written by ProxyRoute"
        return
    route = disk.route
    if route is None:
        yield f"{settings.map_file} is missing or cannot be understood"
        return
    try:
        rendered = render(table_of(cluster, servers, route), settings)
    except ConfigError as error:
        yield str(error)
        return
    pairs: tuple[tuple[Path, str, str | None], ...] = (
        (settings.config_file, rendered.config, disk.config),
        (settings.map_file, rendered.map, disk.map),
        (settings.lua_file, rendered.lua, disk.lua),
    )
    for file, wanted, found in pairs:
        if found is None:
            yield f"{file} is missing"
        elif found != wanted:
            yield f"{file} differs from what is rendered, first at line {_first_difference(wanted, found)}"


def table_of(cluster: str, servers: tuple[Endpoint, ...], route: RouteMap) -> RouteTable:
    """Returns the table that ``route`` stands for."""
    return RouteTable(cluster, route.epoch, servers, route.primary, route.readers)


def _first_difference(one: str, other: str) -> int:
    pairs = zip_longest(one.splitlines(), other.splitlines())
    return next((n for n, (a, b) in enumerate(pairs, 1) if a != b), 1)
