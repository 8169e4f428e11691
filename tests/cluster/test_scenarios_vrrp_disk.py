"""A pair under VRRP on a network disk with a host of its own: what becomes of that disk, who is cut off from whom.

Each in a phase of a switchover. Whatever comes of it, clients behind the address lose nothing, one server takes writes
all the time, and when all is well again everybody follows it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxyroute.atomic import put
from tests.cluster.test_scenarios_vrrp import POLICY, healed, in_order, through, without
from tests.support import netns
from tests.support.clients import Clients
from tests.support.disk import Disk, small_disk
from tests.support.gluster import SERVER, Gluster
from tests.support.lab import CLUSTER_NAME
from tests.support.netlab import NetLab
from tests.support.process import find_program
from tests.support.scene import engine, other, switched, under_way
from tests.support.vrrp import Pair, behind, vrrp_part
from tests.support.wait import until

_PATIENCE = 4
"""Seconds after which a mount takes its connection for dead."""


@dataclass
class Site:
    pair: Pair
    gluster: Gluster
    disk: Disk
    stale: bytes = b""
    """What was published some epochs ago."""

    @property
    def lab(self) -> NetLab:
        return self.pair.lab

    @property
    def current(self) -> Path:
        return self.gluster.brick / CLUSTER_NAME / "current.json"


def readable(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(file.read_bytes())
    return False


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        netns.require()
        find_program("keepalived")
        with contextlib.ExitStack() as ends:
            brick = tmp_path_factory.mktemp("brick")
            disk = ends.enter_context(small_disk(brick, 4 << 20))
            disks: list[Gluster] = []

            def mounts(network: object) -> Mapping[str, Path]:
                hosts = ["engine1", "edge1", "edge2"]
                made = Gluster.start(hosts, patience=_PATIENCE, network=network, brick=brick)  # type: ignore[arg-type]
                disks.append(ends.enter_context(made))
                return made.mounts

            more = {"vrrp": vrrp_part("edge1", "edge2")}
            lab = ends.enter_context(NetLab.start(3, more=more, policy=POLICY, others=[SERVER], shared=mounts))
            pair = Pair(lab)
            ends.callback(pair.close)
            pair.start()
            yield Site(pair, disks[0], disk)
    except (netns.Unavailable, FileNotFoundError, PermissionError) as reason:
        pytest.skip(f"no VRRP between hosts with a network disk: {reason}")


@pytest.fixture
def site(kept: Site) -> Iterator[Site]:
    kept.stale = kept.stale or kept.current.read_bytes()
    yield kept
    kept.pair.await_one()
    in_order(kept.pair)


def _disk(do: Callable[[Site], object], undo: Callable[[Site], object]) -> Callable[[Site], Callable[[], object]]:
    def fault(site: Site) -> Callable[[], object]:
        do(site)
        return lambda: undo(site)

    return fault


def _holder(site: Site) -> str:
    return site.pair.await_one()


FAULTS: Mapping[str, Callable[[Site], Callable[[], object]]] = {
    "disk read-only": _disk(lambda s: s.disk.read_only(), lambda s: s.disk.read_only(False)),
    "disk full": _disk(lambda s: s.disk.fill(), lambda s: s.disk.free()),
    "disk frozen": _disk(lambda s: s.gluster.freeze(), lambda s: s.gluster.thaw()),
    "disk gone": _disk(lambda s: s.gluster.cut(), lambda s: s.gluster.restore()),
    "disk stale": _disk(lambda s: put(s.current, s.stale), lambda s: None),  # an engine writes it anew
    "engine from a proxy": _disk(lambda s: s.lab.cut("engine1", "edge1"), lambda s: s.lab.mend()),
    "engine from a replica": _disk(lambda s: s.lab.cut("engine1", other(s.lab, other(s.lab))), lambda s: s.lab.mend()),
    "engine from everybody": _disk(lambda s: s.lab.cut("engine1"), lambda s: s.lab.mend()),
    "a proxy from the disk": _disk(lambda s: s.lab.cut(_holder(s), SERVER), lambda s: s.lab.mend()),
}


def switch(site: Site, phase: str, fault: str, new: str) -> int:
    """Switches over, with ``fault`` before it or while newcomers are held; then all is well again. Returns the code."""
    lab = site.lab
    argv = lab.command("switchover", "--yes", "--to", new)
    if phase == "before":
        mend = FAULTS[fault](site)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        mend()
        return done.returncode
    with while_held(site, new) as ended:
        mend = FAULTS[fault](site)
    mend()
    return ended[0]


@contextlib.contextmanager
def while_held(site: Site, new: str) -> Iterator[list[int]]:
    """A switchover stands still for a ``with`` block, with newcomers held, and ends; then its exit status is there."""
    lab, ended = site.lab, list[int]()
    primary = lab.cluster.primary
    primary.make_table("app.in_the_way", "id INT PRIMARY KEY")
    with contextlib.ExitStack() as ends, lab.inside("engine1"), engine(lab) as reading:
        clients = Clients(primary, ends)
        holder = clients.idle("LOCK TABLES app.in_the_way WRITE")
        argv = lab.command("switchover", "--yes", "--to", new)
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
            until(lambda: under_way(lab), "the switchover to begin")
            until(lambda: reading.observe()[0].held, "newcomers to be held")
            yield ended
            clients.kill(holder)
            ended.append(command.wait(120))


def in_reach(site: Site) -> None:
    """Returns when everybody reads the disk again."""
    for host in site.lab.hosts:
        until(lambda h=host: not h.status()["trouble"], f"{host.name} to have no trouble", 60)
    until(lambda: readable(site.gluster.mounts["engine1"] / CLUSTER_NAME / "current.json"), "the engine to read", 60)


REFUSED, ABORTED, UNFINISHED, LEFT = 3, 4, 5, 7


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("phase", ["before", "during"])
def test_nobody_behind_the_address_loses_anything(site: Site, phase: str, fault: str) -> None:
    old, new = site.lab.cluster.primary.name, other(site.lab)
    with behind(site.pair) as seen:
        code = switch(site, phase, fault, new)
        if fault != "disk stale":  # whoever comes next writes it anew
            in_reach(site)
        healed(site.pair)
        seen.go_on()
    primary = site.lab.cluster.primary.name
    print(f"{fault}, {phase} a switchover: it ended with {code}, {primary} is the primary")
    unusable = fault.startswith("disk") and fault != "disk stale"
    assert code in ({REFUSED} if phase == "before" and unusable else {0, REFUSED, ABORTED, UNFINISHED, LEFT})
    if code != UNFINISHED:  # what it came to then, heal has decided
        assert primary == (old if code in (REFUSED, ABORTED) else new)
    assert through(site.pair) == primary


def stays(site: Site, holder: str, seconds: float) -> None:
    """The address is where it was, all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert site.pair.holders == (holder,)


