"""What a dead primary had and nobody received: saved from its host and, if asked for, applied before another opens.

What is found there proves nothing about what clients saw. A binary log may lack what was acknowledged (``sync_binlog``,
a lost disk cache), and with AFTER_SYNC it holds what no client was ever told of. So the verdict on the loss stays as it
was without it, and what was found is told beside it.
"""

from __future__ import annotations

from typing import Any

from proxyroute.archive import Archive
from proxyroute.binlog import Logged, Remains, together
from proxyroute.decided import Undo
from proxyroute.errors import JournalError, LeaseLost, ProxyRouteError, Refused, ScriptFailed
from proxyroute.gtid import Containment, Position, from_json
from proxyroute.model import Deadline
from proxyroute.opening import FEEDER
from proxyroute.operation import Operation
from proxyroute.parts import Parts
from proxyroute.remains import replay, save_left

IGNORE, SAVE, APPLY = "ignore", "save", "apply"
_ANSWER = 2.0
_SETTLE = 10.0


def begin(op: Operation, mode: str, seconds: float) -> None:
    """Keeps what is to be done, for whoever comes to it, and when: ``mode`` and the time it may take in seconds."""
    op.keep("dead_binlog", {"mode": mode, "seconds": seconds})


def seconds(op: Operation) -> float:
    """Returns how long it may take, 0 when nothing is to be done."""
    order = op.kept("dead_binlog") or {}
    return 0.0 if order.get("mode", IGNORE) == IGNORE else float(order["seconds"])


def to_apply(op: Operation) -> bool:
    return (op.kept("dead_binlog") or {}).get("mode") == APPLY


def to_save(op: Operation) -> bool:
    """Tells whether it is still to be saved: what could not be read before the commit is tried once more."""
    told = op.kept("salvage")
    return seconds(op) > 0 and (told is None or (told["state"] == "unread" and not told["last"]))


def apply(parts: Parts, op: Operation, goal: Position) -> tuple[Position, str]:
    """Before the commit: applies what nobody received to the candidate, which follows nobody; returns the new goal.

    What cannot be read or applied in time is told, and the failover goes on as it would have without it. Raises only
    when the candidate itself cannot be read any more, or something may still be applied to it.
    """
    new, deadline = parts.site[op.plan.candidate], Deadline.after(seconds(op))
    stood = new.position(Deadline.after(_ANSWER))
    op.keep("stood", stood.to_json())
    try:
        remains, archive = _read(parts, op, stood, stood, deadline)
    except (ProxyRouteError, OSError) as error:
        return goal, _tell(op, "unread", _raise_ours(error), last=False)
    if not archive.transactions:
        return goal, _tell(op, "nothing", _nothing(op, archive, remains))
    if remains.running and not op.kept("fenced_by"):
        why = f"not applied, because {op.plan.primary} is not dead: {', '.join(remains.running)}"
        return goal, _tell(op, "saved", f"{_found(op, archive)}; {why}", archive)
    failed = _replay(parts, op, goal, archive, deadline)
    reached = new.position(Deadline.after(_ANSWER))
    applied = [t for t in archive.transactions if _has(reached, t)]
    goal = together(applied, goal)
    op.keep("goal", goal.to_json(), wait=True)
    op.keep("stood", reached.to_json())
    found = _found(op, archive)
    if len(applied) == len(archive.transactions):
        return goal, _tell(op, "applied", f"{found}; applied to {new.name}", archive, applied=len(applied))
    text = f"{found}; {len(applied) or 'none'} of them applied to {new.name}: {failed}"
    return goal, _tell(op, "partly" if applied else "saved", text, archive, applied=len(applied))


