"""The engine as a resource of a real Pacemaker cluster, whose nodes are the hosts of the databases."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest

from proxyroute.journal import journals, outcome, read
from tests.support import netns, pacemaker
from tests.support.death import LOSSLESS
from tests.support.lab import CLUSTER_NAME
from tests.support.load import Load, create_table, now, read_rows
from tests.support.managed import ENGINE, FENCE, ManagedLab
from tests.support.mariadb import Node
from tests.support.process import find_program, is_stopped
from tests.support.verdict import blackout, judge
from tests.support.wait import until

AUTOMATIC = {
    "failover": {"mode": "automatic", "profile": "aggressive", "quiet_period": "0s", "per_day": 100},
    "serve": {"period": "200ms", "proxies_period": "400ms"},
}
POLICY = {"freeze_budget": "8s", "lock_pause": "20ms", "prove": "2s", "settle": "4s"}
STOP = 16.0
full = pytest.mark.full


@pytest.fixture(scope="module")
def kept() -> Iterator[list[ManagedLab]]:
    """One cluster for the module, as long as it is left in order."""
    sites: list[ManagedLab] = []
    yield sites
    for site in sites:
        site.close()


@pytest.fixture
def managed(kept: list[ManagedLab]) -> Iterator[ManagedLab]:
    try:
        netns.require()
        pacemaker.require()
    except (netns.Unavailable, OSError) as reason:
        pytest.skip(f"no Pacemaker cluster: {reason}")
    if not kept:
        options: dict[str, Any] = {"semi_sync": True, "options": LOSSLESS, "policy": POLICY}
        kept.append(ManagedLab.start(more=AUTOMATIC, stop=f"{STOP:g}s", **options))
    one = kept[0]
    yield one
    try:
        in_order(one)
    except BaseException:
        kept.clear()
        one.close()
        raise


def in_order(site: ManagedLab) -> None:
    """Asserts that every node is there, the engine serves on one, and the cluster of servers is whole."""
    for name, node in site.site.nodes.items():
        if not node.running:
            site.bring_back(name)
    for node in site.lab.cluster:
        assert node.running, f"{node.name} is left dead"
    site.site.await_at(ENGINE)
    primary = site.lab.cluster.primary
    others = [node for node in site.lab.cluster if node is not primary]
    until(lambda: all(node.replicates() for node in others), "every other server to follow", 60)
    until(lambda: not unfinished(site), "no operation to be open", 60)


def unfinished(site: ManagedLab) -> list[str]:
    folder = site.state / CLUSTER_NAME / "journal"
    return [file.stem for file in journals(folder) if outcome(read(file)) is None]


@contextlib.contextmanager
def clients(site: ManagedLab) -> Iterator[Load]:
    """Clients behind the proxy, for a ``with`` block; what they were told is true in the end, and nothing is lost."""
    lab = site.lab
    create_table(lab.cluster.primary)
    lab.cluster.await_synced()
    begun = now()
    with lab.load(writers=3, rate=20, patience=2.0) as load:
        load.await_more(5)
        yield load
        load.await_more(5, 60)
        records, ended = load.stop(), now()
    alive = [node for node in lab.cluster if node.running]
    until(lambda: all(n is lab.cluster.primary or n.replicates() for n in alive), "those that live to follow", 60)
    position = lab.cluster.primary.gtid()
    assert all(node.await_position(position) for node in alive if node is not lab.cluster.primary)
    verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    print(f"clients: longest gap {blackout(records, (begun, ended)):.2f} s; {verdict}")
    assert not verdict.lost, verdict
    assert not verdict.double_primary, verdict
    assert not verdict.unexplained, verdict


def moved(site: ManagedLab, to: str) -> None:
    """Makes ``to`` the primary."""
    status, value = site.json(site.at, "switchover", "--yes", "--to", to)
    assert status == 0, value


def test_it_acts_where_it_is_started_and_moves_with_its_address_when_its_node_dies_together_with_the_primary(
    managed: ManagedLab,
) -> None:
    site = managed.site
    assert managed.at == "db1"
    assert managed.holder() == ("db1",)
    assert managed.lab.cluster.primary.name == "db1"
    refused = managed.run("db2", "switchover", "--yes", "--to", "db2")
    assert (refused.returncode, "it is Started at db1" in refused.stdout + refused.stderr) == (3, True)
    _, status = managed.json("db2", "status")
    assert (status["lease"]["kind"], status["lease"]["holder"]) == ("pacemaker", "db1")
    assert managed.run("db1", "check").returncode == 0

    with clients(managed):
        began = time.monotonic()
        site.cut_power("db1")
        at = site.await_at(ENGINE, "db2", "db3")
        there = time.monotonic() - began
        until(lambda: managed.told("acted"), "the engine that has come to fail over", 40)
        print(f"started at {at} after {there:.1f} s, failed over after {time.monotonic() - began:.1f} s")
    assert managed.holder() == (at,)
    assert managed.lab.cluster.primary.name != "db1"
    assert any("DeadPrimary" in text for text in managed.told("diagnosis")), "it has known who was the primary"


@full
@pytest.mark.parametrize(
    ("point", "ended"), [("mariadb.block_writes:after", "aborted"), ("mariadb.accept_writes:after", "done")]
)
def test_stopped_in_mid_switchover_it_ends_in_time_and_the_next_node_goes_on(
    managed: ManagedLab, point: str, ended: str
) -> None:
    """The command and its guard stand still, as on a host that hangs; whatever they have begun is in the journal."""
    site, here, primary = managed.site, managed.at, managed.lab.cluster.primary
    candidate = next(n.name for n in managed.lab.cluster if n is not primary)
    before = set(journals(managed.state / CLUSTER_NAME / "journal"))
    switching = managed.popen(
        here, "switchover", "--yes", "--to", candidate, environment={"PROXYROUTE_FAULT": f"engine/{point}:1@STOP"}
    )
    try:
        until(lambda: [pid for pid in managed.processes("switchover") if is_stopped(pid)], "the command to stop there")
        guards = managed.processes("proxyroute.guard")
        assert guards
        for pid in guards:
            os.kill(pid, signal.SIGSTOP)
        (file,) = set(journals(managed.state / CLUSTER_NAME / "journal")) - before
        assert outcome(read(file)) is None

        began = time.monotonic()
        site.standby(here)
        at = site.await_at(ENGINE, *(n for n in site.nodes if n != here), seconds=STOP + 30)
        took = time.monotonic() - began
        until(lambda: outcome(read(file)), f"the engine at {at} to go on", 60)
        print(f"stopped at {here} and started at {at} within {took:.1f} s; the stop may take {STOP:g} s")
    finally:
        for pid in (*managed.processes("proxyroute.guard"), *managed.processes("switchover")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        switching.wait(10)
        assert switching.stdout is not None
        switching.stdout.close()
        site.standby(here, over=True)
    assert outcome(read(file)) == ended
    assert managed.lab.cluster.primary.name == (primary.name if ended == "aborted" else candidate)


@full
def test_an_engine_that_hangs_in_mid_failover_is_ended_in_time_and_its_guard_goes_on_while_it_is_stopped(
    managed: ManagedLab,
) -> None:
    site, first = managed.site, managed.at
    # a process that has healed something before goes by that name
    managed.fault.write_text(",".join(f"{role}/mariadb.accept_writes:before:1@STOP" for role in ("serve", "heal")))
    site.standby(first)
    here = site.await_at(ENGINE, *(n for n in site.nodes if n != first), seconds=STOP + 30)
    managed.fault.unlink()
    site.standby(first, over=True)
    _, primary = away_from(managed)
    before = set(journals(managed.state / CLUSTER_NAME / "journal"))
    primary.kill9()
    try:
        hung = until(lambda: [p for p in managed.processes("serve") if is_stopped(p)], "the engine to stand still", 40)
    except AssertionError as error:
        raise AssertionError(f"{error}; it told:\n{managed.log.read_text()[-4000:]}") from None
    (file,) = set(journals(managed.state / CLUSTER_NAME / "journal")) - before
    assert outcome(read(file)) is None
    began = time.monotonic()
    site.standby(here)
    at = site.await_at(ENGINE, *(n for n in site.nodes if n != here), seconds=STOP + 30)
    print(f"ended at {here} and started at {at} within {time.monotonic() - began:.1f} s")
    site.standby(here, over=True)
    assert not set(hung) & set(managed.processes("serve"))
    assert [r["by"] for r in read(file) if r["kind"] == "resumed"][:1] == ["guard"]
    assert outcome(read(file)) == "done"
    assert managed.lab.cluster.primary is not primary
    primary.start()
    until(primary.replicates, "the old primary to follow", 60)


def away_from(managed: ManagedLab) -> tuple[str, Node]:
    """Returns the engine's node, and the primary, which lives on another one: it is moved there if need be."""
    here = managed.at
    if managed.lab.cluster.primary.name == here:
        moved(managed, next(n.name for n in managed.lab.cluster if n.name != here))
    return here, managed.lab.cluster.primary


