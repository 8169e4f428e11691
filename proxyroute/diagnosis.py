"""What is the matter with a cluster, by name. Pure: one table; the first row that fits counts, the last always fits.

A row gives the name, when it fits, the sentence that explains it, the action it allows, and what blocks that action.
An automatic failover needs more than a row: see ``failover_limits``. Every row is in docs/reference/diagnoses.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from proxyroute import diagnosis_alive as alive
from proxyroute import diagnosis_silent as silent
from proxyroute.decided import Action, Diagnosis
from proxyroute.diagnosis_case import Case
from proxyroute.known import Known
from proxyroute.model import Finding, Observed, Severity
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.sight import Sightings

Blocker = Callable[[Case], Iterable[Finding]]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    meaning: str
    """For the reference page."""
    when: Callable[[Case], bool]
    text: Callable[[Case], str]
    action: Action = Action.NONE
    blockers: tuple[Blocker, ...] = ()
    servers: Callable[[Case], tuple[str, ...]] = lambda case: ()


_TAKE_OVER: tuple[Blocker, ...] = (silent.somebody_can, silent.majority)

TABLE: tuple[Row, ...] = (
    # -- What we can see at all --
    Row(
        "JustStarted",
        "Not every server has been looked at yet.",
        silent.incomplete,
        silent.tell_incomplete,
        Action.WAIT,
    ),
    Row(
        "CutOff",
        "Nothing at all comes back from any server's host: it is we who are cut off.",
        silent.cut_off,
        silent.tell_cut_off,
    ),
    Row(
        "PrimaryUnknown",
        "Nobody takes writes, and neither the replicas nor what is remembered tell who did.",
        silent.nobody,
        silent.tell_nobody,
        Action.PEOPLE,
    ),
    # -- More than one --
    Row(
        "OldPrimaryReturned",
        "A former primary takes writes beside the present one, and the replicas do not prefer it.",
        silent.old_returned,
        silent.tell_old_returned,
        Action.CLOSE,
        servers=silent.others_writing,
    ),
    Row(
        "TwoWritable",
        "Several servers take writes and follow nobody: a split brain.",
        silent.two_writable,
        silent.tell_two_writable,
        Action.PEOPLE,
    ),
    Row(
        "StrayWritable",
        "A server that nobody follows takes writes while the primary is silent.",
        silent.stray_writable,
        silent.tell_stray,
        Action.PEOPLE,
    ),
    # -- The primary lives and does not let us in --
    Row(
        "TooManyConnections",
        "The primary answers that it has too many connections: it lives.",
        silent.crowded,
        silent.tell_crowded,
        Action.PEOPLE,
    ),
    Row(
        "LoginRefused",
        "The primary answers and refuses our account: it lives.",
        silent.login_refused,
        silent.tell_login_refused,
        Action.PEOPLE,
    ),
    Row(
        "PrimaryAnswersWithError",
        "The primary answers with an error: it lives.",
        silent.answers_with_error,
        silent.tell_answers_with_error,
        Action.PEOPLE,
    ),
    # -- The primary is silent, and may live --
    Row(
        "UnreachablePrimaryWithLaggingReplicas",
        "We do not reach the primary; replicas hear it, and all of them are behind.",
        silent.unreachable_lagging,
        silent.tell_unreachable,
        Action.WAIT,
    ),
    Row(
        "UnreachablePrimary",
        "We do not reach the primary; a replica has heard it since: it lives.",
        silent.unreachable,
        silent.tell_unreachable,
        Action.WAIT,
    ),
    Row(
        "PrimarySilent",
        "The primary is silent, but not for long enough, or not in enough looks.",
        silent.unconfirmed,
        silent.tell_unconfirmed,
        Action.WAIT,
    ),
    Row(
        "PrimarySilentWitnessesUndecided",
        "The primary is silent; a replica may still hear it, its next heartbeats will tell.",
        silent.undecided,
        silent.tell_undecided,
        Action.WAIT,
    ),
    # -- The primary is gone --
    Row(
        "DeadPrimaryWithoutReplicas",
        "The primary is gone and never had a replica.",
        silent.dead_alone,
        silent.tell_dead_alone,
        Action.PEOPLE,
    ),
    Row(
        "DeadPrimaryAndReplicas",
        "The primary and all its replicas are gone.",
        silent.dead_all,
        silent.tell_dead_all,
        Action.PEOPLE,
    ),
    Row(
        "DeadPrimaryUnwitnessed",
        "The primary is silent, and no replica was listening to it: stopped, in maintenance, or elsewhere.",
        silent.unwitnessed,
        silent.tell_unwitnessed,
        Action.PEOPLE,
    ),
    Row(
        "HungPrimary",
        "The primary accepts connections and answers nothing, and no replica hears it.",
        silent.hung,
        silent.tell_dead,
        Action.FAILOVER,
        _TAKE_OVER,
    ),
    Row(
        "DeadPrimaryAndSomeReplicas",
        "The primary is gone, and some of its replicas do not answer either.",
        silent.dead_some,
        silent.tell_dead,
        Action.FAILOVER,
        _TAKE_OVER,
    ),
    Row(
        "DeadPrimarySiblingAhead",
        "The primary is gone; a replica that may not be promoted has received more than the one that may.",
        silent.dead_sibling_ahead,
        silent.tell_dead,
        Action.FAILOVER,
        _TAKE_OVER,
    ),
    Row(
        "DeadPrimary",
        "The primary is gone: it is silent, and no replica hears it.",
        silent.silent,
        silent.tell_dead,
        Action.FAILOVER,
        _TAKE_OVER,
    ),
    # -- The primary answers and refuses writes --
    Row(
        "PrimaryRestartedBehind",
        "The primary has restarted, and a replica has received what it lost.",
        alive.restarted_behind,
        alive.tell_restarted_behind,
        Action.FAILOVER,
        _TAKE_OVER,
    ),
    Row(
        "PrimaryRestarted",
        "The primary has restarted, refuses writes as its configuration says, and has everything.",
        alive.restarted,
        alive.tell_restarted,
        Action.REOPEN,
        (alive.replicas_contained,),
    ),
    Row(
        "NoWritablePrimary",
        "The primary answers and refuses writes, and it has not restarted: somebody did that.",
        alive.read_only,
        alive.tell_read_only,
        Action.PEOPLE,
    ),
    # -- The primary takes writes, or should --
    Row(
        "LockedSemiSyncPrimary",
        "The primary waits for acknowledgements that too few can give: commits hang.",
        alive.locked_semi_sync,
        alive.tell_locked_semi_sync,
        Action.PEOPLE,
    ),
    Row(
        "PrimaryLostEvents",
        "A replica has received what the primary that takes writes does not have.",
        alive.lost_events,
        alive.tell_lost_events,
        Action.PEOPLE,
    ),
    Row(
        "ProxyElsewhere",
        "A proxy sends writes to another server than the primary.",
        alive.proxy_elsewhere,
        alive.tell_proxy_elsewhere,
        Action.PUBLISH,
    ),
    Row(
        "PrimaryWithoutReplicas",
        "The primary has no replica.",
        alive.without_replicas,
        alive.tell_without_replicas,
    ),
    Row(
        "PrimarySingleReplicaDead",
        "The only replica does not answer.",
        alive.single_dead,
        alive.tell_replicas,
        Action.PEOPLE,
    ),
    Row(
        "PrimarySingleReplicaNotReplicating",
        "The only replica does not receive.",
        alive.single_not_receiving,
        alive.tell_replicas,
        Action.PEOPLE,
    ),
    Row("AllReplicasDead", "No replica answers.", alive.all_dead, alive.tell_replicas, Action.PEOPLE),
    Row(
        "AllReplicasNotReplicating",
        "Every replica answers, and none receives.",
        alive.none_receives,
        alive.tell_replicas,
        Action.PEOPLE,
    ),
    Row(
        "AllReplicasNotReplicatingOrDead",
        "Some replicas do not answer, and none of the others receives.",
        alive.none_receives_or_answers,
        alive.tell_replicas,
        Action.PEOPLE,
    ),
    Row(
        "AllAppliersStopped",
        "Replicas receive, and none of them applies: the primary lives, and nobody could take over at once.",
        alive.no_applier,
        alive.tell_replicas,
        Action.PEOPLE,
    ),
    Row(
        "SemiSyncDegraded",
        "The primary should wait for acknowledgements and has given that up.",
        alive.degraded,
        alive.tell_degraded,
        Action.PEOPLE,
    ),
    Row(
        "SomeReplicasTroubled",
        "Some replicas do not answer, do not receive or do not apply.",
        alive.some_troubled,
        alive.tell_replicas,
    ),
    Row("NoProblem", "The primary takes writes and its replicas follow.", lambda case: True, alive.tell_fine),
)


def diagnose(
    sightings: Sightings,
    policy: FailoverPolicy,
    now: float,
    *,
    rules: Policy | None = None,
    known: Known | None = None,
    wall: float | None = None,
    observed: Sequence[Observed] = (),
) -> Diagnosis:
    """Returns the one diagnosis of what has been seen.

    ``now`` is a point on the monotonic clock, ``wall`` the same in Unix time (to tell a restart since ``known.at``);
    ``rules`` say who may be promoted, and who is in maintenance; ``observed`` is what the proxies do. Not meant for the
    time in which an operation of ours is open: it closes servers itself.
    """
    case = Case(sightings, policy, now, rules or Policy(), known, wall, tuple(observed))
    row = next(row for row in TABLE if row.when(case))
    blockers = tuple(_block(row, case))
    blocked = any(finding.severity is Severity.ERROR for finding in blockers)
    return Diagnosis(
        row.name,
        row.text(case),
        Action.PEOPLE if blocked else row.action,
        case.primary,
        row.servers(case),
        case.since,
        row.action,
        blockers,
    )


def _block(row: Row, case: Case) -> Iterator[Finding]:
    for blocker in row.blockers:
        yield from blocker(case)
