"""What only MaxScale has: bits, monitors, an API that can be held up, accounts, and the words with which it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxyroute.model import Address, Finding, ReceiptState, Severity
from tests.contract.maxscales import MaxScaleSubject, password
from tests.contract.subjects import soon, table
from tests.support.certificates import Certificate, make_certificate
from tests.support.maxscale.answers import Request
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.double import Tls
from tests.support.maxscale.versions import VERSIONS, defaults
from tests.support.wait import until

RUNNING, MASTER, SLAVE, MAINTENANCE, DRAIN = Bit.RUNNING, Bit.MASTER, Bit.SLAVE, Bit.MAINTENANCE, Bit.DRAIN

Make = Callable[..., MaxScaleSubject]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes subjects; started and published unless ``start=False``."""
    with contextlib.ExitStack() as ends:

        def made(mode: str = "driving", *, start: bool = True, **settings: Any) -> MaxScaleSubject:
            subject = MaxScaleSubject(tmp_path, mode, **settings)
            ends.callback(subject.close)
            if start:
                subject.start()
            else:
                subject.double.start()
            return subject

        yield made


@pytest.fixture
def driven(make: Make) -> MaxScaleSubject:
    return make("driving")


@pytest.fixture
def followed(make: Make) -> MaxScaleSubject:
    return make("following")


def codes(findings: Any) -> dict[str, Finding]:
    return {f.code: f for f in findings}


# -- Bits -----------------------------------------------------------------------------------------------------


def test_a_route_is_every_bit_of_every_server(driven: MaxScaleSubject) -> None:
    assert driven.adapter().settle(table(driven.servers, (1, 2), "db2", {"db1": 100}), soon()).state == "done"
    assert driven.bits() == {"db1": RUNNING | SLAVE, "db2": RUNNING | MASTER, "db3": RUNNING}


def test_the_new_master_comes_before_the_old_one_goes(driven: MaxScaleSubject) -> None:
    driven.double.requests.clear()
    driven.adapter().apply(table(driven.servers, (1, 2), "db2"), soon())
    changes = [(path, query) for method, path, query in driven.double.requests if method == "PUT"]
    assert changes == [("/v1/servers/server2/set", "state=master"), ("/v1/servers/server1/clear", "state=master")]
    assert len(driven.double.requests) == 4, "one reading before and one after, inside the blackout"


def test_hidden_bits_are_cleared_as_well(driven: MaxScaleSubject) -> None:
    driven.double.machine.servers["server1"].bits = MASTER | SLAVE | MAINTENANCE | RUNNING
    driven.double.machine.servers["server3"].bits = MASTER | SLAVE
    assert driven.adapter().settle(table(driven.servers, (1, 2), "db2", {"db1": 100}), soon()).state == "done"
    assert driven.bits() == {"db1": RUNNING | SLAVE | MAINTENANCE, "db2": RUNNING | MASTER, "db3": Bit.NONE}


def test_without_a_replica_the_primary_serves_reads_and_has_no_slave_bit(driven: MaxScaleSubject) -> None:
    alone = table(driven.servers, (1, 2), "db1", {"db1": 100})
    assert driven.adapter().settle(alone, soon()).state == "done"
    assert driven.bits() == {"db1": RUNNING | MASTER, "db2": RUNNING, "db3": RUNNING}
    assert driven.adapter().observe(soon()).readers == ("db1",)


def test_maintenance_and_drain_are_the_operators(driven: MaxScaleSubject) -> None:
    driven.double.machine.change("server3", "set", "maintenance")
    driven.double.machine.change("server1", "set", "drain")
    adapter = driven.adapter()
    assert adapter.settle(table(driven.servers, (1, 2), "db2"), soon()).state == "done"
    assert driven.bits() == {
        "db1": RUNNING | SLAVE | DRAIN, "db2": RUNNING | MASTER, "db3": RUNNING | SLAVE | MAINTENANCE,
    }  # fmt: skip
    seen = adapter.observe(soon())
    assert (seen.aside, seen.drift, seen.primary) == (("db1", "db3"), (), "db2")
    told = [f for f in adapter.check(soon()) if f.code == "maxscale.aside"]
    assert [f.cure.split(": ")[1] for f in told] == [
        "maxctrl clear server server1 drain", "maxctrl clear server server3 maintenance",
    ]  # fmt: skip


