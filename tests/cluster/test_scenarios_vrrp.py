"""A pair of proxy hosts under VRRP: the address moves, and whoever has it leads to the primary that there is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from proxyroute.model import Address
from tests.support import netns
from tests.support.death import LOSSLESS, brought_back, evidence, failed_over, remembered
from tests.support.lab import run_to_end
from tests.support.netlab import NetLab
from tests.support.process import find_program, is_stopped
from tests.support.scene import assert_order, beat, configured, in_its_midst, other, switched
from tests.support.serving import serving
from tests.support.vrrp import FAULTS, Pair, Seen, behind, vrrp_part
from tests.support.wait import until

POLICY = {"freeze_budget": "8s", "lock_pause": "20ms", "lock_attempt": "100ms", "prove": "2s", "settle": "4s"}


@pytest.fixture(scope="module")
def kept() -> Iterator[list[Pair]]:
    """One pair for the module, as long as it is left in order."""
    pairs: list[Pair] = []
    yield pairs
    for pair in pairs:
        end(pair)


@pytest.fixture
def pair(kept: list[Pair]) -> Iterator[Pair]:
    try:
        netns.require()
        find_program("keepalived")
    except (netns.Unavailable, FileNotFoundError) as reason:
        pytest.skip(f"no VRRP between hosts: {reason}")
    if not kept:
        more = {"vrrp": vrrp_part("edge1", "edge2"), "serve": {"period": "200ms", "proxies_period": "400ms"}}
        lab = NetLab.start(3, more=more, policy=POLICY, semi_sync=True, options=LOSSLESS)
        try:
            kept.append(Pair(lab))
            kept[0].start()
        except BaseException:
            kept.clear()
            lab.close()
            raise
    one = kept[0]
    yield one
    try:
        one.await_one()
        in_order(one)
    except BaseException:
        kept.clear()
        end(one)
        raise


def end(pair: Pair) -> None:
    pair.close()
    pair.lab.close()


def in_order(pair: Pair, primary: str | None = None) -> None:
    with pair.lab.inside("client1"):
        assert_order(pair.lab, primary)


def through(pair: Pair, address: Address | None = None) -> str:
    """Returns who takes a write through the virtual address, or another one."""
    with pair.lab.inside("client1"):
        return beat(pair.lab, address or pair.address)


@contextlib.contextmanager
def without(pair: Pair, *names: str) -> Iterator[None]:
    """For a ``with`` block these hosts are declared absent, as a person does for one that is broken."""
    entries = [
        {**host.for_engine(host.shared, pair.lab.folder / "shared.key", 8404), "absent": host.name in names}
        for host in pair.lab.hosts
    ]
    with configured(pair.lab, proxies=entries):
        yield


def moved(pair: Pair, fault: str) -> str:
    """Takes the address away from who has it by ``fault``; returns who that was, when the other one has it."""
    holder = pair.await_one()
    FAULTS[fault](pair, holder)
    if fault == "host":
        pair.await_one()
    until(lambda: set(pair.holders) & set(pair.others(holder)), f"the address to leave {holder}", 30)
    return holder


def back(pair: Pair, name: str, primary: str) -> None:
    """The host is there again: it takes nothing away, and has the route that counts when the address comes to it."""
    has_it = pair.await_one(*pair.others(name))
    pair.restore(name)
    assert pair.await_one() == has_it, "who comes back takes the address away from nobody"
    assert through(pair) == primary
    pair.keepalived[has_it].stop()
    pair.await_one(name)
    assert through(pair) == primary
    pair.restore(has_it)
    assert pair.await_one() == name


def healed(pair: Pair) -> None:
    """What could not be told to a host that was away is told to it now."""
    lab = pair.lab
    until(lambda: run_to_end(lab.command("heal")).returncode == 0, "nothing to be left to do", 60, pause=0.2)
    assert run_to_end(lab.command("publish")).returncode == 0


QUICK = {
    ("switchover", "during", "keepalived"),
    ("switchover", "after", "host"),
    ("failover", "during", "cable"),
}
MATRIX = [
    pytest.param(kind, phase, fault, marks=() if (kind, phase, fault) in QUICK else pytest.mark.full)
    for kind in ("switchover", "failover")
    for phase in ("before", "during", "after")
    for fault in FAULTS
]


@pytest.mark.parametrize(("kind", "phase", "fault"), MATRIX)
def test_the_address_moves_and_leads_to_the_primary(pair: Pair, kind: str, phase: str, fault: str) -> None:
    """A host loses the address before, during or after a switchover or a failover; nobody behind it loses a row."""
    act = switch if kind == "switchover" else fail
    with behind(pair) as seen:
        gone, new = act(pair, seen, phase, fault)
        seen.go_on()
        assert through(pair) == new
        back(pair, gone, new)
        if kind == "failover":
            brought_back(pair.lab, next(node for node in pair.lab.cluster if not node.running))
    # what the address takes to move, and what a client takes to notice that its host is dead
    assert seen.longest_gap < 12, seen
    healed(pair)


def switch(pair: Pair, seen: Seen, phase: str, fault: str) -> tuple[str, str]:
    """Switches over, with ``fault`` at the host that has the address; returns that host, and the new primary."""
    lab, new = pair.lab, other(pair.lab)
    if phase == "before":
        gone = moved(pair, fault)
        seen.go_on()
        with without(pair, gone):
            switched(lab, "--to", new)
    elif phase == "during":
        # a host of which nothing is heard any more: the route is told to it later, or cannot be proved now
        code = 0 if fault == "keepalived" else 7
        with lab.inside("engine1"), in_its_midst(lab, "--to", new, code=code):
            gone = moved(pair, fault)
    else:
        switched(lab, "--to", new)
        gone = moved(pair, fault)
    return gone, new


def fail(pair: Pair, seen: Seen, phase: str, fault: str) -> tuple[str, str]:
    """The primary dies and is replaced, with ``fault`` at the host that has the address; returns as ``switch``."""
    lab, old = pair.lab, pair.lab.cluster.primary
    with lab.inside("engine1"):
        remembered(lab)
    if phase == "before":
        gone = moved(pair, fault)
        seen.go_on()
        old.kill9()
        with without(pair, gone):
            absent(lab, gone, fault)
    elif phase == "during":
        old.kill9()
        with held_up(lab, "failover", "mariadb.accept_writes:before"):
            gone = moved(pair, fault)
    else:
        old.kill9()
        failed_over(lab)
        gone = moved(pair, fault)
    return gone, lab.cluster.primary.name


def absent(lab: NetLab, gone: str, fault: str) -> None:
    """Fails over while the proxy host ``gone`` is declared absent: what is proven depends on what it can still show.

    A host that is off is declared fenced; one whose HAProxy does not run may be asked, and cannot show where that led.
    """
    if fault == "haproxy":
        told = evidence(failed_over(lab, code=7))
        assert f"{gone} was declared absent and has not shown that it sends no writes" in told, told
    else:
        failed_over(lab, *(("--proxy-fenced", gone) if fault == "host" else ()))


@contextlib.contextmanager
def held_up(lab: NetLab, kind: str, point: str) -> Iterator[None]:
    """Runs an operation whose engine stands still at ``point`` for the ``with`` block, and then goes on to its end."""
    environment = {**os.environ, "PROXYROUTE_FAULT": f"engine/{point}@STOP"}
    argv = lab.command(kind, "--yes")
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as command:
        until(lambda: command.poll() is not None or is_stopped(command.pid), f"the engine to stop at {point}")
        yield
        command.send_signal(signal.SIGCONT)
        said, _ = command.communicate(timeout=90)
    assert command.returncode in (0, 7), said


def test_a_host_without_haproxy_refuses_a_switchover_by_its_name(pair: Pair) -> None:
    old = pair.lab.cluster.primary.name
    with behind(pair) as seen:
        gone = moved(pair, "haproxy")
        status, value = pair.lab.json("switchover", "--yes")
        assert status == 3, value
        assert {finding["subject"] for finding in value["error"]["findings"]} == {gone}
        seen.go_on()
    back(pair, gone, old)


def both(pair: Pair) -> None:
    until(lambda: len(pair.holders) == 2, "both hosts to have the address", 30)


def cut_off(pair: Pair) -> Callable[[], None]:
    """The hosts do not hear each other any more; returns what mends that."""
    pair.lab.cut("edge1", "edge2")
    return lambda: pair.lab.mend("edge1", "edge2")


def killed(pair: Pair) -> Callable[[], None]:
    """keepalived is killed where the address is, and leaves it there; returns what mends that."""
    holder = pair.await_one()
    pair.keepalived[holder].kill9()
    return lambda: pair.restore(holder)


@pytest.mark.parametrize("how", [killed, pytest.param(cut_off, marks=pytest.mark.full)])
def test_both_have_the_address_and_lead_to_the_same_primary_and_that_is_told(
    pair: Pair, how: Callable[[Pair], Callable[[], None]]
) -> None:
    lab, new = pair.lab, other(pair.lab)
    with serving(lab) as served, behind(pair) as seen:
        mend = how(pair)
        both(pair)
        told = served.await_told("address", "edge1, edge2 have it at once")
        assert pair.address.host in told
        switched(lab, "--to", new)
        assert {through(pair, host.write) for host in lab.hosts} == {new}
        assert through(pair) == new
        status = lab.json("status")[1]
        assert status["addresses"] == {pair.address.host: ["edge1", "edge2"]}
        assert [f["code"] for f in status["address_findings"]] == ["vip.twice"]
        mend()
        one = pair.await_one()
        served.await_told("address", f"{pair.address.host} is at {one}")
        seen.go_on()
    checked = lab.json("check")[1]
    assert not [f for f in checked["findings"] if f["code"].startswith("vip.")]


def test_nobody_has_the_address_and_that_is_told(pair: Pair) -> None:
    with serving(pair.lab) as served:
        for host in pair.lab.hosts:
            host.haproxy.kill9()
        until(lambda: not pair.holders, "nobody to have the address", 30)
        assert "edge1, edge2 were asked" in served.await_told("address", "no host has it")
        for host in pair.lab.hosts:
            pair.restore(host.name)
        served.await_told("address", f"{pair.address.host} is at {pair.await_one()}")
