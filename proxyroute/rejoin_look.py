"""What is looked at before a server rejoins: whom it should follow, what it has, what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyroute.archive import EMPTY, Archive
from proxyroute.binlog import MySQLGTID, Table, empty_statements, is_half_built, together
from proxyroute.errors import Refused
from proxyroute.gtid import Containment, MariaDBPosition, Position
from proxyroute.model import Deadline, Finding, Receiver, Severity, Status, View
from proxyroute.parts import LOOK, Parts
from proxyroute.ports import Lease
from proxyroute.ports_data import Rebuilder
from proxyroute.topology import ONE_FLAVOUR, source_of, stranger
from proxyroute.verify import Comparison

_TIME = 30.0


@dataclass(frozen=True)
class Means:
    """What a rejoin works with."""

    parts: Parts
    rebuild: Mapping[str, Rebuilder]
    archive: Path
    """The folder in which archives are made."""
    compare: Callable[[str, str, Sequence[Table] | None, Deadline], Comparison]
    """Compares the data of a primary and a replica, all of it or some tables."""
    claim: Lease
    """On the server that rejoins, held: nobody else works on it, whoever has the lease of the cluster."""
    settled: Callable[[], None]
    """Raises Refused while nobody can tell who the primary will be."""


def errant_cure(archive: Archive, primary: str) -> str:
    """Returns what can become of transactions that only one server has. Nothing of it is done by itself."""
    name, leave = archive.server, "or leave it as it is"
    if archive.state.flavour != "mysql":
        return f"proxyroute rejoin {name} --method flashback (undoes them) or reseed (new data); {leave}"
    gtids = [t.gtid for t in archive.transactions if isinstance(t.gtid, MySQLGTID)]
    exact = "; ".join(empty_statements(gtids)) if len(gtids) == 1 else f"all in {archive.path / EMPTY}"
    return (
        f"proxyroute rejoin {name} --method reseed (new data); or, when {primary} has what they did or shall do "
        f"without it, --method empty, which makes an empty transaction for each on {primary} ({exact}); {leave}"
    )


def empty_obstacles(name: str, archive: Archive | None) -> list[Finding]:
    cure = f"proxyroute rejoin {name} --method reseed"

    def no(text: str) -> list[Finding]:
        return [Finding("rejoin.empty", Severity.ERROR, name, text, cure)]

    if archive is None:
        return no("nobody could read what it has, so that nobody can say that it may be left out")
    if archive.state.flavour != "mysql":
        return no("MariaDB's transactions are in an order: an empty one in their place would be another one")
    if not archive.missing.empty:
        return no(
            f"no binary log tells any more what {archive.missing} did, so that nobody can say that it may be left out"
        )
    return []


def find_primary(means: Means, view: View, server: str) -> str:
    """Returns whom ``server`` should follow. Raises Refused when that is not beyond doubt."""
    writable = [s.name for s in view.writable if s.name != server]
    if view.primary is not None and view.primary.name == server:
        raise Refused(f"{server} is the primary; there is nothing to rejoin")
    if len(writable) != 1:
        told = f"{' and '.join(writable)} take writes" if writable else "no server takes writes"
        raise Refused(f"{told}, so nobody can tell whom {server} should follow; look at 'proxyroute status'")
    status, top = view.status(server), view.status(writable[0])
    if status is not None and top is not None and status.flavour != top.flavour:
        raise Refused(f"{server} is {status.flavour}, {top.name} is {top.flavour}: {ONE_FLAVOUR}")
    if status is not None and status.writable:
        _refuse_if_used(means, view, server)
    return writable[0]


def _refuse_if_used(means: Means, view: View, server: str) -> None:
    """Two servers take writes: the one that proxies or replicas hold on to is not the one to be closed."""
    below = [s.name for s in view.seen if any(source_of(view, c) == server and c.running for c in s.sources)]
    if below:
        raise Refused(f"{server} takes writes, and {', '.join(below)} follows it; it is not closed")
    routed = [o.proxy for o in means.parts.routes.observe(Deadline.after(LOOK)) if o.primary == server]
    if routed:
        raise Refused(
            f"{server} takes writes, and {', '.join(routed)} sends them there; it is not closed. "
            "Look at 'proxyroute status'; when the other one is the primary: proxyroute publish"
        )


def ours(means: Means, status: Status, known: Position) -> Position:
    """Returns what the server has executed of the cluster whose primary is at ``known``."""
    return status.ours(known, status.fed_from([e.address for e in means.parts.site.endpoints]))


def contained(means: Means, status: Status, known: Position) -> Containment:
    """Tells whether the primary, at ``known``, has everything of the cluster that the server has executed."""
    return known.contains(ours(means, status, known))


def as_siblings_do(view: View, name: str, primary: str) -> Mapping[str, Any]:
    """Returns the options with which the other replicas follow ``primary``: TLS, how soon they connect again."""
    found = (c.options for s in view.seen if s.name != name for c in s.sources if source_of(view, c) == primary)
    return dict(next(found, {}))


def common_obstacles(means: Means, name: str) -> Iterable[Finding]:
    view = means.parts.site.look(Deadline.after(LOOK))
    status = view.status(name)
    if status is not None and len(status.sources) > 1:
        text = "replicates from several sources, and what came from which cannot be told apart"
        yield Finding("rejoin.sources", Severity.ERROR, name, text, f"build {name} anew by hand")
    for other in view.seen:
        for source in other.sources:
            if status is not None and other.name != name and source.source_id == status.server_id:
                text = f"{other.name} follows it, and would be left without the history it needs"
                yield Finding("rejoin.below", Severity.ERROR, name, text, f"proxyroute rejoin {other.name} first")


def imports(means: Means, status: Status, primary: str) -> list[Finding]:
    """Says so of a server that gets everything from elsewhere, as an old primary may: that channel is not ours to take.

    What it brings is applied there past read-only, and the primary has none of it.
    """
    view = means.parts.site.look(Deadline.after(LOOK))
    if not status.sources or not all(stranger(view, channel) for channel in status.sources):
        return []
    found = []
    for channel in status.sources:
        named = f" '{channel.channel}'" if channel.channel else ""
        text = f"replicates from {channel.address}, which is no member, by a channel of its own"
        cure = (
            f"set that channel up on {primary}, if what it brings is needed; on {status.name}: "
            f"STOP SLAVE{named}; RESET SLAVE{named} ALL; then proxyroute rejoin {status.name}"
        )
        found.append(Finding("rejoin.imports", Severity.ERROR, status.name, text, cure))
    return found


def half_built(status: Status) -> list[Finding]:
    """Says so of a server whose data somebody has begun to replace: it looks like one that has fallen behind."""
    if not is_half_built(status.executed):
        return []
    text = "is half built: somebody, perhaps another engine, has begun to replace its data, and they are not whole"
    cure = f"let that rejoin end, or begin anew: proxyroute rejoin {status.name} --method reseed"
    return [Finding("rejoin.half_built", Severity.ERROR, status.name, text, cure)]


def unapplied(means: Means, name: str, primary: str) -> list[Finding]:
    """New data take the relay logs along, as does a history that begins anew: what is nowhere else must not go so."""
    status = means.parts.site.look(Deadline.after(LOOK)).status(name)
    known = means.parts.site[primary].position(Deadline.after(LOOK))
    found = []
    for channel in status.sources if status is not None else ():
        only = channel.received.minus(status.executed).minus(known) if status is not None else known
        if not only.empty:
            text = f"has received {only}, has not applied it, and {primary} lacks it: it is in its relay logs alone"
            cure = f"START SLAVE SQL_THREAD on {name}, then again; or RESET SLAVE there, if nobody needs it"
            if only.ordered and channel.receiver is Receiver.STOPPED and not channel.applier:
                cure = f"any start would drop them (MariaDB): copy them from its host, then RESET SLAVE on {name}"
            found.append(Finding("rejoin.received", Severity.ERROR, name, text, cure))
    return found


def _is_past(state: MariaDBPosition, other: Position) -> bool:
    """Tells whether replication from ``state`` on gives nothing of ``other``: each domain has got further since."""
    assert isinstance(other, MariaDBPosition)
    return all(
        any(own.domain == gtid.domain and own.sequence > gtid.sequence for own in state.entries)
        for gtid in other.entries
    )


def flashback_obstacles(means: Means, status: Status, primary: str, archive: Archive | None) -> list[Finding]:
    """Says why what ``archive`` tells cannot be undone at a server that was read as ``status`` before it was made."""
    name = status.name
    cure = f"proxyroute rejoin {name} --method reseed"

    def no(text: str) -> Finding:
        return Finding("rejoin.flashback", Severity.ERROR, name, text, cure)

    if archive is None:
        return [no("what should be undone could not be read")]
    if not isinstance(archive.state, MariaDBPosition):
        return [no(*means.rebuild[name].cannot_undo((), Deadline.after(_TIME)))]
    if not archive.missing.empty or not archive.transactions:
        return [no("the binary log does not go back to where the two parted")]
    if archive.cut:
        return [no(f"the binary log does not tell all that was done: {archive.cut}")]
    unlogged = status.executed.minus(together(archive.since, archive.state))
    if not _is_past(archive.state, unlogged):  # else its history would begin anew before that, and be applied once more
        off = "" if status.relays_updates else " (log_slave_updates is off there)"
        return [no(f"it has replicated {unlogged} and not logged it{off}: its log does not tell where it stood")]
    found = []
    for transaction in archive.since:
        told = f"{transaction.gtid} ({_short(transaction.statements)})"
        if transaction.ddl:
            found.append(no(f"{told} changed a definition, which cannot be undone"))
        elif transaction.xa:
            found.append(no(f"{told} is an XA transaction"))
        elif not transaction.rows_only:
            found.append(no(f"{told} was logged as a statement, not as rows"))
        elif not transaction.full_images:
            found.append(no(f"{told} was not logged with all columns (binlog_row_image)"))
        elif not transaction.transactional:
            found.append(no(f"{told} changed a table that is not transactional"))
    if found:
        return found[:10]
    deadline = Deadline.after(_TIME)
    found = [no(text) for text in means.rebuild[name].cannot_undo(archive.tables, deadline)]
    gone = means.rebuild[primary].serves_from(archive.state.latest(), deadline)
    if gone:
        found.append(no(f"{primary} cannot serve a replica from {archive.state.latest()} on: {gone}"))
    return found


def _short(statements: Sequence[str]) -> str:
    text = " ".join(statements[0].split()) if statements else "no statement on record"
    return text if len(text) <= 60 else f"{text[:57]}…"


def reseed_way(
    means: Means, name: str, source: str, *, down: bool, failed: str = ""
) -> tuple[str, tuple[str, ...], list[Finding]]:
    """Returns ``copy``, ``clone`` or ``dump``, why it is none of the first two, and why it is nothing at all.

    ``down``: the server does not run. ``failed``: what came of one of the first two when it was tried.
    """
    deadline, way = Deadline.after(_TIME), means.rebuild[name].physical
    no_copy = (failed,) if failed else tuple(means.rebuild[name].cannot_copy(means.rebuild[source], deadline))
    if not no_copy:
        return way, (), []
    no_dump: list[str] = [
        *means.rebuild[source].cannot_dump(deadline),
        *(() if down else means.rebuild[name].cannot_load(means.rebuild[source], deadline)),
    ]
    host = "give the servers a host" + (": with mariabackup" if way == "copy" else "")
    cure = f"{host}, or build {name} anew by hand"
    if down:
        no_dump.append(f"{name} is down, and a dump is loaded into a server that runs")
        cure = f"start {name}, or {host}"
    texts = [f"no {way}: {text}" for text in no_copy] + [f"no dump: {text}" for text in no_dump]
    found = [Finding("rejoin.reseed", Severity.ERROR, name, text, cure) for text in texts]
    return "dump", no_copy, found if no_dump else []