@pytest.mark.parametrize(("state", "word"), [("maintenance", "maintenance"), ("drain", "drain")])
def test_a_candidate_that_is_set_aside_is_refused_before_anything_is_blocked(
    driven: MaxScaleSubject, state: str, word: str
) -> None:
    driven.double.machine.change("server2", "set", state)
    target, abort = table(driven.servers, (1, 2), "db2"), table(driven.servers, (1, 1), "db1")
    receipt = driven.adapter().prepare(target, abort, soon())
    assert receipt.state is ReceiptState.FAILED
    assert f"maxctrl clear server server2 {word}" in receipt.detail


def test_two_masters_are_nobodys_route(driven: MaxScaleSubject) -> None:
    driven.double.machine.change("server2", "set", "master")
    seen = driven.adapter().observe(soon())
    assert seen.primary is None
    assert "writes may go to db1 and db2" in seen.drift


# -- Epochs ---------------------------------------------------------------------------------------------------


def test_the_epoch_is_kept_in_maxscale_and_older_ones_are_forgotten(driven: MaxScaleSubject) -> None:
    driven.adapter().settle(table(driven.servers, (3, 7), "db2"), soon())
    assert [n for n in driven.double.machine.servers if n.startswith("proxyroute")] == ["proxyroute-shop-3-7-db2"]
    seen = driven.adapter().observe(soon())
    assert str(seen.published) == "db2/3.7"


def test_another_cluster_on_the_same_maxscale_keeps_its_own(driven: MaxScaleSubject) -> None:
    other = driven.kind("edge1", "shop-two", driven.servers, driven.settings)
    assert other.settle(table(driven.servers, (9, 9), "db1"), soon()).state == "done"
    assert str(driven.adapter().observe(soon()).epoch) == "1.1"
    assert str(other.observe(soon()).epoch) == "9.9"


# -- Restarts, and an API that does not answer ------------------------------------------------------------------


def test_a_restart_loses_the_states_and_that_is_seen_and_told(driven: MaxScaleSubject) -> None:
    driven.double.restart()
    adapter = driven.adapter()
    seen = adapter.observe(soon())
    assert (seen.reachable, seen.primary, str(seen.epoch)) == (True, None, "1.1")
    assert any("restarted" in text for text in seen.drift)
    assert codes(adapter.check(soon()))["maxscale.lost"].cure == "proxyroute publish"
    assert adapter.settle(table(driven.servers, (1, 1), "db1"), soon()).state == "done"
    assert driven.bits() == {"db1": RUNNING | MASTER, "db2": RUNNING | SLAVE, "db3": RUNNING | SLAVE}


def test_a_restart_between_prepare_and_the_way_back_is_made_good(driven: MaxScaleSubject) -> None:
    adapter = driven.adapter()
    target, abort = table(driven.servers, (1, 2), "db2"), table(driven.servers, (1, 1), "db1")
    before = driven.bits()
    assert adapter.prepare(target, abort, soon()).state == "prepared"
    driven.double.restart()
    receipt = adapter.release(soon())
    assert (receipt.state, "restarted" in receipt.detail) == (ReceiptState.DONE, True)
    assert driven.bits() == before


def test_a_change_whose_answer_is_lost_is_looked_at_and_goes_on(driven: MaxScaleSubject) -> None:
    lost: list[Request] = []

    def drop_once(request: Request) -> float:
        if request.method == "PUT" and not lost:
            lost.append(request)
            return -1
        return 0

    driven.double.interfere = drop_once
    assert driven.adapter().apply(table(driven.servers, (1, 2), "db2"), soon()).state == "done"
    assert lost
    assert driven.double.bits("server2") & MASTER


def test_a_change_that_is_done_and_never_answered_is_unknown_then_found(driven: MaxScaleSubject) -> None:
    answered = threading.Event()
    driven.double.interfere = lambda request: 0.0 if answered.is_set() or request.method == "GET" else 0.3
    adapter = driven.adapter(timeout=0.05)
    receipt = adapter.apply(table(driven.servers, (1, 2), "db2"), soon(0.2))
    assert receipt.state in (ReceiptState.UNKNOWN, ReceiptState.DONE)
    answered.set()
    assert adapter.apply(table(driven.servers, (1, 2), "db2"), soon()).state == "done"


