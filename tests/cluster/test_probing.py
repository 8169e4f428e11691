"""What the probes see of real servers that are killed, hung, crowded, stopped or restarted, and what it is called."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from proxyroute.decided import Action, Diagnosis
from proxyroute.diagnosis import diagnose
from proxyroute.errors import Silence
from proxyroute.known import Known, remember
from proxyroute.model import Receiver, Silent
from proxyroute.moment import Moment
from proxyroute.policy import AGGRESSIVE, FailoverPolicy
from proxyroute.probing import Prober
from proxyroute.sight import Evidence, Witness, evidence
from tests.support.drivers import server_of
from tests.support.mariadb import APPLICATION, ENGINE, LocalCluster, Node
from tests.support.process import free_port
from tests.support.wait import until

FLAVOURS = ("mysql",)
POLICY = FailoverPolicy(policy="most_advanced")


class Eye:
    """A prober of a whole cluster, and what follows from what it sees."""

    def __init__(self, cluster: LocalCluster, policy: FailoverPolicy = POLICY) -> None:
        self.policy = policy
        self.known: Known | None = None
        servers = [server_of(node) for node in cluster]
        self.prober = Prober("shop", servers, policy.probe_period, policy.patience)

    def diagnosis(self) -> Diagnosis:
        found, now, wall = self.prober.sightings(), time.monotonic(), time.time()
        self.known = remember(found, self.known, now, wall, Moment.now())
        return diagnose(found, self.policy, now, known=self.known, wall=wall)

    def until(self, name: str, seconds: float = 20.0) -> Diagnosis:
        """Returns the first diagnosis of that name. None before it may allow a failover."""

        def called() -> Diagnosis | None:
            self.prober.wait_change(0.2)
            told = self.diagnosis()
            assert told.name == name or told.wanted is not Action.FAILOVER, told
            return told if told.name == name else None

        return until(called, name, seconds, pause=0.0) or self.diagnosis()

    def await_back(self, node: Node) -> None:
        """Starts a server, and returns when it has been seen: some start in longer than a death takes to be certain."""
        node.start()
        until(lambda: self.silence(node.name) is None, f"{node.name} to be seen")

    def evidence(self, name: str) -> Evidence:
        return evidence(self.prober.sightings(), "db1", time.monotonic(), self.policy)[name]

    def silence(self, name: str) -> Silence | None:
        silent = self.prober.sightings().tracks[name].silent
        return silent.kind if silent else None


@contextlib.contextmanager
def watching(cluster: LocalCluster, policy: FailoverPolicy = POLICY) -> Iterator[Eye]:
    """The eye on a cluster that is well."""
    before = threading.active_count()
    eye = Eye(cluster, policy)
    with eye.prober:
        eye.until("NoProblem")
        assert threading.active_count() - before == len(cluster) + 1
        yield eye
    assert threading.active_count() == before


def ours(node: Node) -> int:
    """How many sessions of the engine's account are on a server."""
    return int(node.value(f"(SELECT COUNT(*) FROM information_schema.processlist WHERE user='{ENGINE.user}')"))


def ending(node: Node, first: str = "DO 0") -> None:
    """Ends the session of the engine's account on a server, from the server's side, after the statement ``first``."""
    with node.session() as root, root.cursor() as cursor:
        cursor.execute(first)
        cursor.execute("SELECT id AS id FROM information_schema.processlist WHERE user=%s", (ENGINE.user,))
        (row,) = cursor.fetchall()
        for statement in node.words(f"KILL HARD CONNECTION {row['id']}"):
            cursor.execute(statement)


@pytest.mark.parametrize("profile", ["default", "aggressive"])
def test_a_killed_primary_is_dead_as_soon_as_it_is_confirmed(cluster: LocalCluster, profile: str) -> None:
    policy = POLICY if profile == "default" else replace(POLICY, **AGGRESSIVE)
    with watching(cluster, policy) as eye:
        until(lambda: eye.evidence("db2").witness is Witness.FRESH, "db2 to hear")
        cluster["db1"].kill9()
        told = eye.until("DeadPrimary")
        assert (told.action, told.primary) == (Action.FAILOVER, "db1")
        assert "db2 has lost the connection" in told.text
        assert eye.silence("db1") is Silence.REFUSED


def test_a_kill_is_noticed_by_the_hang_up_and_not_by_the_next_regular_look(cluster: LocalCluster) -> None:
    with watching(cluster, replace(POLICY, probe_period=60.0)) as eye:
        cluster["db1"].kill9()
        eye.until("DeadPrimary", seconds=20.0)
        silent = eye.prober.sightings().tracks["db1"]
        assert silent.silent_looks >= 3
        assert eye.evidence("db3").witness is Witness.LOST


