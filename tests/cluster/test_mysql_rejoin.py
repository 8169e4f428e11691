"""A server of MySQL that comes back: it follows when it has nothing of its own; what it has is kept for people."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.gtid import MySQLPosition
from tests.support.broken import ERRANT, archive_of, await_equal, diverge, ready, rows
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.mysql import MySQLCluster, mysql_root
from tests.support.scene import assert_order

pytestmark = pytest.mark.matrix
EXTRA = (
    *ERRANT,
    "SET binlog_transaction_compression=1; INSERT INTO app.u VALUES (2000, 'packed', 1)",
    "SET gtid_next='AUTOMATIC:sometag'; INSERT INTO app.u VALUES (2001, 'tagged', 1); SET gtid_next=AUTOMATIC",
    "CREATE TABLE app.errant (id INT PRIMARY KEY)",
)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A site on whose hosts commands run, and a machine with MySQL's own client programs."""
    monkeypatch.setenv("PATH", str(mysql_root().programs), prepend=":")
    with Lab.start(3, provider=MySQLCluster) as started:
        ready(started, hosts=True)
        yield started


def extra(old: Node, new: Node) -> MySQLPosition:
    return MySQLPosition.parse(old.gtid()).minus(MySQLPosition.parse(new.gtid()))


def test_what_only_it_has_is_kept_and_shown_and_nothing_else_is_done(lab: Lab) -> None:
    old, new = diverge(lab, EXTRA)
    before, errant = new.gtid(), extra(old, new)
    for words in ((), ("--method", "flashback", "--yes")):
        status, value = lab.json("rejoin", old.name, *words)
        assert status == 3, value
        found = {f["code"]: f for f in value["error"]["findings"]}
        assert "7 transactions from " in found["rejoin.errant"]["text"]
        assert "app.t: 1 inserted" in found["rejoin.errant"]["text"]
        assert "--method empty" in found["rejoin.errant"]["cure"]
        assert ("rejoin.flashback" in found) == bool(words)
        assert new.gtid() == before, "nothing has happened to the primary"
        assert not old.is_writable()
        assert old.replication() == {}
    assert "no flashback" in found["rejoin.flashback"]["text"]
    archive = archive_of(lab)
    summary = json.loads((archive / "summary.json").read_text())
    gtids = [t["gtid"] for t in summary["transactions"]]
    assert MySQLPosition.parse(",".join(gtids)) == errant
    assert {table for t in summary["transactions"] for table in t["tables"]} == {"app.t", "app.u"}
    packed = summary["transactions"][4]
    assert packed["tables"] == ["app.u"]
    assert summary["transactions"][-1]["statements"][0].startswith("CREATE TABLE app.errant")
    assert summary["rows"]["app.t"] == {"inserted": 1, "updated": 3, "deleted": 2}
    assert "overwritten" in (archive / "decoded.sql").read_text()
    (raw,) = (archive / "raw").iterdir()
    there = (old.folder / "data" / raw.name).read_bytes()
    in_use = 4 + 17  # the one byte that says that the server writes to it
    assert (raw.read_bytes()[:in_use], raw.read_bytes()[in_use + 1 :]) == (there[:in_use], there[in_use + 1 :])
    empty = (archive / "empty.sql").read_text()
    assert [line.partition("'")[2].rstrip("';") for line in empty.splitlines() if "='" in line] == gtids


def test_those_of_a_server_that_is_down_are_read_from_its_host(lab: Lab) -> None:
    """It is started to be cloned; where it may not be, a dump wants it to run, and nothing is done."""
    old, new = diverge(lab, EXTRA[:2])
    errant = extra(old, new)
    old.kill9()
    status, value = lab.json("rejoin", old.name, "--method", "reseed", "--yes")
    assert status == 3, value
    texts = [f["text"] for f in value["error"]["findings"] if f["code"] == "rejoin.reseed"]
    assert any("has no clone plugin" in text for text in texts), texts
    assert any("is down, and a dump" in text for text in texts), texts
    summary = json.loads((archive_of(lab) / "summary.json").read_text())
    assert MySQLPosition.parse(",".join(t["gtid"] for t in summary["transactions"])) == errant
    assert not old.running
    new.sql("INSTALL PLUGIN clone SONAME 'mysql_clone.so'")
    status, value = lab.json("rejoin", old.name, "--method", "reseed", "--yes")
    assert (status, value.get("verdict")) == (0, "PROVEN"), value
    await_equal(old, new)


def test_the_programs_of_mariadb_are_not_taken_for_those_of_mysql(lab: Lab, tmp_path: Path) -> None:
    """Its packages have them under the same names."""
    old, _ = diverge(lab, EXTRA[:1])
    (tmp_path / "mysqlbinlog").write_text("#!/bin/sh\necho 'mysqlbinlog Ver 3.5 for debian-linux-gnu at x86_64'\n")
    (tmp_path / "mysqlbinlog").chmod(0o755)
    status, value = lab.json("rejoin", old.name, environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert status == 3, value
    (found,) = value["error"]["findings"]
    assert found["code"] == "rejoin.unread"
    assert "the mysqlbinlog of this machine is MariaDB's" in found["text"]


def test_empty_transactions_stand_for_what_the_primary_shall_do_without(lab: Lab) -> None:
    """Asked for by name; what differs after it is in the proof."""
    old, new = diverge(lab, EXTRA[:1])
    errant = extra(old, new)
    status, value = lab.json("rejoin", old.name, "--method", "empty")
    assert status == 3
    assert "nobody is here to be asked" in value["error"]["text"]
    assert extra(old, new) == errant
    status, value = lab.json("rejoin", old.name, "--method", "empty", "--yes")
    assert (status, value["verdict"]) == (7, "NOT PROVEN"), value
    gaps = [e for e in value["result"]["proof"]["evidence"] if e["verdict"] != "PROVEN"]
    assert ["1000" in gap["seen"] for gap in gaps] == [True], gaps
    assert extra(old, new).empty
    assert rows(new, "app.t") == [row for row in rows(old, "app.t") if row["id"] != 1000]
    old.sql("SET STATEMENT sql_log_bin=0 FOR DELETE FROM app.t WHERE id=1000")
    lab.cluster.await_synced()
    await_equal(old, new)
    assert lab.run("verify", "--server", old.name).returncode == 0
    assert_order(lab, new.name)