def test_an_api_that_is_held_up_costs_no_more_than_the_deadline(driven: MaxScaleSubject) -> None:
    with driven.double.machine.main():
        adapter = driven.adapter(timeout=0.05)
        done: list[Any] = []
        thread = threading.Thread(
            target=lambda: done.append(adapter.apply(table(driven.servers, (1, 2), "db2"), soon(0.1)))
        )
        thread.start()
        thread.join(10)
    assert [r.state for r in done] == [ReceiptState.FAILED], "nothing could be read, so nothing was sent"
    assert driven.adapter().observe(soon()).primary == "db1"


def test_two_maxscales_are_told_side_by_side_and_one_that_is_down_is_told_apart(make: Make) -> None:
    from proxyroute.routes import Routes

    one, two = make("driving"), make("driving")
    second = two.kind("edge2", "shop", two.servers, two.settings)
    routes = Routes([one.adapter(), second], absent=["edge2"])
    two.break_down()
    receipts = routes.settle(table(one.servers, (1, 2), "db2"), soon())
    assert {r.proxy: r.state for r in receipts}["edge1"] == "done"
    assert {r.proxy: r.state for r in receipts}["edge2"] != "done"
    assert routes.missing(receipts, ReceiptState.DONE) == []


# -- Driving beside a monitor -----------------------------------------------------------------------------------


def test_driving_is_refused_while_a_monitor_runs(make: Make) -> None:
    subject = make("driving", start=False, monitor=True)
    adapter = subject.adapter()
    finding = codes(adapter.check(soon()))["maxscale.monitor"]
    assert finding.severity is Severity.ERROR
    assert "maxctrl stop monitor Mon" in finding.cure
    target = table(subject.servers, (1, 2), "db2")
    assert adapter.prepare(target, target, soon()).state is ReceiptState.FAILED
    receipt = adapter.apply(target, soon())
    assert receipt.state is ReceiptState.FAILED
    assert "Mon runs and owns" in receipt.detail


def test_a_monitor_is_stopped_when_that_is_meant_and_it_is_said(make: Make) -> None:
    subject = make("driving", start=False, monitor=True)
    adapter = subject.adapter(stop_monitor=True)
    assert "stop_monitor" in codes(adapter.check(soon()))["maxscale.monitor_stopped"].text
    before = subject.bits()
    target, abort = table(subject.servers, (1, 2), "db2"), table(subject.servers, (1, 1), "db1")
    receipt = adapter.prepare(target, abort, soon())
    assert (receipt.state, receipt.evidence["stopped"]) == (ReceiptState.PREPARED, "Mon")
    assert not subject.double.machine.monitors["Mon"].running
    assert subject.bits() == before, "stopping freezes the states"
    assert adapter.apply(target, soon()).state == "done"
    assert adapter.settle(target, soon()).state == "done"
    subject.double.restart()
    assert subject.double.machine.monitors["Mon"].running
    assert adapter.settle(target, soon()).state == "done", "it is stopped again"
    assert codes(adapter.check(soon()))["maxscale.monitor_stopped"].severity is Severity.WARNING


def test_a_monitor_that_is_back_after_a_restart_is_drift_and_settled(make: Make) -> None:
    subject = make("driving", start=False, monitor=True, monitor_parameters={"auto_failover": True})
    adapter = subject.adapter(stop_monitor=True)
    target, abort = table(subject.servers, (1, 2), "db2"), table(subject.servers, (1, 1), "db1")
    assert adapter.prepare(target, abort, soon()).state == "prepared"
    assert adapter.settle(target, soon()).state == "done"
    assert adapter.observe(soon()).drift == ()
    subject.double.restart()
    assert any("Mon" in text for text in adapter.observe(soon()).drift)
    assert adapter.settle(target, soon()).state == "done"
    assert adapter.observe(soon()).drift == ()
    finding = codes(adapter.check(soon()))["maxscale.own_will"]
    assert "auto_failover promotes another server" in finding.text, "until it is stopped, after each restart"
    assert finding.cure == "maxctrl alter monitor Mon auto_failover=false"


# -- Following --------------------------------------------------------------------------------------------------


def test_the_monitor_is_made_to_look_at_once(followed: MaxScaleSubject) -> None:
    followed.move("db2")
    ticks = followed.double.machine.monitors["Mon"].ticks
    assert followed.adapter().apply(table(followed.servers, (1, 2), "db2"), soon()).state == "done"
    assert followed.double.machine.monitors["Mon"].ticks > ticks
    assert followed.double.state("server2") == "Master, Running"


