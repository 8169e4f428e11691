"""The laboratory: its cables do what is asked of them and nothing else, and nothing of it is left, whatever ends it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import netns
from tests.support.lab import open_sessions, processes_of
from tests.support.load import ROOT_FOLDER, create_table, now, read_rows
from tests.support.netlab import NetLab
from tests.support.network import Network, addresses
from tests.support.reach import Pair, Reach
from tests.support.scene import assert_order, books, in_its_midst, other, switched
from tests.support.verdict import judge
from tests.support.wait import until

LAB = ROOT_FOLDER / "scripts" / "lab"
HOSTS = ("db1", "db2", "edge1", "client1")


@pytest.fixture(autouse=True)
def possible() -> None:
    try:
        netns.require()
    except netns.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    built = Network.build(netns.mark(), tmp_path, HOSTS)
    yield built
    built.close()
    assert netns.names(built.mark) == []


@pytest.fixture
def reach(network: Network) -> Iterator[Reach]:
    with Reach(network) as opened:
        yield opened


@pytest.fixture(scope="module")
def site() -> Iterator[NetLab]:
    with NetLab.start(3, policy={"freeze_budget": "8s", "lock_pause": "20ms", "lock_attempt": "100ms"}) as lab:
        yield lab


def with_host(host: str) -> set[Pair]:
    return {pair for name in HOSTS for pair in ((host, name), (name, host)) if name != host}


# -- Cables -------------------------------------------------------------------------------------------------------


def test_hosts_reach_each_other_by_their_own_addresses(network: Network, reach: Reach) -> None:
    assert reach.settle(reach.all) == reach.all
    assert network.hosts == {"db1": "10.77.1.1", "db2": "10.77.1.2", "edge1": "10.77.2.1", "client1": "10.77.4.1"}
    assert addresses(["etcd1", "db12", "disk"]) == {"etcd1": "10.77.5.1", "db12": "10.77.1.12", "disk": "10.77.5.2"}


CUTS: dict[str, tuple[Callable[[Network], None], set[Pair]]] = {
    "a host": (lambda n: n.cut("db1"), with_host("db1")),
    "two hosts": (lambda n: (n.cut("db1"), n.cut("client1"))[0], with_host("db1") | with_host("client1")),
    "a pair": (lambda n: n.cut("db1", "db2"), {("db1", "db2"), ("db2", "db1")}),
    "one way": (lambda n: n.cut_one_way("db1", "db2"), {("db1", "db2")}),
    "a slow one of a pair": (lambda n: (n.slow("db1", 2), n.cut("db1", "db2"))[0], {("db1", "db2"), ("db2", "db1")}),
    "a slow one, one way": (lambda n: (n.slow("db2", 2), n.cut_one_way("db1", "db2"))[0], {("db1", "db2")}),
    "a slow host": (lambda n: (n.cut("db1"), n.slow("db1", 2))[0], with_host("db1")),
}


@pytest.mark.parametrize("what", CUTS)
def test_a_cut_keeps_out_what_it_says_and_nothing_else(network: Network, reach: Reach, what: str) -> None:
    cut, missing = CUTS[what]
    reach.settle(reach.all)
    cut(network)
    assert reach.settle(reach.all - missing) == reach.all - missing
    for host in HOSTS:  # and when all have to find each other anew
        netns.command(["ip", "neigh", "flush", "all"], namespace=network.namespace(host))
    assert reach.settle(reach.all - missing) == reach.all - missing
    network.mend()
    assert reach.settle(reach.all) == reach.all
    assert network.damage.lines() == []


def test_what_is_mended_is_mended_and_the_rest_stays(network: Network, reach: Reach) -> None:
    network.cut("edge1")
    network.cut("db1", "db2")
    network.cut_one_way("client1", "db1")
    network.mend("edge1")
    kept = {("db1", "db2"), ("db2", "db1"), ("client1", "db1")}
    assert reach.settle(reach.all - kept) == reach.all - kept
    network.mend("db2", "db1")
    assert reach.settle(reach.all - {("client1", "db1")}) == reach.all - {("client1", "db1")}
    network.mend("db1")
    assert reach.settle(reach.all) == reach.all


def test_a_slow_host_is_that_late_each_way_and_the_others_are_not(network: Network, reach: Reach) -> None:
    network.slow("db1", 100)
    assert 0.2 <= reach.round_trip("client1", "db1") < 0.4
    assert 0.2 <= reach.round_trip("db1", "client1") < 0.4
    assert reach.round_trip("client1", "db2") < 0.1
    network.slow("db1", 30)
    assert 0.06 <= reach.round_trip("client1", "db1") < 0.2
    network.slow("client1", 30)
    assert reach.round_trip("client1", "db1") >= 0.12
    network.mend()
    assert reach.round_trip("client1", "db1") < 0.06


def test_a_lossy_host_loses_that_much(network: Network, reach: Reach) -> None:
    reach.settle(reach.all)
    assert reach.arrivals("client1", "db1", 1000) == 1000
    network.lossy("db1", 30)
    # seven standard deviations to either side
    assert 600 < reach.arrivals("client1", "db1", 1000) < 800
    assert 600 < reach.arrivals("db1", "client1", 1000) < 800
    assert reach.arrivals("client1", "db2", 1000) == 1000
    network.mend("db1")
    assert reach.arrivals("client1", "db1", 1000) == 1000


def stream(network: Network, source: str, target: str, size: int, during: Callable[[], None] = lambda: None) -> float:
    """Sends ``size`` bytes by TCP while ``during`` runs; all must arrive as they are. Returns the seconds it took."""
    sent = os.urandom(size)
    with network.inside(target):
        listening = socket.create_server((network.hosts[target], 7000))
    with network.inside(source):
        out = socket.create_connection((network.hosts[target], 7000))
    taken, _ = listening.accept()
    begun = now()
    with listening, taken, out:
        writer = threading.Thread(target=lambda: (out.sendall(sent), out.shutdown(socket.SHUT_WR)))
        writer.start()
        during()
        got = hashlib.sha256()
        while part := taken.recv(65536):
            got.update(part)
        writer.join()
    assert got.digest() == hashlib.sha256(sent).digest()
    return now() - begun


def test_a_narrow_host_lets_no_more_pass(network: Network) -> None:
    network.narrow("db1", 4000)  # 500,000 bytes a second, and a bucket of 16 KiB at the beginning
    assert stream(network, "client1", "db1", 700_000) > 1
    assert stream(network, "db1", "client1", 700_000) > 1
    network.narrow("db1", 8000)
    assert stream(network, "client1", "db1", 700_000) > 0.5
    network.mend()
    assert not any("tbf" in netns.command(["tc", "-n", network.namespace(h), "qdisc"]) for h in ("switch", "db1"))


def test_a_stream_survives_a_relay_that_comes_and_goes(network: Network) -> None:
    def trouble() -> None:
        for milliseconds in (1, 5):
            network.slow("db1", milliseconds)
        network.mend()

    stream(network, "client1", "db1", 20_000_000, trouble)
    stream(network, "db1", "client1", 20_000_000, trouble)


def test_whoever_finds_the_folder_goes_on_from_there(network: Network, reach: Reach) -> None:
    network.slow("db1", 50)
    network.narrow("db2", 8000)
    network.cut("client1", "edge1")
    found = Network.load(network.folder)
    assert found.damage == network.damage
    assert found.damage.lines() == [
        "client1 and edge1 are cut off from each other",
        "db1 is 50 ms late, each way",
        "db2 has 8000 kbit/s, each way",
    ]
    found.mend()
    assert reach.settle(reach.all) == reach.all
    assert reach.round_trip("client1", "db1") < 0.1
    network.slow("db1", 50)
    assert reach.round_trip("client1", "db1") >= 0.1


def test_a_relay_that_was_killed_is_put_in_again(network: Network, reach: Reach) -> None:
    network.slow("db1", 2)
    (relay,) = netns.processes_in(network.namespace("switch"))
    netns.end_processes([relay])
    reached = reach.all - with_host("db1")
    assert reach.settle(reached) == reached
    network.slow("db1", 2)
    assert reach.settle(reach.all) == reach.all
    (relay,) = netns.processes_in(network.namespace("switch"))
    netns.end_processes([relay])
    network.mend()
    assert reach.settle(reach.all) == reach.all


def test_an_address_moves_and_everybody_knows(network: Network) -> None:
    with contextlib.ExitStack() as ends:
        for host in ("edge1", "db1"):
            with network.inside(host):
                listening = ends.enter_context(socket.create_server(("", 7001)))
            threading.Thread(target=_name, args=(listening, host), daemon=True).start()
            ends.callback(listening.shutdown, socket.SHUT_RDWR)

        def who() -> str:
            with network.inside("client1"), socket.create_connection(("10.77.9.1", 7001), timeout=10) as asking:
                return asking.recv(100).decode()

        for host in ("edge1", "db1", "edge1"):
            network.put_address("10.77.9.1", host)
            assert who() == host
            assert [h for h in HOSTS if network.has_address(h, "10.77.9.1")] == [host]


def _name(listening: socket.socket, host: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            with listening.accept()[0] as taken:
                taken.sendall(host.encode())


def test_a_host_that_is_none_is_told_and_nothing_is_written_down(network: Network) -> None:
    for act in (lambda: network.cut("db9"), lambda: network.cut("db1", "db9"), lambda: network.mend("db9")):
        with pytest.raises(LookupError, match="there is no host db9; there are db1, db2"):
            act()
    assert network.damage.lines() == []
    with pytest.raises(ValueError, match="no name for a host"):
        Network.build(netns.mark(), network.folder, ["no-name"])


# -- The end ------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Returns what of the machine's own network nobody may touch."""
    found: dict[str, Any] = {"rules": netns.command(["nft", "list", "ruleset"])}
    for name, words in {
        "addresses": ["addr"],
        "routes": ["route", "show", "table", "all"],
        "rules of routes": ["rule"],
    }.items():
        found[name] = [_lasting(entry) for entry in json.loads(netns.command(["ip", "-j", *words]) or "[]")]
    found["shaping"] = netns.command(["tc", "qdisc", "show"])
    for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/disable_ipv6", "net/bridge/bridge-nf-call-iptables"):
        with contextlib.suppress(FileNotFoundError):
            found[name] = Path("/proc/sys", name).read_text()
    return found


