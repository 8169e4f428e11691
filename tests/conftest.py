"""Fixtures that every test may use."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.containers import ContainerCluster, find_image
from tests.support.lab import Lab
from tests.support.mariadb import LocalCluster
from tests.support.mysql import MySQLCluster, mysql_root
from tests.support.newer import NewerCluster

PROVIDERS: dict[str, type[LocalCluster]] = {"local": LocalCluster, "containers": ContainerCluster}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--provider",
        choices=sorted(PROVIDERS),
        default="local",
        help="where the database servers of the tests come from: installed binaries, or containers",
    )
    parser.addoption(
        "--matrix",
        action="store_true",
        help="also what needs servers that scripts/roots makes; scripts/test --matrix makes them and runs only this",
    )


MATRIX: dict[str, type[MySQLCluster] | type[NewerCluster]] = {"mysql": MySQLCluster, "mariadb-11.8": NewerCluster}
"""What ``scripts/test --matrix`` runs the scenarios on, besides the servers of this machine's packages."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Scenarios of a module that says ``FLAVOURS = (…)`` run on each of these as well, with --matrix on them alone.

    On those that it names in ``FULL = (…)`` they run with --full only.
    """
    named: tuple[str, ...] = getattr(metafunc.module, "FLAVOURS", ())
    long: tuple[str, ...] = getattr(metafunc.module, "FULL", ())
    if metafunc.definition.get_closest_marker("whatever_servers"):
        return
    if "flavour" in metafunc.fixturenames and named and metafunc.config.getoption("--matrix"):
        marks = {name: [pytest.mark.matrix, *([pytest.mark.full] if name in long else [])] for name in named}
        marked = [pytest.param(name, marks=marks[name]) for name in MATRIX if name in named]
        metafunc.parametrize("flavour", marked, indirect=True, scope="module")


@pytest.fixture(scope="module")
def flavour(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the servers of a scenario are: ``mariadb``, or with --matrix one of the names in ``MATRIX``.

    Their programs are those that are found first meanwhile; those of MariaDB's packages bear MySQL's names as well.
    """
    name = getattr(request, "param", "mariadb")
    with pytest.MonkeyPatch.context() as patch:
        if name in MATRIX:
            patch.setenv("PATH", str(MATRIX[name].programs()), prepend=os.pathsep)
        yield name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        told = item.get_closest_marker("mariadb_only")
        chosen = getattr(item, "callspec", None)
        if told and chosen is not None and chosen.params.get("flavour") == "mysql":
            item.add_marker(pytest.mark.skip(reason=f"not on MySQL: {told.args[0]}"))
    if config.getoption("--matrix"):
        return
    aside = pytest.mark.skip(reason="needs servers of other flavours and versions: scripts/test --matrix")
    for item in items:
        if item.get_closest_marker("matrix"):
            item.add_marker(aside)


def provider(name: str) -> type[LocalCluster]:
    """Returns the kind of cluster called ``name``; skips the test, saying why, when it cannot be had here."""
    if name == "containers":
        try:
            find_image()
        except LookupError as reason:
            pytest.skip(f"no clusters from containers: {reason}")
    return PROVIDERS[name]


@pytest.fixture
def start_cluster(servers: type[LocalCluster]) -> Iterator[Callable[..., LocalCluster]]:
    """Starts clusters, with the arguments of :meth:`LocalCluster.start`, and ends them after the test."""
    started: list[LocalCluster] = []

    def start(*arguments: Any, **options: Any) -> LocalCluster:
        started.append(servers.start(*arguments, **options))
        return started[-1]

    yield start
    for cluster in started:
        cluster.close()


@pytest.fixture
def start_mysql() -> Iterator[Callable[..., MySQLCluster]]:
    """Starts clusters of MySQL, as ``start_cluster`` does others. For tests that are marked ``matrix``."""
    mysql_root()  # with --matrix a missing root is an error, not a reason to skip
    started: list[MySQLCluster] = []

    def start(*arguments: Any, **options: Any) -> MySQLCluster:
        started.append(MySQLCluster.start(*arguments, **options))
        return started[-1]

    yield start
    for cluster in started:
        cluster.close()


def provider_of(flavour: str, config: pytest.Config) -> type[LocalCluster]:
    """Returns the kind of cluster for a flavour as the fixture tells it."""
    return MATRIX.get(flavour) or provider(config.getoption("--provider"))


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, flavour: str) -> type[LocalCluster]:
    """The kind of cluster that has servers of the flavour."""
    return provider_of(flavour, request.config)


@pytest.fixture(scope="module")
def dialect(servers: type[LocalCluster]) -> str:
    """What the servers of a scenario speak, of whichever version: ``mariadb`` or ``mysql``."""
    return servers.flavour


@pytest.fixture
def start_lab(servers: type[LocalCluster]) -> Callable[..., Lab]:
    """``Lab.start`` with servers of the flavour; the test closes what it starts."""
    return functools.partial(Lab.start, provider=servers)


@pytest.fixture
def cluster(start_cluster: Callable[..., LocalCluster]) -> LocalCluster:
    """Three servers of the test's own: db1 takes writes, db2 and db3 follow it. Up in about 0.3 seconds."""
    return start_cluster(3)


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """A whole site: a cluster of three, an HAProxy that the product has configured, and the command line."""
    with start_lab(3) as started:
        yield started
