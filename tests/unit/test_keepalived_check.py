"""What keepalived asks every second: the plain way to read what an agent keeps, the thorough one, and what it loads."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyroute.agent_memory import Local
from proxyroute.haproxy.release import Memory, Release, Shape
from proxyroute.haproxy.routemap import RouteMap
from proxyroute.model import Address, Endpoint, Epoch, Reader, RouteTable

CHECK = Path(__file__).parents[2] / "scripts" / "keepalived" / "check"
NAMES = st.sampled_from(["db1", "primary", "epoch", "sequence", "null", "release", "a-b.c"])
TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(['"epoch": "9.9"', '"primary": null,', '\\"sequence": 7,']))


@pytest.fixture(scope="module")
def check() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("keepalived_check", str(CHECK))
    spec = importlib.util.spec_from_loader("keepalived_check", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def release(primary: str | None = "db1", epoch: Epoch = Epoch(3, 2), template: str = "") -> Release:  # noqa: B008 (frozen)
    servers = tuple(Endpoint(name, Address("10.0.0.1", 3300 + n)) for n, name in enumerate(("db1", "db2", "primary")))
    readers = (Reader("db2", 100), Reader("primary", 50))
    return Release(RouteTable("shop", epoch, servers, primary, readers), Shape("*:3306", template=template))


def plain(primary: str | None = "db1") -> Release:
    """One in which no server bears the name of a field."""
    one = release(primary)
    return replace(one, table=replace(one.table, readers=(Reader("db2", 100),)))


def kept(folder: Path, *releases: tuple[int, Release, bool]) -> Path:
    """Returns a state folder in which an agent has remembered these: sequence, route, whether it is lasting."""
    local = Local(folder)
    for sequence, one, lasting in releases:
        local.remember(Memory.of(one, sequence), one, lasting=lasting)
    local.close()
    return folder


@given(NAMES | st.none(), st.integers(0, 10**14), st.integers(0, 10**6), st.integers(0, 10**14), NAMES, TEXTS, TEXTS)
def test_the_plain_way_says_what_the_thorough_one_says_or_nothing(
    check: ModuleType, primary: str | None, term: int, serial: int, sequence: int, name: str, template: str, more: str
) -> None:
    table = {"epoch": f"{term}.{serial}", "primary": primary, "readers": {name: 7}, "shape": {"template": template}}
    told = json.dumps({"format": 1, "sequence": sequence, "release": {"cluster": more, **table}}).encode()
    epoch, number, whom = check.thorough(told)
    assert (epoch, number, whom) == (f"{term}.{serial}", sequence, primary)
    assert check.quick(told) in (None, (epoch, str(number), whom))
    for damaged in (told[:-1], told[:40] + b"\0" * 40 + told[80:], told[1:], b""):
        assert check.quick(damaged) is None


@pytest.mark.parametrize("spaces", [None, 1])
@pytest.mark.parametrize("primary", ["db2", None])
def test_what_an_agent_has_remembered_last_counts(
    check: ModuleType, tmp_path: Path, primary: str | None, spaces: int | None
) -> None:
    later = release(primary, Epoch(4, 1))
    state = kept(tmp_path / "s", (9, release(), True), (10, later, False))
    assert check.accepted_route(str(state)) == RouteMap.of(later.table).route
    for file in state.glob("memory*.json"):  # as a person, or an agent of some other version, would write it
        file.write_text(json.dumps(json.loads(file.read_text()), indent=spaces, sort_keys=True))
    assert check.accepted_route(str(state)) == RouteMap.of(later.table).route
    (state / "memory.last.json").write_bytes((state / "memory.last.json").read_bytes()[:60])
    assert check.accepted_route(str(state)) == "db1/3.2", "a power cut has damaged one of two"
    (state / "memory.json").write_bytes(b"\0" * 200)
    with pytest.raises(check.Unfit, match="no agent has accepted a route"):
        check.accepted_route(str(state))


@contextlib.contextmanager
def answering(path: Path, route: str) -> Iterator[None]:
    """A runtime socket as HAProxy's, for a ``with`` block: each connection has one command and is closed."""
    answers = {b"show map\n": b"# id (file) description\n1 (/x/shop.route.map) pattern\n", b"": b""}
    answers[b"show map /x/shop.route.map\n"] = f"0x1 hold 0\n0x2 route {route}\n".encode()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    with client:
                        client.sendall(answers[client.recv(1000)])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def run(*words: object, loads: bool = False) -> tuple[int, str]:
    """Returns the exit status of the check and what it says; ``loads``: and which modules it has loaded."""
    program = [str(CHECK)]
    if loads:
        told = "import sys, atexit\natexit.register(lambda: print(*sys.modules))\nsys.argv = sys.argv[1:]\n"
        program = [sys.executable, "-IS", "-c", told + "exec(open(sys.argv[0]).read())", str(CHECK)]
    done = subprocess.run([*program, *map(str, words)], capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout + done.stderr


def test_it_is_asked_in_either_way_of_writing_and_says_what_is_wrong(tmp_path: Path) -> None:
    state = kept(tmp_path / "s", (9, release(), True))
    runtime = tmp_path / "admin.sock"
    with answering(runtime, "db1/3.2"):
        assert run("--socket", runtime, "--state", state, "--timeout", "5") == (0, "")
        assert run(f"--socket={runtime}", f"--state={state}") == (0, "")
    status, said = run("--socket", runtime, "--state", state)
    assert (status, said.startswith(f"HAProxy does not answer at {runtime}: ")) == (1, True), said
    runtime.unlink()
    with answering(runtime, "db2/3.1"):
        assert run("--socket", runtime, "--state", state) == (
            1,
            "HAProxy routes to db2/3.1, and db1/3.2 was accepted: proxyroute agent status\n",
        )
    for wrong in (["--sock"], ["--timeout", "soon"], ["--socket"], ["x", "y"]):
        status, said = run(*wrong)
        assert (status, "usage: check" in said) == (2, True), said
    assert run("--help")[0] == 0


def test_it_loads_next_to_nothing_where_all_is_as_always(tmp_path: Path) -> None:
    """It starts every second on every proxy host, also on one that is out of breath."""
    state = kept(tmp_path / "s", (8, plain(None), True), (9, plain(), False))
    runtime = tmp_path / "admin.sock"
    with answering(runtime, "db1/3.2"):
        status, modules = run("--socket", runtime, "--state", state, loads=True)
    assert status == 0, modules
    assert "_socket" in modules.split()
    assert not {"argparse", "json", "re", "socket", "pathlib", "enum"} & set(modules.split())
