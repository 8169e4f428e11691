"""The proof after an operation: look at everything again, and say what was seen.

PROVEN means that every claim was looked at and holds. What could not be looked at is UNKNOWN, never assumed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from proxyroute.errors import ProxyRouteError
from proxyroute.gtid import Containment
from proxyroute.model import Address, Deadline, Evidence, Observed, Proof, Silent, Status, Verdict, View
from proxyroute.operation import Operation
from proxyroute.parts import Parts
from proxyroute.ports import Probe

_PAUSE = 0.05
_VERDICTS = {
    Containment.YES: Verdict.PROVEN,
    Containment.NO: Verdict.NOT_PROVEN,
    Containment.UNKNOWN: Verdict.UNKNOWN,
}


def prove(parts: Parts, op: Operation, deadline: Deadline, lost: Collection[str] = ()) -> Proof:
    """Returns the proof, looking again until everything holds or ``deadline`` has passed."""
    probe = _probe(parts, op, deadline)
    blackout = None
    if "frozen" in op.marks and "closed" in op.marks:
        blackout = round(op.marks["closed"] - op.marks["frozen"], 6)
    while True:
        view = parts.site.look(deadline.within(3.0))
        observed = parts.routes.observe(deadline.within(3.0))
        evidence = (
            *_servers(op, view, lost),
            *(e for o in observed if parts.routes.is_required(o.proxy) for e in _proxy(op, o)),
            *probe,
        )
        proof = Proof(evidence, blackout)
        if proof.verdict is Verdict.PROVEN or deadline.left < _PAUSE or not _may_still_change(view, evidence):
            return proof
        time.sleep(_PAUSE)


def _may_still_change(view: View, evidence: Collection[Evidence]) -> bool:
    """A server that does not answer will not do so by being asked again; everything else may be on its way."""
    silent = {s.name for s in view.silent}
    return any(e.verdict is not Verdict.PROVEN and e.subject not in silent for e in evidence)


def _claim(subject: str, claim: str, holds: bool, seen: str) -> Evidence:
    return Evidence(subject, claim, Verdict.PROVEN if holds else Verdict.NOT_PROVEN, seen)


def _servers(op: Operation, view: View, lost: Collection[str]) -> Iterator[Evidence]:
    plan, new = op.plan, view.status(op.plan.candidate)
    if new is None:
        yield Evidence(plan.candidate, "takes writes", Verdict.UNKNOWN, _silence(view, plan.candidate))
        return
    yield _claim(new.name, "takes writes and follows nobody", new.writable and not new.sources, _role(new))
    if op.goal is not None:
        holds = _VERDICTS[new.executed.contains(op.goal)]
        # within a domain the latest one in order stands for those before: a seeded server has no entry for each
        if holds is Verdict.UNKNOWN and op.kept("reached") == Containment.YES:
            holds = Verdict.PROVEN
        yield Evidence(new.name, f"has everything up to the frozen position {op.goal}", holds, str(new.executed))
    for name in view.servers:
        if name == new.name or name in lost:
            continue
        status = view.status(name)
        if status is None:
            yield Evidence(name, "refuses writes and follows", Verdict.UNKNOWN, _silence(view, name))
            continue
        yield _claim(name, "refuses writes", not status.writable, _role(status))
        yield from _replica(op, status, new, mine=name in (plan.primary, plan.attach, *plan.replicas))
    old = view.status(plan.primary)
    settings = op.kept("settings")
    if old is not None and settings:
        wanted = int(settings["max_connections"])
        seen = f"{old.connections_limit} connections"
        yield _claim(old.name, f"its limit of {wanted} connections is back", old.connections_limit == wanted, seen)


def _replica(op: Operation, status: Status, new: Status, *, mine: bool) -> Iterator[Evidence]:
    """``mine`` are those the operation repointed; a replica below another replica stays where it is."""
    if mine:
        channel = next((s for s in status.sources if s.source_id == new.server_id), None)
        running = channel is not None and channel.running
        seen = _role(status) if channel is None else f"receiver {channel.receiver}, applier {_on(channel.applier)}"
        yield _claim(status.name, f"follows {new.name}", running, seen)
    if op.goal is not None:
        applied = _VERDICTS[status.executed.contains(op.goal)]
        if applied is Verdict.UNKNOWN:  # seeded from a copy: its history begins later, and it runs in order since
            applied = Verdict.PROVEN
        yield Evidence(status.name, "has applied the frozen position", applied, str(status.executed))
    own = _VERDICTS[new.executed.contains(status.executed)]
    extra = str(status.executed.minus(new.executed)) or "nothing"
    yield Evidence(status.name, f"has nothing that {new.name} lacks", own, extra)


def _proxy(op: Operation, seen: Observed) -> Iterator[Evidence]:
    target = op.plan.candidate
    if not seen.reachable:
        yield Evidence(seen.proxy, f"sends writes to {target}", Verdict.UNKNOWN, seen.detail or "does not answer")
        return
    if seen.primary is None and seen.epoch is None:
        yield Evidence(seen.proxy, f"sends writes to {target}", Verdict.UNKNOWN, seen.detail or "cannot be read back")
        return
    where = seen.primary or "nowhere"
    yield _claim(seen.proxy, f"sends writes to {target}", seen.primary == target, f"to {where}, epoch {seen.epoch}")
    elsewhere = {name: count for name, count in seen.sessions.items() if name != target and count}
    told = ", ".join(f"{count} on {name}" for name, count in seen.sessions.items()) or "no sessions"
    yield _claim(seen.proxy, "has no write session elsewhere", not elsewhere, told)
    yield _claim(seen.proxy, "holds nobody back", not seen.held, "holding" if seen.held else "not holding")
    yield _claim(seen.proxy, "runs what was published", not seen.drift, "; ".join(seen.drift) or "no drift")


def _probe(parts: Parts, op: Operation, deadline: Deadline) -> tuple[Evidence, ...]:
    """Writes one row through every write route, and awaits it at every read route."""
    if parts.probe is None:
        return ()
    evidence = []
    for adapter in parts.routes.required:
        for route in adapter.routes("write"):
            evidence.append(_written(parts.probe, op, f"{adapter.name} {route}", route, deadline))
    for adapter in parts.routes.required:
        for route in adapter.routes("read"):
            evidence.append(_read_back(parts.probe, op, f"{adapter.name} {route}", route, deadline))
    return tuple(evidence)


def _written(probe: Probe, op: Operation, subject: str, route: Address, deadline: Deadline) -> Evidence:
    claim = f"a row written here reaches {op.plan.candidate}"
    try:
        server_id = probe.write(route, op.id, op.route_epoch, deadline)
    except ProxyRouteError as error:
        return Evidence(subject, claim, Verdict.UNKNOWN, str(error))
    wanted = op.kept("server_ids", {}).get(op.plan.candidate)
    return _claim(subject, claim, server_id == wanted, f"server id {server_id} took it")


def _read_back(probe: Probe, op: Operation, subject: str, route: Address, deadline: Deadline) -> Evidence:
    claim = "the row is read back here"
    seen = "nothing was read"
    while not deadline.passed:
        try:
            found = probe.read(route, deadline)
        except ProxyRouteError as error:
            return Evidence(subject, claim, Verdict.UNKNOWN, str(error))
        if found == op.id:
            return _claim(subject, claim, True, f"row of {found}")
        seen = f"row of {found or 'nobody'}"
        time.sleep(min(_PAUSE, deadline.left))
    return _claim(subject, claim, False, seen)


def _role(status: Status) -> str:
    follows = ", ".join(f"follows {s.address}" for s in status.sources) or "follows nobody"
    return f"{'takes' if status.writable else 'refuses'} writes, {follows}"


def _on(running: bool) -> str:
    return "running" if running else "stopped"


def _silence(view: View, name: str) -> str:
    found = view.servers.get(name)
    return found.reason if isinstance(found, Silent) else "not asked"
