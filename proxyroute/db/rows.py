"""What the rows of a reading mean, where both flavours say the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from proxyroute.model import Receiver, SemiSync

UNKNOWN_VARIABLE = 1193
"""Error number of a server that does not have a variable: it is of another flavour, or too old."""


def parse_version(text: str) -> tuple[int, int, int]:
    """Returns the numbers of ``10.11.19-MariaDB-…``. Raises ValueError when there are none."""
    found = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a server version")
    return int(found[1]), int(found[2]), int(found[3])


def is_on(value: Any) -> bool:
    """Server variables come as 1 or 0, ON or OFF; read_only of MariaDB 12.0 has further words that all mean on."""
    return str(value).upper() not in ("0", "OFF", "NONE", "DISABLED", "")


def by_kind(rows: Iterable[Mapping[str, Any]], *kinds: str) -> tuple[dict[str, str], ...]:
    """Returns for each of ``kinds`` the values by their names, in small letters, from rows of kind, name and value."""
    found: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for row in rows:
        found[row["kind"]][row["name"].lower()] = str(row["value"])
    return tuple(found.values())


def receiver(shown: Any, source_id: Any) -> Receiver:
    """Returns the state of a receiver by what a server shows of it, and of who its source is.

    It shows ``Yes`` as soon as it is connected, a moment before it has asked whom it is connected to: until then it is
    still on the way there, as while it shows ``Connecting`` or ``Preparing``.
    """
    if shown == "No":
        return Receiver.STOPPED
    return Receiver.RUNNING if shown == "Yes" and int(source_id) else Receiver.CONNECTING


def options(
    row: Mapping[str, Any],
    columns: Mapping[str, tuple[str, str]],
    *,
    flags: Collection[str],
    lists: Collection[str] = (),
) -> dict[str, Any]:
    """Returns ``Source.options`` of a channel's ``row``; ``columns`` as in ``SOURCE_OPTIONS`` of its flavour.

    Of its keys ``flags`` are true or false, and ``lists`` are lists of numbers.
    """
    found: dict[str, Any] = {}
    for key, (column, _) in columns.items():
        value = row.get(column)
        if key in flags:
            found[key] = str(value) in ("Yes", "1")
        elif key in lists:
            found[key] = [int(number) for number in re.findall(r"\d+", str(value or ""))]
        elif key in ("connect_retry", "retry_count", "delay"):
            found[key] = int(value or 0)
        elif key == "heartbeat":
            found[key] = float(value or 0)
        elif value:
            found[key] = str(value)
    return found


SEMI_SYNC_SOURCES = {"source": "replica", "master": "slave"}
"""The names of a plugin that waits for acknowledgements, and what it calls those who give them: MySQL has two, from
8.0.26 on the first. Each side is a plugin of its own, so that a server may have either under either name, or none."""


def semi_sync(variables: Mapping[str, str], counters: Mapping[str, str]) -> SemiSync:
    """Returns what the variables and counters of the plugins tell which are there."""

    def loaded(names: Iterable[str]) -> str:
        return next((name for name in names if f"rpl_semi_sync_{name}_enabled" in variables), "")

    source, replica = loaded(SEMI_SYNC_SOURCES), loaded(SEMI_SYNC_SOURCES.values())
    theirs = SEMI_SYNC_SOURCES.get(source, "")
    clients = int(counters.get(f"rpl_semi_sync_{source}_clients", 0))
    return SemiSync(
        available=bool(source),
        primary_enabled=is_on(variables.get(f"rpl_semi_sync_{source}_enabled")),
        # with no replica at all the status stays ON until the first commit has waited in vain
        primary_active=is_on(counters.get(f"rpl_semi_sync_{source}_status")) and clients > 0,
        replica_enabled=is_on(variables.get(f"rpl_semi_sync_{replica}_enabled")),
        replica_active=is_on(counters.get(f"rpl_semi_sync_{replica}_status")),
        clients=clients,
        wait_point=variables.get(f"rpl_semi_sync_{source}_wait_point", ""),
        timeout_seconds=int(variables.get(f"rpl_semi_sync_{source}_timeout", 0)) / 1000,
        wait_no_replica=is_on(variables.get(f"rpl_semi_sync_{source}_wait_no_{theirs}")),
        wanted=int(variables.get(f"rpl_semi_sync_{source}_wait_for_{theirs}_count", 1)),
        waiting=int(counters.get(f"rpl_semi_sync_{source}_wait_sessions", 0)),
        acknowledged=int(counters.get(f"rpl_semi_sync_{source}_yes_tx", 0)),
        can_acknowledge=bool(replica),
    )