def _replay(parts: Parts, op: Operation, goal: Position, archive: Archive, deadline: Deadline) -> str:
    """Applies what it can; returns why not all. Nothing goes on when this returns."""
    assert parts.salvage is not None
    new = parts.site[op.plan.candidate]
    heir = parts.salvage.heir(new.name, goal.flavour)
    everything = together(archive.transactions, goal.minus(goal))
    # beyond what was received it would look as if somebody had opened the candidate
    op.keep("goal", goal.merge(everything).to_json(), wait=True)
    op.on_abort(Undo("settle_replay", new.name, {"applied": everything.to_json()}))
    failed = ""
    try:
        op.lease.check()
        if new.look(deadline).semi_sync.primary_enabled:  # nobody is there to acknowledge
            op.keep("semi_sync", True)  # after the commit it comes back once somebody is
            op.on_abort(Undo("semi_sync_back", new.name))
            new.semi_sync(deadline, primary=False)
        replay(archive, heir, lambda: new.position(Deadline.after(_ANSWER)), deadline)
    except (ProxyRouteError, OSError) as error:
        failed = _raise_ours(error)
    heir.settle_replay(Deadline.after(_SETTLE), everything)
    return failed


def save(parts: Parts, op: Operation) -> str:
    """Once the new primary takes writes: keeps what nobody received. What cannot be had is told, and no more."""
    deadline, new = Deadline.after(seconds(op)), parts.site[op.plan.candidate]
    try:
        now = new.position(Deadline.after(_ANSWER))
        stood = from_json(op.kept("stood")) if op.kept("stood") else op.goal or now
        remains, archive = _read(parts, op, stood, now, deadline)
    except (ProxyRouteError, OSError) as error:
        return _tell(op, "unread", _raise_ours(error), last=True)
    if not archive.transactions:
        return _tell(op, "nothing", _nothing(op, archive, remains))
    text = _found(op, archive)
    if remains.running:
        text += f"; it is not dead ({', '.join(remains.running)}), and may have more by now"
    return _tell(op, "saved", text, archive)


def _read(parts: Parts, op: Operation, stood: Position, now: Position, deadline: Deadline) -> tuple[Remains, Archive]:
    name = op.plan.primary
    dead = parts.salvage.dead(name, stood.flavour) if parts.salvage is not None else None
    if parts.salvage is None or dead is None:
        raise Refused(f"there is no host: for {name} in the configuration")
    server_id = op.kept("server_ids", {}).get(name)
    if server_id is None:
        raise Refused(f"nobody knows the server id of {name}, so that no file can be shown to be its own")
    remains = dead.look(deadline)
    identity = server_id if stood.ordered else op.kept(FEEDER)  # as positions name it: see Status.identity
    return remains, save_left(dead, server_id, identity, stood, now, parts.salvage.archive, deadline)


def _raise_ours(error: ProxyRouteError | OSError) -> str:
    """Returns what went wrong with the host or the archive. Raises what must end the operation."""
    if isinstance(error, LeaseLost | JournalError):
        raise error
    if isinstance(error, ScriptFailed) and "mariadb-binlog" in str(error) and "cannot be started" in str(error):
        return f"{error}; the package mariadb-client has it"
    return str(error) or type(error).__name__


def _tell(op: Operation, state: str, text: str, archive: Archive | None = None, **more: Any) -> str:
    unread = f"the binary log of {op.plan.primary} could not be read" if state == "unread" else ""
    told = f"{unread}: {text}" if unread else text
    values: dict[str, Any] = {"state": state, "told": told, "last": True, "found": 0, "applied": 0, **more}
    if archive is not None:
        values |= {"found": len(archive.transactions), "path": str(archive.path)}
    op.keep("salvage", values, wait=True)
    return told


def _found(op: Operation, archive: Archive) -> str:
    cut = f" (cut off at the end of the log: {archive.cut})" if archive.cut else ""
    missing = f"; {archive.missing} is in no file any more" if not archive.missing.empty else ""
    return f"{op.plan.primary} alone had {archive}{cut}{missing}, kept in {archive.path}"


def _nothing(op: Operation, archive: Archive, remains: Remains) -> str:
    cut = f", but for what was cut off at its end: {archive.cut}" if archive.cut else ""
    missing = f", but {archive.missing} is in no file any more" if not archive.missing.empty else ""
    runs = f"; it is not dead: {', '.join(remains.running)}" if remains.running else ""
    return f"nothing more in the binary log of {op.plan.primary}{cut}{missing}{runs}"


def _has(position: Position, transaction: Logged) -> bool:
    return position.contains(transaction.position) is Containment.YES
