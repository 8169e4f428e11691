"""Servers that this machine's packages do not have, from the folders that ``scripts/roots`` makes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MAKE = "scripts/roots makes it, and scripts/test --matrix runs what needs it"


@dataclass(frozen=True)
class Root:
    """One folder with a system of its own; ``programs`` in it run without chroot."""

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "programs"

    def program(self, name: str) -> str:
        """Returns the path of a program in it. Raises FileNotFoundError."""
        found = self.programs / name
        if not found.is_file():
            raise FileNotFoundError(f"{found} is missing; remove {self.folder}, and {MAKE}")
        return str(found)


def roots_folder() -> Path:
    """Returns where the roots are kept, as ``scripts/roots --where`` tells it."""
    named = os.environ.get("PROXYROUTE_ROOTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "proxyroute-roots"


def find_root(name: str) -> Root:
    """Returns the root ``sid`` or ``trixie``. Raises LookupError, saying what to type, when it is not there."""
    folder = roots_folder() / name
    if not (folder / "made").is_file():
        raise LookupError(f"{folder} is not there; {MAKE}")
    return Root(folder)
