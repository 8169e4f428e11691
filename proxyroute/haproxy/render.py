"""From a route table to the text of the files HAProxy reads. The same table renders to the same bytes."""

from __future__ import annotations

import functools
import hashlib
import struct
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import proxyroute
from proxyroute.errors import ConfigError
from proxyroute.haproxy.routemap import CLOSED, RouteMap
from proxyroute.haproxy.settings import Names, Settings, bind, check_name
from proxyroute.model import RouteTable

if TYPE_CHECKING:
    import jinja2

MARK = "Written by ProxyRoute."
"""The first line of a configuration says so; a file without it is somebody else's and is never overwritten."""
CHECK_USER = "haproxy_check"
"""Whom the check of the read pool logs in as. The account need not exist: a refusal shows a living server, too."""
_CONFIG_TEMPLATE = "haproxy.cfg.j2"
_LUA_TEMPLATE = "hold.lua.j2"


@dataclass(frozen=True)
class Rendered:
    """The text of the three files, and what identifies the part of them that only a reload can change."""

    config: str
    map: str
    lua: str
    structure: str
    """Digest of everything but primary, epoch and readers: those are changed at run time."""


@dataclass(frozen=True)
class _TemplateServer:
    """A server as a template sees it."""

    name: str
    address: str
    reads: bool
    weight: int


def templates_folder() -> Path:
    """Returns where our templates are: in the wheel inside the package, in a source tree beside it."""
    package = Path(proxyroute.__file__).parent
    inside = package / "templates" / "haproxy"
    return inside if inside.is_dir() else package.parent / "templates" / "haproxy"


def render(table: RouteTable, settings: Settings, folder: Path | None = None) -> Rendered:
    """Renders all files for ``table``.

    With ``folder``, the configuration names the map and the Lua file there instead, so that HAProxy can check it
    before anything is written into place; the structure is the real one.

    Raises ConfigError, with file and line, when a template is wrong, and when HAProxy has no name for a server.
    """
    names = _names(table)
    plain = replace(table, primary=None, readers=())
    config, lua = _texts(plain, settings, names, "", None)
    digest = hashlib.sha256("\0".join((config, lua)).encode()).hexdigest()[:16]
    config, lua = _texts(table, settings, names, digest, folder)
    _check_kept(config, digest, settings)
    return Rendered(config, RouteMap.of(table).text(), lua, digest)


def backends(config: str) -> str:
    """Returns the backends of a rendered configuration alone, for those who own the rest of theirs."""
    kept: list[str] = []
    inside = False
    for line in config.splitlines():
        if line and not line[0].isspace():  # a section begins, or a comment between two of them
            inside = line.startswith("backend ")
        if inside:
            kept.append(line)
    return "\n".join([f"# {MARK} Backends only.", "", *kept]).rstrip("\n") + "\n"


def _names(table: RouteTable) -> Names:
    try:
        names = Names(table.cluster)
        for endpoint in table.servers:
            check_name("server", endpoint.name)
            check_name("address of " + endpoint.name, endpoint.address.host)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return names


def _check_kept(config: str, digest: str, settings: Settings) -> None:
    if config.startswith(f"# {MARK}") and f" {digest}\n" in config:
        return
    raise ConfigError(
        f"{settings.template}: an own template must begin with the line '# {{{{ mark }}}}' and keep the line "
        "'description proxyroute {{ cluster }} {{ structure }}' in its global section, or ProxyRoute could not tell "
        "its files and what HAProxy has loaded"
    )


def _texts(table: RouteTable, settings: Settings, names: Names, structure: str, folder: Path | None) -> tuple[str, str]:
    def placed(path: Path) -> Path:
        return folder / path.name if folder else path

    values: dict[str, Any] = {
        "cluster": table.cluster,
        "names": names,
        "servers": _servers(table),
        "write": bind(settings.write),
        "read": bind(settings.read) if settings.read else "",
        "stats": bind(settings.stats) if settings.stats else "",
        "map_file": placed(settings.map_file),
        "lua_file": placed(settings.lua_file),
        "closed": CLOSED,
        "runtime_socket": settings.runtime_socket,
        "socket_user": settings.socket_user,
        "user": settings.user,
        "group": settings.group,
        "hard_stop_after": f"{max(1, round(settings.hard_stop_after))}s",
        "check_login": _login(CHECK_USER).hex(),
        "mark": MARK,
        "structure": structure,
    }
    own = settings.template
    config = _filled(own or templates_folder() / _CONFIG_TEMPLATE, values)
    return config, _filled(templates_folder() / _LUA_TEMPLATE, values)


def _login(user: str) -> bytes:
    """Returns a login packet of the MySQL protocol without a password."""
    abilities = 0x00000001 | 0x00000200 | 0x00002000 | 0x00008000 | 0x00080000  # 4.1 protocol, plugin named
    body = struct.pack("<IIB23x", abilities, 1 << 24, 45) + user.encode() + b"\0\0mysql_native_password\0"
    return len(body).to_bytes(3, "little") + b"\x01" + body


def _servers(table: RouteTable) -> list[_TemplateServer]:
    weights = {reader.name: reader.weight for reader in table.readers}
    return [_TemplateServer(e.name, str(e.address), e.name in weights, weights.get(e.name, 1)) for e in table.servers]


@functools.lru_cache(maxsize=4)
def _environment(folder: Path) -> jinja2.Environment:
    import jinja2  # takes a while to import, and most commands, and a guard that has nothing to do, render nothing

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, templates_folder()]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _filled(file: Path, values: Mapping[str, Any]) -> str:
    """Renders one template. Raises ConfigError, with file and line, for whatever is wrong in it."""
    import jinja2

    try:
        return _environment(file.parent).get_template(file.name).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{error.filename or error.name or file}:{error.lineno}: {error.message}") from None
    except jinja2.TemplateNotFound as error:
        raise ConfigError(f"{file}: there is no template {error.name} beside it or among ours") from None
    except jinja2.UndefinedError as error:
        known = ", ".join(sorted(values))
        raise ConfigError(f"{_place(error, file)}: {error.message}; a template knows {known}") from None
    except Exception as error:  # noqa: BLE001 - a template can raise anything: it calls and computes
        raise ConfigError(f"{_place(error, file)}: {error}") from None


def _place(error: BaseException, file: Path) -> str:
    """Returns file and line of the template in which ``error`` was raised."""
    folders = {str(file.parent), str(templates_folder())}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if str(Path(frame.filename).parent) in folders:
            return f"{frame.filename}:{frame.lineno}"
    return str(file)
