"""Reads a configuration of replication-manager: its files, sections and the names that options had before."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxyroute.cli.repman_options import ALIASES
from proxyroute.errors import ConfigError

_DEFAULT = "default"


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Returns the options of each cluster in a file of replication-manager and in the folder that it includes.

    Names of 1.x are replaced. Raises ConfigError with file and place when it cannot be read.
    """
    sections = _sections(file)
    default = sections.pop(_DEFAULT, {})
    if included := default.get("include"):
        folder = Path(str(included))
        if not folder.is_dir():
            raise ConfigError(
                f"{file}: include: {folder} is not a folder here; copy it from the other host, "
                f"or remove the line and give each file by itself: proxyroute init --from-replication-manager FILE"
            )
        for other in sorted(folder.glob("*.toml")):
            for name, options in _sections(other).items():
                target = default if name == _DEFAULT else sections.setdefault(name, {})
                target.update(options)
    found = {name: {**default, **options} for name, options in sections.items()}
    if not found:
        raise ConfigError(f"{file}: no section describes a cluster; db-servers-hosts stands below [NAME]")
    return found


def _sections(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; name replication-manager's config.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not TOML: {error}; name replication-manager's config.toml") from None
    loose = {key: value for key, value in content.items() if not isinstance(value, dict)}
    found: dict[str, dict[str, Any]] = {}
    for name, options in content.items():
        if isinstance(options, dict):
            found[_DEFAULT if name.lower() == _DEFAULT else name] = _renamed(options)
    if loose:  # a file below cluster.d may do without a section; then its own name is the cluster's
        found.setdefault(file.stem, {}).update(_renamed(loose))
    return found


def _renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {ALIASES.get(key.lower(), key.lower()): value for key, value in options.items()}
