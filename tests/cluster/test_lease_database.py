"""The lease on the cluster's own servers: a majority of all of them, whoever is down, dead or asleep."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.db.seat import LockSeat
from proxyroute.db.session import Login, Session
from proxyroute.errors import Busy, LeaseLost, Refused, Silence, TimedOut, Unreachable
from proxyroute.lease import database
from proxyroute.lease.claims import Claims
from proxyroute.lease.database import DatabaseLease
from proxyroute.model import NO_EPOCH, Deadline, Epoch
from tests.support.mariadb import ENGINE, LocalCluster
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
SECONDS = 3.0


@pytest.fixture(scope="module")
def cluster(servers: type[LocalCluster]) -> Iterator[LocalCluster]:
    with servers.start(3) as started:
        yield started


@pytest.fixture
def ends(cluster: LocalCluster) -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack
    for node in cluster:
        if not node.running:
            node.start()
        node.sigcont()


def lease(
    cluster: LocalCluster, ends: contextlib.ExitStack, folder: Path, names: tuple[str, ...] = ("db1", "db2", "db3")
) -> DatabaseLease:
    def seats() -> list[LockSeat]:
        login = Login(ENGINE.user, ENGINE.password)
        return [LockSeat(name, cluster[name].address, login, "lease/shop", SECONDS) for name in names]

    made = DatabaseLease(seats, len(names), Claims(folder / "epochs"), SECONDS)
    ends.callback(made.release)
    return made


def soon() -> Deadline:
    return Deadline.after(0.2)


def test_one_holds_it_and_the_other_is_refused_by_name(
    cluster: LocalCluster, ends: contextlib.ExitStack, tmp_path: Path
) -> None:
    first, second = lease(cluster, ends, tmp_path / "a"), lease(cluster, ends, tmp_path / "b")
    first.acquire("work", soon())
    with pytest.raises(Busy, match=r"session \d+ from .* on db1"):
        second.acquire("mine", soon())
    assert "on db" in second.holding(Deadline.after(2)).holder
    first.commit("op", Deadline.after(2))
    first.release()
    assert second.acquire("mine", Deadline.after(2))
    assert first.findings(Deadline.after(2)) == []
    with pytest.raises(LeaseLost):
        first.check()


def test_it_outlives_its_time_and_terms_and_epochs_grow(
    cluster: LocalCluster, ends: contextlib.ExitStack, tmp_path: Path
) -> None:
    engine, other = lease(cluster, ends, tmp_path), lease(cluster, ends, tmp_path / "b")
    term = engine.acquire("work", soon())
    epoch = engine.claim(NO_EPOCH, "op1")
    with pytest.raises(Busy):
        other.acquire("mine", Deadline.after(2 * SECONDS))
    engine.check()
    assert engine.claim(Epoch(term + 1_000_000_000, 3), "op2") > Epoch(term + 1_000_000_000, 3)
    engine.release()
    again = lease(cluster, ends, tmp_path)
    assert again.acquire("work", Deadline.after(2)) > term + 1_000_000_000, "above every claim, though the clock is not"
    assert again.claim(NO_EPOCH, "op3") > epoch


def test_one_server_is_down_before_and_one_falls_asleep_meanwhile(
    cluster: LocalCluster, ends: contextlib.ExitStack, tmp_path: Path
) -> None:
    cluster["db1"].kill9()  # the primary: that is when a failover needs the lease
    engine = lease(cluster, ends, tmp_path)
    engine.acquire("work", soon())
    engine.commit("op", Deadline.after(2))
    (found,) = engine.findings(Deadline.after(2))
    assert (found.code, found.subject) == ("lease.member", "db1")
    cluster["db2"].sigstop()
    with pytest.raises(TimedOut, match="nobody knows"):
        engine.commit("op", Deadline.after(2))

    def lost() -> bool:
        with contextlib.suppress(LeaseLost):
            engine.check()
            return False
        return True

    until(lost, "the lease to be lost")
    with pytest.raises(Refused, match="takes 2 of 3 servers"):
        lease(cluster, ends, tmp_path / "b").acquire("mine", soon())
    assert engine.holding(Deadline.after(1)).trouble
    (found,) = engine.findings(Deadline.after(1))
    assert found.code == "lease.unreachable"


def test_one_that_hangs_is_not_waited_for_once_there_is_a_majority(
    cluster: LocalCluster, ends: contextlib.ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_CONNECT", 60.0)
    cluster["db1"].sigstop()  # the primary: that is when a failover needs the lease
    engine = lease(cluster, ends, tmp_path)
    taking = threading.Thread(target=engine.acquire, args=("work", Deadline.after(120)), daemon=True)
    taking.start()
    until(lambda: not taking.is_alive(), "a lease without the one that hangs", 20)
    engine.check()


def test_a_holder_that_is_not_heard_of_is_ended_by_the_servers(
    cluster: LocalCluster, ends: contextlib.ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = lease(cluster, ends, tmp_path)
    monkeypatch.setattr(sleeper, "_keep", lambda place, end: end.wait(60))
    sleeper.acquire("asleep", soon())
    other = lease(cluster, ends, tmp_path / "b")
    other.acquire("awake", Deadline.after(2 * SECONDS))
    with pytest.raises(LeaseLost):
        sleeper.check()
    monkeypatch.setattr(sleeper, "check", lambda: None)  # even if its clock stood still
    with pytest.raises((LeaseLost, TimedOut)):
        sleeper.commit("op", Deadline.after(2))


def test_servers_that_hang_for_a_moment_take_it_from_nobody(
    cluster: LocalCluster, ends: contextlib.ExitStack, tmp_path: Path
) -> None:
    engine, other = lease(cluster, ends, tmp_path), lease(cluster, ends, tmp_path / "b")
    engine.acquire("work", soon())
    time.sleep(SECONDS / 3 - 0.1)  # they are asked again when they have just fallen asleep
    for name in ("db2", "db3"):
        cluster[name].sigstop()
    time.sleep(SECONDS / 3 + 0.3)
    for name in ("db2", "db3"):
        cluster[name].sigcont()
    with pytest.raises(Busy):
        other.acquire("mine", soon())
    engine.check()
    engine.commit("op", Deadline.after(2))


def test_two_servers_will_do_as_long_as_both_live(
    cluster: LocalCluster, ends: contextlib.ExitStack, tmp_path: Path
) -> None:
    engine = lease(cluster, ends, tmp_path, ("db1", "db2"))
    assert not engine.automatic
    assert lease(cluster, ends, tmp_path).automatic
    engine.acquire("work", soon())
    engine.commit("op", Deadline.after(2))
    engine.release()
    (found,) = engine.findings(Deadline.after(2))
    assert found.code == "lease.two_servers"
    cluster["db2"].kill9()
    with pytest.raises(Refused, match="takes 2 of 2 servers"):
        engine.acquire("work", soon())


def test_a_session_that_the_server_has_ended_for_its_silence_is_a_connection_that_is_gone(
    cluster: LocalCluster,
) -> None:
    """MySQL says so to whoever comes back, MariaDB just hangs up: it is the same to us."""
    node = cluster["db1"]
    with Session("db1", node.address, Login(ENGINE.user, ENGINE.password)).open(Deadline.after(5)) as session:
        session.change("lease.seat", "SET SESSION wait_timeout=1", Deadline.after(5))
        there = f"SELECT id FROM information_schema.processlist WHERE id={session.id}"
        until(lambda: not node.sql(there), "the server to end it")
        with pytest.raises(Unreachable) as told:
            session.one("SELECT 1 AS one", Deadline.after(5))
        assert told.value.kind is Silence.RESET
        assert not session.is_open