def test_a_hung_primary_is_dead_when_heartbeats_are_overdue_although_the_threads_still_say_yes(
    cluster: LocalCluster,
) -> None:
    with watching(cluster) as eye:
        until(lambda: eye.evidence("db2").witness is Witness.FRESH, "db2 to hear")
        cluster["db1"].sigstop()
        try:
            told = eye.until("HungPrimary")
            assert told.action is Action.FAILOVER
            assert cluster["db2"].replicates()
            channel = eye.prober.sightings().tracks["db2"].status
            assert channel
            assert channel.source
            assert channel.source.running
            heard = eye.evidence("db2")
            assert heard.witness is Witness.STALE
            assert heard.seconds is not None
            assert heard.seconds >= 2.5 * channel.source.heartbeat_seconds
            assert eye.silence("db1") is Silence.HUNG
        finally:
            cluster["db1"].sigcont()
        eye.until("NoProblem")


def test_a_primary_that_only_we_do_not_reach_is_not_failed_over(cluster: LocalCluster) -> None:
    """Our address of it leads nowhere; the replicas go on."""
    eye = Eye(cluster)
    lost = server_of(cluster["db1"], address=replace(cluster["db1"].address, port=free_port()))
    others = [server_of(node) for node in cluster if node.name != "db1"]
    eye.prober = Prober("shop", [lost, *others], POLICY.probe_period, POLICY.patience, {"db1": 1})
    with eye.prober:
        told = eye.until("UnreachablePrimary")
        assert (told.action, told.primary) == (Action.WAIT, "db1")
        assert "but it lives: db" in told.text


def test_stopped_receivers_witness_nothing_and_the_primary_lives(cluster: LocalCluster) -> None:
    with watching(cluster) as eye:
        for name in ("db2", "db3"):
            cluster[name].sql("STOP SLAVE IO_THREAD")
        assert eye.until("AllReplicasNotReplicating").action is Action.PEOPLE
        assert eye.evidence("db2").witness is Witness.NONE
        cluster["db1"].kill9()
        told = eye.until("DeadPrimaryUnwitnessed")
        assert told.action is Action.PEOPLE
        assert "db2 its receiver was stopped by somebody" in told.text


def test_stopped_appliers_are_no_death_and_nobody_may_take_over(cluster: LocalCluster) -> None:
    with watching(cluster) as eye:
        for name in ("db2", "db3"):
            cluster[name].sql("STOP SLAVE SQL_THREAD")
        assert eye.until("AllAppliersStopped").action is Action.PEOPLE
        assert eye.evidence("db2").witness in (Witness.FRESH, Witness.UNDECIDED)
        cluster["db1"].kill9()

        def dead() -> Diagnosis | None:
            told = eye.diagnosis()
            return told if told.name == "DeadPrimary" else None

        told = until(dead, "DeadPrimary")
        assert told
        assert (told.wanted, told.action) == (Action.FAILOVER, Action.PEOPLE)
        assert "failover.candidate" in {f.code for f in told.blockers}


def test_too_many_connections_are_a_sign_of_life(start_cluster: Callable[..., LocalCluster]) -> None:
    cluster = start_cluster(2)
    db1 = cluster["db1"]
    with contextlib.ExitStack() as ends, watching(cluster) as eye:
        for _ in range(15):
            ends.enter_context(db1.session(APPLICATION))
        # the application has more than the limit: not even the place that is kept for privileged accounts is free
        ending(db1, "SET GLOBAL max_connections=10")
        told = eye.until("TooManyConnections")
        assert (told.action, told.primary) == (Action.PEOPLE, "db1")
        assert eye.silence("db1") is Silence.CROWDED
        ends.close()
        eye.until("NoProblem")


def test_a_hung_replica_does_not_slow_the_looks_at_the_others(cluster: LocalCluster) -> None:
    with watching(cluster) as eye:
        cluster["db3"].sigstop()
        try:
            assert eye.until("SomeReplicasTroubled").action is Action.NONE
            until(lambda: not eye.prober.alarmed, "the excitement to be over")
            start = eye.prober.sightings()

            def looks(name: str) -> int:
                since = start.tracks[name].recent[-1].at
                return sum(s.began > since for s in eye.prober.sightings().tracks[name].recent)

            until(lambda: looks("db3") >= 3, "three looks at db3")
            # each look at db3 takes one second of patience and half a second of rest
            assert looks("db1") > looks("db3")
            assert looks("db2") > looks("db3")
            recent = eye.prober.sightings().tracks["db1"].recent[-3:]
            assert all(s.at - s.began < POLICY.patience for s in recent)
            assert eye.silence("db3") is Silence.HUNG
        finally:
            cluster["db3"].sigcont()


