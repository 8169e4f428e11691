"""What an operation works with: the servers, the proxies, the site's scripts, the guard, the probe."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from proxyroute.model import Deadline, Epoch, Peer, RouteTable, View
from proxyroute.operation import Operation
from proxyroute.policy import Policy
from proxyroute.ports import Hooks, Probe, Sentinel
from proxyroute.ports_data import DeadServer, Heir
from proxyroute.routes import Routes
from proxyroute.routing import route
from proxyroute.site import Site

LOOK = 3.0
"""Seconds for one reading of everything."""
GLANCE = 0.5
"""Seconds in which the others answer, beyond the one that matters, while clients wait for the reading."""


@dataclass(frozen=True)
class Salvage:
    """The means to save what only a dead server has, by a server's name and the flavour that the cluster is of.

    What is built raises ConfigError for bad secrets.
    """

    dead: Callable[[str, str], DeadServer | None]
    """Its host; None where no commands run on it."""
    heir: Callable[[str, str], Heir]
    """A server that gets what was saved."""
    archive: Path
    """The folder of archives."""


@dataclass(frozen=True)
class Parts:
    """The means of one cluster. ``guard`` is None for those who heal: nobody watches them.

    ``continuous`` is true for those who have been there since the operation began (the engine itself and its guard):
    a replica they saw closed, and that has fallen silent since, was not opened by anybody they need to fear.
    """

    site: Site
    routes: Routes
    hooks: Hooks
    guard: Sentinel | None = None
    probe: Probe | None = None
    salvage: Salvage | None = None
    continuous: bool = False
    aside: Callable[[], Collection[str] | None] = tuple
    """Returns the servers that are in maintenance now: they are not repointed. None: nobody can tell."""
    rebuilt: Callable[[], Collection[str]] = tuple
    """Returns the servers that are being rebuilt now: what they have is not whole, and they follow once it is."""

    def table(self, op: Operation, primary: str, epoch: Epoch, view: View | None = None) -> RouteTable:
        """Returns the routes to ``primary`` as the servers look now, or looked in ``view``."""
        view = view or self.site.look(Deadline.after(LOOK), spared=op.gone)
        return route(view, primary, self.policy(op), epoch, self.site.endpoints)

    def glance(self, name: str, seconds: float = LOOK) -> View:
        """Returns one reading of all servers for when clients wait: only server ``name`` is waited for, so long."""
        return self.site.look(Deadline.after(seconds), spared=[n for n in self.site.names if n != name], grace=GLANCE)

    def set_aside(self, op: Operation) -> frozenset[str]:
        """Returns the servers that are left alone: rebuilt now, or in maintenance.

        If nobody can tell who is in maintenance now, those that were when it was planned.
        """
        found, planned = self.aside(), op.plan.policy
        return frozenset((*(planned.aside if found is None else found), *self.rebuilt()))

    def policy(self, op: Operation) -> Policy:
        """Returns the policy of ``op`` with what has been ordered since it was planned."""
        rebuilt = tuple(sorted(self.rebuilt()))
        return replace(op.plan.policy, aside=tuple(sorted(self.set_aside(op))), rebuilt=rebuilt)

    def expect(self, seconds: float) -> None:
        """Tells the guard, if there is one, within how many seconds it will hear of us again."""
        if self.guard is not None:
            self.guard.expect(seconds)

    def excused(self, op: Operation, lost: Collection[str]) -> frozenset[str]:
        """Returns the servers that may be silent when another one is opened."""
        bystanders = set(self.site.names) - {op.plan.primary, op.plan.candidate}
        return frozenset({*lost, *bystanders} if self.continuous else lost)

    def run_script(self, moment: str, op: Operation, *, back: bool = False) -> None:
        """Runs the site's script for ``moment``, if there is one, with what it needs to know of ``op``.

        It takes up to ``hooks.seconds(moment)``: the guard is told of that before. On the way ``back`` the old primary
        stands in both places: it stays what it was.
        """
        if not self.hooks.configured(moment):
            return
        old = self.site[op.plan.primary]
        new = old if back else self.site[op.plan.candidate]
        self.hooks.run(
            moment,
            {
                "PROXYROUTE_KIND": op.kind,
                "PROXYROUTE_OPERATION": op.id,
                "PROXYROUTE_CLUSTER": op.cluster,
                "PROXYROUTE_OLD_PRIMARY": old.name,
                "PROXYROUTE_OLD_PRIMARY_HOST": old.address.host,
                "PROXYROUTE_OLD_PRIMARY_PORT": str(old.address.port),
                "PROXYROUTE_NEW_PRIMARY": new.name,
                "PROXYROUTE_NEW_PRIMARY_HOST": new.address.host,
                "PROXYROUTE_NEW_PRIMARY_PORT": str(new.address.port),
            },
        )


def peer(parts: Parts, op: Operation, name: str) -> Peer:
    """Returns how others refer to server ``name``, by what the operation kept when all of them were readable."""
    server_id = op.kept("server_ids", {}).get(name)
    return Peer(name, parts.site[name].address, server_id)
