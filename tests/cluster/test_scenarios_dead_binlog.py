"""What a dead primary had and nobody received: saved from its host, applied where that was asked for, or told."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pymysql
import pytest
import yaml

from proxyroute.journal import read
from tests.support.broken import REBUILD, ready
from tests.support.death import (
    LOSSLESS,
    await_back,
    brought_back,
    evidence,
    failed_over,
    no_failover,
    remembered,
    steps,
    table_locked,
    waits_for_acknowledgements,
)
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import create_table
from tests.support.mariadb import Node
from tests.support.scene import assert_order, await_settled, configured
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")

ADVANCED = {"policy": "most_advanced", "dead_binlog_time": "10s"}
SITE = {"n": 3, "more": {"failover": ADVANCED}, "policy": {"prove": "3s", "settle": "10s"}}
STEP = "apply what nobody received"


@pytest.fixture
def hosted(site: Lab) -> Lab:
    """The site with commands on every host, and a table that everybody has."""
    if REBUILD.user not in site.config.read_text():
        ready(site, hosts=True)
    create_table(site.cluster.primary)
    site.cluster.await_synced()
    remembered(site)
    return site


def alone(site: Lab, number: int = 4, *, hung: bool = False) -> Node:
    """Gives the primary ``number`` transactions that nobody receives, and kills or hangs it; returns it."""
    old = site.cluster.primary
    replicas = [node for node in site.cluster if node is not old]
    for node in replicas:
        node.sql("STOP SLAVE IO_THREAD")
    for n in range(number):
        old.sql("INSERT INTO app.load_rows VALUES (%s, 1, 1)", (n,))
    if hung:
        old.sigstop()
    else:
        old.kill9()
    for node in replicas:
        node.sql("START SLAVE IO_THREAD")  # it meets a dead primary: a witness
    return old


def told(value: dict[str, Any]) -> str:
    return str(value["result"]["text"])


def writers(node: Node) -> list[int]:
    return [row["writer"] for row in node.sql("SELECT writer FROM app.load_rows ORDER BY 1")]


def archives(site: Lab) -> list[Path]:
    """Returns all archives, the latest last."""
    return sorted((site.folder / "state" / CLUSTER_NAME / "archive").glob("db*"), key=lambda f: f.stat().st_mtime)


def summary(site: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((archives(site)[-1] / "summary.json").read_text())
    return found


def gtids(site: Lab) -> list[str]:
    """Returns the GTIDs of what is in the latest archive."""
    return [t["gtid"] for t in summary(site)["transactions"]]


def logs_of(node: Node) -> Sequence[Path]:
    # MariaDB 11.8 has an index of GTIDs beside each, binlog.000001.idx
    return sorted((node.folder / "data").glob("binlog.0*[0-9]"))


def errant_gone(site: Lab, old: Node) -> None:
    """The old primary is back with what only it had; it gets rid of that, and follows."""
    old.start()
    status, value = site.json("rejoin", old.name)
    assert (status, [f["code"] for f in value["error"]["findings"]]) == (3, ["rejoin.errant"])
    status, value = site.json("rejoin", old.name, "--yes", "--method", site.cluster.undoing)
    assert status == 0, value
    until(old.replicates, f"{old.name} to follow")


def test_what_nobody_received_is_saved_and_is_errant_when_the_old_primary_is_back(hosted: Lab) -> None:
    old = alone(hosted)
    _, plan = hosted.json("plan", "--failover")
    assert plan["dead_binlog"]["mode"] == "save"
    assert f"what only {old.name} has is saved from its host" in hosted.run("plan", "--failover").stdout
    value = failed_over(hosted, code=7)
    assert f"{old.name} alone had 4 transactions" in told(value)
    assert str(archives(hosted)[-1]) in told(value)
    assert "4 inserted" in told(value)
    assert value["verdict"] == "UNKNOWN"
    assert f"{old.name} alone had 4" in evidence(value)
    order = list(steps(hosted, value["result"]["operation"]))
    assert order.index("route") < order.index("save what nobody received"), "it delays nobody"
    assert STEP not in order
    found = summary(hosted)
    assert [t["tables"] for t in found["transactions"]] == [["app.load_rows"]] * 4
    assert found["rows"] == {"app.load_rows": {"inserted": 4}}
    assert (found["missing"], found["cut"]) == ("", "")
    assert writers(hosted.cluster.primary) == []
    errant_gone(hosted, old)
    assert writers(old) == []


def test_what_nobody_received_is_applied_everywhere_and_the_old_primary_comes_back_by_itself(hosted: Lab) -> None:
    old = alone(hosted)
    value = failed_over(hosted, "--apply-dead-binlog", code=7)
    new = assert_order(hosted)
    assert f"applied to {new.name}" in told(value)
    assert value["verdict"] == "UNKNOWN", "what was found proves nothing about what clients saw"
    order = list(steps(hosted, value["result"]["operation"]))
    assert order.index("detach") < order.index(STEP) < order.index("commit") < order.index("open")
    assert "save what nobody received" not in order
    hosted.cluster.await_synced()
    for node in hosted.cluster:
        if node is not old:
            assert writers(node) == [0, 1, 2, 3], node.name
    assert all(new.has(gtid) for gtid in gtids(hosted)), "as the transactions that they were"
    brought_back(hosted, old)
    assert writers(old) == [0, 1, 2, 3]
    assert len(summary(hosted)["transactions"]) == 4


def test_a_torn_tail_is_cut_off_and_told(hosted: Lab) -> None:
    old = alone(hosted)
    last = logs_of(old)[-1]
    os.truncate(last, last.stat().st_size - 5)
    value = failed_over(hosted, "--apply-dead-binlog", code=7)
    assert "alone had 3 transactions" in told(value)
    assert "has no end" in told(value)
    assert writers(hosted.cluster.primary) == [0, 1, 2]
    assert "has no end" in summary(hosted)["cut"]
    old.start()
    # this disk was honest, and its storage engine has what the log has lost now: no position tells of that
    old.sql("SET STATEMENT sql_log_bin=0 FOR DELETE FROM app.load_rows WHERE writer=3")
    brought_back(hosted, old)


def test_serve_does_the_same_by_itself(hosted: Lab) -> None:
    quick = {"period": "200ms", "proxies_period": "400ms"}
    automatic = {"mode": "automatic", "single_engine": True, "quiet_period": "0s", "dead_binlog": "apply"}
    with configured(hosted, failover=automatic, serve=quick), serving(hosted) as served:
        old = alone(hosted)
        told_by_it = served.await_told("acted", "failover", 60)
        assert "4 transactions" in told_by_it
        assert "applied to" in told_by_it
        old.start()
        await_back(hosted, old)
        until(lambda: writers(old) == [0, 1, 2, 3], f"{old.name} to have what it had")
        await_settled(hosted)
    assert hosted.run("failover", "--acknowledge").returncode == 0


def test_what_nobody_had_acknowledged_is_saved_and_changes_no_verdict(start_lab: Callable[..., Lab]) -> None:
    """To its client that write failed. It is no loss, and it is not brought back unasked."""
    with start_lab(3, semi_sync=True, options=LOSSLESS, policy={"prove": "3s"}) as lab:
        ready(lab, hosts=True)
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        until(lambda: waits_for_acknowledgements(lab.cluster), "somebody to acknowledge")
        remembered(lab)
        old = lab.cluster.primary
        replicas = [node for node in lab.cluster if node is not old]
        for node in replicas:
            node.sql("STOP SLAVE IO_THREAD")
        size = logs_of(old)[-1].stat().st_size
        client = threading.Thread(target=fails_to_write, args=(old,))
        client.start()
        until(lambda: logs_of(old)[-1].stat().st_size > size, "the write to be in the log, and to wait")
        old.kill9()
        client.join(20)
        assert not client.is_alive()
        for node in replicas:
            node.sql("START SLAVE IO_THREAD")
        value = failed_over(lab, code=0)
        assert value["verdict"] == "PROVEN"
        assert f"{old.name} alone had 1 transaction" in told(value)
        assert writers(lab.cluster.primary) == []
        (errant_gone if old.keeps_unacknowledged else brought_back)(lab, old)
        assert writers(old) == []


def fails_to_write(node: Node) -> None:
    with pytest.raises(pymysql.err.OperationalError):
        node.sql("INSERT INTO app.load_rows VALUES (7, 1, 1)")


# -- What cannot be read holds nobody up --------------------------------------------------------------------------


def with_host(site: Lab, node: Node, **changes: Any) -> dict[str, Any]:
    """Returns the servers of the configuration, the host of ``node`` with ``changes``."""
    servers = yaml.safe_load(site.config.read_text())["clusters"][CLUSTER_NAME]["servers"]
    return {**servers, node.name: {**servers[node.name], "host": {**servers[node.name]["host"], **changes}}}


@pytest.mark.parametrize("mode", ["save", "apply"])
@pytest.mark.parametrize(
    ("shell", "reason"),
    [
        (["sleep", "300"], "did not end in time and was killed"),
        (["false"], "exited with status 1"),
        (["/nowhere/ssh"], "cannot be started"),
    ],
    ids=["hangs", "unreachable", "missing"],
)
def test_a_host_that_cannot_be_reached_is_told_and_holds_nobody_up(
    hosted: Lab, mode: str, shell: list[str], reason: str
) -> None:
    old = alone(hosted)
    if shell[0] == "sleep":  # whatever is put behind it must not end it
        script = hosted.folder / "hangs"
        script.write_text("#!/bin/sh\nexec sleep 300\n")
        script.chmod(0o755)
        shell = [str(script)]
    kept = archives(hosted)
    limits = {"dead_binlog": mode, "dead_binlog_time": "2s"}
    with configured(hosted, failover=limits, servers=with_host(hosted, old, shell=shell)):
        value = failed_over(hosted, code=7)
    assert f"the binary log of {old.name} could not be read" in told(value)
    assert reason in told(value)
    took = times(hosted, value["result"]["operation"])
    opened = took["detach"], took["open"]
    assert opened[1] - opened[0] < (1.0 if mode == "save" else 4.0), took
    assert archives(hosted) == kept
    assert_order(hosted)
    errant_gone(hosted, old)


def times(site: Lab, operation: str) -> dict[str, float]:
    """Returns when each step of an operation came to its end."""
    file = next((site.folder / "state").rglob(f"{operation}.jsonl"))
    return {r["name"]: r["t"] for r in read(file) if r["kind"] == "stepped"}


def test_a_program_that_does_not_work_is_named_before_and_holds_nobody_up(hosted: Lab, tmp_path: Path) -> None:
    program = tmp_path / ("mysqlbinlog" if hosted.cluster.flavour == "mysql" else "mariadb-binlog")
    program.write_text("#!/bin/sh\necho 'it is broken' >&2\nexit 1\n")
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    findings = hosted.json("check", environment=environment)[1]["findings"]
    assert [f["subject"] for f in findings if f["code"] == "host.program"] == [program.name]
    old, kept = alone(hosted), archives(hosted)
    status, value = hosted.json("failover", "--yes", environment=environment)
    assert (status, value["result"]["outcome"]) == (7, "done"), value
    assert f"the binary log of {old.name} could not be read: {program.name} exited with status 1: it is broken" in told(
        value
    )
    assert archives(hosted) == kept
    assert_order(hosted)
    errant_gone(hosted, old)


def test_without_a_host_nothing_is_read_and_who_asks_for_it_is_refused(site: Lab) -> None:
    create_table(site.cluster.primary)
    site.cluster.await_synced()
    remembered(site)
    servers = {node.name: str(node.address) for node in site.cluster}
    with configured(site, servers=servers):
        old = alone(site)
        found = no_failover(site, "--apply-dead-binlog")["failover.dead_binlog"]
        assert f"servers.{old.name}.host" in found["cure"]
        assert site.json("plan", "--failover")[1]["dead_binlog"]["mode"] == "ignore"
        value = failed_over(site, code=7)
        assert "binary log" not in told(value)
    errant_gone(site, old)


# -- What is not the log of a dead server -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["save", "apply"])
def test_files_of_another_server_are_not_taken_for_its_own(hosted: Lab, mode: str) -> None:
    old = alone(hosted)
    stranger = next(node for node in hosted.cluster if node is not old)
    servers = with_host(hosted, old, data_dir=str(stranger.folder / "data"))
    with configured(hosted, failover={"dead_binlog": mode}, servers=servers):
        value = failed_over(hosted, code=7)
    assert f"was written by the server with id {stranger.server_id}, and {old.name} has {old.server_id}" in told(value)
    assert writers(hosted.cluster.primary) == []
    errant_gone(hosted, old)


@pytest.mark.parametrize("fenced", [False, True], ids=["not-fenced", "fenced"])
def test_what_a_hung_server_has_is_saved_and_applied_only_when_it_is_fenced(hosted: Lab, fenced: bool) -> None:
    old = alone(hosted, 2, hung=True)
    words = ["--fenced-by", "a person"] if fenced else []
    value = failed_over(hosted, "--apply-dead-binlog", "--force", *words, code=7)
    new = hosted.cluster[value["result"]["primary"]]
    assert "alone had 2 transactions" in told(value)
    if fenced:
        assert f"applied to {new.name}" in told(value)
    else:
        assert f"not applied, because {old.name} is not dead: process" in told(value)
        assert "(T (stopped))" in told(value)
    assert writers(new) == ([0, 1] if fenced else [])
    old.kill9()
    if fenced:
        brought_back(hosted, old)
    else:
        errant_gone(hosted, old)


def test_an_encrypted_log_is_told_as_such(hosted: Lab) -> None:
    old = alone(hosted)
    last = logs_of(old)[-1]
    whole = last.read_bytes()
    last.write_bytes(b"\xfdbin" + whole[4:])
    value = failed_over(hosted, "--apply-dead-binlog", code=7)
    assert f"{last.name} is encrypted; only its server can read it" in told(value)
    last.write_bytes(whole)
    errant_gone(hosted, old)


# -- What cannot be applied ---------------------------------------------------------------------------------------


def test_what_is_not_applied_in_time_is_ended_told_and_never_comes_later(hosted: Lab) -> None:
    old = alone(hosted)
    replicas = [node for node in hosted.cluster if node is not old]
    with (
        table_locked(replicas[0]),
        table_locked(replicas[1]),
        configured(hosted, failover={"dead_binlog": "apply", "dead_binlog_time": "3s"}),
    ):
        value = failed_over(hosted, code=7)
    new = hosted.cluster[value["result"]["primary"]]
    assert "4 transactions" in told(value)
    assert f"none of them applied to {new.name}: " in told(value)
    assert "did not end in time" in told(value) or "did not take what it was given in time" in told(value)
    assert_order(hosted)
    assert writers(new) == []
    assert not any(new.has(gtid) for gtid in gtids(hosted))
    errant_gone(hosted, old)


def test_what_comes_before_an_error_is_applied_and_the_rest_is_told(hosted: Lab) -> None:
    old = alone(hosted)
    replicas = [node for node in hosted.cluster if node is not old]
    for node in replicas:
        node.sql("SET STATEMENT sql_log_bin=0 FOR INSERT INTO app.load_rows VALUES (2, 1, 99)")
    value = failed_over(hosted, "--apply-dead-binlog", code=7)
    new = hosted.cluster[value["result"]["primary"]]
    assert "alone had 4 transactions" in told(value)
    assert f"2 of them applied to {new.name}: " in told(value)
    assert "Duplicate entry" in told(value)
    assert_order(hosted)
    for node in replicas:
        until(lambda node=node: writers(node) == [0, 1, 2], f"{node.name} to have what was applied")
        node.sql("SET STATEMENT sql_log_bin=0 FOR DELETE FROM app.load_rows WHERE writer=2")
    errant_gone(hosted, old)
    assert writers(old) == [0, 1]


def test_without_the_account_that_may_do_it_nothing_is_applied_and_check_says_so_before(hosted: Lab) -> None:
    before = yaml.safe_load(hosted.config.read_text())["clusters"][CLUSTER_NAME]["rejoin"]
    with configured(hosted, failover={"dead_binlog": "apply"}, rejoin=None):
        found = {f["code"]: f for f in hosted.json("check")[1]["findings"]}
        assert "rejoin.account" in found["failover.dead_binlog"]["cure"]
        old = alone(hosted)
        value = failed_over(hosted, code=7)
        assert "none of them applied" in told(value)
    assert yaml.safe_load(hosted.config.read_text())["clusters"][CLUSTER_NAME]["rejoin"] == before
    errant_gone(hosted, old)


# -- What check tries while all is well ---------------------------------------------------------------------------


def test_check_reads_the_binary_log_on_every_host(hosted: Lab) -> None:
    node, stranger = list(hosted.cluster)[:2]
    ours = {"host.binlog", "host.process", "host.program", "host.command", "failover.dead_binlog"}

    def found() -> dict[str, dict[str, Any]]:
        findings = hosted.json("check")[1]["findings"]
        return {f["code"]: f for f in findings if f["code"] in ours}

    assert found() == {}
    with configured(hosted, servers=with_host(hosted, node, binlog_index="/nowhere/binlog.index")):
        assert "there is no index of a binary log" in found()["host.binlog"]["text"]
    with configured(hosted, servers=with_host(hosted, node, data_dir=str(stranger.folder / "data"))):
        text = found()["host.binlog"]["text"]
        assert f"was written by the server with id {stranger.server_id}, not by this one ({node.server_id})" in text
    copied = hosted.folder / "copied"
    copied.mkdir()
    for file in (node.folder / "data").glob("binlog.*"):
        shutil.copy(file, copied)
    with configured(hosted, servers=with_host(hosted, node, data_dir=str(copied))):
        assert "its process is not seen" in found()["host.process"]["text"]
    shutil.rmtree(copied)
    servers = {name: server["address"] for name, server in with_host(hosted, node).items()}
    with configured(hosted, failover={"dead_binlog": "apply"}, servers=servers):
        assert "there is no way to its host" in found()["failover.dead_binlog"]["text"]


def test_a_binary_log_that_lies_elsewhere_is_found_by_its_index(hosted: Lab) -> None:
    old = hosted.cluster.primary
    place = hosted.folder / "elsewhere"
    place.mkdir()
    alone(hosted)
    for file in (old.folder / "data").glob("binlog.*"):
        if file.suffix != ".state":
            shutil.copy(file, place)
    index = place / "binlog.index"
    index.write_text("".join(f"{place}/{file.name}\n" for file in sorted(place.glob("binlog.0*[0-9]"))))
    with configured(hosted, servers=with_host(hosted, old, binlog_index=str(index))):
        value = failed_over(hosted, "--apply-dead-binlog", code=7)
    assert "4 transactions" in told(value)
    assert writers(hosted.cluster[value["result"]["primary"]]) == [0, 1, 2, 3]
    shutil.rmtree(place)
    brought_back(hosted, old)