def test_a_primary_that_restarts_read_only_is_to_be_reopened(cluster: LocalCluster) -> None:
    cluster["db1"].sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    cluster.await_synced()
    with watching(cluster) as eye:
        cluster["db1"].kill9()
        eye.await_back(cluster["db1"])
        told = eye.until("PrimaryRestarted")
        assert (told.action, told.primary) == (Action.REOPEN, "db1")


def test_a_primary_that_lost_what_a_replica_has_is_not_reopened(start_cluster: Callable[..., LocalCluster]) -> None:
    cluster = start_cluster(2)
    db1 = cluster["db1"]
    data, before = db1.folder / "data", db1.folder / "before"
    db1.stop()
    shutil.copytree(data, before)
    db1.start()
    db1.sql("SET GLOBAL read_only=0")
    db1.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    until(lambda: cluster["db2"].sql("SHOW TABLES IN app LIKE 't'"), "db2 to have it")
    with watching(cluster) as eye:
        db1.kill9()
        # as a disk that has lied about what it has written: the end of its history is gone
        shutil.rmtree(data)
        before.rename(data)
        eye.await_back(db1)
        told = eye.until("PrimaryRestartedBehind")
        assert told.wanted is Action.FAILOVER
        assert "without what db2 has received" in told.text


def test_an_engine_that_starts_after_the_death_finds_the_primary_by_its_replicas(cluster: LocalCluster) -> None:
    cluster["db1"].kill9()
    eye = Eye(cluster)
    with eye.prober:
        told = eye.until("DeadPrimary")
        assert (told.primary, told.action) == ("db1", Action.FAILOVER)
        assert "because db2 and db3 follow it" in told.text
        source = eye.prober.sightings().tracks["db2"].status
        assert source
        assert source.source
        assert source.source.receiver is not Receiver.RUNNING


def test_a_session_that_somebody_ends_is_opened_anew_and_nothing_is_left_behind(cluster: LocalCluster) -> None:
    with watching(cluster) as eye:
        ending(cluster["db1"])
        recent = lambda: eye.prober.sightings().tracks["db1"].recent  # noqa: E731
        until(lambda: any(isinstance(s.seen, Silent) for s in recent()), "the loss to be seen")
        eye.until("NoProblem")
        assert all(ours(node) == 1 for node in cluster)
    until(lambda: all(ours(node) == 0 for node in cluster), "our sessions to be gone")


def test_under_semi_sync_nothing_acknowledged_can_be_missing_and_that_is_known(
    start_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = start_cluster(3, semi_sync=True)
    with watching(cluster, FailoverPolicy()) as eye:
        assert eye.known
        assert eye.known.semi_sync
        assert (eye.known.semi_sync.active, eye.known.semi_sync.after_sync) == (True, True)
        assert eye.known.semi_sync.wait_no_replica
        assert eye.known.semi_sync.acknowledgers == ("db2", "db3")
        # whole seconds are told: whoever has just started may have done so after the primary was seen last
        until(lambda: all(s.uptime_seconds >= 3 for s in eye.prober.sightings().view.seen), "an age")
        eye.diagnosis()
        cluster["db1"].kill9()
        told = eye.until("DeadPrimary")
        assert (told.action, told.blockers) == (Action.FAILOVER, ())
        cluster["db3"].kill9()
        told = eye.until("DeadPrimaryAndSomeReplicas")
        assert told.action is Action.PEOPLE
        (finding,) = told.blockers
        assert (finding.code, finding.subject) == ("failover.acknowledger", "db3")


def test_a_primary_that_waits_for_acknowledgements_in_vain_lives(start_cluster: Callable[..., LocalCluster]) -> None:
    cluster = start_cluster(2, semi_sync=True)
    db1, db2 = cluster["db1"], cluster["db2"]
    db1.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    db1.sql("SET GLOBAL rpl_semi_sync_master_timeout=60000")
    cluster.await_synced()
    with watching(cluster) as eye:
        db2.sql("STOP SLAVE IO_THREAD")
        eye.until("PrimarySingleReplicaNotReplicating")
        writer = threading.Thread(target=db1.sql, args=("INSERT INTO app.t VALUES (1)",))
        writer.start()
        told = eye.until("LockedSemiSyncPrimary")
        assert told.action is Action.PEOPLE
        assert "(waiting: 1, for up to 60 s)" in told.text
        db2.sql("START SLAVE IO_THREAD")
        writer.join(20.0)
        assert not writer.is_alive()
        eye.until("NoProblem")
