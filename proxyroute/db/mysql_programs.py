"""MySQL's client programs on this machine: those of MariaDB bear the same names, and must not be taken for them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from proxyroute.errors import ScriptFailed
from proxyroute.host import Program, output
from proxyroute.model import Deadline

READ_LOG = ("mysqlbinlog", "--no-defaults")
"""What reads a file of a binary log."""
_MARIADB = re.compile(r"MariaDB|Ver 3\.")
"""In what a client program says of its version; that of mysqlbinlog is 3.x there."""


def require_own(program: str, deadline: Deadline) -> None:
    """Raises ScriptFailed unless ``program`` is here, and MySQL's own: MariaDB's packages have those names as well."""
    try:
        told = output(Program((program, "--no-defaults", "--version")), deadline)
    except ScriptFailed as error:
        raise ScriptFailed(f"{error}; MySQL's client package has it") from error
    if _MARIADB.search(told.decode(errors="replace")):
        raise ScriptFailed(f"the {program} of this machine is MariaDB's; MySQL's client package has its own")


def require_options(program: str, options: Sequence[str], deadline: Deadline) -> None:
    """Raises ScriptFailed unless ``program`` knows all of ``options``: older ones lack some, and end when told such.

    No server is asked. ``--help`` stands last: it answers only when everything before it is understood.
    """
    try:
        output(Program((program, "--no-defaults", *options, "--help")), deadline)
    except ScriptFailed as error:
        raise ScriptFailed(
            f"the {program} of this machine is too old, a newer client package is needed: {error}"
        ) from error
