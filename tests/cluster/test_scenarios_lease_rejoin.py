"""Rejoins of engines that share a lease: one at a time for each server, and who was asleep changes nothing more."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.broken import ERRANT, await_equal, diverge, ready
from tests.support.engines import stopped_at
from tests.support.etcd import Etcd
from tests.support.lab import Lab, run_to_end
from tests.support.mariadb import LocalCluster, Node
from tests.support.process import workspace
from tests.support.wait import until

FLAVOURS = ("mysql",)
TIME = 3
full = pytest.mark.full
prepared_only = pytest.mark.mariadb_only("a clone is whole when it is there: nothing is prepared")
flashback_only = pytest.mark.mariadb_only("there is no flashback")
REJOIN = {
    "follow": (),
    "flashback": ("--method", "flashback", "--yes"),
    "dump": ("--method", "reseed", "--yes"),
    "copy": ("--method", "reseed", "--yes"),
}
CHANGES = re.compile(
    r"Query\s+(SET GLOBAL|SET STATEMENT|STOP|START|RESET|CHANGE|KILL|XA (?!RECOVER)|BINLOG|DROP|CREATE|BEGIN NOT|"
    r"CLONE|INSTALL)",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd.start(workspace() / "etcd", 1) as started:
        yield started


@pytest.fixture(scope="module", params=["etcd", "database"])
def shared(etcd: Etcd, servers: type[LocalCluster], request: pytest.FixtureRequest) -> Iterator[Lab]:
    lease: Mapping[str, Any] = {"type": request.param, "time": f"{TIME}s"}
    if request.param == "etcd":
        lease = {**lease, "endpoints": etcd.endpoints}
    with Lab.start(3, more={"lease": lease}, provider=servers) as lab:
        ready(lab, hosts=True)
        for node in lab.cluster:
            node.allow_copies()
        yield lab


@pytest.fixture
def without_hosts(shared: Lab) -> Iterator[None]:
    """No command runs on any host, so that a reseed is by a dump."""
    text = shared.config.read_text()
    shared.config.write_text(text.replace("- env", "- /nowhere/ssh"))
    yield
    shared.config.write_text(text)


def settled(lab: Lab, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Types a command until nobody is busy any more."""
    done: list[subprocess.CompletedProcess[str]] = []

    def ended() -> bool:
        done.append(lab.run(*words))
        return done[-1].returncode != 6

    until(ended, f"{words} not to be busy", 6 * TIME)
    return done[-1]


def changes(node: Node) -> list[str]:
    """What anybody has changed on ``node`` by SQL since its log was opened, but for what replication does."""
    lines = (node.folder / "general.log").read_text(errors="replace").splitlines()
    # a load asks the server first whether it is still wanted, and is told that it is not
    return [line for line in lines if CHANGES.search(line) and "another rejoin has taken this server over" not in line]


def watch(node: Node) -> None:
    (node.folder / "general.log").unlink(missing_ok=True)
    node.sql("SET GLOBAL general_log_file=%s", (str(node.folder / "general.log"),))
    node.sql("SET GLOBAL general_log=1")


def process_of(node: Node) -> str:
    return (node.folder / "mariadb.pid").read_text()


QUICK = [
    pytest.param("etcd", "flashback", "rejoin.reset:before", marks=flashback_only),
    ("etcd", "copy", "rejoin.swap:before"),
]
LONG = [
    pytest.param("etcd", "flashback", "rejoin.undo:before", marks=[full, flashback_only]),
    pytest.param("etcd", "follow", "mariadb.change_source:before", marks=full),
    pytest.param("etcd", "flashback", "rejoin.prepare_undo:after", marks=[full, flashback_only]),
    pytest.param("etcd", "flashback", "rejoin.commit_undo:before", marks=[full, flashback_only]),
    pytest.param("etcd", "flashback", "rejoin.stop_replication:before", marks=[full, flashback_only]),
    pytest.param("etcd", "flashback", "rejoin.set_position:before", marks=[full, flashback_only]),
    pytest.param("etcd", "flashback", "mariadb.change_source:before", marks=[full, flashback_only]),
    pytest.param("etcd", "flashback", "verify.pause:before", marks=[full, flashback_only]),
    pytest.param("etcd", "copy", "rejoin.own_host:before", marks=full),
    pytest.param("etcd", "copy", "rejoin.copy:before", marks=full),
    pytest.param("etcd", "copy", "rejoin.prepare_copy:before", marks=[full, prepared_only]),
    pytest.param("etcd", "copy", "rejoin.stop_server:before", marks=full),
    pytest.param("etcd", "copy", "rejoin.start_server:before", marks=full),
    pytest.param("etcd", "copy", "rejoin.reset:before", marks=full),
    pytest.param("etcd", "copy", "verify.pause:before", marks=full),
    pytest.param("etcd", "copy", "rejoin.discard:before", marks=full),
    pytest.param("database", "flashback", "rejoin.undo:before", marks=[full, flashback_only]),
    pytest.param("database", "flashback", "rejoin.stop_replication:before", marks=[full, flashback_only]),
    pytest.param("database", "copy", "rejoin.stop_server:before", marks=full),
    pytest.param("database", "copy", "rejoin.swap:before", marks=full),
]