@full
def test_a_node_that_is_cut_off_may_not_act_and_nobody_else_does_before_it_is_fenced(managed: ManagedLab) -> None:
    site, (here, primary) = managed.site, away_from(managed)
    others = [name for name in site.nodes if name != here]
    seen_by = site[others[0]]
    site.broken = True
    managed.lab.cut(here)
    until(
        lambda: site.look(seen_by).find(f"nodes/node[@name='{here}'][@unclean='true']") is not None,
        "it to be missed",
        30,
    )
    until(lambda: "no quorum" in managed.run(here, "check").stdout, "the node to know that it is alone", 60)
    acting = managed.run(here, "switchover", "--yes")
    assert acting.returncode == 3, acting.stdout
    elsewhere = managed.run(others[0], "switchover", "--yes")
    assert (elsewhere.returncode, "is not started here" in elsewhere.stdout + elsewhere.stderr) == (3, True)

    site.broken = False
    at = until(lambda: site.where(ENGINE, by=seen_by) in others and site.where(ENGINE, by=seen_by), "it to move", 60)
    assert at in others
    assert not site[here].running, "it was fenced first"
    assert managed.lab.cluster.primary is primary


@full
@pytest.mark.parametrize("by", ["its device", "a person"])
def test_where_the_cluster_manager_decides_its_confirmation_is_asked_for(managed: ManagedLab, by: str) -> None:
    """A person, or a program, fails over when the host of the primary is fenced; the word of the cluster counts."""
    site, (here, primary) = managed.site, away_from(managed)
    assert managed.run(here, "pause", "--why", "the cluster manager decides").returncode == 0

    def asked() -> tuple[int, str]:
        done = managed.run(here, "failover", "--yes", "--fenced-by", "pacemaker")
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    try:
        primary.kill9()
        status, words = asked()
        assert (status, f"{primary.name} is a member of the cluster" in words) == (3, True), words

        site.broken = True
        site.lose(primary.name)
        until(lambda: primary.name in site.unclean(), "the cluster to want it fenced", 30)
        status, words = asked()
        assert (status, "nobody has confirmed yet" in words) == (3, True), words
        assert not [n for n in managed.lab.cluster if n.running and n.value("@@global.read_only") == "OFF"]

        if by == "a person":
            site.any.run(["stonith_admin", f"--confirm={primary.name}"], check=True)
        else:
            site.broken = False
        until(lambda: primary.name not in site.unclean(), "it to be fenced", 60)
        status, words = asked()
        assert status in (0, 7), words
        assert f"{primary.name} is fenced by pacemaker ({primary.name}: off," in words
        assert managed.lab.cluster.primary.name != primary.name
    finally:
        site.mend_device()
        managed.run(here, "resume")


