"""Each rule of preflight is provoked once, and a healthy cluster has nothing to complain of."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.decided import Plan
from proxyroute.election import elect, make_plan
from proxyroute.inspection import Inspection, Transaction
from proxyroute.model import Finding, Receiver, SemiSync, Severity, Silent, Status
from proxyroute.policy import Policy
from proxyroute.preflight import blocking, codes, preflight, survey
from tests.support.builders import address, channel, inspection, position, replica, server, silent, view
from tests.unit.sources import sources
from tests.unit.test_election import BOTH, SEMI, SICK, semi_replica

BACKUP = ((12, "backup@10.0.0.8"),)
ONE_SIDE = SemiSync(available=True)
"""A server of MySQL with the plugin of a source, and none to acknowledge with."""
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "findings.md"
Findings = tuple[Finding, ...]

UPDATE = Transaction(4711, "shop", "10.0.0.7:51234", 93.4, 1200, True, "UPDATE stock SET n = n - 1")


def plan(*replicas: str, policy: Policy | None = None) -> Plan:
    return Plan("shop", "db1", "db2", replicas, policy=policy or Policy())


def judge(
    *servers: Status | Silent, policy: Policy | None = None, inspections: tuple[Inspection, ...] = ()
) -> Findings:
    """Judges moving the primary from db1 to db2."""
    others = tuple(s.name for s in servers if s.name not in ("db1", "db2"))
    return preflight(view(*servers, inspections=inspections), plan(*others, policy=policy))


def third(changed: Status) -> Findings:
    """Judges a cluster with an ordinary db1 and db2, and ``changed`` beside them."""
    return judge(server(1), replica(2), changed)


def inspected(**changes: object) -> Findings:
    """Judges a cluster in which the inspection of the primary found something."""
    return judge(server(1), replica(2), replica(3), inspections=(inspection("db1", **changes),))


def purged_up_to(reached: str, third: Status) -> Findings:
    """Judges a cluster whose candidate has purged its binary log up to ``reached``."""
    found = inspection("db2", purged=position(reached))
    return judge(server(1), replica(2), third, inspections=(found,))


def semi_synced(*replicas: Status) -> Findings:
    """Judges the plan that is made for a semi-synchronous primary."""
    seen = view(server(1, semi_sync=SEMI), *replicas)
    return preflight(seen, make_plan(seen, "db1", elect(seen, "db1", Policy(), "db2"), Policy()))


def without_inspections() -> Findings:
    return preflight(replace(view(server(1), replica(2)), inspections={}), plan())


CASES: dict[str, Callable[[], Findings]] = {
    "topology.galera": lambda: judge(server(1, galera=True), replica(2)),
    "topology.group": lambda: judge(server(1, group=True), server(2, writable=False, group=True)),
    "topology.ring": lambda: judge(replica(1, channel(2), writable=True), replica(2, writable=True)),
    "topology.multi_primary": lambda: judge(server(1), server(2)),
    "topology.flavours": lambda: third(replica(3, flavour="mysql")),
    "server_id.duplicate": lambda: third(replica(3, server_id=2)),
    "primary.none": lambda: judge(server(1, writable=False), replica(2)),
    "primary.silent": lambda: judge(silent(1), replica(2)),
    "primary.moved": lambda: judge(replica(1, channel(3)), replica(2, channel(3)), server(3)),
    "primary.replicates": lambda: judge(replica(1, channel(9, address=address(9)), writable=True), replica(2)),
    "primary.binlog": lambda: judge(server(1, binlog=False), replica(2)),
    "primary.connections": lambda: judge(server(1, connections=90), replica(2)),
    "account.unread": without_inspections,
    "account.privilege": lambda: inspected(missing_privileges=("CONNECTION ADMIN",)),
    "replication.tls": lambda: inspected(unverifiable=True),
    "writer.privileged": lambda: inspected(privileged_writers=("batch@10.%",)),
    "writer.locked": lambda: preflight(
        view(server(1), replica(2), inspections=(inspection("db1", privileged_writers=("batch@10.%",)),)),
        replace(plan(), lock_accounts=("batch@10.%",)),
    ),
    "primary.locks": lambda: inspected(unrecorded="performance_schema"),
    "server.locks": lambda: judge(
        server(1), replica(2), inspections=(inspection("db2", unrecorded="wait/lock/metadata/sql/mdl"),)
    ),
    "primary.backup": lambda: inspected(backups=BACKUP),
    "candidate.backup": lambda: judge(server(1), replica(2), inspections=(inspection("db2", backups=BACKUP),)),
    "replica.backup": lambda: judge(
        server(1), replica(2), replica(3), inspections=(inspection("db3", backups=BACKUP),)
    ),
    "transaction.xa": lambda: inspected(prepared_xa=("'order-17'",)),
    "transaction.long": lambda: inspected(transactions=(UPDATE,)),
    "semi_sync.missing": lambda: semi_synced(replica(2)),
    "semi_sync.unable": lambda: semi_synced(semi_replica(2), semi_replica(3), replica(4, semi_sync=ONE_SIDE)),
    "semi_sync.alone": lambda: semi_synced(semi_replica(2), semi_replica(3, enabled=False)),
    "semi_sync.waiting": lambda: semi_synced(
        semi_replica(2), replica(3, semi_sync=replace(SEMI, replica_enabled=True))
    ),
    "semi_sync.degraded": lambda: judge(server(1, semi_sync=replace(SEMI, primary_active=False)), semi_replica(2)),
    "binlog.statement": lambda: judge(server(1, binlog_format="STATEMENT"), replica(2, binlog_format="STATEMENT")),
    "binlog.mixed": lambda: third(replica(3, binlog_format="MIXED")),
    "binlog.filters": lambda: inspected(binlog_filters=("binlog_ignore_db=scratch",)),
    "binlog.row_image": lambda: third(replica(3, row_image="MINIMAL")),
    "gtid.strict": lambda: third(replica(3, strict=False)),
    "server.persisted": lambda: third(replica(3, settings={"persisted": "read_only=OFF,event_scheduler=ON"})),
    "server.super_read_only": lambda: third(replica(3, settings={"super_read_only": "OFF"})),
    "primary.gtid_mode": lambda: judge(server(1, settings={"gtid_mode": "OFF_PERMISSIVE"}), replica(2)),
    "replica.gtid_mode": lambda: third(replica(3, settings={"gtid_mode": "ON_PERMISSIVE"})),
    "witness.heartbeat": lambda: third(replica(3, channel(heartbeat_seconds=30.0))),
    "witness.net_timeout": lambda: third(replica(3, net_timeout_seconds=60.0)),
    "version.older_replica": lambda: judge(server(1), replica(2, version=(11, 4, 2))),
    "candidate.none": lambda: survey(view(server(1), silent(2)), Policy()),
    "candidate.unknown": lambda: survey(view(server(1), replica(2)), Policy(), "db9"),
    "candidate.silent": lambda: judge(server(1), silent(2)),
    "candidate.never": lambda: judge(server(1), replica(2), policy=Policy(never=("db2",))),
    "candidate.chain": lambda: judge(server(1), replica(2, channel(3)), replica(3)),
    "replica.silent": lambda: judge(server(1), replica(2), silent(3)),
    "witness.auto_failover": lambda: third(replica(3, channel(chooses_source=True))),
    "replica.unattached": lambda: third(replace(replica(3), sources=())),
    "replica.astray": lambda: third(replica(3, channel(source_id=77))),
    "replica.receiver": lambda: third(replica(3, channel(receiver=Receiver.CONNECTING))),
    "replica.applier": lambda: third(replica(3, channel(applier=False))),
    "replica.gtid": lambda: third(replica(3, channel(uses_gtid=False))),
    "replica.writable": lambda: third(replica(3, writable=True)),
    "replica.errant": lambda: third(replica(3, executed="0-1-100,0-3-101")),
    "replica.history": lambda: third(replica(3, executed="0-1-100,0-3-50")),
    "replica.multi_source": lambda: third(replica(3, channel(), channel(9, channel="x", address=address(9)))),
    "replica.lag": lambda: third(replica(3, channel(lag_seconds=11.0))),
    "replica.unserved": lambda: purged_up_to("0-1-100", replica(3, channel(received="0-1-90"), executed="0-1-80")),
    "replica.delay": lambda: third(replica(3, channel(delay_seconds=60))),
    "replica.filters": lambda: third(replica(3, channel(filtered=True))),
    "replica.chain": lambda: third(replica(3, channel(2))),
}
CASES |= {
    "candidate.aside": lambda: survey(view(server(1), replica(2), replica(3)), Policy(aside=("db2",)), "db2"),
    "replica.aside": lambda: survey(view(server(1), replica(2), replica(3)), Policy(aside=("db3",))),
}
CASES |= {
    code: lambda make=make: judge(server(1), make(), replica(3))  # type: ignore[misc]
    for code, make in SICK.items()
    if code != "candidate.multi_source"  # the plan names it, which is asking for it
}


def documented() -> dict[str, tuple[str, bool]]:
    """Returns severity and forceability of every code in the reference."""
    rows = re.findall(r"^\| `([\w.-]+)` \| (\w+)[ *]*\| (yes )?\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == len({code for code, _, _ in rows})
    return {code: (severity, bool(force)) for code, severity, force in rows}


@pytest.mark.parametrize("code", CASES)
def test_each_rule_finds_its_case_with_the_weight_the_reference_tells(code: str) -> None:
    found = [finding for finding in CASES[code]() if finding.code == code]
    assert found, f"nothing was found under {code}"
    for finding in found:
        assert (finding.severity.value, finding.forceable) == documented()[code]
        assert finding.subject
        assert finding.text
        assert finding.cure or finding.severity is not Severity.ERROR


def test_every_rule_has_a_case() -> None:
    assert set(CASES) | {"candidate.multi_source"} == codes()


MAKERS = ("Finding", "_finding", "_error", "_warning")
"""What findings are made by, in any module."""


def test_the_reference_lists_exactly_the_codes_in_the_sources() -> None:
    literal = {
        node.args[0].value
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in MAKERS
        if node.args and isinstance(node.args[0], ast.Constant)
    }
    assert set(documented()) == codes() | literal


def test_a_healthy_cluster_has_no_findings() -> None:
    seen = view(server(1), replica(2), replica(3))
    assert preflight(seen, plan("db3")) == ()
    assert survey(seen, Policy()) == ()


def test_a_healthy_semi_synchronous_cluster_has_no_findings() -> None:
    assert semi_synced(semi_replica(2), semi_replica(3)) == ()


def test_errors_come_first() -> None:
    severities = [f.severity for f in judge(server(1, connections=99), replica(2, strict=False), silent(3), silent(4))]
    assert severities == sorted(severities, key=list(Severity).index)
    order = [f.severity for f in judge(server(1, strict=False), replica(2, channel(applier=False)))]
    assert order == [Severity.ERROR, Severity.WARNING]


def test_force_passes_over_what_allows_it_and_nothing_else() -> None:
    found = inspected(privileged_writers=("batch@10.%",), missing_privileges=("SUPER",))
    assert {f.code for f in blocking(found)} == {"writer.privileged", "account.privilege"}
    assert {f.code for f in blocking(found, force=True)} == {"account.privilege"}


def test_warnings_never_block() -> None:
    assert blocking(judge(server(1), replica(2), silent(3))) == ()


def test_a_forced_plan_locks_the_writer_and_only_warns_of_it() -> None:
    found = CASES["writer.locked"]()
    assert [(f.code, f.severity) for f in found] == [("writer.locked", Severity.WARNING)]


@pytest.mark.parametrize("code", ["replica.unattached", "replica.astray", "replica.receiver", "replica.applier"])
def test_broken_replicas_are_tolerated_when_the_policy_says_so(code: str) -> None:
    broken = {
        "replica.unattached": replace(replica(3), sources=()),
        "replica.astray": replica(3, channel(source_id=77)),
        "replica.receiver": replica(3, channel(receiver=Receiver.STOPPED)),
        "replica.applier": replica(3, channel(applier=False)),
    }[code]
    found = judge(server(1), replica(2), broken, policy=Policy(require_running=False))
    assert [(f.code, f.severity, f.forceable) for f in found] == [(code, Severity.WARNING, False)]


def test_a_missing_privilege_names_account_and_grant() -> None:
    found = inspected(missing_privileges=("CONNECTION ADMIN", "SELECT ON mysql.global_priv"))
    assert [f.cure for f in found] == [
        "on db1: GRANT CONNECTION ADMIN ON *.* TO 'proxyroute'@'10.0.0.9';",
        "on db1: GRANT SELECT ON mysql.global_priv TO 'proxyroute'@'10.0.0.9';",
    ]
    assert "proxyroute@10.0.0.9 lacks CONNECTION ADMIN" in found[0].text


def test_a_long_transaction_is_told_with_user_host_age_and_rows() -> None:
    (found,) = inspected(transactions=(UPDATE,))
    for fact in ("shop@10.0.0.7:51234", "4711", "93.4 s", "1200 rows", "UPDATE stock"):
        assert fact in found.text
    assert "--kill-long" in found.cure


def test_readers_and_short_writers_are_no_finding() -> None:
    reader, short = replace(UPDATE, writes=False, age_seconds=9999.0), replace(UPDATE, age_seconds=1.9)
    assert inspected(transactions=(reader, short)) == ()


def unserved(third: Status, purged: str = "0-1-95") -> tuple[Finding, ...]:
    return tuple(f for f in purged_up_to(purged, third) if f.code == "replica.unserved")


def test_whether_the_candidate_can_serve_the_others_is_told_before() -> None:
    assert unserved(replica(3)) == ()
    (later,) = unserved(replica(3, channel(delay_seconds=3600), executed="0-1-80"))
    (never,) = unserved(replica(3, channel(received="0-1-90"), executed="0-1-80"))
    assert (later.subject, never.subject) == ("db3", "db3")
    assert "has to apply 0-1-95 from its relay logs first, which db2 has not in its binary log" in later.text
    assert "proxyroute heal" in later.cure
    assert "needs 0-1-95, which db2 has not in its binary log any more; it will be left as it is" in never.text
    assert "proxyroute rejoin db3 --method reseed" in never.cure


def test_a_delayed_replica_for_which_nobody_knows_where_the_log_begins_is_told() -> None:
    delayed = replica(3, channel(delay_seconds=3600), executed="0-1-80")
    (untold,) = unserved(delayed, purged="")
    assert "is at 0-1-80; whether db2 can go on from there is not known" in untold.text
    assert unserved(replica(3, executed="0-1-80"), purged="") == (), (
        "a moment behind, in a cluster that was never purged"
    )
    assert unserved(delayed, purged="0-1-70") == ()


def test_an_old_primary_that_its_candidate_could_not_serve_is_told() -> None:
    """What the candidate has from another source is purged there, and was never here."""
    (found,) = unserved(replica(3, executed="0-1-100,7-9-5"), purged="7-9-5")
    assert (found.subject, found.text) == (
        "db1",
        "needs 7-9-5, which db2 has not in its binary log any more; it will follow nobody",
    )


def test_one_that_stands_still_is_told_as_that() -> None:
    resting = replica(3, channel(receiver=Receiver.STOPPED, applier=False), executed="0-1-80")
    assert unserved(resting) == ()


def test_errant_transactions_are_told_one_by_one() -> None:
    (found,) = CASES["replica.errant"]()
    assert "db1 lacks: 0-3-101 (1 at the most)" in found.text


def test_a_silent_primary_proposes_failover_and_is_not_told_again_as_a_replica() -> None:
    found = judge(silent(1), replica(2), replica(3))
    assert [(f.code, f.subject) for f in found] == [("primary.silent", "db1")]
    assert "proxyroute failover" in found[0].cure
    assert "db2, db3" in found[0].text


def test_a_silent_link_of_a_chain_is_not_taken_for_the_primary() -> None:
    found = judge(server(1), replica(2), silent(3), replica(4, channel(3)))
    assert "primary.silent" not in {f.code for f in found}
    assert "replica.silent" in {f.code for f in found}


def test_a_stray_writable_replica_does_not_hide_that_the_primary_is_silent() -> None:
    found = judge(silent(1), replica(2, writable=True), replica(3))
    assert {"primary.silent", "primary.replicates"} <= {f.code for f in found}


def test_a_ring_is_named_by_its_members() -> None:
    (found,) = (f for f in CASES["topology.ring"]() if f.code == "topology.ring")
    assert "db1 follows db2 follows db1" in found.text


def test_the_read_only_top_of_a_cluster_without_primary_is_named() -> None:
    (found,) = CASES["primary.none"]()
    assert "db1 is followed by the others and refuses writes" in found.text


def test_nobody_is_to_be_opened_while_nobody_answers() -> None:
    (found,) = (f for f in judge(silent(1), silent(2)) if f.code == "primary.none")
    assert found.text == "no server answers, so nobody can tell whether one takes writes"
    assert "read_only" not in found.cure


def test_the_candidate_is_told_of_once_and_not_as_a_replica_too() -> None:
    found = judge(server(1), replica(2, channel(applier=False)), replica(3))
    assert [f.code for f in found] == ["candidate.applier"]


def test_a_lagging_candidate_can_be_forced() -> None:
    found = judge(server(1), replica(2, channel(lag_seconds=60.0)))
    assert [f.code for f in blocking(found)] == ["candidate.lag"]
    assert blocking(found, force=True) == ()


def test_when_nobody_qualifies_every_server_is_told_with_every_reason() -> None:
    seen = view(server(1), replica(2, channel(applier=False, filtered=True)), silent(3))
    (found,) = (f for f in survey(seen, Policy()) if f.code == "candidate.none")
    assert "db2 its applier is stopped, replicates through filters" in found.text
    assert "db3 did not answer: connection refused" in found.text


def test_a_primary_without_replicas_says_so() -> None:
    (found,) = survey(view(server(1)), Policy())
    assert "it has no replica" in found.text


@pytest.mark.parametrize(
    ("candidate", "others", "told"),
    [
        (SemiSync(can_acknowledge=True), [BOTH, BOTH], "has no plugin to wait for acknowledgements"),
        (BOTH, [ONE_SIDE, ONE_SIDE], "would wait in vain: none of the other servers could acknowledge, 1 must"),
        (replace(BOTH, wanted=2), [BOTH, ONE_SIDE], "would wait in vain: 1 of the other servers could acknowledge, 2"),
        (BOTH, [BOTH, ONE_SIDE], ""),
        (BOTH, [SemiSync(can_acknowledge=True), ONE_SIDE], ""),
    ],
)
def test_each_server_needs_the_side_of_its_role(candidate: SemiSync, others: list[SemiSync], told: str) -> None:
    """``others`` are the old primary, which waits now and will acknowledge, and one more replica."""
    old = replace(others[0], primary_enabled=True, primary_active=True, clients=2)
    seen = view(server(1, semi_sync=old), replica(2, semi_sync=candidate), replica(3, semi_sync=others[1]))
    found = [f for f in preflight(seen, plan()) if f.code == "semi_sync.missing"]
    assert [f.subject for f in found] == (["db2"] if told else [])
    assert all(told in f.text and f.cure and f.forceable for f in found)


def test_the_first_commit_of_a_lonely_semi_synchronous_primary_is_foretold() -> None:
    (found,) = CASES["semi_sync.alone"]()
    assert "the first commits wait for up to 10 s" in found.text


def test_commits_that_more_than_one_has_to_acknowledge_are_foretold() -> None:
    demanding = replace(SEMI, wanted=2, clients=3)
    seen = view(server(1, semi_sync=demanding), semi_replica(2), semi_replica(3), semi_replica(4))
    found = preflight(seen, make_plan(seen, "db1", elect(seen, "db1", Policy(), "db2"), Policy()))
    assert [f.text for f in found if f.code == "semi_sync.alone"] == [
        "2 replicas have to acknowledge: the first commits wait for up to 10 s, until as many have been attached"
    ]


def test_foreign_transactions_of_a_multi_source_replica_are_not_called_errant() -> None:
    sources = (channel(), channel(9, channel="x", address=address(9)))
    found = third(replica(3, *sources, executed="0-1-100,7-9-5"))
    assert [f.code for f in found] == ["replica.multi_source"]


def test_cures_name_the_channel() -> None:
    (found,) = third(replica(3, channel(channel="main", applier=False)))
    assert "START SLAVE 'main' SQL_THREAD;" in found.cure


def test_monitor_users_are_trusted_not_to_write() -> None:
    seen = view(server(1), replica(2), inspections=(inspection("db1", privileged_writers=("maxscale@%",)),))
    assert preflight(seen, plan(policy=Policy(monitor_users=("maxscale",)))) == ()


def test_semi_sync_that_is_off_on_the_primary_is_nobodys_business() -> None:
    assert judge(server(1, semi_sync=SemiSync(available=True)), replica(2)) == ()


def test_a_channel_that_has_an_authority_needs_none_from_the_configuration() -> None:
    """It is kept, and given to the channel that stands in for it."""
    for options in ({"ssl_ca": "/etc/ca.pem"}, {"ssl_capath": "/etc/ssl"}):
        seen = view(
            server(1), replica(2, channel(options=options)), inspections=(inspection("db1", unverifiable=True),)
        )
        assert "replication.tls" not in {f.code for f in preflight(seen, plan())}
