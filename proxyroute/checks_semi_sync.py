"""The rules of preflight on semi-synchronous replication. As in checks.py; pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxyroute.checks import Case, Said
from proxyroute.conditions import seconds
from proxyroute.model import Status

_RESTART_RECEIVER = "SET GLOBAL rpl_semi_sync_slave_enabled=1; STOP SLAVE IO_THREAD; START SLAVE IO_THREAD;"


def missing(case: Case) -> Iterator[Said]:
    """Its two sides are plugins of their own on MySQL: the candidate needs the one, whoever is left the other."""
    new = case.candidate
    if not case.primary or not case.primary.semi_sync.primary_enabled or not new:
        return
    if not new.semi_sync.available:
        yield Said(
            new.name,
            f"has no plugin to wait for acknowledgements, {case.primary.name} waits for them; after the switchover no "
            "commit would wait for a replica",
            f"on {new.name}: INSTALL SONAME 'semisync_master';",
        )
        return
    without = _without(case)
    able, wanted = len(case.view.servers) - 1 - len(without), new.semi_sync.wanted
    if able < wanted:
        yield Said(
            new.name,
            f"would wait in vain: {able or 'none'} of the other servers could acknowledge, {wanted} must; the first "
            "commit would take the whole time-out, and those after it would be on one server alone",
            f"on {without[0].name}: INSTALL SONAME 'semisync_slave';" if without else "add a replica",
        )


def unable(case: Case) -> Iterator[Said]:
    """Who will replicate and cannot acknowledge; whether enough are left is told by :func:`missing`."""
    if case.primary and case.primary.semi_sync.primary_enabled:
        for server in _without(case):
            yield Said(
                server.name,
                "has no plugin to acknowledge what it receives: it does not count for what may not be lost",
                f"on {server.name}: INSTALL SONAME 'semisync_slave';",
            )


def _without(case: Case) -> list[Status]:
    """Returns those that cannot acknowledge, of all that will replicate: the old primary is one of them by then."""
    spared = {case.target or (case.primary.name if case.primary else "")}
    return [s for s in case.view.seen if s.name not in spared and not s.semi_sync.can_acknowledge]


def alone(case: Case) -> Iterator[Said]:
    if not case.plan or not case.primary or not case.plan.semi_sync:
        return
    timeout, wanted = seconds(case.primary.semi_sync.timeout_seconds), case.primary.semi_sync.wanted
    if case.plan.attach is not None and wanted == 1:
        return
    missing = "no other semi-synchronous replica runs" if wanted == 1 else f"{wanted} replicas have to acknowledge"
    yield Said(
        case.plan.candidate,
        f"{missing}: the first commits wait for up to {timeout}, until as many have been attached",
        f"on another replica: {_RESTART_RECEIVER}" if case.plan.attach is None and wanted == 1 else "",
    )


def waiting(case: Case) -> Iterator[Said]:
    """Whoever replicates commits as well: what it applies waits for acknowledgements, and so does who stops it."""
    feeding = {source.source_id for server in case.view.seen for source in server.sources}
    for server in case.view.seen:
        if server.sources and server.semi_sync.primary_enabled and server.server_id not in feeding:
            yield Said(
                server.name,
                "waits for acknowledgements as a primary does, and feeds nobody: after each restart it applies nothing "
                f"for {seconds(server.semi_sync.timeout_seconds)}, and cannot be stopped",
                f"on {server.name}: SET GLOBAL rpl_semi_sync_master_enabled=0; and take it out of its my.cnf: "
                "ProxyRoute tells whoever becomes the primary to wait",
            )


def degraded(case: Case) -> Iterator[Said]:
    semi_sync = case.primary.semi_sync if case.primary else None
    if case.primary and semi_sync and semi_sync.primary_enabled and not semi_sync.primary_active:
        yield Said(
            case.primary.name,
            f"should wait for replicas and does not; {semi_sync.clients} of them acknowledge",
            f"on the replicas: {_RESTART_RECEIVER}",
        )
