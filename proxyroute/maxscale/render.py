"""A complete configuration of MaxScale for either way of working, to be read and taken over by a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import proxyroute
from proxyroute.errors import ConfigError
from proxyroute.maxscale.settings import Settings
from proxyroute.model import RouteTable

_TEMPLATE = "maxscale.cnf.j2"


def templates_folder() -> Path:
    """Returns where our templates are: in the wheel inside the package, in a source tree beside it."""
    package = Path(proxyroute.__file__).parent
    inside = package / "templates" / "maxscale"
    return inside if inside.is_dir() else package.parent / "templates" / "maxscale"


def render(table: RouteTable, settings: Settings) -> str:
    """Returns the configuration for the servers of ``table``. Raises ConfigError, with file and line."""
    own = settings.template
    import jinja2  # takes a while to import, and nothing but the command render wants it

    if own is not None and not own.is_file():  # one of that name among ours must not stand in for it
        raise ConfigError(f"{own} does not exist, or is no file; correct template:, or leave it out to use ours")
    folders = [str(own.parent)] if own is not None else []
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, str(templates_folder())]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    name = own.name if own is not None else _TEMPLATE
    try:
        return environment.get_template(name).render(_values(table, settings))
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{error.filename or name}:{error.lineno}: {error.message}") from None
    except jinja2.TemplateError as error:
        raise ConfigError(f"{own or name}: {error}") from None


def _values(table: RouteTable, settings: Settings) -> dict[str, Any]:
    ports = {
        "write_port": _port(settings.write_address, 3306),
        "read_port": _port(settings.read_address, 3307),
    }
    return {
        "cluster": table.cluster,
        "driving": settings.driving,
        "servers": table.servers,
        "monitor": settings.monitor or f"{table.cluster}-Monitor",
        "admin_port": settings.address.port,
        "user": settings.user,
        "url": settings.url,
        "encrypted": settings.encrypted,
        **ports,
    }


def _port(address: str, default: int) -> int:
    return int(address.rpartition(":")[2]) if address else default
