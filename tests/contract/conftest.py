"""Subjects for the contract, and a HAProxy that runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.agents import AgentsSubject
from tests.contract.maxscales import MaxScaleSubject, RealSubject
from tests.contract.subjects import HAProxySubject, HookSubject, Subject, ToySubject, table
from tests.support.maxscale.real import real_maxscale

THIRD_PARTY = Path(__file__).parent / "thirdparty"


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs the package that brings the ``toy`` adapter."""
    monkeypatch.syspath_prepend(THIRD_PARTY)


_HAPROXY = ("haproxy", "haproxy-agents")
_OTHERS = ("maxscale-driving", "maxscale-following", "maxscale-real", "hook", "toy")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every adapter is a subject; of another HAProxy those are that drive one."""
    if "subject" in metafunc.fixturenames:
        named = _HAPROXY if metafunc.config.getoption("--matrix") else (*_HAPROXY, *_OTHERS)
        metafunc.parametrize("subject", named, indirect=True)


@pytest.fixture
def subject(request: pytest.FixtureRequest, tmp_path: Path, third_party: None, flavour: str) -> Iterator[Subject]:
    """Each adapter in turn, with route 1.1 to db1 published."""
    if request.param == "haproxy":
        proxy = HAProxySubject(tmp_path)
        try:
            proxy.start(table(proxy.servers, (1, 1), "db1"))
            yield proxy
        finally:
            proxy.close()
        return
    if request.param == "haproxy-agents":
        host = AgentsSubject(tmp_path)
        try:
            host.start(table(host.servers, (1, 1), "db1"))
            yield host
        finally:
            host.close()
        return
    if request.param == "maxscale-real":
        with contextlib.ExitStack() as ends:
            try:
                url = ends.enter_context(real_maxscale())
            except LookupError as reason:
                pytest.skip(str(reason))
            real = RealSubject(tmp_path, url)
            ends.callback(real.close)
            yield real.start()
        return
    if request.param.startswith("maxscale"):
        maxscale = MaxScaleSubject(tmp_path, request.param.removeprefix("maxscale-"))
        try:
            yield maxscale.start()
        finally:
            maxscale.close()
        return
    other: HookSubject | ToySubject = HookSubject(tmp_path) if request.param == "hook" else ToySubject(tmp_path)
    other.start()
    yield other


@pytest.fixture
def proxy(tmp_path: Path, flavour: str) -> Iterator[HAProxySubject]:
    """A HAProxy with stand-ins db1, db2 and db3, and route 1.1 to db1."""
    started = HAProxySubject(tmp_path)
    try:
        started.start(started.table((1, 1), "db1"))
        yield started
    finally:
        started.close()


@pytest.fixture
def writer(tmp_path: Path, flavour: str) -> Iterator[HAProxySubject]:
    """The same without a read route: whoever arrives at a stand-in came by the write route."""
    started = HAProxySubject(tmp_path, read=False)
    try:
        started.start(started.table((1, 1), "db1"))
        yield started
    finally:
        started.close()


@pytest.fixture
def host(tmp_path: Path, flavour: str) -> Iterator[AgentsSubject]:
    """A proxy host with its agent: stand-ins db1, db2 and db3, route 1.1 to db1, no read route."""
    started = AgentsSubject(tmp_path, read=False)
    try:
        started.start(started.table((1, 1), "db1"))
        yield started
    finally:
        started.close()
