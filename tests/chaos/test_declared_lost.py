"""A server is gone in mid-operation and will not come back: heal waits for the operator's word, and takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.world import await_closed
from tests.support.lab import Lab
from tests.support.wait import until

FLAVOURS = ("mysql",)
GUARD_DIES = "guard/guard.take_over:before"


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with start_lab(3, policy={"freeze_budget": "1s", "settle": "3s"}) as lab:
        yield lab


def test_candidate_lost_right_after_it_was_told_to_open(lab: Lab) -> None:
    """It may have opened: the old primary stays closed until somebody says that the candidate is gone for good."""
    old, lost = lab.cluster["db1"], lab.cluster["db2"]
    lab.run(
        "switchover",
        "--yes",
        "--to",
        "db2",
        environment={"PROXYROUTE_FAULT": f"engine/mariadb.accept_writes:before,{GUARD_DIES}"},
    )
    lost.kill9()
    await_closed(lab)
    until(lambda: not old.is_writable(), "the old primary to close itself")

    waiting = lab.run("heal")
    assert waiting.returncode == 5
    assert "--declare-lost db2" in waiting.stdout + waiting.stderr
    assert not old.is_writable(), "nothing is opened on a guess"

    nobody = lab.run("heal", "--declare-lost", "db9")
    assert nobody.returncode == 3
    assert "db9" in nobody.stdout + nobody.stderr

    healed = lab.run("heal", "--declare-lost", "db2")
    assert healed.returncode == 0, healed.stdout + healed.stderr
    assert old.is_writable()
    assert lab.cluster.writable == ("db1",)
    assert int(old.value("@@global.max_connections")) == int(old.options["max-connections"])
    _, status = lab.json("status")
    assert status["proxies"][0]["primary"] == "db1"
    assert not status["open_operations"]
    operation = lab.json("history")[1]["operations"][-1]["operation"]
    assert "declared db2 lost" in lab.run("show", operation).stdout.replace("\n", " ")


def test_old_primary_lost_right_after_the_new_one_opened(lab: Lab) -> None:
    """The new primary is finished; the lost one is neither asked nor waited for."""
    old = lab.cluster["db1"]
    lab.run(
        "switchover",
        "--yes",
        "--to",
        "db2",
        environment={"PROXYROUTE_FAULT": f"engine/mariadb.accept_writes:after,{GUARD_DIES}"},
    )
    old.kill9()
    await_closed(lab)
    healed = lab.run("heal", "--declare-lost", "db1")
    assert healed.returncode == 0, healed.stdout + healed.stderr
    assert lab.cluster.writable == ("db2",)
    until(lab.cluster["db3"].replicates, "db3 to follow")
    assert lab.cluster["db3"].source_port() == lab.cluster["db2"].address.port
    _, status = lab.json("status")
    assert status["proxies"][0]["primary"] == "db2"
