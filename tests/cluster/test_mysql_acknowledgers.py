"""MySQL can want more than one replica to acknowledge a commit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from tests.support.death import semi_sync
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.mysql import MySQLCluster
from tests.support.scene import assert_order, books, configured, other, switched
from tests.support.wait import until

pytestmark = pytest.mark.matrix

_OPTIONS = {"rpl_semi_sync_source_wait_for_replica_count": 2, "rpl_semi_sync_source_timeout": 60000}


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_switchover_keeps_as_many_acknowledgers_as_its_primary_wants(replicas: int) -> None:
    """With just as many replicas none may leave the old primary before the freeze: its commits would stand still."""
    with Lab.start(1 + replicas, provider=MySQLCluster, semi_sync=True, options=_OPTIONS) as lab:
        new = lab.cluster[other(lab)]
        with books(lab):
            told = lab.json("plan", "--to", new.name)[1]
            (found,) = [f for f in told["findings"] if f["code"] == "semi_sync.alone"]
            assert "2 replicas have to acknowledge: the first commits wait" in found["text"]
            switched(lab, "--to", new.name)
        assert_order(lab, new.name)
        now = semi_sync(new)
        assert (now["master_status"], int(now["master_clients"])) == ("ON", replicas), now
        assert int(now["master_no_tx"]) == 0, "a commit was acknowledged by too few"


def test_each_side_of_semi_synchronous_replication_counts_where_only_that_one_is_there() -> None:
    """The old primary can acknowledge nothing and follows all the same; one that could never be a source counts."""
    with Lab.start(3, provider=MySQLCluster, semi_sync=True) as lab:
        old, new = lab.cluster.primary, lab.cluster[other(lab)]
        (third,) = (node for node in lab.cluster if node not in (old, new))
        _without(old, "rpl_semi_sync_replica")
        _without(third, "rpl_semi_sync_source")
        with books(lab):
            told = lab.json("plan", "--to", new.name)[1]
            said = {f["code"]: f["subject"] for f in told["findings"] if f["code"].startswith("semi_sync.")}
            assert said == {"semi_sync.unable": old.name}
            switched(lab, "--to", new.name)  # with nothing left to do
        assert_order(lab, new.name)
        now = semi_sync(new)
        assert (now["master_status"], int(now["master_clients"])) == ("ON", 1), now


def _without(node: Node, plugin: str) -> None:
    """Takes a plugin from a server; what is loaded by an option cannot be told otherwise until it restarts."""
    refuses = int(node.value("@@global.super_read_only"))
    node.sql("SET GLOBAL super_read_only=0")
    node.sql(f"UNINSTALL PLUGIN {plugin}")
    node.sql(f"SET GLOBAL super_read_only={refuses}")


def test_a_replica_that_acknowledged_what_still_waits_is_not_errant_and_a_failed_freeze_is_undone() -> None:
    """One of two acknowledgers is gone: commits hang, and the other one has executed them."""
    with Lab.start(3, provider=MySQLCluster, semi_sync=True, options=_OPTIONS) as lab:
        old = lab.cluster.primary
        new, away = (node for node in lab.cluster if node is not old)
        old.sql("CREATE TABLE app.hung (id INT PRIMARY KEY)")
        lab.cluster.await_synced()
        notices = int(new.value("@@global.replica_net_timeout"))
        until(lambda: _uptime(old) >= notices, "it to run for as long as a replica may take to notice its restart")
        patient = {"long_transaction": "60s"}  # else it would be refused for the commit that hangs
        with configured(lab, switchover=patient), _hanging(old, new, away):
            told = lab.json("plan", "--to", new.name)[1]
            assert not [f for f in told["findings"] if f["code"].endswith(".errant")], told["findings"]
            words = str(lab.json("switchover", "--yes", "--force", "--to", new.name)[1])
            assert "everything was undone" in words, words
            assert "no write lock within the budget" in words, words
        assert_order(lab, old.name)


def _uptime(node: Node) -> int:
    sql = "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime'"
    return int(node.sql(sql)[0]["VARIABLE_VALUE"])


@contextlib.contextmanager
def _hanging(old: Node, new: Node, away: Node) -> Iterator[None]:
    """For a ``with`` block: ``away`` does not receive, and a commit of ``old`` waits, which ``new`` has executed."""
    away.sql("STOP REPLICA IO_THREAD")
    until(lambda: int(semi_sync(old)["master_clients"]) == 1, "one acknowledger to be left")
    writer = threading.Thread(target=old.sql, args=("INSERT INTO app.hung VALUES (1)",))
    writer.start()
    try:
        until(lambda: new.sql("SELECT * FROM app.hung"), "the other one to execute it")
        yield
    finally:
        away.sql("START REPLICA IO_THREAD")
        writer.join(20.0)
    assert not writer.is_alive()
