"""The lease on the cluster's own servers, with the whole site around it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
import yaml

from proxyroute import journal
from tests.chaos.world import await_closed
from tests.support.broken import await_equal, diverge, ready
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.mariadb import LocalCluster
from tests.support.scene import assert_order, books, other, switched
from tests.support.serving import serving

FLAVOURS = ("mysql",)
POLICY = {"freeze_budget": "2s", "lock_pause": "20ms", "settle": "5s", "undo": "5s"}


@pytest.fixture(scope="module")
def shared(servers: type[LocalCluster]) -> Iterator[Lab]:
    with Lab.start(3, policy=POLICY, more={"lease": {"type": "database", "time": "4s"}}, provider=servers) as lab:
        yield lab


@pytest.fixture
def site(shared: Lab) -> Iterator[Lab]:
    yield shared
    assert_order(shared)


def test_there_and_back(site: Lab) -> None:
    with books(site):
        switched(site)
        switched(site)
    _, status = site.json("status")
    assert (status["lease"]["kind"], status["lease"]["holder"]) == ("database", "")
    assert site.run("check").returncode == 0


def test_with_one_server_down(site: Lab) -> None:
    target = other(site)
    away = site.cluster[other(site, target)]
    away.kill9()
    try:
        switched(site, "--to", target, code=7)
    finally:
        away.start()
    assert site.run("heal").returncode == 0
    assert_order(site, target)


@pytest.mark.parametrize("point", ["mariadb.block_writes:after", "mariadb.accept_writes:after"])
def test_the_guard_of_a_dead_engine_gets_the_lease_as_soon_as_the_servers_have_noticed(site: Lab, point: str) -> None:
    with books(site):
        done = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": f"engine/{point}"})
        assert done.returncode == -signal.SIGKILL
        await_closed(site)
    file = journal.journals(site.folder / "state" / CLUSTER_NAME / "journal")[-1]
    records = journal.read(file)
    assert "part" in [r["kind"] for r in records], "it goes on under a term of its own"
    assert journal.outcome(records) == ("aborted" if "block" in point else "done")


def test_of_two_servers_the_one_that_is_left_is_not_opened_by_itself(start_lab: Callable[..., Lab]) -> None:
    """The lease cannot be had once one of them is gone; that is said before, and a person is not kept from acting."""
    more = {
        "lease": {"type": "database", "time": "4s"},
        "serve": {"period": "200ms", "proxies_period": "400ms"},
        "failover": {"mode": "automatic", "policy": "most_advanced", "quiet_period": "0s"},
    }
    with start_lab(2, policy=POLICY, more=more) as lab, serving(lab) as served:
        old, left = lab.cluster
        said = {f["code"]: f["text"] for f in lab.json("check")[1]["findings"]}
        assert "no failover by itself" in said["lease.two_servers"]
        blocks = lab.json("status")[1]["blocks_failover"]
        assert "failover.two_servers" in [f["code"] for f in blocks]
        old.kill9()
        served.await_told("diagnosis", "DeadPrimary", 30)
        blocked = served.await_told("blocked", "majority of 2 servers", 30)
        assert "failover" in blocked
        assert not left.is_writable()
        assert served.texts("acted") == []
        old.start()


def test_with_two_servers_a_reseed_by_a_copy_ends_in_one_go(start_lab: Callable[..., Lab]) -> None:
    """The server that is restarted for it takes the lease and the claim along: both are had again."""
    more = {"lease": {"type": "database", "time": "3s"}}
    with start_lab(2, policy=POLICY, more=more) as lab:
        ready(lab, hosts=True)
        old, new = diverge(lab)
        new.allow_copies()
        slow = lab.folder / "slow"
        slow.write_text('#!/bin/sh\nsleep 4 && exec "$@"\n')  # it is away for longer than the lease's time
        slow.chmod(0o755)
        values = yaml.safe_load(lab.config.read_text())
        host = values["clusters"][CLUSTER_NAME]["servers"][old.name]["host"]
        host["start"] = [str(slow), *host["start"]]
        lab.config.write_text(yaml.safe_dump(values, sort_keys=False))
        status, value = lab.json("rejoin", old.name, "--method", "reseed", "--yes")
        assert status == 0, value
        assert value["verdict"] == "PROVEN", value
        await_equal(old, new)
        assert old.replicates()
        assert sorted(p.name for p in old.folder.iterdir() if p.is_dir()) == ["data"], "the old data are gone"