@pytest.mark.full
def test_a_host_that_may_have_missed_the_end_of_a_switchover_lets_the_other_have_the_address(site: Site) -> None:
    """It is cut off from the disk, and from nothing else, while newcomers are held: its route is the old one's."""
    lab, pair, new = site.lab, site.pair, other(site.lab)
    with behind(pair) as seen:
        holder = pair.await_one()
        (peer,) = pair.others(holder)
        with while_held(site, new) as ended:
            lab.cut(holder, SERVER)
        assert ended[0] in (0, LEFT, UNFINISHED), ended
        pair.await_one(peer)
        assert through(pair) == new
        seen.go_on()
        assert "fell silent" in " ".join(pair[holder].status()["trouble"])
        lab.mend()
        in_reach(site)
        healed(pair)
        until(lambda: not pair.keepalived[holder].steps_back, f"{holder} to know what counts", 30)
        stays(site, peer, 2.0)
        seen.go_on()
    # what the disk takes to be given up, the check to believe it, and VRRP to act: not as long as the disk is away
    assert seen.longest_gap < 14, seen
    assert {through(pair, each.write) for each in lab.hosts} == {new}


@pytest.mark.full
def test_the_address_stays_when_nobody_can_know_how_a_switchover_ended(site: Site) -> None:
    pair = site.pair
    with behind(pair) as seen:
        holder = pair.await_one()
        with while_held(site, other(site.lab)):
            site.gluster.cut()
        both = list(pair.keepalived.values())
        until(lambda: all(one.steps_back for one in both), "both hosts to step back", 30)
        assert pair.holders == (holder,)
        stays(site, holder, 3.0)
        site.gluster.restore()
        in_reach(site)
        healed(pair)
        pair.await_one()
        seen.go_on()


@pytest.mark.full
def test_a_host_that_loses_the_disk_while_nothing_is_going_on_keeps_the_address(site: Site) -> None:
    lab, pair = site.lab, site.pair
    with behind(pair) as seen:
        holder = pair.await_one()
        lab.cut(holder, SERVER)
        until(lambda: pair[holder].status()["trouble"], f"{holder} to lose the disk", 30)
        stays(site, holder, 4.0)
        assert pair[holder].status()["doubt"] is None
        lab.mend()
        in_reach(site)
        seen.go_on()
    assert seen.longest_gap < 1, seen


@pytest.mark.full
def test_a_host_that_comes_back_without_its_disk_gets_no_address(site: Site) -> None:
    """Below its mount point lies what was published when it was switched off: as old as all that it remembers."""
    lab, pair, new = site.lab, site.pair, other(site.lab)
    with behind(pair) as seen:
        gone = pair.await_one()
        host = pair[gone]
        copy = shutil.copytree(host.shared, host.folder / "copy", ignore=shutil.ignore_patterns(".*"))
        pair.power_off(gone)
        shutil.copytree(copy, site.gluster.unmount(gone), dirs_exist_ok=True)
        pair.await_one()
        with without(pair, gone):
            switched(lab, "--to", new)
            pair.power_on(gone)
            until(lambda: "is not mounted" in " ".join(host.status()["trouble"]), f"{gone} to say that it has no disk")
            until(lambda: pair.keepalived[gone].unfit, f"keepalived on {gone} to find its host unfit")
            (has_it,) = pair.others(gone)
            pair.keepalived[has_it].stop()
            until(lambda: pair.holders == (), "nobody to have the address: the old route is worse than none")
            assert host.route().startswith("!closed/")
            pair.keepalived[has_it].start()
            pair.await_one(has_it)
        shutil.rmtree(site.gluster.mounts[gone] / CLUSTER_NAME)
        site.gluster.mount(gone)
        pair.restore(gone)
        healed(pair)
        seen.go_on()
    assert {through(pair, each.write) for each in lab.hosts} == {new}
