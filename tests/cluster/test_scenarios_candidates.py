"""Candidates that must not become primary: each is refused by name, at once, and nothing is touched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.scene import assert_order, books, configured, other, refused, switched, switching
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {"n": 3, "policy": {"max_lag": "900ms", "warm_up": "60s"}}


def candidate(site: Lab) -> Node:
    return site.cluster[other(site)]


def test_candidate_down(site: Lab) -> None:
    node = candidate(site)
    node.kill9()
    found = refused(site, "--to", node.name)["candidate.silent"]
    assert (found["subject"], str(node.address) in found["cure"]) == (node.name, True)
    node.start()
    until(node.replicates, f"{node.name} to follow again")
    switched(site, "--to", node.name)
    assert_order(site, node.name)


@contextlib.contextmanager
def lagging(site: Lab, node: Node) -> Iterator[None]:
    """For a ``with`` block the applier of ``node`` waits for a lock, more than a second behind."""
    old = site.cluster.primary
    old.make_table("app.t", "id INT PRIMARY KEY")
    site.cluster.await_synced()
    with node.session() as holding, holding.cursor() as cursor:
        cursor.execute("LOCK TABLES app.t READ")
        old.sql("INSERT INTO app.t VALUES (1)")
        until(lambda: (node.replication()["Seconds_Behind_Master"] or 0) > 1, f"{node.name} to be behind")
        yield


def test_candidate_lagging_is_refused_at_once_and_when_forced_it_waits(site: Lab) -> None:
    node = candidate(site)
    with contextlib.ExitStack() as later, lagging(site, node):
        found = refused(site, "--to", node.name)["candidate.lag"]
        assert (found["subject"], found["forceable"]) == (node.name, True)
        assert "max_lag is 0.9 s" in found["text"]
        kept = later.enter_context(books(site))
        later.enter_context(switching(site, "--force", "--to", node.name))
        kept.go_on()
        assert site.cluster.writable != (node.name,), "writes flow on the old primary while it waits"
    assert_order(site, node.name)
    assert node.sql("SELECT id FROM app.t") == [{"id": 1}]


def test_candidate_forced_that_never_catches_up_is_refused_while_writes_flow(site: Lab) -> None:
    node, old = candidate(site), site.cluster.primary
    with lagging(site, node), configured(site, switchover={"warm_up": "500ms"}):
        refusal = refused(site, "--to", node.name, "--force")
        assert f"{node.name} did not catch up while writes were flowing" in refusal.text
        assert site.cluster.primary is old
    site.cluster.await_synced()


def test_candidate_whose_sql_thread_is_broken(site: Lab) -> None:
    node, old = candidate(site), site.cluster.primary
    old.make_table("app.t", "id INT PRIMARY KEY")
    site.cluster.await_synced()
    node.sql("SET STATEMENT sql_log_bin=0 FOR INSERT INTO app.t VALUES (1)")
    old.sql("INSERT INTO app.t VALUES (1)")
    until(lambda: node.replication()["Slave_SQL_Running"] == "No", "the applier to stop")
    found = refused(site, "--to", node.name)["candidate.applier"]
    assert "Duplicate entry" in found["text"]
    node.sql("SET STATEMENT sql_log_bin=0 FOR DELETE FROM app.t")
    node.sql("START SLAVE SQL_THREAD")
    site.cluster.await_synced()


def test_candidate_without_receiver(site: Lab) -> None:
    node = candidate(site)
    node.sql("STOP SLAVE IO_THREAD")
    (cure,) = node.words("START SLAVE IO_THREAD")
    assert f"on {node.name}: {cure}" in refused(site, "--to", node.name)["candidate.receiver"]["cure"]
    node.sql("START SLAVE IO_THREAD")
    until(node.replicates, f"{node.name} to follow again")


def test_candidate_excluded_by_policy(site: Lab) -> None:
    first = candidate(site)
    second = site.cluster[other(site, first.name)]
    with configured(site, switchover={"never": [first.name]}):
        found = refused(site, "--to", first.name)["candidate.never"]
        assert (found["subject"], found["forceable"]) == (first.name, False)
        assert "candidate.never" in refused(site, "--to", first.name, "--force").codes
        switched(site)
    assert_order(site, second.name)


def test_candidates_without_binlog_or_log_slave_updates(start_lab: Callable[..., Lab]) -> None:
    options = {"db2": {"skip_log_bin": None}, "db3": {"log_slave_updates": 0}}
    with start_lab(3, node_options=options) as lab:
        assert "log_bin" in refused(lab, "--to", "db2")["candidate.binlog"]["cure"]
        relaying = {"mariadb": "log_slave_updates=1", "mysql": "log_replica_updates=1"}[lab.cluster.flavour]
        assert relaying in refused(lab, "--to", "db3", "--force")["candidate.relay"]["cure"]
        told = refused(lab)["candidate.none"]["text"]
        assert "db2 writes no binary log" in told
        assert "db3 does not write what it replicates" in told
        assert lab.cluster.writable == ("db1",)


def test_one_without_binlog_is_moved_beside_the_candidate(start_lab: Callable[..., Lab]) -> None:
    """It can serve nobody, and what its log begins with is not asked in vain."""
    with start_lab(3, node_options={"db3": {"skip_log_bin": None}}) as lab:
        switched(lab, "--to", "db2")
        assert lab.cluster["db3"].source_port() == lab.cluster["db2"].port


def test_candidate_with_errant_transactions_and_a_replica_with_them_is_not_rejoined_silently(
    start_lab: Callable[..., Lab],
) -> None:
    with start_lab(3, policy={"prove": "500ms"}) as lab:
        lab.cluster["db1"].sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
        lab.cluster.await_synced()
        lab.cluster["db3"].sql("INSERT INTO app.t VALUES (3)")
        errant = lab.cluster["db3"].own_gtids
        found = refused(lab, "--to", "db3", "--force")["candidate.errant"]
        assert errant in found["text"]
        assert not found["forceable"]
        found = refused(lab)["replica.errant"]
        assert (found["subject"], found["forceable"]) == ("db3", True)
        value = switched(lab, "--to", "db2", "--force", code=7)
        assert value["verdict"] == "NOT PROVEN"
        assert any("follow db3" in left and errant in left for left in value["result"]["leftovers"]), value["result"]
        assert lab.cluster.writable == ("db2",)
        assert lab.cluster["db3"].source_port() == lab.cluster["db1"].port, "it stays where it was"
        assert lab.cluster["db1"].replicates()
        assert lab.cluster["db2"].value("(SELECT COUNT(*) FROM app.t)") == 0, "nothing errant has come along"
