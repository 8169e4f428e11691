"""Real servers behind MaxScale, driven and followed: switchovers under load, the way back, restarts, one of two down.

The MaxScale is the double. Clients are those of a readconnroute here, and see one error for each session that was
writing; those of a readwritesplit are in test_scenarios_maxscale_clients.py.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.clients import Clients
from tests.support.maxscale.answers import Request
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.double import Double
from tests.support.maxscale.site import MaxScaleLab
from tests.support.scene import assert_order, books, other, served_by, switched
from tests.support.wait import until

MODES = ["driving", "following"]
RUNNING, MASTER, SLAVE, MAINTENANCE = Bit.RUNNING, Bit.MASTER, Bit.SLAVE, Bit.MAINTENANCE
POLICY = {"freeze_budget": "3s", "lock_pause": "20ms", "lock_attempt": "100ms"}


@pytest.fixture
def begin() -> Iterator[Callable[..., MaxScaleLab]]:
    with contextlib.ExitStack() as ends:

        def made(mode: str, **settings: object) -> MaxScaleLab:
            settings.setdefault("policy", POLICY)
            return ends.enter_context(contextlib.closing(MaxScaleLab.begin(mode, **settings)))  # type: ignore[arg-type]

        yield made


def roles(site: MaxScaleLab, primary: str) -> dict[str, Bit]:
    return {node.name: RUNNING | (MASTER if node.name == primary else SLAVE) for node in site.cluster}


# -- There and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_there_and_back_under_load(begin: Callable[..., MaxScaleLab], mode: str) -> None:
    site = begin(mode)
    old, new = site.cluster.primary.name, other(site)
    with books(site) as kept:
        value = switched(site, "--to", new)
        assert value["verdict"] == "PROVEN", value
        assert site.bits() == roles(site, new)
        kept.go_on()
        assert switched(site, "--to", old)["verdict"] == "PROVEN"
    assert site.bits() == roles(site, old)
    assert_order(site, old)


@pytest.mark.parametrize("mode", MODES)
def test_two_maxscales_go_the_same_way(begin: Callable[..., MaxScaleLab], mode: str) -> None:
    site = begin(mode, number=2)
    new = other(site)
    with books(site):
        assert switched(site, "--to", new)["verdict"] == "PROVEN"
    for double in site.doubles:
        assert site.bits(double) == roles(site, new)
    assert_order(site, new)


def test_the_plan_says_what_clients_will_see(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving")
    _, value = site.json("plan")
    (told,) = [f for f in value["findings"] if f["code"] == "maxscale.clients"]
    assert told["cure"] == "maxctrl alter service RW delayed_retry=true transaction_replay=true"


def test_maintenance_of_the_operator_stays_through_a_switchover(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving")
    new = other(site)
    third = other(site, new)
    site.double.machine.change(f"mx-{third}", "set", "maintenance")
    assert f"{third} set aside there" in " ".join(site.run("status").stdout.split())
    switched(site, "--to", new)
    assert site.bits() == {**roles(site, new), third: RUNNING | SLAVE | MAINTENANCE}
    assert served_by(site, site.read) != third
    assert_order(site, new)


@pytest.mark.parametrize("mode", MODES)
def test_a_drain_of_the_operator_stays_apart_from_the_roles(begin: Callable[..., MaxScaleLab], mode: str) -> None:
    site = begin(mode)
    new = other(site)
    third = other(site, new)
    site.double.machine.change(f"mx-{third}", "set", "drain")
    with books(site):
        assert switched(site, "--to", new)["verdict"] == "PROVEN"
    assert site.bits() == {**roles(site, new), third: RUNNING | SLAVE | Bit.DRAIN}
    assert_order(site, new)


# -- The way back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_what_is_aborted_before_the_commit_leaves_the_bits_as_they_were(
    begin: Callable[..., MaxScaleLab], mode: str
) -> None:
    site = begin(mode, policy={**POLICY, "freeze_budget": "400ms", "long_wait": "100ms", "long_transaction": "60s"})
    old, before = site.cluster.primary, site.bits()
    old.make_table("app.in_the_way", "id INT PRIMARY KEY")
    with contextlib.ExitStack() as ends:
        Clients(old, ends).idle("LOCK TABLES app.in_the_way WRITE")
        done = site.run("switchover", "--yes")
    assert done.returncode == 4, done.stdout + done.stderr
    assert site.bits() == before
    assert_order(site, old.name)


def test_restarted_on_the_way_back_its_states_are_set_again(begin: Callable[..., MaxScaleLab]) -> None:
    """It is restarted after it was prepared, and the engine is killed in the freeze: the guard goes back."""
    site = begin("driving")
    old, before = site.cluster.primary.name, site.bits()
    once(site.double, lambda request: request.path.endswith("/set") and not request.query, after=True)
    fault = "engine/mariadb.block_writes:after"
    done = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": fault})
    assert done.returncode == -signal.SIGKILL
    until(lambda: site.bits() == before, "the guard to have set the states again")
    until(lambda: not site.json("status")[1]["open_operations"], "the operation to be closed")
    assert_order(site, old)


# -- Restarts -------------------------------------------------------------------------------------------------


def once(double: Double, when: Callable[[Request], bool], *, after: bool = False) -> None:
    """Restarts ``double`` at the first request that fits: before it is handled, or right after."""

    def interfere(request: Request) -> float:
        if not when(request):
            return 0.0
        double.interfere = lambda request: 0.0
        if after:
            double.after_answer = double.restart
            return 0.0
        double.restart()
        return -1

    double.interfere = interfere


@pytest.mark.parametrize("mode", MODES)
def test_restarted_in_the_middle(begin: Callable[..., MaxScaleLab], mode: str) -> None:
    site = begin(mode)
    new = other(site)
    with books(site):
        once(site.double, lambda request: request.method == "PUT" and "state=" in request.query)
        switched(site, "--to", new)
    assert site.bits() == roles(site, new)
    assert_order(site, new)


def test_serve_sets_the_states_again_after_a_restart_and_takes_reads_from_a_dead_replica(
    begin: Callable[..., MaxScaleLab],
) -> None:
    site = begin("driving", more={"serve": {"period": "200ms", "proxies_period": "200ms"}})
    primary, gone = site.cluster.primary.name, site.cluster[other(site)]
    with subprocess.Popen(site.command("serve"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as serving:
        try:
            site.double.restart()
            until(lambda: site.bits() == roles(site, primary), "the states to be set again")
            gone.kill9()
            until(lambda: SLAVE not in site.bits()[gone.name], "reads to be taken from the dead replica")
            assert served_by(site, site.read) != gone.name
            gone.start()
            until(lambda: site.bits() == roles(site, primary), "the replica to get reads again")
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.communicate(timeout=60)
    assert_order(site, primary)


# -- One of two down ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("absent", [True, False])
def test_one_of_two_down_which_is_declared_or_refused(
    begin: Callable[..., MaxScaleLab], mode: str, absent: bool
) -> None:
    site = begin(mode, number=2)
    old, new = site.cluster.primary.name, other(site)
    first, second = site.doubles
    site.write, site.read = second.write, second.read
    first.stop()
    site.change_proxy(absent=absent)
    before = site.bits(second)
    status, value = site.json("switchover", "--yes", "--to", new)
    if absent:
        assert status in (0, 7), value
        assert site.bits(second) == roles(site, new)
        assert site.cluster.writable == (new,)
    else:
        assert status == 3, value
        assert {f["subject"] for f in value["error"]["findings"]} == {"mxs1"}
        assert (site.bits(second), site.cluster.writable) == (before, (old,))


def test_one_that_dies_in_the_middle_is_left_to_heal(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving", number=2)
    new = other(site)
    first, second = site.doubles

    def die(request: Request) -> float:
        if request.method == "PUT" and "state=" in request.query:
            second.stop()
            return -1
        return 0.0

    second.interfere = die
    with books(site):
        switched(site, "--to", new, code=7)
    assert site.bits(first) == roles(site, new)
    second.interfere = lambda request: 0.0
    second.restart()
    assert site.run("heal").returncode == 0
    assert site.bits(second) == roles(site, new)
    assert_order(site, new)


# -- Refused --------------------------------------------------------------------------------------------------


def test_a_monitor_that_would_act_by_itself_is_refused_and_nothing_is_touched(
    begin: Callable[..., MaxScaleLab],
) -> None:
    site = begin("following")
    old, before = site.cluster.primary.name, site.bits()
    site.double.machine.monitors["Mon"].parameters["auto_failover"] = True
    status, value = site.json("switchover", "--yes")
    assert status == 3, value
    assert "Mon" in str(value)
    assert "auto_failover" in str(value)
    assert (site.cluster.writable, site.bits()) == ((old,), before)