@full
def test_a_running_cluster_is_configured_and_run_by_pcs_as_documented(managed: ManagedLab) -> None:
    """It comes to what crm makes of its own; and the commands of the rehearsal and of the maintenance do."""
    try:
        pcs = find_program("pcs")
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    site = managed.site

    def typed(*words: str) -> str:
        return site.any.run([pcs, *words], check=True).stdout

    def configured() -> dict[str, Any]:
        return essence(site.any.run(["cibadmin", "--query", "--scope", "configuration"], check=True).stdout)

    def noticed(*words: str) -> str:
        """Returns what serve says of the standing orders, once it says something new after these words."""
        before = len(managed.told("orders"))
        typed(*words)
        return str(until(lambda: managed.told("orders")[before:], f"serve to notice {' '.join(words)}", 20)[-1])

    by_crm = configured()
    try:
        managed.reconfigure("pcs", f"{STOP:g}s")
        assert managed.at == "db1", "it came where it is to stay"
        assert configured() == by_crm
        until(lambda: managed.holder() == ("db1",), "the address to be there as well")
        primary = managed.lab.cluster.primary.name
        away = next(node.name for node in managed.lab.cluster if node.name != primary)
        with clients(managed):
            moved(managed, away)
            typed("resource", "move", "engine", "db2")
            assert site.await_at(ENGINE, "db2") == "db2"
            assert configured() == by_crm, "nothing is left to take back"
            moved(managed, primary)
        assert noticed("property", "set", "maintenance-mode=true") == "the cluster manager is in maintenance mode"
        assert noticed("property", "set", "maintenance-mode=false").startswith("no more: ")
        assert "does not manage proxyroute" in noticed("resource", "unmanage", "proxyroute")
        assert noticed("resource", "manage", "proxyroute").startswith("no more: ")
    finally:
        managed.reconfigure("crm", f"{STOP:g}s")


