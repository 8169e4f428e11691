"""A virtual address without a proxy: it moves by scripts, nobody has it twice, and a switchover takes it along."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.model import Address
from tests.support import netns
from tests.support.clients import Clients
from tests.support.death import LOSSLESS, brought_back, failed_over, remembered
from tests.support.load import ROOT_FOLDER, Load, create_table, now, read_rows
from tests.support.netlab import NetLab
from tests.support.network import PREFIX_LENGTH, Network, virtual_address
from tests.support.process import find_program
from tests.support.scene import beat, configured, other, switched
from tests.support.verdict import Verdict, blackout, judge
from tests.support.wait import until

VIP = ROOT_FOLDER / "scripts" / "vip" / "vip"
ADDRESS = virtual_address()
WHAT = [f"{ADDRESS}/{PREFIX_LENGTH}", "eth0"]


@pytest.fixture(autouse=True)
def possible() -> None:
    try:
        netns.require()
        find_program("ss")
    except (netns.Unavailable, FileNotFoundError) as reason:
        pytest.skip(f"no address that moves: {reason}")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    built = Network.build(netns.mark(), tmp_path, ["db1", "db2", "client1"])
    yield built
    built.close()


def shell(network: Network) -> str:
    """Reaches a server's host, as ssh does elsewhere."""
    return f"{find_program('nsenter')} --net={netns.FOLDER}/{network.mark}-{{server}} --"


def vip(network: Network, host: str, *words: str, **environment: str) -> tuple[int, str]:
    argv = [*network.launcher(host), str(VIP), *words]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **environment}, timeout=30)
    return done.returncode, (done.stdout + done.stderr).strip()


def holders(network: Network) -> list[str]:
    return [host for host in network.hosts if network.has_address(host, ADDRESS)]


@contextlib.contextmanager
def answering(network: Network, *hosts: str) -> Iterator[None]:
    """For a ``with`` block these hosts say who they are to whoever comes."""
    with contextlib.ExitStack() as ends:
        for host in hosts:
            with network.inside(host):
                listening = ends.enter_context(socket.create_server(("", 7001)))
            threading.Thread(target=_answer, args=(listening, host), daemon=True).start()
            ends.callback(listening.shutdown, socket.SHUT_RDWR)
        yield


def _answer(listening: socket.socket, host: str) -> None:
    with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
        while True:
            taken.enter_context(listening.accept()[0]).sendall(host.encode())


def session(network: Network) -> socket.socket:
    with network.inside("client1"):
        return socket.create_connection((ADDRESS, 7001), timeout=10)


def who(network: Network) -> str:
    with session(network) as asking:
        return asking.recv(100).decode()


def test_up_and_down_may_be_said_again_and_everybody_hears_of_it(network: Network) -> None:
    with answering(network, "db1", "db2"):
        for host, other_host in (("db1", "db2"), ("db2", "db1"), ("db1", "db2")):
            assert vip(network, host, "up", *WHAT) == (0, f"{ADDRESS} is on eth0 now; announced")
            assert vip(network, host, "up", *WHAT) == (0, f"{ADDRESS} is on eth0 already; announced")
            assert holders(network) == [host]
            assert who(network) == host, "the client has heard of it, whatever it knew"
            assert vip(network, host, "show", *WHAT)[0] == 0
            assert vip(network, other_host, "show", *WHAT) == (1, f"{ADDRESS} is not on eth0")
            assert vip(network, host, "down", *WHAT) == (0, f"{ADDRESS} is not on eth0 any more")
            assert vip(network, host, "down", *WHAT) == (0, f"{ADDRESS} was not on eth0")
            assert holders(network) == []


def test_what_another_host_has_is_not_taken(network: Network) -> None:
    assert vip(network, "db1", "up", *WHAT)[0] == 0
    status, said = vip(network, "db2", "up", *WHAT)
    assert (status, said) == (3, f"{ADDRESS} is at 02:00:0a:4d:01:01, another host: take it down there first")
    assert holders(network) == ["db1"]
    # who has it already is told as well
    network.cut("db1", "db2")
    assert vip(network, "db2", "up", *WHAT)[0] == 0
    network.mend()
    assert vip(network, "db1", "up", *WHAT)[0] == 3
    assert holders(network) == ["db1", "db2"], "it is not for one of them to say whose it is"


