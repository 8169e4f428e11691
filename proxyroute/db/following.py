"""Whether a server can follow a source from where it is, and by which channel it does already."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from proxyroute.errors import Diverged, StatementError, TimedOut, Unserved
from proxyroute.gtid import Containment, Position
from proxyroute.model import Deadline, Peer, Source, Status

POLL = 0.01
LAST = 0.3
"""Seconds that the last look of a wait may take."""


def has_all_of(
    status: Status,
    source: Peer,
    members: Collection[int | str],
    source_has: Callable[[], Position],
    deadline: Deadline,
) -> Position:
    """Returns what the source has. Raises Diverged when it lacks what ``status`` has executed, TimedOut.

    What the source wrote itself and this server gets from it may be here first: MySQL counts a commit only once it
    has been acknowledged by as many as it wants.
    """
    channel = channel_of(status.sources, source)
    while True:
        has = source_has()
        if has.flavour != status.flavour:
            raise Diverged(status.name, f"is {status.flavour}, {source.name} is {has.flavour}")
        if has.contains(own := status.ours(has, members)) is not Containment.NO:
            return has
        extra = own.minus(has)
        coming = channel is not None and channel.running and channel.source_uuid
        if not coming or not extra.minus(extra.by(coming)).empty:
            raise Diverged(status.name, f"has executed {extra}, which {source.name} does not have")
        if deadline.require(f"{source.name} to commit {extra}, which {status.name} has from it") < LAST:
            raise TimedOut(f"out of time while waiting for {source.name} to commit {extra}")
        time.sleep(POLL)


def require_served(name: str, has: Position, source: Peer, purged: Position) -> None:
    """Raises Unserved when ``source``, which has ``purged`` that, could not go on where ``has`` ends."""
    if not has.as_far_as(purged):
        raise Unserved(
            name,
            f"needs {purged.minus(has)}, which {source.name} has not in its binary log any more, and is left as it is; "
            f"type: proxyroute rejoin {name} --method reseed",
        )


def channel_of(channels: Sequence[Source], source: Peer) -> Source | None:
    """Returns the one of ``channels`` that follows ``source``: configured with its address, or by server id.

    The address counts first: the server id is what the receiver saw at its last contact, and stays when the
    channel is repointed until the new source answers.
    """
    by_address = [s for s in channels if s.address == source.address]
    if by_address:
        return by_address[0]
    by_id = [s for s in channels if source.server_id is not None and s.source_id == source.server_id]
    return by_id[0] if by_id else None


def channel_named(channels: Sequence[Source], name: str) -> Source | None:
    """Returns the channel of that name, if there is one."""
    return next((s for s in channels if s.channel == name), None)


def cannot_apply(server: str, channel: Source | None) -> StatementError:
    """Returns the error that tells why ``channel`` does not apply what it has received; None: it is gone."""
    why = "its channel is gone" if channel is None else channel.error or "stopped"
    return StatementError(server, 1201, f"received events cannot be applied: {why}")
