"""What a replica has of its own, filters and other sources, through an undo of its rows and through new data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.broken import ERRANT, ready, rows, run
from tests.support.death import failed_over, remembered
from tests.support.lab import Lab
from tests.support.mariadb import LocalCluster, Node
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
FULL = ("mariadb-11.8",)
FILTER = "app.secret"
UNDOABLE = (*ERRANT[:2], *ERRANT[3:])


@pytest.fixture
def lab(request: pytest.FixtureRequest, start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """A site of two; db2 has a filter in its option file, as somebody has who wants it after a restart as well."""
    options = {"db2": {"replicate-ignore-table": FILTER}}
    hosts = getattr(request, "param", False)
    with start_lab(2, node_options=options) as started:
        ready(started, hosts=hosts)
        for node in started.cluster if hosts else ():
            node.let_copy()
        yield started


def strayed(lab: Lab) -> Node:
    """A filtered replica that stood still and has rows of its own, while the primary went on."""
    replica, primary = lab.cluster["db2"], lab.cluster["db1"]
    replica.sql("STOP SLAVE ''")
    run(replica, UNDOABLE)
    primary.sql(f"CREATE TABLE {FILTER} (id INT PRIMARY KEY)")
    primary.sql(f"INSERT INTO {FILTER} VALUES (1)")
    primary.sql("INSERT INTO app.t VALUES (7000, 'meanwhile')")
    return replica


def filters(node: Node) -> tuple[str, ...]:
    (row,) = node.replications()
    return tuple(str(row[name]) for name in ("Replicate_Ignore_Table", "Replicate_Do_Table", "Replicate_Wild_Do_Table"))


def assert_still_filtered(lab: Lab, replica: Node) -> None:
    """The filter is there, and works: what the primary writes to that table from now on does not arrive."""
    primary = lab.cluster["db1"]
    assert filters(replica) == (FILTER, "", "")
    primary.sql(f"INSERT INTO {FILTER} VALUES (2)")
    primary.sql("INSERT INTO app.t VALUES (7001, 'afterwards')")
    until(lambda: replica.value("(SELECT COUNT(*) FROM app.t WHERE id=7001)") == 1, "what is not filtered to arrive")
    for table in ("app.t", "app.u"):
        assert rows(replica, table) == rows(primary, table), table
    if replica.sql("SHOW TABLES IN app LIKE 'secret'"):
        assert [row["id"] for row in replica.sql(f"SELECT id FROM {FILTER}")] == [1], "what is filtered has arrived"
    assert not replica.is_writable()


def rejoined(lab: Lab, replica: Node, method: str) -> dict[str, Any]:
    status, value = lab.json("rejoin", replica.name, "--method", method, "--yes")
    assert status == 0, value
    assert value["verdict"] == "PROVEN", value["result"]["proof"]
    return value


@pytest.mark.mariadb_only("it has no flashback")
def test_a_filter_survives_flashback(lab: Lab) -> None:
    replica = strayed(lab)
    rejoined(lab, replica, "flashback")
    assert replica.sql("SHOW TABLES IN app LIKE 'secret'") == [], "what was filtered meanwhile has not arrived either"
    assert_still_filtered(lab, replica)


@pytest.mark.full
@pytest.mark.parametrize("lab", [False, True], ids=["dump", "copy"], indirect=True)
def test_a_filter_survives_new_data(lab: Lab) -> None:
    replica = strayed(lab)
    rejoined(lab, replica, "reseed")
    assert_still_filtered(lab, replica)


@pytest.fixture
def elsewhere(servers: type[LocalCluster]) -> Iterator[Node]:
    """A server of another cluster, with a domain of its own."""
    with servers.start(1, node_options={"db1": {"server_id": 77, "gtid_domain_id": 7}}) as cluster:
        cluster["db1"].sql("CREATE TABLE app.elsewhere (id INT AUTO_INCREMENT PRIMARY KEY)")
        cluster["db1"].sql("INSERT INTO app.elsewhere VALUES (1)")
        yield cluster["db1"]


@pytest.mark.parametrize("method", ["flashback", pytest.param("reseed", marks=pytest.mark.full)])
def test_a_server_with_another_source_is_left_as_it_is_and_told_why(lab: Lab, elsewhere: Node, method: str) -> None:
    """What came from where cannot be told apart, so neither an undo nor new data would leave the other source's."""
    replica = lab.cluster["db2"]
    replica.follow_too(elsewhere)
    until(lambda: replica.sql("SHOW TABLES IN app LIKE 'elsewhere'"), "the second channel to deliver")
    strayed(lab)
    before = _channels(replica)
    status, value = lab.json("rejoin", replica.name, "--method", method, "--yes")
    assert status == 3, value
    found = {f["code"]: f for f in value["error"]["findings"]}
    assert "replicates from several sources" in found["rejoin.sources"]["text"]
    assert f"build {replica.name} anew by hand" in found["rejoin.sources"]["cure"]
    assert _channels(replica) == before
    elsewhere.sql("INSERT INTO app.elsewhere VALUES (2)")
    until(lambda: replica.value("(SELECT COUNT(*) FROM app.elsewhere)") == 2, "the other source to be followed still")
    assert replica.value("(SELECT COUNT(*) FROM app.t WHERE id=1000)") == 1, "and nothing of its own is gone"


@pytest.fixture
def plain(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with start_lab(2) as started:
        yield started


def test_an_old_primary_that_imports_from_elsewhere_is_not_robbed_of_that_channel(plain: Lab, elsewhere: Node) -> None:
    """It comes back, follows no member, and has one channel: that of the import, which is not taken to follow by."""
    lab, old, new = plain, plain.cluster["db1"], plain.cluster["db2"]
    old.follow_too(elsewhere)
    until(lambda: new.sql("SHOW TABLES IN app LIKE 'elsewhere'"), "the import to arrive everywhere")
    found = {f["code"]: f for f in lab.json("plan")[1]["findings"]}
    ends = [old.words(statement)[0] for statement in ("STOP SLAVE 'elsewhere'", "RESET SLAVE 'elsewhere' ALL")]
    assert f"{'; '.join(ends)};" in found["primary.replicates"]["cure"]
    remembered(lab)
    old.kill9()
    failed_over(lab, "--force", code=7)
    with serving(lab) as served:
        old.start()
        old.sql("START SLAVE 'elsewhere'")
        told = served.await_told("blocked", f"{old.name} does not rejoin by itself", 60)
        assert f"replicates from {elsewhere.address}, which is no member" in told
    before = _channels(old)
    status, value = lab.json("rejoin", old.name)
    (finding,) = value["error"]["findings"]
    assert (status, finding["code"]) == (3, "rejoin.imports"), value
    assert _channels(old) == before
    assert before["elsewhere"][1:4] == (elsewhere.port, "Yes", "Yes")
    for statement in ends:
        assert f"{statement};" in finding["cure"]
        old.sql(statement)
    lab.run("rejoin", old.name, check=True)
    assert old.replicates()
    assert old.source_port() == new.port


def _channels(node: Node) -> dict[str, tuple[Any, ...]]:
    found = node.replications()
    names = ("Master_Host", "Master_Port", "Slave_IO_Running", "Slave_SQL_Running", "Replicate_Ignore_Table")
    return {row["Connection_name"]: tuple(row[name] for name in names) for row in found}
