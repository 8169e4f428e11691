"""The servers that the tests run on are of the series that README.md names."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable, Mapping

import pytest

from tests.support.flavours import COLUMNS
from tests.support.load import ROOT_FOLDER
from tests.support.mariadb import LocalCluster
from tests.support.process import find_program

FLAVOURS = tuple(COLUMNS)
TEXT = (ROOT_FOLDER / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<what>[^|]+) \| `scripts/test(?P<matrix> --matrix)?` \|", re.MULTILINE)
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "keepalived": ("keepalived", "--version"),
    "etcd": ("etcd", "--version"),
    "GlusterFS": ("glusterfs", "--version"),
}
"""What is named beside the servers, and what tells its version."""


def named(flavour: str) -> dict[str, str]:
    """Returns what README.md's table says that a flavour's tests run on: the series of each program."""
    rows = [row for row in ROW.finditer(TEXT) if bool(row["matrix"]) is (flavour in COLUMNS)]
    wanted = COLUMNS[flavour].split()[0] if flavour in COLUMNS else ""
    (row,) = [row["what"] for row in rows if row["what"].startswith(wanted)]
    return {name: series for name, series in re.findall(r"(\w+) (\d+(?:\.\d+)?)(?=[ ,]|$)", row) if name != "Debian"}


def first_version(*argv: str) -> str:
    done = subprocess.run([find_program(argv[0]), *argv[1:]], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    assert found, f"{argv[0]} does not tell its version: {done.stdout}{done.stderr}"
    return found[0]


def test_the_servers_are_of_the_series_that_the_readme_names(
    flavour: str, servers: type[LocalCluster], start_cluster: Callable[..., LocalCluster]
) -> None:
    system = platform.freedesktop_os_release()
    machine = f"{system['ID']} {system.get('VERSION_ID', '')}"
    as_named = machine == "debian 12"
    if flavour not in COLUMNS and not as_named:
        pytest.skip(f"README.md names what Debian 12 has, and this is {machine}")
    where = f"the root that scripts/roots made for {flavour}" if flavour in COLUMNS else machine
    cluster = start_cluster(1)
    database = "MySQL" if servers.flavour == "mysql" else "MariaDB"
    found = {database: str(cluster["db1"].value("@@version"))}
    if as_named or servers.haproxy is not LocalCluster.haproxy:
        found["HAProxy"] = first_version(cluster.haproxy, "-v")
    series = named(flavour)
    assert set(found) <= set(series), f"README.md names {sorted(series)} for {flavour}"
    found |= {name: first_version(*argv) for name, argv in PROGRAMS.items() if name in series}
    other = {name: version for name, version in found.items() if not f"{version}.".startswith(f"{series[name]}.")}
    assert other == {}, (
        f"{where} has {other}, and README.md names { ({name: series[name] for name in other}) }: change README.md (the"
        " table of what the tests run on, and what servers need), and COLUMNS in tests/support/flavours.py"
    )