def test_what_the_monitor_cannot_see_yet_is_unknown_and_it_looks_on_in_the_background(make: Make) -> None:
    subject = make("following")
    adapter = subject.kind("edge1", "shop", subject.servers, dataclasses.replace(subject.settings, apply_wait=0.0))
    receipt = adapter.apply(table(subject.servers, (1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.UNKNOWN
    assert "writes go to db1, not to db2" in receipt.detail
    subject.move("db2")
    until(lambda: subject.double.state("server2") == "Master, Running", "the monitor to have looked")
    assert adapter.settle(table(subject.servers, (1, 2), "db2"), soon()).state == "done"


def test_a_look_that_takes_longer_than_a_request_may_is_awaited(make: Make) -> None:
    """As when the primary's host is gone: every look takes as long as the monitor waits for it."""
    subject = make("following", look_seconds=0.6)
    settings = dataclasses.replace(subject.settings, timeout=0.4, apply_wait=0.1)
    adapter = subject.kind("edge1", "shop", subject.servers, settings)
    target = table(subject.servers, (1, 2), "db2")
    subject.move("db2")
    assert adapter.apply(target, soon()).state is ReceiptState.UNKNOWN, "the look goes on"
    began = time.monotonic()
    assert adapter.settle(target, soon(5)).state == "done"
    assert time.monotonic() - began < 3


def test_a_look_that_outlasts_even_that_counts_when_it_is_over(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyroute.maxscale.settings._LOOK", 0.4)
    subject = make("following", start=False, look_seconds=0.6)
    subject.move("db2")
    assert subject.adapter(timeout=0.4).settle(table(subject.servers, (1, 2), "db2"), soon(5)).state == "done"


OWN_WILL = sorted(
    {
        name
        for version in VERSIONS
        for name in defaults("monitor", version)
        if name.startswith(("auto_", "enforce_")) or name == "switchover_on_low_disk_space"
    }
)
"""Every parameter of any version that was recorded by which a mariadbmon acts by itself."""


def test_all_that_makes_a_monitor_act_by_itself_is_among_what_was_recorded() -> None:
    assert OWN_WILL == [
        "auto_failover", "auto_rejoin", "enforce_read_only_servers", "enforce_read_only_slaves",
        "enforce_simple_topology", "enforce_writable_master", "switchover_on_low_disk_space",
    ]  # fmt: skip


@pytest.mark.parametrize(("parameter", "value"), [*((name, True) for name in OWN_WILL), ("auto_failover", "safe")])
def test_a_monitor_that_would_act_by_itself_is_refused_by_name(make: Make, parameter: str, value: Any) -> None:
    subject = make("following", start=False, monitor_parameters={parameter: value, "monitor_interval": "60000ms"})
    adapter = subject.adapter()
    finding = codes(adapter.check(soon()))["maxscale.monitor"]
    assert f"monitor Mon would act by itself: {parameter}" in finding.text
    assert finding.cure == f"maxctrl alter monitor Mon {parameter}=false"
    target = table(subject.servers, (1, 2), "db2")
    receipt = adapter.prepare(target, target, soon())
    assert receipt.state is ReceiptState.FAILED
    assert parameter in receipt.detail


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"monitor": False}, "mode: driving"),
        ({"running": False}, "maxctrl start monitor Mon"),
    ],
)
def test_following_needs_one_monitor_that_runs(make: Make, settings: dict[str, Any], cure: str) -> None:
    subject = make("following", start=False, **settings)
    assert cure in codes(subject.adapter().check(soon()))["maxscale.monitor"].cure


# -- Findings ---------------------------------------------------------------------------------------------------


def test_a_server_it_does_not_know_is_told_with_the_line_to_type(driven: MaxScaleSubject) -> None:
    more = (*driven.servers, dataclasses.replace(driven.servers[0], name="db4", address=Address("10.0.0.4", 3306)))
    adapter = driven.kind("edge1", "shop", more, driven.settings)
    finding = codes(adapter.check(soon()))["maxscale.unknown_server"]
    assert finding.cure == "maxctrl create server db4 10.0.0.4 3306 && maxctrl link service SERVICE db4"
    target = table(more, (1, 2), "db4")
    assert "not at all" in adapter.prepare(target, target, soon()).detail


