"""What stands in the way of an operation: a verdict on one view; nothing is filled in. Pure.

The table below gives each rule of checks.py and of the files beside it its stable code, documented in
docs/reference/findings.md, and its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from proxyroute import checks, checks_inspection, checks_mysql, checks_semi_sync, conditions, dialect
from proxyroute.checks import Case, Said, each, kept
from proxyroute.decided import Plan
from proxyroute.election import RULES as CANDIDATE_RULES
from proxyroute.election import elect, rejections
from proxyroute.model import Finding, Severity, View
from proxyroute.policy import Policy

WARNING, INFO = Severity.WARNING, Severity.INFO


@dataclass(frozen=True)
class Rule:
    """One thing to look at."""

    code: str
    look: Callable[[Case], Iterable[Said]]
    severity: Severity = Severity.ERROR
    forceable: bool = False
    eased: Callable[[Case], bool] = lambda case: False
    """When it holds, an error is only a warning."""

    def apply(self, case: Case) -> Iterator[Finding]:
        severity = Severity.WARNING if self.severity is Severity.ERROR and self.eased(case) else self.severity
        for said in self.look(case):
            yield Finding(self.code, severity, *said, forceable=self.forceable and severity is Severity.ERROR)


def _tolerated(case: Case) -> bool:
    return not case.policy.require_running


RULES: tuple[Rule, ...] = (
    Rule("topology.galera", checks.galera),
    Rule("topology.group", checks.group),
    Rule("topology.ring", checks.ring),
    Rule("topology.multi_primary", checks.multi_primary),
    Rule("topology.flavours", checks.mixed_flavours),
    Rule("server_id.duplicate", checks.duplicate_ids),
    Rule("primary.none", checks.no_primary),
    Rule("primary.silent", checks.silent_primary),
    Rule("primary.moved", checks.moved_primary),
    Rule("primary.replicates", checks.replicating_primary),
    Rule("primary.binlog", checks.primary_without_binlog),
    Rule("primary.connections", checks.crowded, INFO),
    Rule("account.unread", checks_inspection.uninspected),
    Rule("account.privilege", checks_inspection.missing_privileges),
    Rule("replication.tls", checks_inspection.unverifiable),
    Rule("writer.privileged", checks_inspection.privileged_writers, forceable=True),
    Rule("writer.locked", checks_inspection.locked_writers, WARNING),
    Rule("primary.locks", checks_inspection.blind_primary, forceable=True),
    Rule("server.locks", checks_inspection.blind_others, WARNING),
    Rule("primary.backup", checks_inspection.backup_on_primary, WARNING),
    Rule("transaction.xa", checks_inspection.prepared_xa, forceable=True),
    Rule("transaction.long", checks_inspection.long_transactions),
    Rule("semi_sync.missing", checks_semi_sync.missing, forceable=True),
    Rule("semi_sync.unable", checks_semi_sync.unable, WARNING),
    Rule("semi_sync.alone", checks_semi_sync.alone, WARNING),
    Rule("semi_sync.waiting", checks_semi_sync.waiting, WARNING),
    Rule("semi_sync.degraded", checks_semi_sync.degraded, WARNING),
    Rule("binlog.statement", checks.statement_format, WARNING),
    Rule("binlog.mixed", checks.mixed_format, INFO),
    Rule("binlog.filters", checks.binlog_filters, WARNING),
    Rule("binlog.row_image", checks.short_row_image, INFO),
    Rule("gtid.strict", checks.lenient, WARNING),
    Rule("primary.gtid_mode", checks_mysql.permissive_primary),
    Rule("server.persisted", checks_mysql.persisted, WARNING),
    Rule("server.super_read_only", checks_mysql.half_closed, WARNING),
    Rule("witness.heartbeat", checks.slow_heartbeat, WARNING),
    Rule("witness.auto_failover", checks.chosen_sources, WARNING),
    Rule("witness.net_timeout", checks.slow_net_timeout, WARNING),
    Rule("version.older_replica", checks.newer, WARNING),
    Rule("replica.silent", checks.silent_replicas, WARNING),
    Rule("replica.aside", checks.set_aside, INFO),
    Rule("replica.unattached", each(conditions.unattached), forceable=True, eased=_tolerated),
    Rule("replica.astray", each(conditions.astray), forceable=True, eased=_tolerated),
    Rule("replica.receiver", each(conditions.receiver), forceable=True, eased=_tolerated),
    Rule("replica.applier", each(conditions.applier), forceable=True, eased=_tolerated),
    Rule("replica.gtid", each(conditions.without_gtid)),
    Rule("replica.gtid_mode", each(conditions.permissive), WARNING),
    Rule("replica.writable", each(conditions.writable, everybody=True)),
    Rule("replica.errant", each(conditions.errant, single=True), forceable=True),
    Rule("replica.history", each(conditions.obscure, single=True), WARNING),
    Rule("replica.multi_source", kept(conditions.multi_source), WARNING),
    Rule("replica.lag", each(conditions.lag), WARNING),
    Rule("replica.unserved", checks_inspection.unserved, WARNING),
    Rule("replica.backup", each(conditions.backed_up), WARNING),
    Rule("replica.delay", kept(conditions.delayed), INFO),
    Rule("replica.filters", kept(conditions.filtered), WARNING),
    Rule("replica.chain", kept(conditions.chained), INFO),
)

_ABSENT = frozenset({"candidate.none", "candidate.unknown", "candidate.silent"})


def preflight(view: View, plan: Plan) -> tuple[Finding, ...]:
    """Returns what stands in the way of ``plan`` now, errors first."""
    return _judge(Case(view, plan.policy, plan, plan.candidate))


def survey(view: View, policy: Policy, target: str | None = None) -> tuple[Finding, ...]:
    """Returns what stands in the way of a switchover for which there is no plan, errors first.

    With a ``target`` it tells why that one does not qualify, else whether anybody does.
    """
    return _judge(Case(view, policy, None, target))


def blocking(findings: Iterable[Finding], force: bool = False) -> tuple[Finding, ...]:
    """Returns the findings that forbid to begin; ``force`` passes over those that allow it."""
    return tuple(f for f in findings if f.severity is Severity.ERROR and not (force and f.forceable))


def codes() -> frozenset[str]:
    """Returns the code of every finding that can come from here."""
    return frozenset(rule.code for rule in RULES) | {rule.code for rule in CANDIDATE_RULES} | _ABSENT


def _judge(case: Case) -> tuple[Finding, ...]:
    found = [*_candidate(case), *(finding for rule in RULES for finding in rule.apply(case))]
    order, found = list(Severity), list(dialect.told(dialect.of(case.view.seen), found))
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def _candidate(case: Case) -> Iterator[Finding]:
    """Why the target does not qualify; or, when none is named, why nobody does."""
    primary = case.primary
    if primary is None:
        return
    if case.target is not None:
        for r in rejections(case.view, primary.name, case.policy, case.target, named=True):
            yield Finding(r.code, Severity.ERROR, case.target, r.text, r.cure, r.forceable)
        return
    election = elect(case.view, primary.name, case.policy)
    if election.winner is None:
        told = "; ".join(f"{ranked.name} {', '.join(ranked.reasons)}" for ranked in election.ranking)
        yield Finding(
            "candidate.none",
            Severity.ERROR,
            case.view.cluster,
            f"nobody can take over from {primary.name}: {told or 'it has no replica'}",
            "proxyroute plan --to NAME tells for one server what would help",
        )