def test_sessions_end_with_the_address_and_do_not_wait_for_ever(network: Network) -> None:
    with answering(network, "db1"):
        vip(network, "db1", "up", *WHAT)
        with session(network) as waiting:
            assert waiting.recv(100) == b"db1"
            assert vip(network, "db1", "down", *WHAT)[0] == 0
            waiting.settimeout(10)
            with pytest.raises(ConnectionResetError):
                waiting.recv(100)


def test_a_down_that_was_held_up_takes_nothing_away(network: Network) -> None:
    assert vip(network, "db1", "up", *WHAT)[0] == 0
    status, said = vip(network, "db1", "down", *WHAT, "--sent", f"{time.time() - 1:.3f}")
    assert (status, said.partition(":")[0]) == (1, "nothing was done"), said
    assert "an up that was asked for" in said
    status, said = vip(network, "db1", "down", *WHAT, "--sent", f"{time.time() + 1:.3f}", "--timeout", "-2")
    assert (status, "after it was asked for" in said) == (1, True), said
    assert holders(network) == ["db1"]
    assert vip(network, "db1", "down", *WHAT)[0] == 0


def test_a_down_that_outlives_its_caller_does_nothing(network: Network, tmp_path: Path) -> None:
    """The caller's end of the line goes, and the host gets to it when the way back is over."""
    assert vip(network, "db1", "up", *WHAT)[0] == 0
    late = f'while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; {shell(network)} "$@" < {tmp_path}/sent'
    ends = f"> {tmp_path}/said 2>&1; mv {tmp_path}/said {tmp_path}/ended"
    (tmp_path / "reach").write_text(f"#!/bin/sh\ncat > {tmp_path}/sent\n({late.format(server='db1')} {ends}) &\nwait\n")
    (tmp_path / "reach").chmod(0o755)
    words = ["down", *WHAT, "--on", "db1", "--timeout", "0.5", "--shell", f"{tmp_path}/reach"]
    argv = [*network.launcher("client1"), str(VIP), *words]
    with (tmp_path / "out").open("wb") as out:
        assert subprocess.run(argv, stdout=out, stderr=out, timeout=60).returncode == 1
    assert "no answer in 0.5 s" in (tmp_path / "out").read_text()
    assert vip(network, "db1", "up", *WHAT) == (0, f"{ADDRESS} is on eth0 already; announced")
    (tmp_path / "go").touch()
    until((tmp_path / "ended").exists, "the host to have come to it")
    assert (tmp_path / "ended").read_text().startswith("nothing was done: ")
    assert holders(network) == ["db1"]