def _lasting(value: Any) -> Any:
    """Leaves out how long an address is lent for yet."""
    if isinstance(value, dict):
        return {key: _lasting(v) for key, v in value.items() if "life_time" not in key}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def test_the_machines_own_network_is_never_touched(tmp_path: Path) -> None:
    before = machine()
    network = Network.build(netns.mark(), tmp_path, HOSTS)
    try:
        assert machine() == before
        network.cut("db1")
        network.cut("db2", "edge1")
        network.cut_one_way("client1", "edge1")
        network.slow("edge1", 2)
        network.lossy("db2", 10)
        network.narrow("client1", 1000)
        network.put_address("10.77.9.1", "db2")
        assert machine() == before
        network.mend()
    finally:
        network.close()
    assert machine() == before


def orphan(tmp_path: Path, code: str) -> tuple[str, Path]:
    """Runs ``code`` in a process that is killed when it has printed a mark and a folder; returns these."""
    file = tmp_path / "orphan.py"
    file.write_text(f"{code}\nprint(mark, folder, flush=True)\nimport sys; sys.stdin.read()\n")
    with subprocess.Popen(
        [sys.executable, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT_FOLDER)},
    ) as child:
        assert child.stdout is not None
        mark, folder = child.stdout.readline().split()
        child.kill()
    return mark, Path(folder)


