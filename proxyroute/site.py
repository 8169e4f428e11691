"""The database servers of a cluster, together: read at once, picked by name, closed at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from proxyroute import topology
from proxyroute.errors import LeaseLost, LostReply, ProxyRouteError, Refused, StatementError, TimedOut
from proxyroute.inspection import Inspection
from proxyroute.model import Deadline, Endpoint, Silent, Status, View
from proxyroute.operation import each
from proxyroute.policy import Policy
from proxyroute.ports import Server

_GRACE = 0.5
_TURN = 0.4
_COUNTED, _PAUSE = 0.3, 0.01
"""Seconds for a commit to be counted where it was made, and between two looks whether it is. 25 ms were seen."""


class Site:
    """All servers of one cluster, in configuration order."""

    def __init__(self, cluster: str, servers: Mapping[str, Server]) -> None:
        self.cluster = cluster
        self._servers = dict(servers)

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._servers)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(s.name, s.address) for s in self)

    def pick(self, names: Iterable[str]) -> list[Server]:
        return [self._servers[name] for name in names]

    def others(self, name: str) -> list[Server]:
        """Returns every server but ``name``."""
        return [s for s in self if s.name != name]

    def connect(self, names: Iterable[str], deadline: Deadline) -> dict[str, ProxyRouteError]:
        """Opens the connections that an operation will need; returns the errors of those not reached."""
        outcomes = each(self.pick(names), lambda s: s.connect(deadline), deadline)
        return {n: o.error for n, o in outcomes.items() if isinstance(o.error, ProxyRouteError)}

    def end_others(self, deadline: Deadline) -> dict[str, int]:
        """Ends the sessions by which another engine may change something, on every server that can be reached.

        Returns how many there were, by server. Raises Refused when one does not end, or nobody can say whether it has.
        """
        outcomes = each(self, lambda s: s.end_others(deadline), Deadline(deadline.at + _GRACE, deadline.urgent))
        for name, found in outcomes.items():
            if isinstance(found.error, StatementError):
                raise Refused(f"the sessions of another engine on {name} cannot be looked for: {found.error}")
            if isinstance(found.error, Refused | LeaseLost):
                raise found.error
        return {name: found.value for name, found in outcomes.items() if found.value}

    def look(self, deadline: Deadline, *, spared: Collection[str] = (), grace: float = 0.1) -> View:
        """Returns one reading of all servers, taken at once; a server that does not answer is Silent.

        Those in ``spared`` are given ``grace`` seconds longer than the others take, and no more.
        """
        outcomes = each(self, lambda s: s.look(deadline), deadline, spared=spared, grace=grace)
        servers: dict[str, Status | Silent] = {}
        for server in self:
            found = outcomes[server.name]
            if found.value is not None:
                servers[server.name] = found.value
            elif isinstance(found.error, ProxyRouteError):
                servers[server.name] = Silent(server.name, server.address, str(found.error))
            else:
                found.get()
        seen = [s for s in servers.values() if isinstance(s, Status)]
        for status in [s for s in seen if s.writable]:
            # a replica that was read a moment later has more: it must not look as if it had too much
            with contextlib.suppress(ProxyRouteError):
                servers[status.name] = self._read_again(status, seen, deadline)
        return View(self.cluster, servers, taken_at=time.time())

    def _read_again(self, top: Status, seen: Sequence[Status], deadline: Deadline) -> Status:
        """Returns ``top`` with its position, read until it has counted what it is seen to have sent; only for a moment.

        What it never counts stays what the others have too much.
        """
        until = deadline.within(_COUNTED)
        while True:
            top = replace(top, executed=self[top.name].position(deadline))
            if until.left < _PAUSE or not any(topology.uncounted(top, server) for server in seen):
                return top
            time.sleep(_PAUSE)

    def inspect(self, view: View, policy: Policy, deadline: Deadline) -> View:
        """Returns ``view`` with the inspections of every server that could be inspected; the others have none."""
        outcomes = each(self.pick(s.name for s in view.seen), lambda s: s.inspect(deadline, policy), deadline)
        inspections: dict[str, Inspection] = {}
        for name, found in outcomes.items():
            if found.value is not None:
                inspections[name] = found.value
            elif not isinstance(found.error, ProxyRouteError):
                found.get()
        return replace(view, inspections=inspections)

    def close(self) -> None:
        for server in self:
            server.close()


def shut(server: Server, deadline: Deadline) -> int:
    """Makes a server refuse the writes that it should not take; returns how many clients were cut.

    Clients first, and again: one that waits for an acknowledgement which nobody is left to give holds read_only back
    until the time-out of semi-sync, and would then be told that its row is safe. Raises TimedOut, ServerError.
    """
    cut = 0
    while True:
        cut += server.kill_clients(deadline)
        try:
            server.refuse_writes(deadline.within(_TURN))
            return cut + server.kill_clients(deadline)
        except (TimedOut, LostReply):
            if deadline.left <= _TURN:
                raise
