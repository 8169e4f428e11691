"""A server rejoins: it follows the primary again, and nothing it has that the primary lacks is lost unseen.

A reconciliation, by one record in the journal. Up to its ``commit`` the server was at most fenced and read; from there
on each step first looks at what is there, so that whoever goes on after a crash may begin at the first step that has
no word of its end. Only the server that rejoins is ever changed.
"""

from __future__ import annotations

from dataclasses import replace

from proxyroute.archive import Archive, save
from proxyroute.deadline import more_urgent
from proxyroute.dialect import told
from proxyroute.errors import (
    Busy,
    Diverged,
    GaveWay,
    LeaseLost,
    LostReply,
    NoRoom,
    ProxyRouteError,
    Refused,
    ServerError,
    TimedOut,
    Unfinished,
    Unreachable,
    Unserved,
)
from proxyroute.gtid import Containment, MariaDBPosition, Position
from proxyroute.model import Deadline, Finding, Severity, Status
from proxyroute.operation import Operation
from proxyroute.outcome import Verdict
from proxyroute.parts import LOOK
from proxyroute.ports import Server
from proxyroute.rejoin_data import count_as_done, empty_values, flashback, flashback_values, let_go, regain, reseed
from proxyroute.rejoin_dump import let_events, rest_events
from proxyroute.rejoin_look import (
    Means,
    as_siblings_do,
    common_obstacles,
    contained,
    empty_obstacles,
    errant_cure,
    flashback_obstacles,
    half_built,
    imports,
    ours,
    reseed_way,
    unapplied,
)
from proxyroute.rejoin_proof import prove
from proxyroute.site import shut

METHODS = ("follow", "flashback", "reseed", "empty")
KIND = "rejoin"
_FENCE, _ARCHIVE, _FOLLOW, _CATCH_UP = 30.0, 3600.0, 60.0, 600.0
_KEEP_UP = 15.0
_PASSING = (Busy, LeaseLost, LostReply, TimedOut, Unfinished, Unreachable)
"""Errors that say nothing of what a server has: they may be over the next time."""


class AskedInVain(Refused):
    """What was asked for cannot be done, and that says nothing of the server: it may still rejoin by itself."""


def rejoin(means: Means, op: Operation, method: str | None) -> None:
    """Makes ``op.plan.candidate`` follow ``op.plan.primary``, and closes the record. The lease is held.

    Without a ``method`` only what loses nothing is done. Raises Refused with everything that stands in the way; then
    the server is left fenced: read-only, and not replicating.
    """
    try:
        _decide(means, op, method)
    except Refused as refusal:
        _give_way(op, refusal)
        kept = op.kept("archive")
        ended = "superseded" if isinstance(refusal, AskedInVain) else "refused"
        op.end(ended, f"{refusal}" + (f"; it has {kept['told']}, kept in {kept['path']}" if kept else ""))
        raise
    except (ProxyRouteError, OSError) as error:
        if op.committed:
            raise
        _give_way(op, error)
        # a refusal is for a person, and ends what is done by itself: somebody who did not answer is no reason for that
        op.end("superseded" if isinstance(error, _PASSING) else "refused", f"{error}; nothing was changed")
        then = f"; when it answers type: proxyroute rejoin {op.plan.candidate}" * isinstance(error, Unreachable)
        raise Refused(f"{op.plan.candidate} was left as it is: {error}{then}") from error
    if op.committed:
        go_on(means, op, op.plan.primary)


def _give_way(op: Operation, error: Exception) -> None:
    """What was cut short says nothing of the server: its record must not read as a refusal, which is for a person."""
    if said := more_urgent():
        op.end("superseded", f"{said}: it is tried again later")
        raise GaveWay(said) from error