def test_what_a_killed_site_has_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    mark, folder = orphan(
        tmp_path,
        "from tests.support.netlab import NetLab\n"
        "lab = NetLab.start(1, 1)\n"
        "mark, folder = lab.network.mark, lab.folder\n"
        "lab.slow('db1', 1)\n"
        "lab.popen('client1', ['sleep', '1000'])\n"
        "lab.popen('engine1', ['setsid', 'sleep', '1000'])\n",
    )
    assert len(netns.names(mark)) == 5
    assert netns.processes(mark), "sleep does not end with its parent"
    (tmp_path / "next").mkdir()
    network = Network.build(netns.mark(), tmp_path / "next", ["db1"])
    try:
        assert netns.names(mark) == []
        assert netns.processes(mark) == []
        assert processes_of(folder) == []
    finally:
        network.close()


def test_what_belongs_to_the_living_is_left_alone(network: Network) -> None:
    before = netns.names(network.mark)
    assert len(before) == len(HOSTS) + 1
    assert network.mark not in netns.sweep()
    assert netns.names(network.mark) == before


def test_a_site_that_ends_leaves_no_process_no_namespace_and_no_folder() -> None:
    with NetLab.start(1, 1) as lab:
        lab.slow("edge1", 1)
        left = lab.popen("client1", ["sleep", "1000"])
        assert lab.json("status")[0] == 0
        assert netns.processes(lab.network.mark)
    assert left.wait(10) == -signal.SIGKILL
    assert netns.names(lab.network.mark) == []
    assert processes_of(lab.folder) == []
    assert not lab.folder.exists()