def test_one_at_a_time_and_nothing_for_who_has_given_up(network: Network) -> None:
    assert vip(network, "db1", "up", *WHAT)[0] == 0
    inode = (Path(netns.FOLDER) / network.namespace("db1")).stat().st_ino
    with Path(f"/run/proxyroute-vip-{ADDRESS}-{inode}.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for verb in ("up", "down"):
            status, said = vip(network, "db1", verb, *WHAT, "--timeout", "0.5")
            assert (status, said.partition(";")[2]) == (1, " another vip is at work here"), said
    assert holders(network) == ["db1"]
    assert vip(network, "db1", "down", *WHAT)[0] == 0


def test_a_command_that_hangs_or_lies_is_not_believed(network: Network, tmp_path: Path) -> None:
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert vip(network, "db1", "up", *WHAT)[0] == 0
    for name, text in (("ss", "exec sleep 60"), ("ip", f'[ "$2" = add ] || exec {find_program("ip")} "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    status, said = vip(network, "db1", "down", *WHAT, **path)
    assert (status, holders(network)) == (0, []), said
    assert said.endswith(f"its sessions could not be ended: ss -t -4 -K src {ADDRESS}: no answer in 2 s")
    status, said = vip(network, "db1", "up", *WHAT, **path)
    assert (status, said) == (1, f"{ADDRESS} is gone from eth0 again: does something take it away?")


def test_an_address_that_would_take_others_along_is_left(network: Network) -> None:
    name = network.namespace("db1")
    netns.command(["ip", "addr", "flush", "dev", "eth0"], namespace=name)
    assert vip(network, "db1", "up", *WHAT)[0] == 0
    netns.command(["ip", "addr", "add", f"10.77.1.1/{PREFIX_LENGTH}", "dev", "eth0"], namespace=name)
    netns.command(["sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries"], namespace=name)
    netns.command(["sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/all/promote_secondaries"], namespace=name)
    status, said = vip(network, "db1", "down", *WHAT)
    assert (status, said) == (1, "10.77.1.1 would go as well: sysctl -w net.ipv4.conf.eth0.promote_secondaries=1")
    netns.command(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries"], namespace=name)
    assert vip(network, "db1", "down", *WHAT)[0] == 0
    assert network.has_address("db1", "10.77.1.1")


def test_mistakes_are_told(network: Network) -> None:
    assert vip(network, "db1", "up", "10.0.0.100", "eth0")[0] == 2
    assert vip(network, "db1", "up", "fd00::1/64", "eth0")[0] == 2
    status, said = vip(network, "db1", "up", WHAT[0], "eth7")
    assert (status, said) == (1, "eth7: No such device; ip link shows what there is")
    status, said = vip(network, "db1", "hook", *WHAT)
    assert status == 2
    assert "people say up or down" in said
    status, said = vip(network, "client1", "up", *WHAT, "--on", "db1", "--shell", "/nowhere {host}")
    assert (status, said) == (1, "/nowhere: No such file or directory")


def told(moment: str, old: str, new: str) -> dict[str, str]:
    hosts = {"OLD": old, "NEW": new}
    named = {f"PROXYROUTE_{which}_PRIMARY": name for which, name in hosts.items()}
    return {"PROXYROUTE_MOMENT": f"address_{moment}", **named, **{f"{k}_HOST": f"h-{v}" for k, v in named.items()}}


def test_the_hook_does_it_on_the_hosts_and_an_old_primary_that_is_dead_keeps_nobody(network: Network) -> None:
    words = ["hook", *WHAT, "--shell", shell(network)]
    assert vip(network, "client1", *words, **told("up", "db1", "db1")) == (
        0,
        f"db1: {ADDRESS} is on eth0 now; announced",
    )
    assert vip(network, "client1", *words, **told("down", "db1", "db2"))[0] == 0
    assert holders(network) == []
    assert vip(network, "client1", *words, **told("up", "db1", "db2"))[0] == 0
    assert holders(network) == ["db2"]
    # a failover: nobody has taken it down
    assert vip(network, "client1", *words, **told("up", "db2", "db1"))[0] == 0
    assert holders(network) == ["db1"]
    # its host does not answer us, and is there all the same
    mute = f"sh -c 'case {{server}} in db1) exec sleep 60;; *) exec {shell(network)} \"$@\";; esac' sh"
    silent = ["hook", *WHAT, "--shell", mute, "--patience", "0.5"]
    status, said = vip(network, "client1", *silent, **told("up", "db1", "db2"))
    assert status == 3
    assert "db1: no answer in 0.5 s; db2: 10.77.9.1 is at 02:00:0a:4d:01:01" in said
    assert holders(network) == ["db1"]
    # it is dead
    network.cut("db1")
    status, said = vip(network, "client1", *silent, **told("up", "db1", "db2"))
    assert (status, network.has_address("db2", ADDRESS)) == (0, True), said


def test_a_hook_is_over_in_the_time_that_it_has_though_both_hosts_are_silent(network: Network) -> None:
    """Longer, and the one who waits for it has been killed, while the address comes up somewhere."""
    words = ["hook", *WHAT, "--shell", "sh -c 'exec sleep 60' sh", "--patience", "0.5", "--timeout", "2"]
    status, said = vip(network, "client1", *words, **told("up", "db1", "db2"))
    assert status == 1
    assert said.startswith("not taken down at the old primary: db1: no answer in 0.5 s; db2: no answer in 1.")


def test_without_root_it_says_so(network: Network) -> None:
    setpriv = [find_program("setpriv"), "--reuid", "65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    script = Path("/tmp") / f"{network.mark}.vip"
    shutil.copy(VIP, script)  # where somebody else can read it
    try:
        argv = [*network.launcher("db1"), *setpriv, "/usr/bin/env", "python3", "-IS", str(script), "up", *WHAT]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    finally:
        script.unlink()
    if "Permission denied" in done.stderr and "python3" in done.stderr:
        pytest.skip(f"nobody else has a Python here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr.strip()) == (1, "needs root: ARP is spoken here")


# -- A switchover, a failover: no proxy, and one address that clients know ---------------------------------------------


@pytest.fixture(scope="module")
def site() -> Iterator[NetLab]:
    policy = {"prove": "1s", "freeze_budget": "8s"}
    options = {**LOSSLESS, "bind-address": "0.0.0.0"}  # an address that comes later is served as well
    with NetLab.start(3, 0, policy=policy, proof=False, semi_sync=True, options=options) as lab:
        # one that is off is not reached by any way, as with ssh
        off = f"if [ -e {lab.folder}/{{server}}.off ]; then exec sleep 60; fi"
        reaching = f"sh -c '{off}; exec {shell(lab.network)} \"$@\"' sh"
        argv = [str(VIP), "hook", *WHAT, "--shell", reaching]
        scripts = {"address_down": argv, "address_up": argv}
        assert lab.run("db1", [str(VIP), "up", *WHAT]).returncode == 0
        with configured(lab, scripts=scripts):
            yield lab


@contextlib.contextmanager
def behind(lab: NetLab) -> Iterator[Load]:
    """Writers that know one address only; afterwards nothing that was acknowledged may be missing anywhere."""
    create_table(lab.cluster.primary)
    lab.cluster.await_synced()
    begun = now()
    with lab.load(Address(ADDRESS, 3306), writers=3, rate=20, patience=3) as load:
        yield load
        load.await_more(20, 60)
        ended = now()
        records = load.stop()
    lab.cluster.await_synced()
    verdict: Verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    print(f"behind the address: longest gap {blackout(records, (begun, ended)):.2f} s; {verdict}")
    assert (verdict.lost, verdict.double_primary, verdict.unexplained) == (frozenset(), 0, frozenset()), verdict


def through(lab: NetLab) -> str:
    with lab.inside("client1"):
        return beat(lab, Address(ADDRESS, 3306))


def test_a_switchover_takes_the_address_along(site: NetLab) -> None:
    for _ in range(2):
        new = other(site)
        with behind(site):
            switched(site, "--to", new)
            assert holders(site.network) == [new]
        assert through(site) == new


def test_a_switchover_that_is_undone_brings_the_address_back(site: NetLab) -> None:
    old = site.cluster.primary
    old.make_table("app.in_the_way", "id INT PRIMARY KEY")
    with behind(site), contextlib.ExitStack() as ends:
        clients = Clients(old, ends)
        holder = clients.idle("LOCK TABLES app.in_the_way WRITE")
        with configured(site, switchover={"freeze_budget": "1s"}):
            status, value = site.json("switchover", "--yes")
        assert status == 4, value
        clients.kill(holder)
        assert holders(site.network) == [old.name]
    assert through(site) == old.name


def test_a_failover_takes_the_address_from_a_host_that_lives_and_from_one_that_is_dead(site: NetLab) -> None:
    for dead in (False, True):
        old = site.cluster.primary
        with site.inside("engine1"):
            remembered(site)
        with behind(site):
            off = site.folder / f"{old.name}.off"
            if dead:
                site.cut(old.name)
                off.touch()
            old.kill9()
            failed_over(site, code=7)  # without a proxy nobody can show that no client reaches the old one
            assert through(site) == site.cluster.primary.name
            if dead:  # it starts again, and has no address that was put there by hand
                argv = ["ip", "addr", "del", WHAT[0], "dev", "eth0"]
                netns.command(argv, namespace=site.network.namespace(old.name))
                off.unlink()
            site.mend()
            brought_back(site, old)
        until(lambda: holders(site.network) == [site.cluster.primary.name], "one host to have the address")