def _decide(means: Means, op: Operation, method: str | None) -> None:
    name, primary = op.plan.candidate, op.plan.primary
    with op.step("fence") as note:
        status = _fence(means, op, name, method)
        down = status.server_id == 0
        note.detail = f"{name} {'is down' if down else 'refuses writes'}"
    with op.step("compare") as note:
        known = means.parts.site[primary].position(Deadline.after(LOOK))  # read after that of the server
        if down:  # nothing is known of what it has executed, in whichever flavour
            status = replace(status, flavour=known.flavour, executed=known.minus(known))
        held = Containment.UNKNOWN if down else contained(means, status, known)
        note.detail = {
            Containment.YES: f"{primary} has everything of {name}",
            Containment.NO: f"{primary} lacks {ours(means, status, known).minus(known)}",
            Containment.UNKNOWN: f"{primary} knows nothing of {ours(means, status, known).minus(known)}",
        }[held]
    if method != "reseed" and (half := half_built(status)):
        raise Refused(f"{name} cannot follow {primary}; it is left as it is", tuple(half))
    if elsewhere := imports(means, status, primary):
        raise Refused(f"{name} cannot follow {primary}; it is left as it is", told(known.flavour, elsewhere))
    if held is Containment.YES and method in (None, "follow"):
        op.commit(known)
        op.keep("method", "follow", wait=True)
        return
    findings: list[Finding] = []
    archive: Archive | None = None
    if held is not Containment.YES:
        archive, found = _archive(means, op, status, known, held)
        findings += found
    if held is Containment.YES and method in ("flashback", "empty"):
        raise AskedInVain(f"{name} has nothing that {primary} lacks; type: proxyroute rejoin {name}")
    if method in (None, "follow"):
        raise Refused(
            f"{name} cannot simply follow {primary}; it is left read-only and not replicating",
            told(known.flavour, findings),
        )
    obstacles = list(common_obstacles(means, name))
    if method == "flashback":
        assert archive is not None or findings, "the archive says what is to be undone"
        obstacles += [*flashback_obstacles(means, status, primary, archive), *unapplied(means, name, primary)]
    elif method == "empty":
        obstacles += empty_obstacles(name, archive)
    else:
        source = primary
        way, no_copy, found = reseed_way(means, name, source, down=down)
        obstacles += [*found, *unapplied(means, name, primary)]
    if obstacles and down:
        raise AskedInVain(f"{name} is down, and cannot rejoin by {method}", told(known.flavour, obstacles))
    if obstacles:
        raise Refused(
            f"{name} cannot rejoin by {method}; it is left read-only", told(known.flavour, (*findings, *obstacles))
        )
    if method == "flashback":
        assert archive is not None
        op.keep("flashback", flashback_values(archive))
        op.keep("method", "flashback", wait=True)
        op.commit(archive.state)
    elif method == "empty":
        assert archive is not None
        op.keep("empty", empty_values(archive))
        op.keep("method", "empty", wait=True)
        op.commit(known)
    else:
        for finding in findings:  # what is given up by whoever asked for new data
            op.note(f"{name} {finding.text}")
        if no_copy:
            op.note(f"the old data of {name} are not kept: {'; '.join(no_copy)}")
        op.keep("reseed", {"source": source, "way": way})
        op.keep("method", "reseed", wait=True)
        op.commit(known)


def go_on(means: Means, op: Operation, primary: str, *, keep_lease: bool = False) -> None:
    """Does what is left of a committed rejoin below ``primary``, and closes the record; may be repeated.

    The lease is given back for what takes long; with ``keep_lease`` it is held throughout, for others that need it
    afterwards, and then data are not compared: the proof says UNKNOWN of them. Raises Unfinished when it has to be
    tried again.
    """
    name, method = op.plan.candidate, op.kept("method")
    with op.step("fence"):
        _fence(means, op, name, method)
    try:
        if method == "flashback":
            primary = flashback(means, op, name, primary, keep_lease=keep_lease)
        elif method == "reseed":
            primary = reseed(means, op, name, primary)
        elif method == "empty":
            count_as_done(means, op, name, primary)
        with op.step("follow") as note:
            note.detail = _follow(means, op, name, primary)
        if method != "follow":
            with op.step("catch up") as note:
                note.detail = _catch_up(means, op, name, primary, keep_lease=keep_lease)
        with op.step("prove") as note:
            proof = prove(means, op, name, primary, keep_lease=keep_lease)
            op.prove(proof)
            note.detail = str(proof.verdict)
        old = op.kept("old_data")
        if old and proof.verdict is Verdict.PROVEN:
            with op.step("discard") as note:
                means.rebuild[name].discard_old(op.id, Deadline.after(_FENCE * 10))
                note.detail = f"the old data in {old} are gone"
        elif old:
            op.note(f"the old data are kept in {old} on the host of {name}")
        op.end("done", f"{name} follows {primary}")
    except Refused:
        raise
    except (ProxyRouteError, OSError) as error:
        if op.outcome is not None:
            raise
        if method == "follow" and isinstance(error, (Diverged, Unserved)):
            op.end("refused", str(error))
            # it has got more since; another look chooses another method
            text = f"{error}; type: proxyroute rejoin {name}" if isinstance(error, Diverged) else str(error)
            raise Refused(text) from error
        raise Unfinished(f"{name} has not rejoined yet: {error}; type: proxyroute rejoin {name}") from error


# -- looking --


def _fence(means: Means, op: Operation, name: str, method: str | None) -> Status:
    """It refuses writes, nobody is in the middle of one, and it is read after that.

    Before its data are undone or replaced its events rest as well: what they write past read-only is in no archive.
    """
    server, deadline = means.parts.site[name], Deadline.after(_FENCE)
    try:
        found = server.look(deadline)
        loaded = op.committed and method == "reseed"  # whoever loads data is let through, and closes it himself
        if found.writable or (found.half_closed and not loaded):
            op.lease.check()
            shut(server, deadline)
        if method in ("flashback", "reseed"):
            rest_events(server, op, deadline)
        return server.look(deadline)
    except ServerError:
        if method != "reseed":
            raise
        return Status(name, server.address, "mariadb", (0, 0, 0), "", 0, False, MariaDBPosition())


