"""The proof after an operation: look at everything again, and say what was seen.

PROVEN means that every claim was looked at and holds. What could not be looked at is UNKNOWN, never assumed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from proxyroute import topology
from proxyroute.errors import ProxyRouteError
from proxyroute.gtid import Containment, Position
from proxyroute.model import Address, Deadline, Observed, Silent, Source, Status, View
from proxyroute.operation import Operation
from proxyroute.outcome import Evidence, Proof, Verdict
from proxyroute.parts import Parts
from proxyroute.ports import Probe

_PAUSE = 0.05
_LOOK = 3.0
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
        # a full look each time: one with no time left would call everything unknown
        view = parts.site.look(Deadline.after(_LOOK), spared=lost)
        observed = parts.routes.observe(Deadline.after(_LOOK))
        evidence = (
            *_servers(op, view, lost),
            *_gone(op),
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
    above = [s for s in new.sources if topology.source_of(view, s) is not None]
    yield _claim(new.name, "takes writes and follows nobody here", new.writable and not above, _role(new))
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
        mine = name in (plan.primary, plan.attach, *plan.replicas)
        yield from _replica(op, status, new, status.ours(new.executed, view.identities), mine=mine)
    old = view.status(plan.primary)
    settings = op.kept("settings")
    if old is not None and settings:
        wanted = int(settings["max_connections"])
        seen = f"{old.connections_limit} connections"
        yield _claim(old.name, f"its limit of {wanted} connections is back", old.connections_limit == wanted, seen)
        if plan.policy.offline_mode and "offline_mode" in settings:
            offline = old.settings.get("offline_mode", "OFF") == "ON"
            told = "turns clients away" if offline else "lets clients in"
            yield _claim(old.name, "lets clients in as before", offline is bool(settings["offline_mode"]), told)


def _gone(op: Operation) -> Iterator[Evidence]:
    """Of a failover: what keeps the old primary from taking writes, and whether it took something with it."""
    for name in op.gone:
        how, by = op.kept("fencing", "none"), op.kept("fenced_by", "")
        told = f"fenced by {by}" if by else f"{how}; clients that go to it directly are not kept away"
        verdict = Verdict.UNKNOWN if how == "none" else Verdict.PROVEN
        yield Evidence(name, "gets no writes by any route", verdict, told)
        missing, doubts = op.kept("missing", ""), op.kept("loss", ["nobody has looked"])
        if missing:
            yield Evidence(name, "nothing that was received is lost", Verdict.NOT_PROVEN, f"given up: {missing}")
        held = Verdict.UNKNOWN if doubts else Verdict.PROVEN
        # what was found on its host changes no verdict: its log need not hold what clients were told
        found = (op.kept("salvage") or {}).get("told", "")
        seen = "; ".join((*doubts, *([found] if found else ()))) if doubts else "received and applied"
        yield Evidence(name, "nothing that it acknowledged is lost", held, seen)


def _replica(op: Operation, status: Status, new: Status, ours: Position, *, mine: bool) -> Iterator[Evidence]:
    """``ours`` is what it has of this cluster.

    ``mine`` are those the operation repointed; a replica below another replica stays where it is.
    """
    channel = next((s for s in status.sources if s.source_id == new.server_id), None)
    if mine:
        running = channel is not None and channel.running
        seen = _role(status) if channel is None else f"receiver {channel.receiver}, applier {_on(channel.applier)}"
        yield _claim(status.name, f"follows {new.name}", running, seen)
    if op.goal is not None:
        yield _arrived(op.goal, status, channel or status.source)
    own, extra = _VERDICTS[new.executed.contains(ours)], ours.minus(new.executed)
    seen = str(extra) or "nothing"
    if own is Verdict.NOT_PROVEN and topology.on_its_way(new, status, extra):
        own, seen = Verdict.UNKNOWN, f"{seen}, which still waits there to be acknowledged"
    yield Evidence(status.name, f"has nothing that {new.name} lacks", own, seen)


def _arrived(goal: Position, status: Status, channel: Source | None) -> Evidence:
    """A delayed replica has the frozen position in its relay log; a filtered one, never all of it."""
    has, claim = status.executed, "has applied the frozen position"
    if channel is not None and channel.delay_seconds:
        has = channel.received
        claim = f"has received the frozen position, to be applied {channel.delay_seconds} s later"
    if any(source.filtered for source in status.sources):
        return _claim(status.name, f"{claim}, but for what it filters", has.as_far_as(goal), str(has))
    # UNKNOWN: seeded from a copy, its history begins later, and it runs in order since
    return _claim(status.name, claim, has.contains(goal) is not Containment.NO, str(has))


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
    told = ", ".join(f"{count} on {name}" for name, count in seen.sessions.items())
    if told:  # nothing is claimed for a proxy that cannot tell
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
