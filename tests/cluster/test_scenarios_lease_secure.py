"""Engines that share an etcd with TLS and accounts: a failover from end to end, and whose sessions are left then."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.db.acting import READ_MARKS, marked
from tests.support.death import (
    LOSSLESS,
    await_back,
    brought_back,
    failed_over,
    mourning,
    nothing_of_its_own,
    remembered,
    waits_for_acknowledgements,
)
from tests.support.engines import stopped_at
from tests.support.etcd import Etcd, Tls
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster, Node
from tests.support.process import workspace
from tests.support.scene import assert_order, other, standing
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
USER, PASSWORD = "engine", "lab-etcd"
TIME = 4


@pytest.fixture(scope="module")
def folder() -> Path:
    return workspace()


@pytest.fixture(scope="module")
def tls(folder: Path) -> Tls:
    return Tls(folder / "tls")


@pytest.fixture(scope="module")
def etcd(folder: Path, tls: Tls) -> Iterator[Etcd]:
    """Nobody gets in without a certificate of the site's authority, and a password."""
    with Etcd.start(folder / "etcd", tls=tls) as started:
        started.enable_accounts(USER, PASSWORD)
        yield started


@pytest.fixture(scope="module")
def shared(folder: Path, etcd: Etcd, tls: Tls, servers: type[LocalCluster]) -> Iterator[Lab]:
    secret = folder / "etcd.password"
    secret.touch(mode=0o600)
    secret.write_text(PASSWORD)
    lease = {
        "type": "etcd", "endpoints": etcd.endpoints, "time": f"{TIME}s", "ca": str(tls.ca),
        "cert": str(tls.anonymous[0]), "key": str(tls.anonymous[1]), "user": USER, "password": {"file": str(secret)},
    }  # fmt: skip
    automatic = {"mode": "automatic", "quiet_period": "0s", "per_day": 100, "policy": "lossless"}
    with Lab.start(
        3,
        semi_sync=True,
        options=LOSSLESS,
        policy={"prove": "3s", "settle": "10s", "undo": "5s", "freeze_budget": "2s"},
        more={"lease": lease, "serve": {"period": "200ms", "proxies_period": "400ms"}, "failover": automatic},
        provider=servers,
    ) as lab:
        yield lab


@pytest.fixture
def site(shared: Lab) -> Iterator[Lab]:
    until(lambda: waits_for_acknowledgements(shared.cluster), "somebody to acknowledge")
    create_table(shared.cluster.primary)
    shared.cluster.await_synced()
    remembered(shared)
    yield shared
    assert_order(shared)


def committed(etcd: Etcd) -> set[str]:
    """Returns the operations whose decision is on record in etcd, read as its root."""
    found = etcd.ctl(
        "--user", "root:root-password", "get", "--prefix", "--keys-only", f"/proxyroute/{CLUSTER_NAME}/commits/"
    )
    return {line.rpartition("/")[2] for line in found.stdout.split()}


def test_serve_fails_over_by_itself_under_a_lease_in_an_etcd_with_tls_and_accounts(site: Lab, etcd: Etcd) -> None:
    before = committed(etcd)
    with mourning(site) as mourners, serving(site) as served:
        with nothing_of_its_own(site.cluster) as old:
            old.kill9()
        told = served.await_told("acted", "failover", 60)
        assert "PROVEN" in told
        (operation,) = committed(etcd) - before
        assert operation in told, "its decision is on record there"
        mourners.await_writes()
        old.start()
        await_back(site, old)
        assert served.texts("trouble") == []
    assert not mourners.verdict.lost, mourners.verdict
    status = site.json("status")[1]["lease"]
    assert (status["kind"], status["holder"]) == ("etcd", "")


def test_a_certificate_that_etcd_does_not_take_beside_accounts_is_told_with_the_cure(site: Lab, tls: Tls) -> None:
    text = site.config.read_text()
    site.config.write_text(
        text.replace(str(tls.anonymous[0]), str(tls.cert)).replace(str(tls.anonymous[1]), str(tls.key))
    )
    try:
        done = site.run("switchover", "--yes")
    finally:
        site.config.write_text(text)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "make one for lease.cert without a CN" in " ".join((done.stdout + done.stderr).split())


@pytest.mark.full
def test_with_a_wrong_password_nobody_fails_over_and_it_is_told(site: Lab, folder: Path) -> None:
    """Nothing is opened by an engine that cannot know whether another one is at work."""
    old = site.cluster.primary
    secret = folder / "etcd.password"
    secret.write_text("wrong")
    try:
        old.kill9()
        done = site.run("failover", "--yes")
        assert done.returncode == 2, done.stdout + done.stderr
        assert "etcd" in done.stdout + done.stderr
        assert "authentication failed" in done.stdout + done.stderr
        assert site.cluster.writable == ()
    finally:
        secret.write_text(PASSWORD)
    failed_over(site)
    brought_back(site, old)


# -- whose sessions are left --------------------------------------------------------------------------------------


def may_act(node: Node) -> set[int]:
    """Returns the sessions on a server that may change something: those an engine has marked."""
    (row,) = node.sql(READ_MARKS)
    return set(marked(row))


def alive(node: Node) -> set[int]:
    return {row["ID"] for row in node.sql("SELECT ID FROM information_schema.PROCESSLIST")}


def test_the_next_holder_ends_the_sessions_of_the_one_before_on_every_server(site: Lab) -> None:
    """It hangs where it has sessions on each; counted while it hangs, for it must not be its own end that ends them."""
    with stopped_at(site, "mariadb.change_source:before", ("switchover", "--yes", "--to", other(site))) as engine:
        theirs = {node.name: may_act(node) for node in site.cluster}
        assert all(theirs.values()), f"it has no session on some server: {theirs}"
        healed = site.run("heal")
        assert healed.returncode in (0, 7), healed.stdout + healed.stderr
        left = {node.name: theirs[node.name] & alive(node) for node in site.cluster}
        print("sessions that could act:", theirs)
        assert not any(left.values()), f"still there: {left}"
        before = standing(site)
        os.kill(engine.pid, signal.SIGCONT)
        said, _ = engine.communicate(timeout=60)
        assert engine.returncode != 0, said
        assert standing(site) == before, said


@pytest.mark.full
def test_in_a_failover_they_are_ended_on_every_server_that_can_be_reached(site: Lab) -> None:
    old = site.cluster.primary
    left_over = [node for node in site.cluster if node is not old]
    old.kill9()
    with stopped_at(site, "mariadb.stop_replica:before", ("failover", "--yes", "--force")) as engine:
        theirs = {node.name: may_act(node) for node in left_over}
        assert all(theirs.values()), f"it has no session on some server: {theirs}"
        healed = site.run("heal")
        assert healed.returncode in (0, 7), healed.stdout + healed.stderr
        left = {node.name: theirs[node.name] & alive(node) for node in left_over}
        assert not any(left.values()), f"still there: {left}"
        if not site.cluster.writable:
            failed_over(site)
        before = standing(site)
        os.kill(engine.pid, signal.SIGCONT)
        said, _ = engine.communicate(timeout=60)
        assert engine.returncode != 0, said
        assert standing(site) == before, said
    brought_back(site, old)