def _archive(
    means: Means, op: Operation, status: Status, known: Position, held: Containment
) -> tuple[Archive | None, list[Finding]]:
    name, primary = status.name, op.plan.primary
    own = ours(means, status, known)
    extra = own.minus(known)
    with op.step("archive") as note:
        # its log is only read, and may be long: who fails over must not wait for that
        let_go(means.parts, op.lease)
        try:
            archive = save(means.rebuild[name], own, known, means.archive, Deadline.after(_ARCHIVE))
        except NoRoom as error:
            _regain_below(means, op, name)
            text = f"has {extra}, which {primary} lacks, and that cannot be kept: {error}"
            cure = "make room there (older archives may be moved away), then try again"
            raise Refused(
                f"{name} cannot rejoin before what only it has is kept; it is left read-only and not replicating",
                (Finding("rejoin.room", Severity.ERROR, name, text, cure),),
            ) from error
        except (ProxyRouteError, OSError) as error:
            _regain_below(means, op, name)
            if status.server_id:  # else it was down before
                means.parts.site[name].look(Deadline.after(LOOK))  # one that has gone meanwhile comes again
            note.detail = f"could not be made: {error}"
            text = f"has {extra}, which {primary} lacks, and its binary log cannot be kept: {error}"
            cure = f"look at its binary log; or give it up: proxyroute rejoin {name} --method reseed"
            return None, [Finding("rejoin.unread", Severity.ERROR, name, text, cure)]
        _regain_below(means, op, name)
        note.detail = f"{archive}, in {archive.path}"
    op.keep("archive", {"path": str(archive.path), "told": str(archive)}, wait=True)
    op.keep("archived", status.executed.to_json())
    found: list[Finding] = []
    if archive.transactions:
        text = f"has {archive}, which {primary} lacks; they are kept in {archive.path}"
        cure = errant_cure(archive, primary)
        found.append(Finding("rejoin.errant", Severity.ERROR, name, text, cure))
    if not archive.missing.empty or held is Containment.UNKNOWN:
        unknown = archive.missing if not archive.missing.empty else extra
        text = f"UNKNOWN: has {unknown}, and no binary log tells what it was, or whether {primary} has it"
        found.append(Finding("rejoin.unknown", Severity.ERROR, name, text, f"proxyroute rejoin {name} --method reseed"))
    if archive.cut:
        text = f"UNKNOWN: {archive.cut}, and nobody can tell what its binary log held behind that"
        found.append(Finding("rejoin.unknown", Severity.ERROR, name, text, f"proxyroute rejoin {name} --method reseed"))
    return archive, found


def _regain_below(means: Means, op: Operation, name: str) -> None:
    """Has the lease again; what has been decided so far holds below the same primary only. Raises as ``regain``."""
    primary = regain(means, op, name, "has been looked at")
    if primary != op.plan.primary:
        raise Unfinished(f"{primary} has become the primary meanwhile; type: proxyroute rejoin {name}")


# -- following --


def _follow(means: Means, op: Operation, name: str, primary: str) -> str:
    site = means.parts.site
    server, source, deadline = site[name], site[primary], Deadline.after(_FOLLOW)
    view = site.look(Deadline.after(LOOK))
    top, below = view.status(primary), view.status(name)
    if top is None or below is None:
        raise Unfinished(f"{primary if top is None else name} does not answer")
    op.lease.check()
    # as the source of nobody it would wait for acknowledgements of its own
    server.semi_sync(deadline, primary=False, replica=top.semi_sync.primary_enabled or None)
    # a former primary has no channel whose options could be kept
    options = as_siblings_do(view, name, primary)
    server.follow(
        view.peer(primary), deadline, source_has=lambda: source.position(deadline),
        source_purged=lambda: source.purged(deadline), options=options,
    )  # fmt: skip
    if rest_events(server, op, deadline):
        let_events(server, op, deadline)
    channel = next((s for s in server.look(deadline).sources if s.address == source.address), None)
    if channel is not None and channel.delay_seconds:
        return f"{name} follows {primary}, {channel.delay_seconds} s behind on purpose"
    if op.kept("method") != "follow":
        return f"{name} follows {primary}"
    return f"{name} follows {primary} and {_keeps_up(server, source.position(deadline))}"


def _keeps_up(server: Server, goal: Position) -> str:
    """Waits for a moment only: it catches up by itself, and nobody holds the lease for that long."""
    try:
        server.wait_for(goal, Deadline.after(_KEEP_UP))
    except TimedOut:
        return f"still has to catch up to {goal}"
    return f"has reached {goal}"


def _catch_up(means: Means, op: Operation, name: str, primary: str, *, keep_lease: bool) -> str:
    """Awaits that ``name`` has what its primary had: only then its new data can be compared. Changes nothing.

    That may take long, so the lease is given back for it; who has to keep it waits for a moment only.
    """
    server, source = means.parts.site[name], means.parts.site[primary]
    if not keep_lease:
        let_go(means.parts, op.lease)
    found = server.look(Deadline.after(LOOK)).sources
    if any(channel.address == source.address and channel.delay_seconds for channel in found):
        return f"{name} is behind on purpose"
    goal = source.position(Deadline.after(LOOK))
    if keep_lease:
        return f"{name} {_keeps_up(server, goal)}"
    server.wait_for(goal, Deadline.after(_CATCH_UP))
    return f"{name} has reached {goal}"
