"""Two proxy hosts on a real network disk, mounted by each of them and by the engine: cut off, frozen, slow."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.atomic import put
from proxyroute.errors import DiskFailed
from proxyroute.haproxy.mounts import file_system
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Address, Deadline, ReceiptState, Severity
from tests.contract.agents import AgentsSubject
from tests.contract.standin import Client
from tests.contract.subjects import CLUSTER, soon
from tests.support.gluster import KIND, Gluster
from tests.support.hosts import ProxyHost
from tests.support.wait import until


class Pair(AgentsSubject):
    """Hosts edge1 and edge2; the engine and each of them see the folder by a mount of their own."""

    def __init__(self, folder: Path, disk: Gluster) -> None:
        mounts = disk.mounts
        super().__init__(folder, read=False, shared=mounts["engine"], seen=mounts["edge1"], write="*")
        self.disk = disk
        self.second = ProxyHost(folder, mounts["edge2"], "edge2", CLUSTER, address="127.0.0.2")
        self.hosts = (self.host, self.second)
        for host in self.hosts:
            host.write_agent_file(disk_timeout="500ms")
        self.here = self.adapter()
        self.there = self.kind("edge2", CLUSTER, self.servers, self.settings)

    def begin(self) -> None:
        self.second.start_agent()
        first = self.table((1, 1), "db1")
        self.start(first)
        until(lambda: self.second.config_file.exists() and self.second.map_file.exists(), "the files of edge2")
        self.second.start_haproxy()
        until(lambda: self.both("settle", "db1", 1) == ["done", "done"], "both hosts to serve")

    def both(self, verb: str, server: str = "db2", serial: int = 2, *, within: float = 10.0) -> list[str]:
        """Tells both hosts at once, as an engine does; returns the states of their receipts."""
        states = ["", ""]

        def tell(place: int) -> None:
            adapter, deadline = (self.here, self.there)[place], soon(within)
            target, back = self.table((1, serial), server), self.table((1, serial), "db1")
            if verb == "prepare":
                receipt = adapter.prepare(target, back, deadline)
            elif verb == "hold":
                receipt = adapter.hold("op-1", deadline)
            elif verb == "release":
                receipt = adapter.release(deadline)
            else:
                receipt = getattr(adapter, verb)(target, deadline)
            states[place] = str(receipt.state)

        threads = [threading.Thread(target=tell, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return states

    def serving(self) -> set[str]:
        """The servers that newcomers get, at both hosts."""
        return {self.client().server, self.client_of(self.second).server}

    def client_of(self, host: ProxyHost) -> Client:
        self._clients.append(Client(Address(host.address, self.write.port)))
        return self._clients[-1]

    def troubled(self, words: str) -> None:
        for host in self.hosts:
            until(lambda h=host: words in " ".join(h.status().get("trouble", ())), f"{host.name} to say {words!r}")

    def recovered(self) -> None:
        for host in self.hosts:
            until(lambda h=host: h.status()["trouble"] == [], f"{host.name} to have no trouble")

    def close(self) -> None:
        self.disk.thaw()
        self.there.close()
        self.second.close()
        super().close()


@pytest.fixture
def disk() -> Iterator[Gluster]:
    try:
        started = Gluster.start()
    except PermissionError as reason:
        pytest.skip(str(reason))
    with started:
        yield started


@pytest.fixture
def pair(disk: Gluster, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, disk)
    try:
        made.begin()
        yield made
    finally:
        made.close()


def test_events_are_not_trusted_there_and_every_host_follows(pair: Pair) -> None:
    assert {file_system(mount) for mount in pair.disk.mounts.values()} == {KIND}
    for host in pair.hosts:
        assert host.status()["watch"] == "looks again: fuse.glusterfs does not tell what other hosts do"
    assert pair.both("prepare") == ["prepared", "prepared"]
    assert pair.both("hold") == ["done", "done"]
    assert pair.both("apply") == ["done", "done"]
    assert pair.both("release") == ["done", "done"]
    assert pair.both("settle") == ["done", "done"]
    assert pair.serving() == {"db2"}
    assert [host.receipt().receipt.state for host in pair.hosts] == [ReceiptState.DONE] * 2


@pytest.mark.parametrize("moment", ["prepare", "hold", "apply", "settle"])
def test_a_server_that_is_cut_off_leaves_the_last_good_route_and_is_recovered_from(pair: Pair, moment: str) -> None:
    steps = ["prepare", "hold", "apply", "settle"]
    for verb in steps[: steps.index(moment)]:
        assert set(pair.both(verb, within=2.0 if verb == "hold" else 10.0)) <= {"done", "prepared"}
    pair.disk.cut()
    assert pair.both(moment, within=1.0) == ["unknown", "unknown"]  # the disk failed: nobody knows what is there
    pair.troubled("Transport endpoint is not connected")
    assert {host.route() for host in pair.hosts} == {"db2/1.2" if moment == "settle" else "db1/1.1"}
    # who arrives is held at the latest until the host's own clock says so, and is then served
    assert pair.serving() == {"db2" if moment == "settle" else "db1"}
    pair.disk.restore()
    pair.recovered()
    assert pair.both("settle") == ["done", "done"]
    assert pair.serving() == {"db2"}
    assert pair.both("release") == ["done", "done"]


def copied(folder: Path, to: Path) -> Path:
    """Copies what is published, without what is being written just now."""
    return shutil.copytree(folder, to, ignore=shutil.ignore_patterns(".*"))


@pytest.fixture
def stale(pair: Pair, tmp_path: Path) -> Path:
    """edge2 is off, its disk not mounted, and below the mount point lies what was published when it was switched off.

    Meanwhile writes have moved to another server. What edge2 remembers is as old as what lies there.
    """
    copy = copied(pair.second.shared, tmp_path / "copy")
    pair.second.kill_agent()
    pair.second.haproxy.stop()
    bare = pair.disk.unmount("edge2")
    shutil.copytree(copy, bare, dirs_exist_ok=True)
    for verb in ("prepare", "settle"):
        table, back = pair.table((1, 2), "db2"), pair.table((1, 2), "db1")
        told = (table, back) if verb == "prepare" else (table,)
        assert str(getattr(pair.here, verb)(*told, soon(10)).state) in ("prepared", "done")
    return bare


@pytest.mark.parametrize("first", ["agent", "haproxy"])
def test_a_host_whose_disk_is_not_mounted_serves_no_old_route(pair: Pair, stale: Path, first: str) -> None:
    starts = {"agent": pair.second.start_agent, "haproxy": pair.second.start_haproxy}
    starts.pop(first)()
    next(iter(starts.values()))()
    said = f"{stale} is not mounted: it lies on"
    until(lambda: said in " ".join(pair.second.status()["trouble"]), "edge2 to say that the disk is not there")
    # one that starts with its disk is open after a moment
    pair.host.haproxy.kill9()
    pair.host.start_haproxy()
    until(lambda: pair.host.route() == "db2/1.2", "edge1 to be opened by its agent")
    assert pair.second.route().startswith("!closed/")
    assert pair.client().server == "db2"
    shutil.rmtree(stale / CLUSTER)
    pair.disk.mount("edge2")
    pair.recovered()
    until(lambda: pair.second.route() == "db2/1.2", "edge2 to follow what is published now")
    assert pair.serving() == {"db2"}


def test_a_disk_that_goes_away_is_not_heard_any_more(pair: Pair, stale: Path) -> None:
    """What lies below keeps no host from closing its writes in the silence that it has declared."""
    shutil.rmtree(stale / CLUSTER)
    pair.disk.mount("edge2")
    pair.second.write_agent_file(disk_timeout="500ms", on_silence="close_writes", silence=2)
    pair.second.start_agent()
    pair.second.start_haproxy()
    until(lambda: pair.second.route() == "db2/1.2", "edge2 to follow")
    copy = copied(pair.second.shared, pair.second.folder / "copy")
    shutil.copytree(copy, pair.disk.unmount("edge2"), dirs_exist_ok=True)
    until(lambda: pair.second.route().startswith("!closed/"), "edge2 to close its writes")
    until(lambda: pair.second.status()["closed_by_silence"], "edge2 to say that it has closed them")


def test_where_a_disk_must_be_mounted_can_be_told_before_it_was_ever_seen(pair: Pair, stale: Path) -> None:
    shutil.rmtree(pair.second.state_dir)  # a new host, and a folder that somebody has copied
    pair.second.write_agent_file(disk_timeout="500ms", mount_point=str(stale))
    pair.second.start_agent()
    until(lambda: "is not mounted" in " ".join(pair.second.status().get("trouble", ())), "edge2 to say so")
    assert pair.second.status()["release"] is None


def test_a_server_that_is_frozen_keeps_nobody_beyond_a_deadline(pair: Pair) -> None:
    assert pair.both("hold", within=2.0) == ["done", "done"]
    pair.disk.freeze()
    began = time.monotonic()
    assert pair.both("apply", within=1.0) == ["unknown", "unknown"]
    seen = pair.here.observe(soon(1.0))
    assert (seen.reachable, time.monotonic() - began < 10) == (False, True)
    pair.troubled("has not answered in time")
    assert pair.serving() == {"db1"}  # the hold has ended by the hosts' clocks
    pair.disk.thaw()
    pair.recovered()
    assert pair.both("settle") == ["done", "done"]
    assert pair.serving() == {"db2"}


def test_an_agent_can_be_ended_and_started_while_the_disk_is_frozen(pair: Pair) -> None:
    pair.disk.freeze()
    pair.troubled("has not answered in time")
    ended = pair.host.agent
    assert ended is not None
    ended.terminate(seconds=10.0)
    assert ended.wait() == 0, pair.host.log()
    pair.host.start_agent()
    until(lambda: "has not answered in time" in " ".join(pair.host.status()["trouble"]), "the new agent to say so")
    assert "another agent runs" not in pair.host.log()
    pair.second.kill_agent()  # by SIGKILL; returns when it is gone
    assert pair.serving() == {"db1"}
    pair.second.start_agent()
    pair.disk.thaw()
    pair.recovered()


HANGS = """
import fcntl, os, sys, time
from functools import partial
from pathlib import Path
from proxyroute.errors import TimedOut
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Deadline
lock = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
worker = Worker("the disk")
worker.start(Deadline.after(10))
try:
    worker.call(Path(sys.argv[1]).read_bytes, Deadline.after(0.2))
