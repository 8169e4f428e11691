"""The ground the other tests stand on: clusters start as promised, from wherever they come, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pymysql
import pytest

from proxyroute.model import Address
from tests.conftest import PROVIDERS, provider
from tests.support.accounts import ENGINE, PROBE, REPLICATION, product_statements
from tests.support.lab import Lab
from tests.support.load import ROOT_FOLDER, Load, create_table, read_rows
from tests.support.mariadb import APPLICATION, ROOT, LocalCluster
from tests.support.process import free_port
from tests.support.verdict import judge
from tests.support.wait import until


@pytest.fixture(params=sorted(PROVIDERS))
def provided(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    with provider(request.param).start(3) as started:
        yield started


def test_a_cluster_replicates_from_db1_which_alone_takes_writes(provided: LocalCluster) -> None:
    assert provided.writable == ("db1",)
    assert [node.source_port() for node in provided] == [None, provided["db1"].port, provided["db1"].port]
    provided["db1"].sql("CREATE TABLE app.t (id INT PRIMARY KEY)", account=APPLICATION)
    provided.await_synced()
    assert provided["db3"].sql("SELECT COUNT(*) AS n FROM app.t") == [{"n": 0}]
    with pytest.raises(pymysql.err.OperationalError, match="read-only"):
        provided["db2"].sql("INSERT INTO app.t VALUES (1)", account=APPLICATION)


def test_a_server_can_be_stopped_killed_hung_and_started_again(provided: LocalCluster) -> None:
    node = provided["db2"]
    node.restart(max_connections=77)
    assert node.value("@@max_connections") == 77
    node.kill9()
    assert not node.running
    node.start()
    until(node.replicates, "db2 to follow again")
    node.sigstop()
    with pytest.raises(pymysql.err.OperationalError):
        node.connect(ROOT, connect_timeout=1, read_timeout=1)
    node.sigcont()
    node.wait_ready()


def test_every_server_has_the_settings_that_durability_needs(cluster: LocalCluster) -> None:
    for node in cluster:
        names = "@@sync_binlog, @@innodb_flush_log_at_trx_commit, @@log_slave_updates, @@gtid_strict_mode"
        (row,) = node.sql(f"SELECT {names}")
        assert [int(value) for value in row.values()] == [1, 1, 1, 1], node
        assert node.value("@@binlog_format") == "ROW"


def test_semi_synchronous_replicas_are_connected_when_the_start_returns() -> None:
    with LocalCluster.start(2, semi_sync=True) as cluster:
        (row,) = cluster["db1"].sql("SHOW STATUS LIKE 'Rpl_semi_sync_master_status'")
        assert row["Value"] == "ON"


def test_the_accounts_are_made_by_exactly_what_grants_prints(lab: Lab) -> None:
    _, printed = lab.json("grants")
    used = product_statements(tuple(int(n) for n in printed["version"].split(".")))
    for account in (ENGINE, REPLICATION, PROBE):
        used = [s.replace(account.password, f"<password of {account.user}>") for s in used]
    assert printed["statements"] == used


def test_an_acknowledged_row_deleted_on_the_primary_is_reported_as_lost(cluster: LocalCluster) -> None:
    create_table(cluster["db1"])
    with Load.start(cluster["db1"].address, writers=2, rate=100) as load:
        load.await_more(20)
        records = load.stop()
    cluster.await_synced()
    assert judge(records, read_rows(cluster), "db1").clean
    cluster["db1"].sql("DELETE FROM app.load_rows WHERE writer=1 AND n=5")
    cluster.await_synced()
    assert judge(records, read_rows(cluster), "db1").lost == {(1, 5)}


def test_a_row_written_behind_the_back_of_replication_is_reported_as_a_second_primary(cluster: LocalCluster) -> None:
    create_table(cluster["db1"])
    with Load.start(cluster["db1"].address, writers=1, rate=100) as load:
        records = load.stop()
    cluster.await_synced()
    cluster["db2"].sql("INSERT INTO app.load_rows VALUES (9, 9, @@server_id)")
    verdict = judge(records, read_rows(cluster), "db1")
    assert verdict.double_primary == 1
    assert verdict.unexplained == {(9, 9)}


def test_errors_of_pooled_and_fresh_clients_are_told_by_phase_and_number(cluster: LocalCluster) -> None:
    create_table(cluster["db1"])
    address = cluster["db1"].address
    with (
        Load.start(address, writers=1, rate=100) as pooled,
        Load.start(address, writers=1, rate=100, mode="fresh", first=1) as fresh,
    ):
        cluster["db1"].sql("SET GLOBAL read_only=1")
        until(lambda: pooled.count()["failed"] and fresh.count()["failed"], "writes to be refused")
        cluster["db1"].kill9()
        before = fresh.count()["failed"]
        until(lambda: fresh.count()["failed"] > before + 2, "connections to be refused")
        kinds = {failure.kind for failure in (pooled.stop() + fresh.stop()).failed}
    assert {"statement 1290", "connect 2003"} <= kinds


def test_a_writer_that_is_not_let_in_at_home_writes_elsewhere_and_that_counts(cluster: LocalCluster) -> None:
    create_table(cluster["db1"])
    nobody = Address("127.0.0.1", free_port())
    with Load.start([nobody, cluster["db1"].address], writers=2, rate=100) as load:
        load.await_more(10)
        records = load.stop()
    assert {failure.writer for failure in records.failed} == {0}
    assert {failure.kind for failure in records.failed} == {"connect 2003"}
    verdict = judge(records, read_rows(cluster), "db1")
    assert (verdict.refused, verdict.lost) == (1, frozenset())


def test_servers_end_when_the_process_that_started_them_is_killed() -> None:
    code = (
        "import sys; from tests.support.mariadb import LocalCluster\n"
        "cluster = LocalCluster.start(1)\n"
        "print(cluster['db1'].process.pid, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT_FOLDER)},
    )
    with child:
        assert child.stdout is not None
        descriptor = os.pidfd_open(int(child.stdout.readline()))
        child.send_signal(signal.SIGKILL)
        child.wait()

    def ended() -> bool:
        try:
            signal.pidfd_send_signal(descriptor, 0)
        except ProcessLookupError:
            return True
        return False

    until(ended, "the orphaned server to end")
    os.close(descriptor)
