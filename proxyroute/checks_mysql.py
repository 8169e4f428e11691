"""The rules of preflight on what only a MySQL server can be wrong in. As in checks.py; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from proxyroute.checks import Case, Said
from proxyroute.conditions import anonymous
from proxyroute.logged import is_half_built
from proxyroute.model import Status

_ON, _OFF = True, False


class _Unfit(NamedTuple):
    """A value that may be persisted, of which role that is wrong, and what such a server does after a restart."""

    flag: str
    value: bool
    primary: bool | None
    does: str


_UNFIT = (
    _Unfit("read_only", _OFF, None, "takes writes"),
    _Unfit("super_read_only", _OFF, None, "takes writes of accounts with CONNECTION_ADMIN or SUPER"),
    _Unfit("offline_mode", _ON, None, "turns clients and replicas away"),
    _Unfit("event_scheduler", _OFF, True, "runs no events"),
    *(_Unfit(f"rpl_semi_sync_{side}_enabled", _OFF, True, "waits for no replica") for side in ("source", "master")),
    *(_Unfit(f"rpl_semi_sync_{side}_enabled", _ON, False, "waits for replicas") for side in ("source", "master")),
    *(_Unfit(f"rpl_semi_sync_{side}_enabled", _OFF, False, "acknowledges nothing") for side in ("replica", "slave")),
)
_ALWAYS = ("read_only", "super_read_only")
"""A server has to start closed whatever it is now; the other flags are right as they are now."""


def persisted(case: Case) -> Iterator[Said]:
    """SET PERSIST outlives the role that it was said for."""
    for server in case.view.seen:
        kept = dict(flag.split("=", 1) for flag in server.settings.get("persisted", "").split(",") if flag)
        primary = case.primary.name == server.name if case.primary else None
        unfit = [
            u
            for u in _UNFIT
            if u.flag in kept
            and _is_on(kept[u.flag]) is u.value
            and (u.primary is None or u.primary is primary)
            and (u.flag in _ALWAYS or _now(server, u.flag) is not u.value)
        ]
        if unfit:
            yield Said(
                server.name,
                f"has {', '.join(f'{u.flag}={kept[u.flag]}' for u in unfit)} persisted: after a restart it "
                f"{' and '.join(u.does for u in unfit)}, whatever its role is then",
                f"on {server.name}: " + " ".join(f"RESET PERSIST {u.flag};" for u in unfit),
            )


def half_closed(case: Case) -> Iterator[Said]:
    """One in maintenance is left alone, and data may be loaded into it."""
    for server in case.view.seen:
        if not server.half_closed or server.name in case.policy.aside or is_half_built(server.executed):
            continue
        inspection = case.view.inspections.get(server.name)
        writers = inspection.privileged_writers if inspection else ()
        who = f"{', '.join(writers)}, connected now," if writers else "any account with CONNECTION_ADMIN or SUPER"
        yield Said(
            server.name,
            f"has read_only without super_read_only: {who} may write there, and what it writes nobody else has",
            f"on {server.name}: SET GLOBAL super_read_only=1; and super_read_only=1 in its my.cnf",
        )


def permissive_primary(case: Case) -> Iterator[Said]:
    if case.primary and (objection := anonymous(case.primary)):
        yield Said(case.primary.name, *objection)


def _now(server: Status, flag: str) -> bool:
    return server.event_scheduler if flag == "event_scheduler" else _is_on(server.settings.get(flag, "OFF"))


def _is_on(value: str) -> bool:
    return value.upper() in ("ON", "1")