def test_where_it_cannot_be_had_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netns._missing.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: 65534)
        with pytest.raises(netns.Unavailable, match="only root"):
            Network.build(netns.mark(), tmp_path, HOSTS)
    netns._missing.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(netns, "find_program", lambda name: (_ for _ in ()).throw(FileNotFoundError(f"no {name}")))
        with pytest.raises(netns.Unavailable, match="no ip"):
            Network.build(netns.mark(), tmp_path, HOSTS)
    netns._missing.cache_clear()
    netns.require()


# -- For people ---------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """The file of a laboratory of the test's own; whatever is written there is down afterwards."""
    file = tmp_path / "lab" / "state.json"
    yield file
    assert lab(file, "down").returncode == 0


def lab(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PROXYROUTE_LAB_STATE": str(file)}
    return subprocess.run([LAB, *words], capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)


def test_a_laboratory_is_up_until_it_is_down(kept: Path) -> None:
    nothing = lab(kept, "status")
    assert (nothing.returncode, nothing.stderr) == (2, "scripts/lab: no laboratory is up; scripts/lab up starts one\n")
    up = lab(kept, "up", "--databases", "2")
    assert up.returncode == 0, up.stderr
    assert re.search(r"^  edge2 +10\.77\.2\.2 +haproxy, proxyroute agent$", up.stdout, re.MULTILINE), up.stdout
    folder = Path(json.loads(kept.read_text())["folder"])

    assert "one is up already" in lab(kept, "up").stderr
    assert "db1 takes writes" in lab(kept, "run", "engine1", "proxyroute", "status").stdout
    assert "2 is the primary" in lab(kept, "run", "engine1", "proxyroute", "switchover", "--yes").stdout
    assert lab(kept, "sql", "edge1", "SELECT @@server_id").stdout == "@@server_id\n2\n"
    assert lab(kept, "cut", "db1").stdout == "db1 is cut off from everybody\n"
    assert lab(kept, "sql", "db1", "SELECT @@server_id").stdout == "@@server_id\n1\n"
    assert lab(kept, "slow", "edge2", "20").stdout.splitlines()[1] == "edge2 is 20 ms late, each way"
    assert lab(kept, "cut", "--one-way", "db2", "db1").stdout.splitlines()[1] == "what db2 sends to db1 is lost"
    assert "edge2 is 20 ms late" in lab(kept, "status").stdout
    assert "there is no host db3" in lab(kept, "cut", "db3").stderr
    assert lab(kept, "heal").stdout == "All cables are well.\n"

    mark = json.loads(kept.read_text())["mark"]
    down = lab(kept, "down")
    assert (down.returncode, down.stdout) == (0, f"The laboratory in {folder} has ended.\n")
    assert_gone(mark, folder)
    assert lab(kept, "down").stdout == "No laboratory is up.\n"


def test_a_laboratory_whose_note_is_gone_ends_with_the_next_command(kept: Path, tmp_path: Path) -> None:
    kept.parent.mkdir()
    mark = netns.kept_mark()
    folder = Path("/dev/shm") / mark
    kept.write_text(json.dumps({"mark": mark, "folder": str(folder), "ready": True}))
    folder.mkdir()
    (folder / "noted-in").write_text(str(kept))
    Network.build(mark, folder, ["db1"], outlive=True)
    assert lab(tmp_path / "another" / "state.json", "down").stdout == "No laboratory is up.\n"
    assert len(netns.names(mark)) == 2, "another's, and noted"
    kept.unlink()
    assert str(folder) in lab(tmp_path / "another" / "state.json", "down").stdout
    assert_gone(mark, folder)


def assert_gone(mark: str, folder: Path) -> None:
    assert netns.names(mark) == []
    assert netns.processes(mark) == []
    assert processes_of(folder) == []
    assert not folder.exists()


def runs(mark: str, name: str) -> bool:
    """Whether a program of that name runs on a host."""
    for pid in netns.processes(mark):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                return True
    return False


MOMENTS: dict[str, Callable[[str], bool]] = {
    "when it is written down": lambda mark: True,
    "while hosts are made": lambda mark: len(netns.names(mark)) >= 3,
    "while servers start": lambda mark: runs(mark, "mariadbd"),
    "while proxies start": lambda mark: runs(mark, "haproxy"),
}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_start_that_is_ended_leaves_nothing_behind(kept: Path, moment: str, number: signal.Signals) -> None:
    environment = {**os.environ, "PROXYROUTE_LAB_STATE": str(kept)}
    with subprocess.Popen([LAB, "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as child:
        until(kept.exists, "it to be written down", pause=0.001)
        told = json.loads(kept.read_text())
        until(lambda: MOMENTS[moment](told["mark"]) or child.poll() is not None, moment, pause=0.001)
        child.send_signal(number)
    assert child.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM)
    if number == signal.SIGKILL:
        assert "no laboratory is up" in lab(kept, "status").stderr
        assert lab(kept, "down").returncode == 0
    assert_gone(told["mark"], Path(told["folder"]))


# -- Switchovers --------------------------------------------------------------------------------------------------


def in_order(site: NetLab, primary: str) -> None:
    site.cluster.await_synced()
    with site.inside("client1"):
        assert_order(site, primary)


@pytest.mark.parametrize("edge", [0, 1])
def test_a_switchover_with_writers_on_a_clients_host_loses_nothing(site: NetLab, edge: int) -> None:
    new = other(site)
    with site.inside("client1"), books(site, address=site.hosts[edge].write) as kept:
        switched(site, "--to", new)
        kept.go_on()
    assert kept.verdict.acknowledged > 0
    in_order(site, new)


def test_a_server_that_is_cut_off_from_the_engine_is_refused_by_its_name(site: NetLab) -> None:
    old, wanted = site.cluster.primary.name, other(site)
    site.cut("engine1", wanted)
    status, value = site.json("switchover", "--yes", "--to", wanted)
    assert status == 3, value
    assert wanted in {finding["subject"] for finding in value["error"]["findings"]}
    assert site.cluster.writable == (old,)
    site.mend()
    in_order(site, old)
    switched(site, "--to", wanted)
    in_order(site, wanted)


def test_a_virtual_address_moves_in_mid_switchover_and_nothing_is_lost(site: NetLab) -> None:
    """Clients know one address only; it goes from edge1 to edge2 while newcomers are held at both."""
    address, new = site.virtual, other(site)
    site.network.put_address(address.host, "edge1")
    create_table(site.cluster.primary)
    begun = now()
    with (
        # whoever waited for an answer from edge1 at that moment gets none, and nothing tells him: he has to give up
        site.load(address, writers=4, rate=40, patience=3) as pooled,
        site.load(address, writers=2, rate=40, patience=3, mode="fresh", first=100) as fresh,
    ):
        with site.inside("engine1"), in_its_midst(site, "--to", new):
            site.network.put_address(address.host, "edge2")
            moved = now()
        goal = 40 * (now() - begun) + 5  # more than anybody can have by now
        for load in (pooled, fresh):
            until(lambda load=load: load.count()["least"] > goal, "everybody to write again", 30)
        sessions = [set(open_sessions(host.haproxy, site.cluster)) for host in site.hosts]
        records = pooled.stop() + fresh.stop()
    site.network.drop_address(address.host)
    site.cluster.await_synced()
    verdict = judge(records, read_rows(site.cluster), new)
    assert (verdict.lost, verdict.double_primary, verdict.unexplained) == (frozenset(), 0, frozenset()), verdict
    assert len(verdict.ambiguous) <= 6, "not more than one for each client: the answer that edge1 could not deliver"
    assert {write.writer for write in records.acknowledged if write.sent > moved} == {0, 1, 2, 3, 100, 101}
    # edge1 may have let in somebody whom it held, and who is gone; the server waits for him for ten seconds
    assert sessions[0] <= {new}
    assert sessions[1] == {new}
    until(lambda: not open_sessions(site.hosts[0].haproxy, site.cluster), "nobody to be left at edge1")
    in_order(site, new)
