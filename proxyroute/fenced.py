"""Asks the cluster manager whether it has fenced the host of a primary that is gone: its word instead of a person's.

It must have ended, well, after the primary was last seen taking writes, and the node must be off still. Everything
else, also no answer, is no confirmation.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from proxyroute.conditions import seconds
from proxyroute.config_values import ClusterConfig
from proxyroute.errors import TimedOut
from proxyroute.lease.pacemaker_cluster import ClusterSight, Fencing
from proxyroute.model import Deadline, Finding, Severity

PACEMAKER = "pacemaker"
"""Who is named with ``--fenced-by`` is asked, if that is this."""
_OFF = frozenset({"off", "reboot"})
_SKEW = 2.0
"""Seconds by which clocks may differ: it ends on a node, and the primary was seen here."""
_OLDEST = 3600.0
"""Seconds after which a fencing says nothing of today: since then the host may have been back unseen."""


class Cluster(Protocol):
    """What is asked; see :class:`proxyroute.lease.pacemaker_cluster.PacemakerCluster`."""

    def sight(self, deadline: Deadline) -> ClusterSight: ...

    def fencings(self, node: str, deadline: Deadline) -> tuple[Fencing, ...]: ...


@dataclass(frozen=True)
class Confirmation:
    """What the cluster manager says: ``by`` whom and when it was fenced, or the ``finding`` that it was not."""

    by: str = ""
    finding: Finding | None = None


def confirmation(
    config: ClusterConfig, primary: str, seen_writing: float, cluster: Cluster, deadline: Deadline
) -> Confirmation:
    """Returns whether the host of server ``primary`` is fenced, by what the cluster says.

    ``seen_writing`` is the Unix time at which it was last seen taking writes; 0: it never was. Raises nothing.
    """
    node = config.servers[primary].node or primary
    try:
        against, cure = _against(cluster.sight(deadline), node, primary)
        fencings = cluster.fencings(node, deadline) if not against else ()
    except TimedOut as error:
        return _no(primary, f"nobody knows whether {node} is fenced: {error}", "crm_mon --one-shot; try again")
    if against:
        return _no(primary, against, cure)
    done = next((f for f in fencings if f.action in _OFF), None)
    look = f"stonith_admin --history={node} --verbose"
    if done is None:
        text = f"no fencing of {node} is on record: a node that has left in order may still run its database server"
        return _no(primary, text, f"fence it: stonith_admin --fence={node}")
    if not done.succeeded:
        return _no(primary, f"the last fencing of {node} has failed", f"{look}; stonith_admin --fence={node}")
    age = time.time() - done.at
    if done.at < seen_writing - _SKEW:
        text = f"{node} was fenced {seconds(round(age))} ago, and {primary} has been seen taking writes since"
        return _no(primary, text, f"fence it: stonith_admin --fence={node}")
    if age > _OLDEST:
        text = f"{node} was fenced {seconds(round(age))} ago, which says nothing of now"
        return _no(primary, text, f"fence it again: stonith_admin --fence={node}; or say yourself --fenced-by NAME")
    when = time.strftime("%F %T", time.gmtime(done.at))
    return Confirmation(f"{PACEMAKER} ({node}: {done.action}, {when} UTC, asked for by {done.by})")


def _against(sight: ClusterSight, node: str, primary: str) -> tuple[str, str]:
    """Returns why ``node`` is not fenced by the look of the cluster, and what to do; two empty texts: it may be."""
    found = sight.nodes.get(node)
    if not sight.quorate:
        return f"{sight.here} has no quorum: what it says of {node} counts for nothing", "ask on a node that has quorum"
    if found is None:
        text = f"the cluster has no node {node}; it has {', '.join(sorted(sight.nodes))}"
        return text, f"name the node of its host: servers.{primary}.node"
    if found.online or found.pending:
        return f"{node} is a member of the cluster: it is on", f"crm_mon --one-shot; stonith_admin --fence={node}"
    if found.unclean:
        text = f"{node} is to be fenced, and nobody has confirmed yet that it is"
        return text, f"wait for it; when you have seen that it is off: stonith_admin --confirm={node}"
    return "", ""


def _no(primary: str, text: str, cure: str) -> Confirmation:
    return Confirmation(finding=Finding("failover.not_fenced", Severity.ERROR, primary, text, cure))
