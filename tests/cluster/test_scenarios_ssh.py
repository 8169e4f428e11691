"""Commands on the hosts of database servers over a real ssh: what check says of it, a dead host's log, a new copy."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml

from tests.cluster.test_scenarios_dead_binlog import alone, archives, errant_gone, told, writers
from tests.support.broken import REBUILD, await_equal, diverge, ready
from tests.support.death import brought_back, failed_over, remembered
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import create_table
from tests.support.mariadb import Node
from tests.support.scene import assert_order, configured
from tests.support.sshd import Sshd

FLAVOURS = ("mysql",)
SITE = {
    "n": 3,
    "more": {"failover": {"policy": "most_advanced", "dead_binlog_time": "10s"}},
    "policy": {"prove": "3s", "settle": "10s"},
}
HOST = {"host.command", "host.binlog", "host.process", "host.program"}


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd") as started:
        yield started


@pytest.fixture
def hosted(site: Lab, sshd: Sshd) -> Lab:
    """The site, its hosts reached over ssh."""
    if REBUILD.user not in site.config.read_text():
        ready(site, hosts=True)
        values = yaml.safe_load(site.config.read_text())
        for server in values["clusters"][CLUSTER_NAME]["servers"].values():
            server["host"]["shell"] = sshd.shell
        site.config.write_text(yaml.safe_dump(values, sort_keys=False))
    return site


@contextlib.contextmanager
def reached_by(lab: Lab, node: Node, shell: Sequence[str]) -> Iterator[None]:
    """For a ``with`` block the host of ``node`` is reached by ``shell``."""
    servers = yaml.safe_load(lab.config.read_text())["clusters"][CLUSTER_NAME]["servers"]
    server = servers[node.name]
    changed = {**servers, node.name: {**server, "host": {**server["host"], "shell": list(shell)}}}
    with configured(lab, servers=changed):
        yield


def found(lab: Lab) -> dict[str, list[dict[str, Any]]]:
    """What check says of hosts, by server."""
    by_server: dict[str, list[dict[str, Any]]] = {}
    for finding in lab.json("check")[1]["findings"]:
        if finding["code"] in HOST:
            by_server.setdefault(finding["subject"], []).append(finding)
    return by_server


# -- what check says ----------------------------------------------------------------------------------------------


def test_check_tries_ssh_on_every_host_and_has_nothing_to_say(hosted: Lab, sshd: Sshd) -> None:
    before = sshd.logins()
    assert found(hosted) == {}
    assert sshd.logins() - before >= 3 * 2, "once for the commands and once for the binary log, on each host"


@pytest.mark.parametrize(
    ("shell", "reason"),
    [
        ("wrong_shell", "Permission denied"),
        ("unknown_shell", "Host key verification failed"),
        ("stranger_shell", "Host key verification failed"),
    ],
    ids=["wrong key", "unknown host key", "another host key"],
)
def test_check_tells_what_ssh_said(hosted: Lab, sshd: Sshd, shell: str, reason: str) -> None:
    node = hosted.cluster["db2"]
    words = getattr(sshd, shell)
    with reached_by(hosted, node, words):
        (name, findings), *others = found(hosted).items()
    assert (name, others) == (node.name, [])
    assert {f["code"] for f in findings} == {"host.command", "host.binlog"}
    for finding in findings:
        assert "ssh exited with status 255" in finding["text"], finding
        assert reason in finding["text"], finding
    (command,) = [f for f in findings if f["code"] == "host.command"]
    assert f"try it by hand: {' '.join(words)} ls -d" in command["cure"]
    assert f"servers.{node.name}.host" in command["cure"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("how", "reason"), [("server", "timed out during banner exchange"), ("command", "did not end in time")]
)
def test_check_waits_no_longer_than_it_must_for_an_ssh_that_hangs(
    hosted: Lab, sshd: Sshd, how: str, reason: str
) -> None:
    """The server accepts and says nothing; or it lets us in, and the command does not end."""
    node = hosted.cluster["db2"]
    with contextlib.ExitStack() as stack:
        if how == "server":
            other = stack.enter_context(Sshd(sshd.folder.parent / "hangs"))
            other.daemon.send(signal.SIGSTOP)
            stack.enter_context(reached_by(hosted, node, other.shell))
        else:
            stack.enter_context(reached_by(hosted, node, sshd.stuck_shell))
        begun = time.monotonic()
        by_server = found(hosted)
        took = time.monotonic() - begun
    assert set(by_server) == {node.name}
    assert {f["code"] for f in by_server[node.name]} == {"host.command", "host.binlog"}
    assert all(reason in f["text"] for f in by_server[node.name]), by_server
    assert took < 30, "10 s for each of two questions, which are asked of all hosts at once"


# -- what it is for -----------------------------------------------------------------------------------------------


def written(lab: Lab) -> None:
    create_table(lab.cluster.primary)
    lab.cluster.await_synced()
    remembered(lab)


def test_what_only_a_dead_primary_has_is_applied_over_ssh(hosted: Lab, sshd: Sshd) -> None:
    written(hosted)
    before = sshd.logins()
    old = alone(hosted)
    value = failed_over(hosted, "--apply-dead-binlog", code=7)
    assert f"{old.name} alone had 4 transactions" in told(value)
    assert f"applied to {value['result']['primary']}" in told(value)
    assert sshd.logins() > before
    assert writers(hosted.cluster[value["result"]["primary"]]) == [0, 1, 2, 3]
    assert_order(hosted)
    brought_back(hosted, old)
    assert writers(old) == [0, 1, 2, 3]


@pytest.mark.full
def test_an_ssh_server_that_hangs_holds_up_no_failover(hosted: Lab, sshd: Sshd) -> None:
    written(hosted)
    kept = archives(hosted)
    limits = {"dead_binlog": "apply", "dead_binlog_time": "2s"}
    with Sshd(sshd.folder.parent / "silent") as other:
        other.daemon.send(signal.SIGSTOP)
        with reached_by(hosted, hosted.cluster.primary, other.shell), configured(hosted, failover=limits):
            old = alone(hosted)
            value = failed_over(hosted, code=7)
    assert f"the binary log of {old.name} could not be read" in told(value)
    assert "ssh did not end in time and was killed" in told(value)
    assert archives(hosted) == kept
    assert_order(hosted)
    errant_gone(hosted, old)


@pytest.mark.full
@pytest.mark.parametrize(
    "damaged",
    [pytest.param(True, marks=pytest.mark.mariadb_only("a clone works through the server, which has to start")), False],
)
def test_a_server_that_is_down_is_built_anew_from_host_to_host_over_ssh(hosted: Lab, sshd: Sshd, damaged: bool) -> None:
    old, new = diverge(hosted)
    new.allow_copies()
    old.kill9()
    for file in (old.folder / "data").glob("ib*"):
        if damaged:
            file.write_bytes(b"damaged")
    before = sshd.logins()
    status, value = hosted.json("rejoin", old.name, "--method", "reseed", "--yes")
    assert (status, value.get("verdict")) == (0, "PROVEN"), value
    records = hosted.json("show", value["result"]["operation"])[1]["records"]
    steps = {r["name"] for r in records if r["kind"] == "stepped"}
    assert {"copy", "discard"} <= steps or "clone" in steps, steps
    assert sshd.logins() > before
    old.started_elsewhere()
    await_equal(old, new)
    assert old.replicates()