except TimedOut:
    print("hangs", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["killed", "ends by itself"])
def test_a_process_that_hangs_at_the_disk_is_gone_at_once_with_its_locks(
    disk: Gluster, tmp_path: Path, how: str
) -> None:

    file, lock = disk.mounts["engine"] / "file", tmp_path / "lock"
    put(file, b"x")
    disk.freeze()
    argv = [sys.executable, "-c", HANGS, str(file), str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"hangs\n"
            if how == "killed":
                process.kill()
            process.stdin.close()
            process.wait(10)
            assert process.stdout.read() == b""  # nobody has its output open any more
            with lock.open() as free:
                fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            disk.thaw()


def test_what_was_opened_before_a_rename_does_not_keep_anybody_from_the_new_content(disk: Gluster) -> None:
    written, read = disk.mounts["engine"] / "file", disk.mounts["edge1"] / "file"
    put(written, b"old")
    with read.open("rb") as held:
        for number in range(50):
            put(written, b"new %d" % number)
            assert read.read_bytes() == b"new %d" % number
        try:
            left = held.read()
        except OSError as error:
            left = os.strerror(error.errno or 0).encode()
        assert left in (b"old", b"Stale file handle", b"")


def test_a_disk_that_failed_in_the_midst_leaves_unknown_what_it_did(disk: Gluster) -> None:
    worker = Worker("the disk")
    disk.cut()
    with pytest.raises(DiskFailed, match="not connected"):
        worker.call((disk.mounts["engine"] / "file").read_bytes, Deadline.after(10))


def test_a_slow_disk_refuses_an_operation_and_says_how_slow(tmp_path: Path) -> None:
    try:
        slow = Gluster.start(delay=0.005)
    except PermissionError as reason:
        pytest.skip(str(reason))
    with slow:
        host = AgentsSubject(tmp_path, read=False, shared=slow.mounts["engine"], seen=slow.mounts["edge1"])
        try:
            host.start(host.table((1, 1), "db1"))
            assert host.adapter(disk_limit=10.0).check(soon()) == ()
            (found,) = host.adapter(disk_limit=0.1).check(soon())
            assert (found.code, found.severity, found.subject) == ("agents.slow", Severity.ERROR, "edge1")
            assert " s to write a small file; at most 0.1 s are good" in found.text
        finally:
            host.close()


def test_a_frozen_disk_refuses_an_operation_by_its_own_name(pair: Pair) -> None:
    pair.disk.freeze()
    (found,) = pair.adapter(disk_limit=0.1).check(soon())
    assert (found.code, found.severity, found.subject) == ("agents.slow", Severity.ERROR, "edge1")
    assert str(pair.shared) in found.text