def taken_over(lab: Lab, method: str, point: str, second: tuple[str, ...]) -> None:
    """One engine is stopped at ``point`` of a rejoin, another one does it, and the first one changes nothing more."""
    old, new = diverge(lab, ERRANT if method != "follow" else ())
    try:
        with stopped_at(lab, old.copy_points.get(point, point), ("rejoin", old.name, *REJOIN[method])) as first:
            done = settled(lab, second)
            ending = 7 if second == ("heal",) else 0  # heal holds the lease, and leaves it to us to compare
            assert done.returncode == ending, done.stdout + done.stderr
            assert ending == 0 or f"proxyroute verify --server {old.name}" in " ".join(done.stdout.split())
            await_equal(old, new)
            process = process_of(old)
            watch(old)
        assert first.returncode not in (0, None), "it must not say that it has done it"
        assert changes(old) == []
        assert process_of(old) == process, "nobody has restarted it"
        old.started_elsewhere()
        assert old.replicates()
        await_equal(old, new)
        new.sql("REPLACE INTO app.t VALUES (5000, 'and on')")
        await_equal(old, new)
        assert lab.run("heal").returncode == 0
        assert lab.run("verify", "--server", old.name).returncode == 0
    finally:
        old.sql("SET GLOBAL general_log=0")


@pytest.mark.parametrize(("shared", "method", "point"), [*QUICK, *LONG], indirect=["shared"])
def test_who_was_stopped_in_mid_rejoin_changes_nothing_after_another_has_done_it(
    shared: Lab, method: str, point: str
) -> None:
    name = shared.cluster.primary.name
    taken_over(shared, method, point, ("rejoin", name, *REJOIN[method]))


@pytest.mark.usefixtures("without_hosts")
@pytest.mark.parametrize(
    ("shared", "point"),
    [
        pytest.param("etcd", "rejoin.load:before", marks=full),
        pytest.param("etcd", "rejoin.drop_schema:before", marks=full),
        pytest.param("database", "rejoin.load:before", marks=full),
    ],
    indirect=["shared"],
)
def test_a_load_that_was_about_to_begin_is_refused_by_the_server(shared: Lab, point: str) -> None:
    name = shared.cluster.primary.name
    taken_over(shared, "dump", point, ("rejoin", name, *REJOIN["dump"]))


@full
@flashback_only
@pytest.mark.parametrize(("shared", "point"), [("etcd", "rejoin.commit_undo:before")], indirect=["shared"])
def test_heal_of_another_engine_goes_on_with_it(shared: Lab, point: str) -> None:
    taken_over(shared, "flashback", point, ("heal",))


@full
@pytest.mark.parametrize("shared", ["etcd", "database"], indirect=True)
def test_an_engine_with_a_disk_of_its_own_is_kept_out_and_takes_over_in_time(shared: Lab, tmp_path: Path) -> None:
    """It sees no journal of the first one: the claim on the server is all that they share."""
    text = shared.config.read_text()
    state = re.search(r"state_dir: (\S+)", text)
    assert state is not None
    elsewhere = tmp_path / "proxyroute.yaml"
    elsewhere.write_text(text.replace(state[1], str(tmp_path / "state")))
    old, new = diverge(shared)
    point = old.copy_points.get("rejoin.copy:before", "rejoin.copy:before")
    with stopped_at(shared, point, ("rejoin", old.name, *REJOIN["copy"])) as first:
        words = shared.command("rejoin", old.name, *REJOIN["copy"])
        words[words.index(str(shared.config))] = str(elsewhere)
        done: list[subprocess.CompletedProcess[str]] = []

        def ended() -> bool:
            done.append(run_to_end(words))
            return done[-1].returncode != 6

        until(ended, "the claim of the first one to end", 6 * TIME)
        assert done[-1].returncode == 0, done[-1].stdout + done[-1].stderr
        await_equal(old, new)
        watch(old)
    assert first.returncode not in (0, None)
    assert changes(old) == []
    old.sql("SET GLOBAL general_log=0")
    old.started_elsewhere()
    assert old.replicates()
    assert shared.run("rejoin", old.name).returncode in (0, 3, 5)  # its own record is still open
    until(old.replicates, f"{old.name} to replicate")
    await_equal(old, new)


# -- while data are copied ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_hosts")
@pytest.mark.parametrize("shared", ["etcd", pytest.param("database", marks=full)], indirect=True)
def test_while_data_are_loaded_others_may_act_but_not_on_that_server(shared: Lab) -> None:
    """The primary is moved meanwhile; the server that was built anew follows whoever is primary in the end."""
    lab = shared
    old, new = diverge(lab)
    third = next(node for node in lab.cluster if node not in (old, new))
    old.refuse_writes()  # one that had to be closed first would lose its sessions
    with old.session() as session, session.cursor() as cursor:
        cursor.execute("LOCK TABLES app.t READ")  # a lock on all of it would hold up whoever reads positions as well
        argv = lab.command("rejoin", old.name, *REJOIN["dump"])
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
            waiting = "SELECT id FROM information_schema.processlist WHERE info LIKE 'DROP SCHEMA%'"
            until(lambda: old.sql(waiting), "the load to begin", 20)
            again = lab.run("rejoin", old.name, *REJOIN["dump"])
            assert again.returncode == 6, again.stdout + again.stderr
            assert f"{old.name} is worked on already" in again.stderr
            compared = lab.run("verify", "--server", old.name)
            assert compared.returncode == 6, compared.stdout + compared.stderr
            lab.run("heal", check=True)
            moved = lab.run("switchover", "--to", third.name, "--yes", "--force")
            assert moved.returncode in (0, 7), moved.stdout + moved.stderr
            assert old.sql(waiting), "and nobody has ended it"
            cursor.execute("UNLOCK TABLES")
            told = first.communicate(timeout=60)[0]
        assert first.returncode == 0, told
    assert old.source_port() == third.port
    await_equal(old, third)
    await_equal(new, third)