def test_a_server_it_knows_twice_is_told_with_the_line_to_type(driven: MaxScaleSubject) -> None:
    driven.double.machine.add_server("again", driven.servers[1].address)
    finding = codes(driven.adapter().check(soon()))["maxscale.twice"]
    assert "server2 and again" in finding.text
    assert finding.cure.endswith(": maxctrl destroy server again --force")
    target = table(driven.servers, (1, 2), "db2")
    assert "several times" in driven.adapter().prepare(target, target, soon()).detail


def test_a_wrong_password_is_told_as_one(driven: MaxScaleSubject, tmp_path: Path) -> None:
    adapter = driven.adapter(password=password(tmp_path, "wrong"))
    finding = codes(adapter.check(soon()))["maxscale.password"]
    assert finding.severity is Severity.ERROR
    assert "maxctrl alter user admin" in finding.cure
    assert not adapter.observe(soon()).reachable


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_password_may_have_any_letters(make: Make, tmp_path: Path, auth: str) -> None:
    subject = make("driving", parameters={"admin_secure_gui": False})
    subject.double.machine.users["zoë"] = ("pä€", "admin")
    adapter = subject.adapter(user="zoë", password=password(tmp_path, "pä€"), auth=auth)
    assert adapter.settle(table(subject.servers, (1, 2), "db2"), soon()).state == "done"


def test_a_password_that_cannot_be_read_is_told_and_raises_nothing(driven: MaxScaleSubject, tmp_path: Path) -> None:
    adapter = driven.adapter()
    (tmp_path / "maxscale.password").unlink()
    assert "does not exist" in codes(adapter.check(soon()))["maxscale.secret"].text
    assert not adapter.observe(soon()).reachable
    assert adapter.settle(table(driven.servers, (1, 2), "db2"), soon()).state is ReceiptState.FAILED


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_an_account_that_may_only_read_is_told_as_one(make: Make, tmp_path: Path, auth: str) -> None:
    subject = make("driving", parameters={"admin_secure_gui": False})
    subject.double.machine.users["ro"] = ("ropw", "basic")
    before = subject.bits()
    adapter = subject.adapter(user="ro", password=password(tmp_path, "ropw"), auth=auth)
    assert "--type=admin" in codes(adapter.check(soon()))["maxscale.permission"].cure
    target = table(subject.servers, (1, 2), "db2")
    assert adapter.prepare(target, target, soon()).state is ReceiptState.FAILED
    assert subject.bits() == before


def test_a_host_that_may_only_read_is_told(make: Make) -> None:
    subject = make("driving", start=False, readwrite_hosts=False)
    assert "admin_readwrite_hosts" in codes(subject.adapter().check(soon()))["maxscale.permission"].cure


def test_the_password_it_is_delivered_with_is_told(driven: MaxScaleSubject) -> None:
    assert "maxctrl alter user admin" in codes(driven.adapter().check(soon()))["maxscale.default_password"].cure


@pytest.mark.parametrize("mode", ["driving", "following"])
@pytest.mark.parametrize("version", ["22.08.14", "24.02.3", "24.08.1"])
def test_every_version_that_was_recorded_passes_the_check_and_is_moved(make: Make, version: str, mode: str) -> None:
    subject = make(mode, version=version)
    adapter = subject.adapter()
    assert [f for f in adapter.check(soon()) if f.severity is Severity.ERROR] == []
    target, abort = table(subject.servers, (1, 2), "db2"), table(subject.servers, (1, 1), "db1")
    assert adapter.prepare(target, abort, soon()).state == "prepared"
    for verb in (adapter.apply, adapter.settle):
        assert verb(target, soon()).state == "done"
    assert subject.bits()["db2"] & MASTER


def test_a_version_that_is_too_old_is_told(driven: MaxScaleSubject) -> None:
    driven.double.machine.version = "2.4.19"
    found = codes(driven.adapter().check(soon()))
    assert "2.4.19" in found["maxscale.version"].text


@pytest.mark.parametrize(("version", "told"), [("6.4.1", True), ("22.08.0", False), ("24.02.3", False)])
def test_a_version_that_nobody_has_tried_is_told(driven: MaxScaleSubject, version: str, told: bool) -> None:
    driven.double.machine.version = version
    assert ("maxscale.untried" in codes(driven.adapter().check(soon()))) is told


