"""Who follows whom, worked out from one view. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from proxyroute.gtid import Position
from proxyroute.model import Receiver, Source, Status, View

ONE_FLAVOUR = "a cluster holds servers of one flavour only: take the others out of the configuration"
"""What helps against what :func:`mixed` tells."""


def source_of(view: View, source: Source) -> str | None:
    """Returns the name of the member that ``source`` fetches from, or None when it is no member.

    A receiver that is in contact knows the server id of the other end, and that decides: an address may be an
    alias, or may have been given to another machine. Without contact the id can be a stale one, so the
    address comes first.
    """
    by_id = [s.name for s in view.seen if s.server_id == source.source_id]
    by_address = [name for name, s in view.servers.items() if s.address == source.address]
    if source.receiver is Receiver.RUNNING and source.source_id is not None:
        unread = [name for name in by_address if view.status(name) is None]
        ordered = [name for name in by_id if name in by_address] + by_id + unread
    else:
        ordered = by_address + by_id
    return ordered[0] if ordered else None


def stranger(view: View, source: Source) -> bool:
    """Tells whether ``source`` fetches from somebody who is certainly no member.

    Where it is not in contact its server id may be that of anybody it has ever met: then only a channel that somebody
    has given a name, which none of a member's needs, counts as one of its own.
    """
    known = any(address == source.address for address in (s.address for s in view.servers.values()))
    certain = source.receiver is Receiver.RUNNING and source.source_id is not None
    return not known and source_of(view, source) is None and (certain or bool(source.channel))


def channel(view: View, server: Status, name: str) -> Source | None:
    """Returns the channel by which ``server`` follows member ``name`` directly, or None."""
    return next((source for source in server.sources if source_of(view, source) == name), None)


def on_its_way(primary: Status, server: Status, extra: Position) -> bool:
    """Tells whether ``extra``, which ``server`` has and ``primary`` lacks, only waits there to be counted.

    MySQL counts a commit of its own once it has been acknowledged by as many as it wants; who acknowledges it may have
    executed it before. A source that crashed may have lost what its replica has: right after its restart nothing waits
    there, and it refuses whoever has more than it counts, so that the receiver does not run.
    """
    sync = primary.semi_sync
    if primary.flavour != "mysql" or not sync.primary_enabled or not sync.waiting:
        return False
    # a receiver that has not got over the restart of its source yet may still look as if it ran
    proven = primary.uptime_seconds >= server.net_timeout_seconds
    fetches = any(s.source_uuid == primary.uuid and s.receiver is Receiver.RUNNING for s in server.sources)
    return proven and fetches and extra.minus(extra.by(primary.identity)).empty


def uncounted(primary: Status, server: Status) -> bool:
    """Tells whether ``server`` has commits of ``primary`` that it may be about to count, soon and without anybody.

    MySQL sends a commit when that is in its binary log, and counts it when it is in the storage engine as well: some
    milliseconds later, while a replica may have executed it (9.7: in one of 2,000 looks under load, for up to 25 ms).
    One that waits to be acknowledged may take longer: see :func:`on_its_way`.
    """
    if primary.flavour != "mysql" or server.flavour != "mysql":
        return False
    extra = server.executed.by(primary.identity).minus(primary.executed)
    return not extra.empty and not on_its_way(primary, server, extra)


def options(view: View, server: Status | None, name: str) -> dict[str, Any]:
    """Returns how ``server`` is connected to member ``name``; like its first channel where none leads there."""
    source = (channel(view, server, name) or server.source) if server is not None else None
    return dict(source.options) if source is not None else {}


def path(view: View, name: str) -> tuple[str, ...]:
    """Returns the members from ``name`` up to the one that follows nobody here, ``name`` first.

    A ring ends before the first member that would come twice. Of several channels the first to a member
    counts.
    """
    found = [name]
    while (server := view.status(found[-1])) is not None:
        above = [up for source in server.sources if (up := source_of(view, source)) is not None]
        if not above or above[0] in found:
            break
        found.append(above[0])
    return tuple(found)


def mixed(flavours: Mapping[str, str]) -> str:
    """Returns in words who is of which flavour, by their names, where there is more than one; empty where not.

    Positions of two flavours cannot be compared: nobody could tell who has what.
    """
    told = ", ".join(f"{name} is {flavour}" for name, flavour in flavours.items())
    return told if len(set(flavours.values())) > 1 else ""


def ring(view: View) -> tuple[str, ...]:
    """Returns members that follow each other in a circle, or nothing."""
    for server in view.seen:
        members = path(view, server.name)
        top = view.status(members[-1])
        if top is not None and channel(view, top, server.name) is not None:
            return members
    return ()


def channels(view: View, name: str) -> tuple[Source, ...]:
    """Returns the channels by which events come down the path of ``name``, its own first; none at the top."""
    found = []
    for lower, upper in itertools.pairwise(path(view, name)):
        server = view.status(lower)
        source = channel(view, server, upper) if server else None
        if source is not None:
            found.append(source)
    return tuple(found)
