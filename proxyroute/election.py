"""Who may take over, who should, and what is moved along. Pure and deterministic.

Every server but the primary is either rejected, with every reason, or ranked. A server that was named wins or
nobody does: a named target is never replaced by another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from proxyroute import conditions, dialect, topology
from proxyroute.conditions import Condition, Objection, Replica
from proxyroute.decided import Election, Plan, Ranked
from proxyroute.gtid import Containment, Position
from proxyroute.model import Silent, Source, Status, View
from proxyroute.policy import Policy


class Waived(StrEnum):
    """What makes a reason not count."""

    NEVER = "never"
    NAMED = "named"
    """The server was asked for by name."""
    FORCED = "forced"
    """It was asked for by name and with ``--force``."""


@dataclass(frozen=True)
class Rule:
    """A condition that keeps a server from being elected."""

    code: str
    """Of the finding that tells it about a candidate."""
    condition: Condition
    waived: Waived = Waived.NEVER
    allowed: Callable[[Policy], bool] = lambda policy: False
    """The policy that lets it pass."""


RULES: tuple[Rule, ...] = (
    Rule("candidate.never", conditions.excluded),
    Rule("candidate.aside", conditions.aside),
    Rule("candidate.flavour", conditions.other_flavour),
    Rule("candidate.unattached", conditions.unattached),
    Rule("candidate.astray", conditions.astray),
    Rule("candidate.chain", conditions.chained),
    Rule("candidate.multi_source", conditions.multi_source, Waived.NAMED),
    Rule("candidate.receiver", conditions.receiver),
    Rule("candidate.applier", conditions.applier),
    Rule("candidate.gtid", conditions.without_gtid),
    Rule("candidate.gtid_mode", conditions.permissive),
    Rule("candidate.errant", conditions.errant),
    Rule("candidate.history", conditions.obscure, Waived.FORCED),
    Rule("candidate.lag", conditions.lag, Waived.FORCED),
    Rule("candidate.delay", conditions.delayed, allowed=lambda policy: policy.allow_delayed),
    Rule("candidate.filters", conditions.filtered, allowed=lambda policy: policy.allow_filtered),
    Rule("candidate.binlog", conditions.without_binlog),
    Rule("candidate.relay", conditions.relays_nothing),
    Rule("candidate.format", conditions.other_format),
    Rule("candidate.version", conditions.older),
    Rule("candidate.writable", conditions.writable),
    Rule("candidate.offline", conditions.offline, Waived.FORCED),
    Rule("candidate.backup", conditions.backed_up),
)


class Rejection(NamedTuple):
    """One reason against one server."""

    code: str
    text: str
    cure: str
    forceable: bool = False


def rejections(
    view: View, primary: str, policy: Policy, name: str, *, named: bool = False, force: bool = False
) -> tuple[Rejection, ...]:
    """Returns every reason why server ``name`` may not take over from ``primary``.

    ``named``: it was asked for by name; ``force``: with ``--force``, which only helps a server that was
    named.
    """
    server = view.servers.get(name)
    if server is None:
        cure = f"name one of {', '.join(view.servers)}"
        return (Rejection("candidate.unknown", f"is no member of {view.cluster}", cure),)
    if isinstance(server, Silent):
        cure = f"start it, or see whether {server.address} can be reached from here"
        return (Rejection("candidate.silent", f"did not answer: {server.reason}", cure),)
    waived = {Waived.NAMED: named, Waived.FORCED: named and force, Waived.NEVER: False}
    replica = Replica(view, primary, server, policy)
    return tuple(
        Rejection(rule.code, *in_words(server, objection), forceable=rule.waived is Waived.FORCED)
        for rule in RULES
        if not waived[rule.waived] and not rule.allowed(policy) and (objection := rule.condition(replica))
    )


def in_words(server: Status, objection: Objection) -> Objection:
    """Returns an objection to ``server`` in the words of its flavour."""
    return Objection(*(dialect.said(server.flavour, part) for part in objection))


def elect(view: View, primary: str, policy: Policy, target: str | None = None, *, force: bool = False) -> Election:
    """Returns who takes over from ``primary``, and everybody else with reasons, best first.

    With a ``target`` only that server can win; ``force`` waives what may be waived for it. Otherwise the
    order is: the preference list, executed most, received most, least lag, the primary's version,
    configuration order.
    """
    names = [name for name in view.servers if name != primary]
    if target is not None and target not in names:
        names.append(target)
    against = {n: rejections(view, primary, policy, n, named=n == target, force=force) for n in names}
    qualified = [s for s in view.seen if s.name in against and not against[s.name]]
    contest = _Contest(view, primary, policy, target, qualified)
    ranked = sorted(qualified, key=contest.key)
    ranking = [Ranked(server.name, True, contest.merits(server)) for server in ranked]
    ranking += [Ranked(n, False, tuple(r.text for r in against[n])) for n in names if against[n]]
    best = ranked[0].name if ranked else None
    return Election(best if target in (None, best) else None, tuple(ranking))


@dataclass(frozen=True)
class _Contest:
    """Puts the qualified servers in order."""

    view: View
    primary: str
    policy: Policy
    target: str | None
    qualified: Sequence[Status]

    def key(self, server: Status) -> tuple[Any, ...]:
        """The smaller, the better."""
        return (
            server.name != self.target,
            self._preference(server),
            self._behind(server, lambda other: other.executed),
            self._behind(server, self._received),
            self._lag(server),
            self._differs(server),
            list(self.view.servers).index(server.name),
        )

    def merits(self, server: Status) -> tuple[str, ...]:
        """What placed it, for people."""
        prefer, more = self._preference(server), self._behind(server, lambda other: other.executed)
        received, lag = self._behind(server, self._received), self._lag(server)
        merits = {
            "named": server.name == self.target,
            f"number {prefer + 1} of the list prefer": prefer < len(self.policy.prefer),
            f"{more or 'nobody'} of the qualified executed more": True,
            f"{received or 'nobody'} of the qualified received more": True,
            f"{conditions.seconds(lag)} behind": lag != float("inf"),
            f"is {conditions.release(server)}, {self.primary} is not": self._differs(server),
        }
        return tuple(text for text, holds in merits.items() if holds)

    def _preference(self, server: Status) -> int:
        prefer = self.policy.prefer
        return prefer.index(server.name) if server.name in prefer else len(prefer)

    def _behind(self, server: Status, position: Callable[[Status], Position]) -> int:
        """Returns how many have something that ``server`` lacks, and lack nothing of what it has.

        Positions are sets, which need not lie one inside the other; the count puts them in an order that
        never contradicts those that do.
        """
        mine = position(server)
        return sum(
            mine.contains(theirs) is Containment.NO and theirs.contains(mine) is not Containment.NO
            for theirs in map(position, self.qualified)
        )

    def _channel(self, server: Status) -> Source | None:
        return topology.channel(self.view, server, self.primary) or server.source

    def _received(self, server: Status) -> Position:
        source = self._channel(server)
        return server.executed.merge(source.received) if source else server.executed

    def _lag(self, server: Status) -> float:
        source = self._channel(server)
        return source.lag_seconds if source and source.lag_seconds is not None else float("inf")

    def _differs(self, server: Status) -> bool:
        top = self.view.status(self.primary)
        return top is not None and top.version[:2] != server.version[:2]


# -- What is moved along -------------------------------------------------------------------------------------


def make_plan(view: View, primary: str, election: Election, policy: Policy, *, force: bool = False) -> Plan:
    """Returns the plan by which the winner of ``election`` takes over from ``primary``.

    Replicas below the winner and replicas below other replicas stay where they are; a server that is silent
    is in the plan, so that it is moved when it returns. ``force`` locks privileged direct writers. Raises
    ValueError when nobody won.
    """
    candidate = election.winner
    if candidate is None:
        raise ValueError(f"nobody can take over from {primary}: there is no plan")
    others = [name for name in view.servers if name not in (primary, candidate)]
    replicas = tuple(name for name in others if _moves(view, primary, name))
    top, winner = view.status(primary), view.status(candidate)
    semi_sync = bool(top and top.semi_sync.primary_enabled and winner and winner.semi_sync.available)
    return Plan(
        cluster=view.cluster,
        primary=primary,
        candidate=candidate,
        replicas=replicas,
        attach=_attach(view, primary, candidate, replicas) if semi_sync else None,
        semi_sync=semi_sync,
        lock_accounts=direct_writers(view, primary, policy) if force else (),
        policy=policy,
    )


def direct_writers(view: View, primary: str, policy: Policy) -> tuple[str, ...]:
    """Returns the accounts that can write to ``primary`` past ``read_only``; monitor users are trusted not
    to."""
    inspection = view.inspections.get(primary)
    writers = inspection.privileged_writers if inspection else ()
    trusted = policy.monitor_users
    return tuple(w for w in writers if w not in trusted and w.rpartition("@")[0].strip("'`") not in trusted)


def _moves(view: View, primary: str, name: str) -> bool:
    server = view.status(name)
    return server is None or topology.channel(view, server, primary) is not None


def _attach(view: View, primary: str, candidate: str, replicas: Sequence[str]) -> str | None:
    """The best semi-synchronous replica besides the candidate: if possible not delayed, then least behind.

    Nobody whom the candidate could not serve, or who acknowledges to a primary that needs him: its commits would stand
    still from then on.
    """
    top, inspection = view.status(primary), view.inspections.get(candidate)
    purged = inspection.purged if inspection else None
    found: list[tuple[bool, float, int, str]] = []
    for order, name in enumerate(replicas):
        server = view.status(name)
        source = topology.channel(view, server, primary) if server else None
        if server and source and source.running and source.uses_gtid and server.semi_sync.replica_enabled:
            if top is not None and server.flavour != top.flavour:
                continue
            if purged is not None and not server.executed.as_far_as(purged):
                continue
            if (looked := view.inspections.get(name)) is not None and looked.backups:
                continue  # nobody could point it elsewhere now
            if top is not None and server.semi_sync.replica_active and top.semi_sync.clients <= top.semi_sync.wanted:
                continue
            lag = source.lag_seconds if source.lag_seconds is not None else float("inf")
            found.append((source.delay_seconds > 0, lag, order, name))
    return min(found)[3] if found else None
