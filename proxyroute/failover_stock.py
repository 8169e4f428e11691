"""What a failover takes stock of: what the servers that are left hold, and what of it must be on the new primary."""

from __future__ import annotations

import time
from collections.abc import Collection

from proxyroute.errors import Unfinished
from proxyroute.gtid import Containment, Position
from proxyroute.holdings import Holdings
from proxyroute.model import Deadline
from proxyroute.opening import APART
from proxyroute.operation import Operation
from proxyroute.parts import Parts
from proxyroute.sight import Sightings
from proxyroute.topology import ONE_FLAVOUR, mixed

_ANSWER = 2.0


def take_stock(parts: Parts, op: Operation, reference: Position | None, spared: Collection[str]) -> Holdings:
    """Reads every server once more; those ``spared`` get little more time than the others take.

    ``reference`` is the best that is known of what the old primary has executed. Raises Unfinished when one that was
    silent before is of another flavour than the others.
    """
    view = parts.site.look(Deadline.after(_ANSWER), spared={*op.gone, *spared})
    if told := mixed({s.name: s.flavour for s in view.seen}):
        raise Unfinished(f"{told}: {ONE_FLAVOUR}")
    sightings = Sightings.of(view, time.monotonic(), op.kept("server_ids"))
    return Holdings.of(sightings, op.plan.primary, reference)


def keep_goal(parts: Parts, op: Operation, found: Holdings) -> Position:
    """Returns everything that the election counts, and keeps it as the position that the new primary must reach.

    Who has something besides (errant transactions, another source's) is kept as well: that it has them is no sign later
    that somebody has opened it. Raises Unfinished when the candidate is not among those ``found``.
    """
    if op.plan.candidate not in found.servers:
        raise Unfinished(f"{op.plan.candidate} has fallen silent; look again: proxyroute plan --failover")
    goal, rebuilt = found.everything(found.servers[op.plan.candidate]), parts.rebuilt()
    for name, server in found.servers.items():
        if name not in rebuilt:
            goal = goal.merge(found.received(server))
    more = [n for n, s in found.servers.items() if goal.contains(s.executed) is Containment.NO]
    op.keep(APART, [op.plan.primary, *more])
    op.keep("goal", goal.to_json())
    return goal
