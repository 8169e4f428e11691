"""SIGKILL around every act of a rejoin and after each of its records: typed again, or healed, it ends well."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute import journal
from tests.chaos.swept import swept
from tests.support.broken import TABLES, ready, rows, run
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.mariadb import LocalCluster
from tests.support.wait import until

NAMES = ("app.t", "app.u")
METHODS = {"follow": (), **{method: ("--method", method, "--yes") for method in ("flashback", "empty", "reseed")}}
WAYS = ("follow", "flashback", "empty", "reseed", "reseed with hosts")
FLAVOURS = ("mysql", "mariadb-11.8")
FULL = ("mariadb-11.8",)


@contextlib.contextmanager
def site(way: str, servers: type[LocalCluster]) -> Iterator[tuple[Lab, str]]:
    """A site for a ``with`` block, and the method; with hosts data are copied or cloned, without they are dumped."""
    if servers.flavour == "mysql" and way == "flashback":
        pytest.skip("not on MySQL: it has no flashback")
    if servers.flavour != "mysql" and way == "empty":
        pytest.skip("not on MariaDB: its transactions are in an order, an empty one would be another one")
    with Lab.start(2, provider=servers) as lab:
        if way == "follow":  # needs neither an account of its own nor a host
            for statement in TABLES:
                lab.cluster.primary.sql(statement)
        else:
            ready(lab, hosts="hosts" in way)
            for node in lab.cluster if "hosts" in way else ():
                node.let_copy()
        yield lab, way.split()[0]


def _part(lab: Lab, method: str, number: int) -> None:
    """The replica stands still and, unless it is to follow, writes what the primary does not have."""
    replica, primary = lab.cluster["db2"], lab.cluster["db1"]
    until(lambda: replica.gtid() == primary.gtid(), "db2 to have everything")
    replica.sql("STOP SLAVE")
    row = 10_000 + number
    if method == "empty":  # its data stay as they are: what it has written comes to nothing
        run(replica, [f"INSERT INTO app.t VALUES ({row}, 'errant')", f"DELETE FROM app.t WHERE id={row}"])
    elif method != "follow":
        run(replica, [f"INSERT INTO app.t VALUES ({row}, 'errant')", "UPDATE app.u SET c=c+1 WHERE a < 5"])
    primary.sql("REPLACE INTO app.t VALUES (5000, %s)", (f"write {number}",))


def _points(lab: Lab, method: str, trace: Path) -> list[str]:
    """Returns the first passing of every act of an undisturbed rejoin, and every record of its journal."""
    _part(lab, method, 0)
    lab.run("rejoin", "db2", *METHODS[method], check=True, environment={"PROXYROUTE_FAULT_TRACE": str(trace)})
    found = [line for line in trace.read_text().splitlines() if line.startswith("engine/")]
    return [p for p in found if p.endswith(":1") or p.startswith("engine/journal")]


def _wrong(lab: Lab, method: str, point: str, number: int) -> str:
    """Kills a rejoin at ``point`` and goes on, by heal first every other time; returns what is wrong, or nothing."""
    replica, primary = lab.cluster["db2"], lab.cluster["db1"]
    _part(lab, method, number)
    killed = lab.run("rejoin", "db2", *METHODS[method], environment={"PROXYROUTE_FAULT": point})
    if killed.returncode != -signal.SIGKILL:
        return f"it did not die there but ended with {killed.returncode}: {killed.stdout[-400:]}{killed.stderr[-400:]}"
    if number % 2:
        healed = lab.run("heal")
        if healed.returncode not in ((0, 5, 7) if method == "reseed" else (0, 7)):
            return f"heal ended with {healed.returncode}: {healed.stdout[-400:]}{healed.stderr[-400:]}"
    again = lab.run("rejoin", "db2", *METHODS[method])
    if again.returncode == 5 and method == "reseed":
        again = lab.run("rejoin", "db2", *METHODS[method])  # as it said: a clone was still restarting
    if again.returncode == 3 and method in ("flashback", "empty") and "has nothing that" in again.stderr:
        again = lab.run("rejoin", "db2")  # heal has done it
    if again.returncode:
        return f"again it ended with {again.returncode}: {again.stdout[-400:]}{again.stderr[-400:]}"
    until(lambda: replica.gtid() == primary.gtid(), "db2 to have everything")
    unlike = [table for table in NAMES if rows(replica, table) != rows(primary, table)]
    if unlike or replica.sql("XA RECOVER") or replica.is_writable():
        return f"unlike: {unlike}, prepared: {replica.sql('XA RECOVER')}, writable: {replica.is_writable()}"
    folder = lab.folder / "state" / CLUSTER_NAME / "journal"
    still_open = [f.name for f in journal.journals(folder) if journal.outcome(journal.read(f)) is None]
    return f"open: {still_open}" if still_open else ""


def _sweep(lab: Lab, method: str, points: list[str]) -> None:
    wrong = []
    for number, point in enumerate(points, start=1):
        trouble = _wrong(lab, method, point, number)
        if trouble:
            wrong.append(f"{point}: {trouble}")
            lab.run("rejoin", "db2", *METHODS[method])
    assert not wrong, "\n".join(wrong)


QUICK = {"follow": 3, "flashback": 7, "reseed": 7, "reseed with hosts": 9}
"""Of how many moments one is taken: an odd number, so that before and after take turns."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("way", "step"), [*QUICK.items(), *(pytest.param(w, 1, marks=pytest.mark.full) for w in WAYS)])
def test_killed_around_acts(way: str, step: int, servers: type[LocalCluster], tmp_path: Path) -> None:
    with site(way, servers) as (lab, method):
        points = _points(lab, method, tmp_path / "trace")
        acts = [p for p in points if re.match(r"engine/(rejoin|archive|mariadb|verify)\.", p)]
        where = " on MySQL" if servers.flavour == "mysql" and method == "reseed" else ""
        swept(f"rejoin by {way}{where}", acts)
        _sweep(lab, method, acts[::step])


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", WAYS)
def test_killed_after_every_record(way: str, servers: type[LocalCluster], tmp_path: Path) -> None:
    with site(way, servers) as (lab, method):
        _sweep(lab, method, [p for p in _points(lab, method, tmp_path / "trace") if p.startswith("engine/journal")])