def essence(text: str) -> dict[str, Any]:
    """Returns what a configuration of the cluster comes to, without the ids that each tool makes up."""
    root = ET.fromstring(text)
    found: dict[str, Any] = {}
    for one in root.iter("primitive"):
        operations = {o.get("name"): (o.get("interval", "0").rstrip("s"), o.get("timeout")) for o in one.iter("op")}
        wanted = {n: v for n, v in operations.items() if n == "monitor" or one.get("id") == ENGINE}
        kind = (one.get("class"), one.get("provider"), one.get("type"))
        values = {v.get("name"): v.get("value") for v in one.findall("instance_attributes/nvpair")}
        found[str(one.get("id"))] = (kind, values, wanted)
    for group in root.iter("group"):
        found["group"] = (group.get("id"), [p.get("id") for p in group.findall("primitive")])
        found["meta"] = {v.get("name"): v.get("value") for v in group.findall("meta_attributes/nvpair")}
    for place in root.iter("rsc_location"):
        found["place"] = (place.get("rsc"), place.get("node"), place.get("score"))
    return found


@full
def test_the_rehearsal_of_the_guide(managed: ManagedLab) -> None:
    site, first = managed.site, managed.at
    assert managed.run(first, "check").returncode == 0
    there = next(name for name in site.nodes if name != first)
    before = managed.lab.cluster.primary.name
    away = next(n.name for n in managed.lab.cluster if n.name != before)
    with clients(managed):
        moved(managed, away)
        site.crm("resource", "move", "engine", there, "force")
        assert site.await_at(ENGINE, there) == there
        site.crm("resource", "clear", "engine")
        until(lambda: managed.holder() == (there,), "the address to be there as well")
        moved(managed, before)
    assert managed.lab.cluster.primary.name == before


@full
def test_in_maintenance_nothing_is_done_by_itself_and_afterwards_it_is(managed: ManagedLab) -> None:
    site, (here, primary) = managed.site, away_from(managed)
    orders, acted = len(managed.told("orders")), len(managed.told("acted"))
    site.maintain(True)
    until(lambda: len(managed.told("orders")) > orders, "serve to see the maintenance", 20)
    assert managed.told("orders")[-1] == "the cluster manager is in maintenance mode"
    primary.kill9()
    until(lambda: any("DeadPrimary" in t for t in managed.told("diagnosis")[-2:]), "the death to be named", 20)
    looks = 0
    end = time.monotonic() + 6.0
    while time.monotonic() < end:  # an aggressive failover takes a second
        assert len(managed.told("acted")) == acted
        looks += 1
        time.sleep(0.2)
    assert looks > 10
    assert "maintenance" in managed.run(here, "status").stdout
    site.maintain(False)
    until(lambda: len(managed.told("acted")) > acted, "the failover after the maintenance", 30)
    assert managed.lab.cluster.primary.name != primary.name
    primary.start()
    until(primary.replicates, "the old primary to follow", 60)


@full
def test_an_automatic_failover_has_the_host_of_the_old_primary_fenced_by_the_cluster(managed: ManagedLab) -> None:
    """A server that ended, on a host that lives: only the power switch makes sure that it does not come back unseen."""
    site, (here, primary) = managed.site, away_from(managed)
    hooks = {"timeout": "60s", "fence": [str(FENCE)]}
    with managed.served_with(scripts=hooks), clients(managed):
        assert not [f for f in managed.json(here, "check")[1]["findings"] if "fence" in f["subject"]]
        acted = len(managed.told("acted"))
        primary.kill9()
        until(lambda: not site[primary.name].running, "the cluster to switch the host off", 40)
        until(lambda: len(managed.told("acted")) > acted, "the failover", 40)
    assert managed.lab.cluster.primary is not primary
    _, history = managed.json(here, "history")
    last = history["operations"][0]
    assert (last["kind"], last["fencing"], last["fenced_by"]) == ("failover", "fenced", "the script at fence"), last
    assert managed.at == here
    # once more, by the engine's user, who is no root: the device says that it is off
    user = ["setpriv", "--reuid=nobody", "--regid=haclient", "--clear-groups", "sh", "-c", FENCE.read_text()]
    told = {"PROXYROUTE_MOMENT": "fence", "PROXYROUTE_OLD_PRIMARY": primary.name}
    assert site[here].run(user, check=True, environment=told).stdout == f"{primary.name} is fenced\n"
