"""What happens to the shared folder never takes a good route away, and the host says what it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute.adapters import publisher
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Epoch, ReceiptState, Severity
from tests.contract.agents import AgentsSubject
from tests.contract.subjects import CLUSTER, soon
from tests.support.hosts import ProxyHost
from tests.support.process import free_port
from tests.support.wait import until

FLAVOURS = ("mariadb-11.8",)
FULL = ("mariadb-11.8",)

OWN = '{% extends "haproxy.cfg.j2" %}\n{% block defaults_more %}\n    BODY\n{% endblock %}\n'


def trouble(host: AgentsSubject, words: str) -> None:
    until(lambda: words in " ".join(host.host.status().get("trouble", ())), f"the status to say {words!r}")


def current(host: AgentsSubject) -> Path:
    return host.shared / CLUSTER / "current.json"


def test_a_torn_announcement_is_not_followed_and_the_next_one_is(host: AgentsSubject) -> None:
    current(host).write_bytes(current(host).read_bytes()[:40])
    trouble(host, "cut off")
    assert host.host.route() == "db1/1.1"
    assert host.adapter().settle(host.table((1, 2), "db2"), soon()).state is ReceiptState.DONE
    until(lambda: host.host.status()["trouble"] == [], "the trouble to be over")


def test_what_is_signed_with_another_key_is_not_followed(host: AgentsSubject, tmp_path: Path) -> None:
    key = tmp_path / "other-key"
    key.write_bytes(b"x" * 32)
    key.chmod(0o600)
    stranger = host.adapter(key_file=key)
    receipt = stranger.apply(host.table((9, 9), "db3"), soon(0.5))
    assert receipt.state is ReceiptState.UNKNOWN
    assert "not signed with our key" in receipt.detail
    trouble(host, "not signed with our key")
    assert host.host.route() == "db1/1.1"
    stranger.close()


def test_a_release_that_was_changed_is_not_followed(host: AgentsSubject) -> None:
    host.host.kill_agent()
    adapter = host.adapter()
    assert adapter.apply(host.table((1, 2), "db2"), soon(0.3)).state is ReceiptState.UNKNOWN
    (file,) = (host.shared / CLUSTER / "releases").glob("1.2-*/release.json")
    file.write_text(file.read_text().replace('"primary":"db2"', '"primary":"db3"'))
    host.host.start_agent()
    trouble(host, "not signed with our key")
    assert host.host.route() == "db1/1.1"


def test_a_vanished_folder_leaves_the_route_and_its_return_is_noticed(host: AgentsSubject) -> None:
    away = host.shared.with_name("away")
    host.shared.rename(away)
    trouble(host, "No such file")
    assert host.client().server == "db1"
    away.rename(host.shared)
    assert host.adapter().settle(host.table((1, 2), "db2"), soon()).state is ReceiptState.DONE


def test_a_folder_that_is_not_mounted_any_more_is_told(host: AgentsSubject) -> None:
    (host.shared / CLUSTER).rename(host.shared.with_name("away"))
    trouble(host, "is it mounted?")
    assert host.host.route() == "db1/1.1"


def test_a_disk_that_never_answers_blocks_neither_the_route_nor_the_engine(host: AgentsSubject) -> None:
    host.host.kill_agent()
    host.host.write_agent_file(disk_timeout="200ms")
    real = current(host).with_name("real.json")
    current(host).rename(real)
    os.mkfifo(current(host))  # whoever opens it waits for ever
    host.host.start_agent()
    trouble(host, "has not answered in time")
    trouble(host, "8 accesses have not returned")
    assert host.client().server == "db1"
    receipt = host.adapter().apply(host.table((1, 2), "db2"), soon(0.3))
    assert receipt.state is ReceiptState.UNKNOWN
    assert "has not answered in time" in receipt.detail
    with current(host).open("w"):  # those who wait are let go
        pass
    real.replace(current(host))
    until(lambda: host.host.status()["trouble"] == [], "the disk to be back")


def test_a_haproxy_that_starts_is_closed_until_its_epoch_is_confirmed(host: AgentsSubject) -> None:
    away = host.shared.with_name("away")
    host.shared.rename(away)
    trouble(host, "No such file")
    host.host.haproxy.kill9()
    host.host.haproxy.start(host.host.config_file)
    assert host.host.route() == "!closed/1.1"
    assert host.client().server == ""
    away.rename(host.shared)
    until(lambda: host.host.route() == "db1/1.1", "the route to be confirmed")
    assert host.client().server == "db1"


def test_a_haproxy_that_starts_without_its_agent_stays_closed(host: AgentsSubject) -> None:
    host.host.kill_agent()
    host.host.haproxy.kill9()
    host.host.haproxy.start(host.host.config_file)
    assert host.client().server == ""
    host.host.start_agent()
    until(lambda: host.host.route() == "db1/1.1", "the route to be confirmed")


def test_a_haproxy_that_missed_a_switchover_never_serves_the_old_primary(host: AgentsSubject) -> None:
    host.host.kill_agent()
    host.host.haproxy.kill9()
    assert host.adapter().apply(host.table((1, 2), "db2"), soon(0.3)).state is ReceiptState.UNKNOWN
    host.host.haproxy.start(host.host.config_file)
    assert host.host.route() == "!closed/1.1"
    host.host.start_agent()
    until(lambda: host.host.route() == "db2/1.2", "the new route")


def left_open(host: AgentsSubject, route: str) -> None:
    """The agent has died in a reload of its own, with ``route`` in the map file, and HAProxy has started by that."""
    host.host.kill_agent()
    host.host.haproxy.kill9()
    text = host.host.map_file.read_text()
    host.host.map_file.write_text(re.sub(r"^route .*$", f"route {route}", text, flags=re.M))
    host.host.haproxy.start(host.host.config_file)
    assert host.host.route() == route


def test_a_haproxy_that_was_left_open_is_closed_while_nobody_can_be_asked(host: AgentsSubject) -> None:
    left_open(host, "db1/1.1")
    away = host.shared.with_name("away")
    host.shared.rename(away)
    host.host.start_agent()
    until(lambda: host.host.route() == "!closed/1.1", "the route to be closed")
    assert "route !closed/1.1" in host.host.map_file.read_text(), "the next one starts closed"
    assert host.client().server == ""
    away.rename(host.shared)
    until(lambda: host.host.route() == "db1/1.1", "the route to be confirmed")


@pytest.mark.parametrize("primary", ["db2", None])
def test_a_haproxy_that_was_left_open_to_another_server_gets_the_route_that_counts(
    host: AgentsSubject, primary: str | None
) -> None:
    adapter, target = host.adapter(), host.table((1, 2), primary)
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    assert adapter.release(soon()).state is ReceiptState.DONE
    left_open(host, "db1/1.1")
    host.host.start_agent()
    until(lambda: host.host.route() == f"{primary or '!closed'}/1.2", "the route that counts")
    assert host.client().server == (primary or "")


def test_a_hold_ends_when_nobody_says_anything_any_more(host: AgentsSubject) -> None:
    assert host.adapter().hold("op-1", soon(1.0)).state is ReceiptState.DONE
    host.host.kill_agent()
    host.shared.rename(host.shared.with_name("away"))
    assert host.client().server == "db1"


def test_a_host_without_an_agent_is_named(host: AgentsSubject) -> None:
    host.host.kill_agent()
    adapter = host.adapter()
    receipt = adapter.prepare(host.table((1, 2), "db2"), host.table((1, 2), "db1"), soon(0.3))
    assert (receipt.proxy, receipt.state) == ("edge1", ReceiptState.UNKNOWN)
    assert "edge1 has not answered yet" in receipt.detail
    (found,) = [f for f in adapter.check(soon(0.3)) if f.severity is Severity.ERROR]
    assert (found.code, found.subject) == ("agents.silent", "edge1")


@pytest.mark.parametrize("body", ["option {{ nonsense }}", "option nonsense"])
def test_a_template_that_is_wrong_is_refused_before_anything_is_published(
    host: AgentsSubject, tmp_path: Path, body: str
) -> None:
    template = tmp_path / "own.cfg.j2"
    template.write_text(OWN.replace("BODY", body))
    before = current(host).read_bytes()
    adapter = host.adapter(template=template, try_with=host.host.haproxy.binary)
    receipt = adapter.prepare(host.table((1, 2), "db2"), host.table((1, 2), "db1"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "nonsense" in receipt.detail
    assert current(host).read_bytes() == before


def test_a_configuration_that_the_host_rejects_changes_nothing_there(host: AgentsSubject, tmp_path: Path) -> None:
    template = tmp_path / "own.cfg.j2"
    template.write_text(OWN.replace("BODY", "option nonsense"))
    before = host.host.config_file.read_text()
    receipt = host.adapter(template=template).prepare(host.table((1, 2), "db2"), host.table((1, 2), "db1"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "nonsense" in receipt.detail
    assert host.host.config_file.read_text() == before
    assert host.host.route() == "db1/1.1"


def test_another_configuration_is_loaded_while_preparing_and_the_route_stays_open(
    host: AgentsSubject, tmp_path: Path
) -> None:
    template = tmp_path / "own.cfg.j2"
    template.write_text(OWN.replace("BODY", "timeout tarpit 7s"))
    adapter = host.adapter(template=template)
    target = host.table((1, 2), "db2")
    receipt = adapter.prepare(target, host.table((1, 2), "db1"), soon())
    assert receipt.state is ReceiptState.PREPARED, receipt
    assert "reload" in receipt.evidence
    assert host.host.route() == "db1/1.1"
    assert "!closed" in host.host.map_file.read_text()
    assert adapter.apply(target, soon()).state is ReceiptState.DONE
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    assert host.client().server == "db2"


def test_hosts_of_one_folder_get_one_announcement_and_answer_for_themselves(
    host: AgentsSubject, tmp_path: Path
) -> None:
    second = ProxyHost(tmp_path, host.shared, "edge2", CLUSTER)
    try:
        second.start_agent()
        here, there = host.adapter(), host.kind("edge2", CLUSTER, host.servers, host.settings)
        target = host.table((1, 2), "db2")
        receipts = [a.apply(target, soon()) for a in (here, there)]
        assert [r.proxy for r in receipts] == ["edge1", "edge2"]
        assert receipts[0].state is ReceiptState.DONE
        assert receipts[1].state is ReceiptState.FAILED  # no HAProxy runs there
        assert receipts[0].evidence["announcement"] == receipts[1].evidence["announcement"]
        there.close()
    finally:
        second.close()


def test_a_haproxy_that_never_ran_gets_its_files_when_the_first_route_is_prepared(
    host: AgentsSubject, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    new = ProxyHost(tmp_path, fresh, "edge2", CLUSTER, address="127.0.0.2")
    settings = replace(host.settings, folder=fresh, write=f"*:{free_port('127.0.0.2')}")
    adapter, first = host.kind("edge2", CLUSTER, host.servers, settings), host.table((1, 1), "db1")
    try:
        new.start_agent()
        receipt = adapter.prepare(first, first, soon())
        assert receipt.state is ReceiptState.FAILED
        assert "its files are there for its first start" in receipt.detail
        new.start_haproxy()
        assert new.route() == "!closed/1.1"
        assert adapter.settle(first, soon()).state is ReceiptState.DONE
        assert new.route() == "db1/1.1"
    finally:
        adapter.close()
        new.close()


def test_hosts_of_one_folder_must_be_set_up_alike(host: AgentsSubject) -> None:
    (found,) = host.adapter(write="127.0.0.1:1").check(soon())
    assert (found.code, found.severity) == ("agents.unlike", Severity.ERROR)
    assert "write" in found.cure


def test_two_agents_of_one_host_are_refused(host: AgentsSubject) -> None:
    first = host.host.agent
    assert first is not None
    host.host.start_agent()
    second, host.host.agent = host.host.agent, first
    assert second is not None
    assert second.wait() == 2
    assert "another agent runs" in host.host.log()


def test_status_on_the_host_says_what_is_and_what_troubles(host: AgentsSubject) -> None:
    from click.testing import CliRunner

    from proxyroute.cli import main

    def status() -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(main, ["agent", "status", "--json", "--config", str(host.host.agent_file)])
        return done.exit_code, json.loads(done.stdout)

    until(lambda: status()[0] == 0, "a status without trouble")
    told = status()[1]
    assert (told["primary"], told["epoch"], told["running"]) == ("db1", str(Epoch(1, 1)), True)
    assert told["watch"].startswith(("events of", "looks again"))
    host.host.kill_agent()
    assert (status()[0], status()[1]["running"]) == (1, False)


def test_a_route_closed_by_hand_stays_closed_until_somebody_publishes(host: AgentsSubject) -> None:
    until(lambda: host.host.status().get("confirmed_pid"), "the agent to have seen the route open")
    host.host.haproxy.ask(f"set map {host.host.map_file} route !closed/1.1")
    assert host.adapter().observe(soon()).drift  # it has looked, and touched nothing
    assert host.client().server == ""
    assert host.adapter().settle(host.table((1, 1), "db1"), soon()).state is ReceiptState.DONE
    assert host.client().server == "db1"


def test_a_haproxy_that_is_down_is_told_until_it_is_back(host: AgentsSubject) -> None:
    host.host.haproxy.kill9()
    trouble(host, "haproxy does not run")
    host.host.haproxy.start(host.host.config_file)
    until(lambda: host.host.status()["trouble"] == [], "the trouble to be over")
    assert host.host.route() == "db1/1.1"


def test_a_route_that_is_applied_lets_those_go_who_wait_by_the_same_announcement(host: AgentsSubject) -> None:
    adapter, target = host.adapter(), host.table((1, 2), "db2")
    assert adapter.prepare(target, host.table((1, 2), "db1"), soon()).state is ReceiptState.PREPARED
    assert adapter.hold("op-1", soon(60)).state is ReceiptState.DONE
    assert adapter.observe(soon()).held
    assert adapter.apply(target, soon()).state is ReceiptState.DONE
    announced = current(host).read_bytes()
    assert not adapter.observe(soon()).held
    assert adapter.release(soon()).state is ReceiptState.DONE
    assert current(host).read_bytes() == announced
    assert host.client().server == "db2"


def test_a_host_that_did_not_take_the_route_is_told_to_release(host: AgentsSubject) -> None:
    adapter, target = host.adapter(), host.table((1, 2), "db2")
    assert adapter.hold("op-1", soon(60)).state is ReceiptState.DONE
    assert adapter.apply(host.table((1, 1), "db3"), soon()).state is ReceiptState.FAILED  # db1 is what 1.1 means
    assert adapter.observe(soon()).held
    assert adapter.release(soon()).state is ReceiptState.DONE
    assert not adapter.observe(soon()).held
    assert adapter.apply(target, soon()).state is ReceiptState.DONE


def test_nothing_is_rendered_or_synced_by_the_engine_while_a_prepared_route_moves(
    host: AgentsSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, target = host.adapter(), host.table((1, 2), "db2")
    synced: list[int] = []
    monkeypatch.setattr(Worker, "call", lambda _, access, deadline: access())  # in this process, where we can count
    monkeypatch.setattr(os, "fsync", synced.append)
    assert adapter.prepare(target, host.table((1, 2), "db1"), soon()).state is ReceiptState.PREPARED
    assert synced
    synced.clear()
    with monkeypatch.context() as patched:
        patched.setattr(publisher, "render", None)
        assert adapter.hold("op-1", soon()).state is ReceiptState.DONE
        assert adapter.apply(target, soon()).state is ReceiptState.DONE
    assert synced == []
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    assert synced


def test_what_another_engine_published_in_between_is_not_overwritten(host: AgentsSubject) -> None:
    adapter, other = host.adapter(), host.adapter(hard_stop_after=31.0)
    target = host.table((1, 2), "db2")
    assert adapter.prepare(target, host.table((1, 2), "db1"), soon()).state is ReceiptState.PREPARED
    assert other.apply(host.table((1, 3), "db3"), soon()).state is ReceiptState.DONE
    receipt = adapter.apply(target, soon())
    assert receipt.state is ReceiptState.FAILED
    assert "superseded" in receipt.detail
    assert host.host.route() == "db3/1.3"


def test_a_host_that_is_to_close_on_silence_does_and_opens_again_when_it_hears_of_its_route(
    host: AgentsSubject,
) -> None:
    host.host.kill_agent()
    host.host.write_agent_file(on_silence="close_writes", silence="600ms", disk_timeout="200ms")
    host.host.start_agent()
    until(lambda: host.adapter().closes_when_silent == 0.6, "the receipt to say after how much silence it closes")
    until(lambda: host.host.status().get("confirmed_pid"), "the agent to have seen the route open")
    before = host.client()
    assert before.server == "db1"
    away = host.shared.with_name("away")
    host.shared.rename(away)
    until(lambda: host.host.route() == "!closed/1.1", "the route to be closed")
    assert host.client().server == ""
    until(lambda: before.ended, "the session to be ended")
    until(lambda: host.host.status()["closed_by_silence"], "the status to say so")
    away.rename(host.shared)
    until(lambda: host.host.route() == "db1/1.1", "the route to open again")
    assert host.client().server == "db1"


def test_one_that_is_started_while_the_folder_is_gone_closes_at_once(host: AgentsSubject) -> None:
    """It cannot know for how long nothing was heard; the engine may have waited for its time already."""
    host.host.kill_agent()
    host.host.write_agent_file(on_silence="close_writes", silence="1h", disk_timeout="200ms")
    away = host.shared.with_name("away")
    host.shared.rename(away)
    assert host.client().server == "db1"
    host.host.start_agent()
    until(lambda: host.host.route() == "!closed/1.1", "the route to be closed")
    away.rename(host.shared)
    until(lambda: host.host.route() == "db1/1.1", "the route to open again")


def test_a_host_whose_haproxy_takes_no_commands_says_so_and_is_not_taken_for_a_silent_one(host: AgentsSubject) -> None:
    """It hears, so it does not close by itself, and its clients go on to the old primary."""
    host.host.kill_agent()
    host.host.write_agent_file(on_silence="close_writes", silence="5s")
    host.host.start_agent()
    until(lambda: host.adapter().closes_when_silent == 5.0, "the receipt to say after how much silence it closes")
    adapter, closed = host.adapter(), host.table((1, 2), None)
    with contextlib.ExitStack() as open_ones:
        for _ in range(10):  # as many as its socket serves at once
            stuck = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            stuck.connect(str(host.host.haproxy.runtime_socket))
        trouble(host, "no answer from")
        assert adapter.hold("op-1", soon(2.0)).state is not ReceiptState.DONE
        receipt = adapter.settle(closed, soon(0.5))
        found = adapter.answer(closed, soon(30)) if receipt.state is ReceiptState.UNKNOWN else receipt
        assert found is not None, "it is not silent"
        assert found.state is ReceiptState.FAILED
        assert "no answer from" in found.detail
        assert host.client().server == "db1"
    assert adapter.settle(closed, soon()).state is ReceiptState.DONE


def test_a_host_that_keeps_its_route_keeps_it_however_long_nothing_is_heard(host: AgentsSubject) -> None:
    assert host.adapter().closes_when_silent is None
