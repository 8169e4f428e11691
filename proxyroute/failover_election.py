"""Who takes over from a primary that is gone. Pure and deterministic.

What a replica has *received* counts first, applied or not: it is all that is left. A replica that may not be promoted
can still have received more than the one that may; then it is named, so that its events are fetched before anything
is opened. What cannot be had is told in words, never passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from proxyroute import conditions, dialect, topology
from proxyroute.conditions import Objection, Replica
from proxyroute.decided import FailoverElection, Ranked
from proxyroute.election import Rejection, Rule, Waived, in_words
from proxyroute.gtid import Containment, Position
from proxyroute.holdings import Holdings, by_order, forgotten
from proxyroute.known import Known
from proxyroute.model import Finding, Severity, Silent, Status
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.sight import Sightings


def _multi_source(replica: Replica) -> Objection | None:
    objection = conditions.multi_source(replica)
    cure = f"name it to have it all the same: proxyroute failover --to {replica.server.name}"
    return objection and Objection(objection.text, cure)


def _permissive(replica: Replica) -> Objection | None:
    """Where nobody else is left it has all there is; whoever is to follow it wants it to be ON."""
    objection = conditions.permissive(replica)
    if objection is None:
        return None
    steps = " ".join(f"SET GLOBAL gtid_mode={step};" for step in conditions.gtid_steps(replica.server))
    first = f"on each server that is left: SET GLOBAL enforce_gtid_consistency=ON; {steps} then again"
    return Objection(objection.text, f"{first}; or as it is: proxyroute failover --force --to {replica.server.name}")


RULES: tuple[Rule, ...] = (
    Rule("candidate.never", conditions.excluded),
    Rule("candidate.aside", conditions.aside),
    Rule("candidate.multi_source", _multi_source, Waived.NAMED),
    Rule("candidate.applier", conditions.applier),
    Rule("candidate.gtid", conditions.without_gtid),
    Rule("candidate.gtid_mode", _permissive, Waived.FORCED),
    Rule("candidate.delay", conditions.delayed, allowed=lambda policy: policy.allow_delayed),
    Rule("candidate.filters", conditions.filtered, allowed=lambda policy: policy.allow_filtered),
    Rule("candidate.binlog", conditions.without_binlog),
    Rule("candidate.relay", conditions.relays_nothing),
    Rule("candidate.writable", conditions.writable),
    Rule("candidate.offline", conditions.offline, Waived.FORCED),
)
"""Besides these: it answers, follows the primary directly, and has no events of its own."""

_OURS: tuple[str, ...] = (
    "candidate.unknown",
    "candidate.silent",
    "candidate.unattached",
    "candidate.astray",
)
_OURS += ("candidate.chain", "candidate.errant", "candidate.history")
FINDINGS = (
    "topology.flavours",
    "failover.candidate",
    "failover.unfetchable",
    "failover.history",
    "failover.lost",
    "failover.unseen",
    "failover.asynchronous",
    "failover.degraded",
    "failover.wait_point",
    "failover.wait_no_replica",
    "failover.acknowledger",
)
"""Codes of the findings of an election."""


def reason_codes() -> frozenset[str]:
    """Returns the code of every reason for which a server may not take over."""
    return frozenset(rule.code for rule in RULES) | frozenset(_OURS)


def elect_failover(
    sightings: Sightings,
    primary: str,
    policy: Policy,
    failover: FailoverPolicy,
    known: Known | None = None,
    *,
    target: str | None = None,
    force: bool = False,
) -> FailoverElection:
    """Returns who takes over from ``primary``, from whom it must fetch first, and what may be lost.

    The order: whoever was named as ``target`` (then nobody else can win), received most, the list ``prefer``,
    executed most, configuration order. ``force`` waives what may be waived for a server that was named.
    Servers in maintenance never win, and still give what they have. Nobody wins among servers of two flavours.
    """
    contest = _Contest(sightings, primary, policy, failover, known, target, force)
    return contest.decide()


def reference(sightings: Sightings, primary: str, known: Known | None) -> Position | None:
    """Returns the best that is known of what ``primary`` has executed; None when it was never seen."""
    status = sightings.tracks[primary].status if primary in sightings.tracks else None
    if status is not None:
        return status.executed
    return known.executed if known and known.primary == primary else None


def rejections(
    sightings: Sightings,
    primary: str,
    policy: Policy,
    name: str,
    known: Known | None = None,
    *,
    named: bool = False,
    force: bool = False,
) -> tuple[Rejection, ...]:
    """Returns every reason why server ``name`` may not take over from ``primary``, which is gone."""
    target = name if named else None
    contest = _Contest(sightings, primary, policy, FailoverPolicy(), known, target, force)
    return contest.against(name)


@dataclass(frozen=True)
class _Contest:
    """One election; what the servers have is worked out once."""

    sightings: Sightings
    primary: str
    policy: Policy
    failover: FailoverPolicy
    known: Known | None
    target: str | None
    force: bool

    # -- What everybody has --

    @cached_property
    def holdings(self) -> Holdings:
        return Holdings.of(self.sightings, self.primary, reference(self.sightings, self.primary, self.known))

    @property
    def servers(self) -> Mapping[str, Status]:
        """Those that answered, without the primary."""
        return self.holdings.servers

    @property
    def _flavours(self) -> dict[str, str]:
        """Those of all whose positions are compared, what is remembered of the primary among them."""
        found, known = {n: s.flavour for n, s in self.servers.items()}, self.holdings.reference
        return found if known is None else {self.primary: known.flavour, **found}

    # -- Who may --

    def against(self, name: str) -> tuple[Rejection, ...]:
        seen = self.sightings.view.servers.get(name)
        if seen is None or name == self.primary:
            members = ", ".join(n for n in self.sightings.tracks if n != self.primary)
            text = "is no member of the cluster" if seen is None else "is the one that is to be replaced"
            return (Rejection("candidate.unknown", text, f"name one of {members}"),)
        if isinstance(seen, Silent):
            cure = f"start it, or see whether {seen.address} can be reached from here"
            return (Rejection("candidate.silent", f"did not answer: {seen.reason}", cure),)
        named = name == self.target
        waived = {Waived.NAMED: named, Waived.FORCED: named and self.force, Waived.NEVER: False}
        replica = Replica(self.sightings.view, self.primary, seen, self.policy)
        found = [*self._places(seen), *self._history(seen, waived[Waived.FORCED])]
        for rule in RULES:
            if not waived[rule.waived] and not rule.allowed(self.policy) and (objection := rule.condition(replica)):
                found.append(Rejection(rule.code, *in_words(seen, objection), forceable=rule.waived is Waived.FORCED))
        return tuple(found)

    def _places(self, server: Status) -> Iterator[Rejection]:
        """Objections to where it stands: it must follow the primary, directly."""
        if self.sightings.channel(server, self.primary) is not None:
            return
        if not server.sources:
            text = "replicates from nobody: what it lacks cannot be told"
            yield Rejection("candidate.unattached", text, "take it out of the configuration, or build it anew")
            return
        above = [n for n in self.sightings.tracks if n != server.name and self.sightings.channel(server, n)]
        where = above[0] if above else str(server.sources[0].address)
        code = "candidate.chain" if above else "candidate.astray"
        yield Rejection(code, f"replicates from {where}, not from {self.primary}", f"choose {where}" if above else "")

    def _history(self, server: Status, forced: bool) -> Iterator[Rejection]:
        answer = self.holdings.own_events(server)
        own = server.executed.by(server.identity)
        if answer is Containment.NO:
            text = f"has transactions of its own that nobody else has: {own}"
            cure = f"look at them with mariadb-binlog on {server.name}; proxyroute rejoin {server.name} archives them"
            yield Rejection("candidate.errant", text, dialect.said(server.flavour, cure))
        elif answer is Containment.UNKNOWN and not forced:
            text = f"has transactions of its own, and nobody can tell whether they belong to the cluster: {own}"
            cure = f"--force with --to {server.name} accepts them"
            yield Rejection("candidate.history", text, cure, forceable=True)

    # -- Who should --

    def decide(self) -> FailoverElection:
        if told := topology.mixed(self._flavours):
            code, cluster = "topology.flavours", self.sightings.cluster
            found = Finding(code, Severity.ERROR, cluster, told, topology.ONE_FLAVOUR)
            return FailoverElection(None, None, (), findings=(found,))
        names = [n for n in self.sightings.tracks if n != self.primary]
        if self.target is not None and self.target not in names:
            names.append(self.target)
        against = {n: self.against(n) for n in names}
        ranked = sorted((s for s in self.servers.values() if not against[s.name]), key=self._key)
        ranking = tuple(
            [Ranked(s.name, True, self._merits(s, ranked)) for s in ranked]
            + [Ranked(n, False, tuple(r.text for r in against[n])) for n in names if against[n]]
        )
        best = ranked[0] if ranked else None
        if best is None or self.target not in (None, best.name):
            return FailoverElection(None, None, ranking, findings=(self._nobody(against),))
        return self._complete(best, ranking)

    def _nobody(self, against: Mapping[str, tuple[Rejection, ...]]) -> Finding:
        asked = [self.target] if self.target else list(against)
        told = "; ".join(f"{n} {', '.join(r.text for r in against[n])}" for n in asked if against[n])
        cures = [r.cure for n in asked for r in against[n] if r.cure]
        text = f"{self.target or 'nobody'} can{'not' if self.target else ''} take over from {self.primary}: "
        text += told or "it has no replica"
        return Finding(
            "failover.candidate", Severity.ERROR, self.sightings.cluster, text, cures[0] if cures else "add a replica"
        )

    def _key(self, server: Status) -> tuple[bool, int, int, int, int]:
        prefer = self.policy.prefer

        def applied(one: Status) -> Position:
            return self.holdings.ours(one, one.executed)

        return (
            server.name != self.target,
            self._behind(self.holdings.received(server), map(self.holdings.received, self.servers.values())),
            prefer.index(server.name) if server.name in prefer else len(prefer),
            self._behind(applied(server), map(applied, self.servers.values())),
            list(self.sightings.tracks).index(server.name),
        )

    @staticmethod
    def _behind(mine: Position, others: Iterable[Position]) -> int:
        """How many have something that this lacks and lack nothing of what it has; see ``election``."""
        return sum(
            mine.contains(theirs) is Containment.NO and theirs.contains(mine) is not Containment.NO for theirs in others
        )

    def _merits(self, server: Status, ranked: list[Status]) -> tuple[str, ...]:
        _, received, prefer, executed, _ = self._key(server)
        merits = {
            "named": server.name == self.target,
            f"{received or 'nobody'} of those that answer received more": True,
            f"number {prefer + 1} of the list prefer": prefer < len(self.policy.prefer),
            f"{executed or 'nobody'} of those that answer applied more": len(ranked) > 1,
        }
        return tuple(text for text, holds in merits.items() if holds)

    # -- What it lacks --

    def _complete(self, winner: Status, ranking: tuple[Ranked, ...]) -> FailoverElection:
        mine = self.holdings.received(winner)
        # what one that is being rebuilt has is about to be thrown away, and may be why
        whole = {n: s for n, s in self.servers.items() if n not in self.policy.rebuilt}
        ahead = {n: s for n, s in whole.items() if mine.contains(self.holdings.received(s)) is Containment.NO}
        source, goal = self._fetch(mine, ahead)
        findings: list[Finding] = []
        missing: list[str] = []
        for name, server in whole.items():
            if name == winner.name or (answer := goal.contains(self.holdings.received(server))) is Containment.YES:
                continue
            rest = self.holdings.received(server).minus(goal)
            if answer is Containment.NO:
                text = f"{name} has received {rest}, which {winner.name} lacks and cannot fetch"
                cure = f"START SLAVE SQL_THREAD on {name} so that it can serve them, or --force does without them"
                channel = self.holdings.channels.get(name)
                if self.holdings.foreign(server):
                    text += f": {name} would give it what came from its other sources too"
                    cure = f"--to {name} promotes it with all that it has, or --force does without them"
                elif channel is not None and channel.applier and channel.delay_seconds:
                    text += f": {name} applies what it receives {channel.delay_seconds} s later"
                    cure = f"wait until {name} has applied them, or --force does without them"
                missing.append(text)
                findings.append(self._finding("failover.unfetchable", name, text, cure))
            elif not by_order(self.holdings.reference, winner, goal, rest):
                text = f"nobody can tell whether {winner.name} has {rest}, which {name} has"
                cure = f"compare both with mariadb-binlog; proxyroute failover --to {winner.name} --force accepts it"
                findings.append(Finding("failover.history", Severity.ERROR, name, text, cure, forceable=True))
        findings += self._doubts()
        lossless = not findings
        if (
            self.holdings.reference is not None
            and goal.contains(self.holdings.reference) is Containment.NO
            and not lossless
        ):
            rest = self.holdings.reference.minus(goal)
            count = self.holdings.reference.distance(goal)
            number = f" ({count} at the most)" if count is not None else ""
            missing.append(
                f"{self.primary} had executed {rest}{number} when it was last seen, which nobody who answers has "
                "received; what it wrote after that comes on top"
            )
            cure = f"if the binary logs of {self.primary} can be reached, they are saved; or --force does without them"
            findings.append(self._finding("failover.lost", self.primary, missing[-1], cure))
        return FailoverElection(winner.name, source, ranking, goal, tuple(missing), lossless, tuple(findings))

    def _fetch(self, mine: Position, ahead: Mapping[str, Status]) -> tuple[str | None, Position]:
        """Returns who gives most of what is lacking, or nobody, and what the winner has afterwards."""
        offers = {n: offer for n, s in ahead.items() if (offer := self.holdings.servable(s)) is not None}
        useful = {n: offer for n, offer in offers.items() if mine.contains(offer) is Containment.NO}
        if not useful:
            return None, mine
        best = min(useful, key=lambda n: (self._behind(useful[n], useful.values()), list(useful).index(n)))
        return best, mine.merge(useful[best])

    # -- Whether nothing acknowledged can be missing --

    def _doubts(self) -> Iterator[Finding]:
        name = self.primary
        known = self.known if self.known and self.known.primary == name else None
        if known is None:
            text = f"{name} was never seen alive from here: nobody knows what it had acknowledged"
            yield self._finding("failover.unseen", name, text, "policy: most_advanced, or --force")
            return
        sync = known.semi_sync
        if sync is None:
            text = f"{name} did not wait for acknowledgements: what it wrote last may have reached nobody"
            yield self._finding("failover.asynchronous", name, text, "policy: most_advanced, or --force")
            return
        if not sync.active:
            text = f"{name} had given up waiting for acknowledgements when it was last seen"
            yield self._finding("failover.degraded", name, text, "policy: most_advanced, or --force")
        if not sync.after_sync:
            text = f"{name} showed commits before they were acknowledged (AFTER_COMMIT)"
            cure = "for the next time: rpl_semi_sync_master_wait_point=AFTER_SYNC on every server"
            yield self._finding("failover.wait_point", name, text, cure)
        if not sync.wait_no_replica:
            text = f"{name} did not wait when no replica was left that could acknowledge"
            cure = "for the next time: rpl_semi_sync_master_wait_no_slave=ON on every server"
            yield self._finding("failover.wait_no_replica", name, text, cure)
        top = self.sightings.view.status(name)
        lives = top is not None and top.writable  # whoever starts anew beside it gets everything once more
        members = (*sync.acknowledgers, *sync.formerly)
        absent = [n for n in members if n not in self.servers]
        unnamed = max(0, sync.clients - len(sync.acknowledgers))
        if absent or unnamed:
            who = [
                *absent,
                *([f"{unnamed} that {'is' if unnamed == 1 else 'are'} not configured here"] * bool(unnamed)),
            ]
            text = f"{' and '.join(who)} may have acknowledged what nobody else has, and does not take part"
            cure = "add every replica to the configuration"
            if absent:
                there = ", ".join(absent)
                cure = f"start {there}" if lives else f"bring {name} back, or {there} if it has run all the time"
            yield self._finding("failover.acknowledger", absent[0] if absent else name, text, cure)
        for server in (self.servers[n] for n in members if n in self.servers and not lives):
            if text := forgotten(server, name, known.moment):
                cure = f"bring {name} back, which may have it, or --force does without it"
                yield self._finding("failover.acknowledger", server.name, text, cure)

    def _finding(self, code: str, subject: str, text: str, cure: str) -> Finding:
        """An error under ``lossless``, which ``--force`` passes over; a warning under ``most_advanced``."""
        strict = self.failover.policy == "lossless"
        severity = Severity.ERROR if strict else Severity.WARNING
        words = dialect.of(self.servers.values())
        return Finding(code, severity, subject, text, dialect.said(words, cure), forceable=strict)