# -- What clients will see ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "says", "cure"),
    [
        ({"delayed_retry": True, "transaction_replay": True}, "may be done twice", ""),
        ({"delayed_retry": True}, "an open transaction breaks", "transaction_replay=true"),
        ({}, "all others go on", "delayed_retry=true transaction_replay=true"),
        ({"master_reconnection": False}, "every session", "master_reconnection=true"),
    ],
)
def test_what_clients_will_see_is_told_with_the_setting_that_would_make_it_better(
    make: Make, parameters: dict[str, Any], says: str, cure: str
) -> None:
    subject = make("driving", service_parameters=parameters)
    (finding,) = [f for f in subject.adapter().outlook(soon(), armed=True) if f.code == "maxscale.clients"]
    assert says in finding.text
    assert (
        finding.cure == "" if not cure else finding.cure.startswith("maxctrl alter service RW") and cure in finding.cure
    )
    assert finding.severity is (Severity.WARNING if cure else Severity.INFO)


def test_a_service_that_lacks_a_server_is_told(driven: MaxScaleSubject) -> None:
    driven.double.machine.services["RW"].servers.remove("server2")
    finding = codes(driven.adapter().check(soon()))["maxscale.service"]
    assert finding.cure == "maxctrl link service RW server2"


# -- TLS and tokens ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secured(make: Make, certificate: Certificate) -> MaxScaleSubject:
    return make("driving", start=False, tls=Tls(certificate.cert, certificate.key))


def test_https_is_verified_with_an_authority_of_ones_own(secured: MaxScaleSubject, certificate: Certificate) -> None:
    adapter = secured.adapter(ca=certificate.ca)
    assert adapter.settle(table(secured.servers, (1, 1), "db1"), soon()).state == "done"
    assert [f for f in adapter.check(soon()) if f.severity is Severity.ERROR] == []


def test_a_certificate_that_nobody_here_trusts_is_told(secured: MaxScaleSubject) -> None:
    finding = codes(secured.adapter().check(soon()))["maxscale.certificate"]
    assert finding.cure.startswith("ca:")


def test_an_unverified_certificate_works_and_is_told(secured: MaxScaleSubject) -> None:
    adapter = secured.adapter(verify=False)
    assert adapter.settle(table(secured.servers, (1, 1), "db1"), soon()).state == "done"
    assert "anybody in between" in codes(adapter.check(soon()))["maxscale.unverified"].text


def test_plain_http_where_https_is_spoken_is_told(secured: MaxScaleSubject) -> None:
    adapter = secured.adapter(url=secured.double.url.replace("https", "http"))
    assert codes(adapter.check(soon()))["maxscale.tls"].cure == f"url: {secured.double.url}"


def test_https_where_plain_http_is_spoken_is_told(driven: MaxScaleSubject) -> None:
    adapter = driven.adapter(url=driven.double.url.replace("http", "https"))
    assert "speaks plain HTTP" in codes(adapter.check(soon()))["maxscale.tls"].text


def test_a_token_is_had_once_and_renewed_when_it_dies(make: Make) -> None:
    subject = make("driving", parameters={"admin_secure_gui": False})
    adapter = subject.adapter(auth="token")
    assert adapter.observe(soon()).primary == "db1"
    assert adapter.settle(table(subject.servers, (1, 2), "db2"), soon()).state == "done"
    logins = [path for _, path, _ in subject.double.requests if path == "/v1/auth"]
    assert len(logins) == 1
    subject.double.restart()  # voids every token
    assert adapter.settle(table(subject.servers, (1, 2), "db2"), soon()).state == "done"
    assert subject.bits()["db2"] & MASTER


def test_tokens_over_plain_http_are_told(driven: MaxScaleSubject) -> None:
    assert "HTTPS" in codes(driven.adapter(auth="token").check(soon()))["maxscale.token"].text


# -- Rendering --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["driving", "following"])
def test_a_complete_configuration_is_rendered_for_each_way(make: Make, mode: str) -> None:
    subject = make(mode, start=False)
    (text,) = subject.adapter().render(table(subject.servers, (1, 1), "db1")).values()
    sections = [line.strip("[]") for line in text.splitlines() if line.startswith("[")]
    assert {"maxscale", "db1", "db2", "db3", "shop-RW", "shop-RW-Listener", "shop-RO", "shop-RO-Listener"} <= set(
        sections
    )
    assert ("shop-Monitor" in sections) == (mode == "following")
    assert ("auto_failover=false" in text) == (mode == "following")
    assert "delayed_retry=true" in text
    assert "mariadb\n" not in text, "no password is ever rendered"
