"""Somebody does harm between the settling and the proof: the verdict says so, and the evidence names the culprit."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from proxyroute.assembly import build_lease, build_parts
from proxyroute.config import load
from proxyroute.journal import Journal, journals
from proxyroute.model import Deadline
from proxyroute.operation import Operation
from proxyroute.outcome import Proof, Verdict
from proxyroute.proof import prove
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.mariadb import Node
from tests.support.scene import LIMIT, configured, connect, other, switched
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {"n": 3}
NOT_PROVEN, UNKNOWN = Verdict.NOT_PROVEN, Verdict.UNKNOWN
Prove = Callable[[], Proof]


@pytest.fixture
def look(site: Lab, tmp_path: Path) -> Iterator[Prove]:
    """A switchover from db1 to db2 is over; returns what looks once more for its proof, by a copy of its journal."""
    if site.cluster.primary.name != "db2":
        switched(site, "--to", "db2")
    file = shutil.copy(journals(site.folder / "state" / CLUSTER_NAME / "journal")[-1], tmp_path)
    config = load(site.config).cluster(None)
    op = Operation(Journal(Path(file)), build_lease(config))
    parts = build_parts(config)
    yield lambda: prove(parts, op, Deadline.after(0.3))
    op.journal.close()
    parts.site.close()
    parts.routes.close()


def gaps(proof: Proof) -> dict[tuple[str, str], Verdict]:
    """Returns what is not proven, by subject and claim."""
    return {(e.subject, e.claim): e.verdict for e in proof.evidence if e.verdict is not Verdict.PROVEN}


def seen(proof: Proof, subject: str, claim: str) -> str:
    return next(e.seen for e in proof.evidence if (e.subject, e.claim) == (subject, claim))


def route(site: Lab, value: str) -> None:
    site.runtime(f"set map {site.haproxy_config.with_suffix('.route.map')} route {value}")


def test_without_sabotage_everything_is_proven(look: Prove) -> None:
    proof = look()
    assert proof.verdict is Verdict.PROVEN, gaps(proof)
    assert len(proof.evidence) > 15


# -- Servers --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def undone(act: Callable[[], object], undo: Callable[[], object]) -> Iterator[None]:
    """For a ``with`` block somebody has done ``act``."""
    act()
    try:
        yield
    finally:
        undo()


def said(node: Node, statement: str) -> Callable[[], object]:
    return functools.partial(node.sql, statement)


def test_a_replica_is_set_writable(site: Lab, look: Prove) -> None:
    db3 = site.cluster["db3"]
    with undone(db3.accept_writes, db3.refuse_writes):
        proof = look()
    assert proof.verdict is NOT_PROVEN
    assert gaps(proof) == {("db3", "refuses writes"): NOT_PROVEN}
    assert seen(proof, "db3", "refuses writes").startswith("takes writes")


def test_the_new_primary_refuses_writes(site: Lab, look: Prove) -> None:
    db2 = site.cluster["db2"]
    with undone(db2.refuse_writes, db2.accept_writes):
        proof = look()
    assert proof.verdict is NOT_PROVEN
    assert gaps(proof)["db2", "takes writes and follows nobody here"] is NOT_PROVEN


@pytest.mark.parametrize(("thread", "told"), [("IO_THREAD", "receiver stopped"), ("SQL_THREAD", "applier stopped")])
def test_a_replica_is_stopped(site: Lab, look: Prove, thread: str, told: str) -> None:
    db1 = site.cluster["db1"]
    with undone(said(db1, f"STOP SLAVE {thread}"), said(db1, f"START SLAVE {thread}")):
        proof = look()
    until(db1.replicates, "db1 to follow again")
    assert proof.verdict is NOT_PROVEN
    assert gaps(proof)["db1", "follows db2"] is NOT_PROVEN
    assert told in seen(proof, "db1", "follows db2")
    assert {subject for subject, _ in gaps(proof)} <= {"db1", f"edge1 {site.read}"}


def test_a_replica_follows_somebody_else(site: Lab, look: Prove) -> None:
    db1, db2, db3 = site.cluster
    db3.follow(db1)
    proof = look()
    db3.follow(db2)
    assert gaps(proof) == {("db3", "follows db2"): NOT_PROVEN}


def test_an_errant_row_is_written_on_a_replica(site: Lab, look: Prove) -> None:
    db3 = site.cluster["db3"]
    site.cluster["db2"].make_table("app.t", "id INT PRIMARY KEY")
    goal = site.cluster.await_synced()
    db3.sql("INSERT INTO app.t VALUES (3)")
    proof = look()
    assert proof.verdict is NOT_PROVEN
    # that it has, or had, a server 3 nobody knows: whether the row was ever on db2 cannot be told from positions alone
    assert gaps(proof)["db3", "has nothing that db2 lacks"] in (NOT_PROVEN, UNKNOWN)
    assert seen(proof, "db3", "has nothing that db2 lacks").startswith(db3.own_gtids)
    assert {subject for subject, _ in gaps(proof)} <= {"db3", f"edge1 {site.read}"}
    db3.begin_anew(goal, "DELETE FROM app.t")
    site.cluster["db2"].sql("DROP TABLE app.t")


def test_a_replica_is_killed(site: Lab, look: Prove) -> None:
    db3 = site.cluster["db3"]
    db3.kill9()
    proof = look()
    db3.start()
    until(db3.replicates, "db3 to follow again")
    assert proof.verdict is UNKNOWN
    assert gaps(proof) == {("db3", "refuses writes and follows"): UNKNOWN}
    assert "cannot connect" in seen(proof, "db3", "refuses writes and follows")


def test_the_limit_of_the_old_primary_is_still_lowered(site: Lab, look: Prove) -> None:
    db1 = site.cluster["db1"]
    usual = int(db1.value(LIMIT))
    with undone(said(db1, "SET GLOBAL max_connections=10"), said(db1, f"SET GLOBAL max_connections={usual}")):
        proof = look()
    assert gaps(proof) == {("db1", f"its limit of {usual} connections is back"): NOT_PROVEN}


# -- The proxy ------------------------------------------------------------------------------------------------


def test_the_proxy_is_put_on_the_old_route_by_the_runtime_socket(site: Lab, look: Prove) -> None:
    kept = site.runtime("show map " + str(site.haproxy_config.with_suffix(".route.map")))
    route(site, "db1/1.1")
    proof = look()
    route(site, next(line.split()[2] for line in kept.splitlines() if line.split()[1:2] == ["route"]))
    assert proof.verdict is NOT_PROVEN
    assert gaps(proof)["edge1", "sends writes to db2"] is NOT_PROVEN
    assert seen(proof, "edge1", "sends writes to db2") == "to db1, epoch 1.1"
    assert gaps(proof)["edge1", "runs what was published"] is NOT_PROVEN
    assert (f"edge1 {site.write}", "a row written here reaches db2") in gaps(proof)


def test_a_session_stays_on_the_old_primary(site: Lab, look: Prove) -> None:
    kept = site.runtime("show map " + str(site.haproxy_config.with_suffix(".route.map")))
    route(site, "db1/1.1")
    with contextlib.closing(connect(site.write)):
        route(site, next(line.split()[2] for line in kept.splitlines() if line.split()[1:2] == ["route"]))
        proof = look()
    assert gaps(proof) == {("edge1", "has no write session elsewhere"): NOT_PROVEN}
    assert "1 on db1" in seen(proof, "edge1", "has no write session elsewhere")


def test_the_proxys_configuration_is_edited(site: Lab, look: Prove) -> None:
    text = site.haproxy_config.read_text()
    site.haproxy_config.write_text(text + "# by hand\n")
    proof = look()
    site.haproxy_config.write_text(text)
    assert gaps(proof) == {("edge1", "runs what was published"): NOT_PROVEN}


def test_haproxy_is_killed(site: Lab, look: Prove) -> None:
    site.haproxy.kill9()
    proof = look()
    site.haproxy.start(site.haproxy_config)
    assert proof.verdict is UNKNOWN
    assert gaps(proof)["edge1", "sends writes to db2"] is UNKNOWN
    assert set(gaps(proof).values()) == {UNKNOWN}
    assert {subject.split()[0] for subject, _ in gaps(proof)} == {"edge1"}


# -- The probe row --------------------------------------------------------------------------------------------


@pytest.fixture
def forgetful(site: Lab, look: Prove) -> Iterator[None]:  # after ``look``: db2 is the primary from then on
    """The table of the probe row takes everything and keeps nothing of it."""
    primary = site.cluster["db2"]
    for event in ("INSERT", "UPDATE"):
        primary.sql(
            f"CREATE TRIGGER proxyroute.forget_{event} BEFORE {event} ON proxyroute.probe"
            " FOR EACH ROW SET NEW.operation='somebody else'"
        )
    yield
    for event in ("INSERT", "UPDATE"):
        primary.sql(f"DROP TRIGGER proxyroute.forget_{event}")


@pytest.mark.usefixtures("forgetful")
def test_the_probe_row_is_not_what_was_written(site: Lab, look: Prove) -> None:
    proof = look()
    assert proof.verdict is NOT_PROVEN
    assert gaps(proof) == {(f"edge1 {site.read}", "the row is read back here"): NOT_PROVEN}
    assert seen(proof, f"edge1 {site.read}", "the row is read back here") == "row of somebody else"


def test_the_table_of_the_probe_row_is_gone(site: Lab, look: Prove) -> None:
    db2 = site.cluster["db2"]
    with undone(
        said(db2, "RENAME TABLE proxyroute.probe TO proxyroute.away"),
        said(db2, "RENAME TABLE proxyroute.away TO proxyroute.probe"),
    ):
        site.cluster.await_synced()
        proof = look()
    site.cluster.await_synced()
    assert proof.verdict is UNKNOWN
    assert {subject for subject, _ in gaps(proof)} == {f"edge1 {site.write}", f"edge1 {site.read}"}
    assert set(gaps(proof).values()) == {UNKNOWN}


# -- In the operation itself ----------------------------------------------------------------------------------

HARM = """
import os, pymysql, sys
if os.environ["PROXYROUTE_PHASE"] == "settle":
    session = pymysql.connect(unix_socket=sys.argv[1], user="root", password="lab-root")
    session.cursor().execute("SET GLOBAL read_only=0")
"""


def test_a_switchover_that_is_sabotaged_before_its_proof_ends_with_7(site: Lab) -> None:
    """A hook for a proxy, which runs when the routes are settled, makes a replica writable."""
    db3 = site.cluster["db3"]
    argv = [sys.executable, "-c", HARM, str(db3.socket_file)]
    hook = {"type": "hook", "name": "saboteur", "set": argv, "absent": True}
    mine = yaml.safe_load(site.config.read_text())["clusters"][CLUSTER_NAME]["proxies"]
    with configured(site, proxies=[*mine, hook], switchover={"prove": "300ms"}):
        value = switched(site, "--to", other(site, "db3"), code=7)
    assert value["verdict"] == "NOT PROVEN"
    wrong = {(e["subject"], e["claim"]) for e in value["result"]["proof"]["evidence"] if e["verdict"] != "PROVEN"}
    assert wrong == {("db3", "refuses writes")}
    db3.refuse_writes()
