"""What HAProxy does with the routes it is given: sessions, readers, restarts, replaced processes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable

import pytest

from proxyroute.haproxy.listeners import strangers
from proxyroute.haproxy.runtime import Runtime
from proxyroute.model import Address, Deadline, Receipt, ReceiptState
from tests.contract.standin import Client
from tests.contract.subjects import HAProxySubject, soon
from tests.support.haproxy import LocalHAProxy
from tests.support.wait import until

FLAVOURS = ("mariadb-11.8",)


def write(proxy: HAProxySubject) -> str:
    with proxy.client() as client:
        return client.server


def read(proxy: HAProxySubject) -> str:
    with Client(proxy.read) as client:
        return client.server


def test_settling_ends_sessions_on_other_servers_and_no_others(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    old = [writer.client() for _ in range(3)]
    assert {client.server for client in old} == {"db1"}
    adapter.apply(writer.table((1, 2), "db2"), soon())
    new = writer.client()
    assert new.server == "db2"
    assert adapter.observe(soon()).sessions == {"db1": 3, "db2": 1, "db3": 0}

    receipt = adapter.settle(writer.table((1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.DONE, receipt
    assert receipt.evidence["ended"] == {"db1": 3}
    assert all(client.ended for client in old)
    assert new.answers()
    assert adapter.observe(soon()).sessions == {"db1": 0, "db2": 1, "db3": 0}


def test_applying_leaves_sessions_alone(writer: HAProxySubject) -> None:
    with writer.client() as client:
        assert client.server == "db1"
        writer.adapter().apply(writer.table((1, 2), "db2"), soon())
        assert client.answers()


def test_a_closed_route_closes_newcomers_and_settling_it_ends_everybody(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    client = writer.client()
    assert client.server == "db1"
    adapter.apply(writer.table((1, 2), None), soon())
    assert write(writer) == ""
    adapter.settle(writer.table((1, 2), None), soon())
    assert client.ended


def test_a_map_without_a_route_closes(writer: HAProxySubject) -> None:
    writer.runtime(f"clear map {writer.settings.map_file}")
    assert write(writer) == ""
    assert writer.adapter().observe(soon()).primary is None
    assert writer.adapter().settle(writer.table((1, 1), "db1"), soon()).state is ReceiptState.DONE
    assert write(writer) == "db1"


def test_a_restart_keeps_the_route_that_was_settled(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    adapter.settle(writer.table((1, 2), "db2", {"db3": 7}), soon())
    writer.haproxy.kill9()
    writer.haproxy.start(writer.settings.config_file)
    seen = adapter.observe(soon())
    assert (seen.primary, str(seen.epoch), seen.drift) == ("db2", "1.2", ())
    assert write(writer) == "db2"


def test_haproxy_killed_before_settling_starts_with_the_route_settled_meanwhile(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    target = writer.table((1, 2), "db2")
    adapter.apply(target, soon())
    writer.haproxy.kill9()
    receipt = adapter.settle(target, soon())
    assert receipt.state is ReceiptState.FAILED
    assert "next start" in receipt.detail
    writer.haproxy.start(writer.settings.config_file)
    assert write(writer) == "db2"
    assert adapter.settle(target, soon()).state is ReceiptState.DONE


def test_haproxy_restarted_with_the_old_route_takes_the_new_one_when_settled(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    target = writer.table((1, 2), "db2")
    adapter.apply(target, soon())
    writer.haproxy.kill9()
    writer.haproxy.start(writer.settings.config_file)
    assert adapter.observe(soon()).primary == "db1"
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    assert write(writer) == "db2"


def test_a_haproxy_that_does_not_run_gets_no_older_route(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    adapter.settle(writer.table((2, 1), "db2"), soon())
    writer.haproxy.kill9()
    receipt = adapter.settle(writer.table((1, 9), "db1"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "superseded" in receipt.detail
    assert "route db2/2.1" in writer.settings.map_file.read_text()


def test_sessions_kept_by_a_replaced_process_are_counted_and_ended(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    old = writer.client()
    assert old.server == "db1"
    (worker,) = writer.haproxy.workers()
    writer.haproxy.ask_master("reload")
    until(lambda: worker not in (writer.haproxy.workers() or [worker]), "a new process")
    assert old.answers()
    assert adapter.observe(soon()).sessions["db1"] == 1

    receipt = adapter.settle(writer.table((1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.DONE, receipt
    assert old.ended
    assert adapter.observe(soon()).sessions["db1"] == 0


def test_sessions_on_the_primary_in_a_replaced_process_are_left_alone(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    with writer.client() as client:
        assert client.server == "db1"
        (worker,) = writer.haproxy.workers()
        writer.haproxy.ask_master("reload")
        until(lambda: worker not in (writer.haproxy.workers() or [worker]), "a new process")
        assert adapter.settle(writer.table((1, 2), "db1"), soon()).state is ReceiptState.DONE
        assert client.answers()


def test_without_the_master_socket_nothing_is_called_proved(writer: HAProxySubject) -> None:
    adapter = writer.adapter(master_socket=writer.folder / "nowhere.sock")
    receipt = adapter.settle(writer.table((1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.UNKNOWN
    assert write(writer) == "db2"
    seen = adapter.observe(soon())
    assert not seen.reachable
    assert seen.primary == "db2"
    assert "haproxy.master" in {finding.code for finding in adapter.check(soon())}


def test_only_readers_get_reads_and_changes_need_no_reload(proxy: HAProxySubject) -> None:
    adapter = proxy.adapter()
    pids = proxy.haproxy.workers()
    assert {read(proxy) for _ in range(6)} == {"db2", "db3"}
    adapter.settle(proxy.table((1, 1), "db1", {"db3": 10}), soon())
    assert {read(proxy) for _ in range(4)} == {"db3"}
    assert adapter.observe(soon()).readers == ("db3",)
    adapter.settle(proxy.table((1, 1), "db1", {"db1": 1, "db2": 100}), soon())
    assert adapter.observe(soon()).readers == ("db1", "db2")
    assert adapter.observe(soon()).drift == ()
    assert proxy.haproxy.workers() == pids


def test_readers_survive_a_restart(proxy: HAProxySubject) -> None:
    proxy.adapter().settle(proxy.table((1, 1), "db1", {"db3": 10}), soon())
    proxy.haproxy.kill9()
    proxy.haproxy.start(proxy.settings.config_file)
    assert {read(proxy) for _ in range(4)} == {"db3"}
    assert proxy.adapter().observe(soon()).drift == ()


def test_reads_go_to_the_primary_when_haproxy_finds_no_replica_alive(proxy: HAProxySubject) -> None:
    for replica in ("db2", "db3"):
        proxy.stand_ins[replica].stop()
    until(lambda: read(proxy) == "db1", "reads on the primary")
    proxy.stand_ins["db3"].start()
    until(lambda: read(proxy) == "db3", "reads on the replica that came back")


def test_a_dead_primary_stays_the_write_route(proxy: HAProxySubject) -> None:
    proxy.stand_ins["db1"].stop()
    until(lambda: proxy.adapter().observe(soon()).reachable, "the proxy")
    with proxy.client() as client:
        assert client.server == "", "tried once, and closed: who waits for another try cannot be ended in HAProxy 3.0"
    proxy.stand_ins["db1"].start()
    with proxy.client() as client:
        assert client.server == "db1"


def test_a_forgotten_haproxy_that_shares_the_port_is_found(writer: HAProxySubject) -> None:
    forgotten = LocalHAProxy(writer.folder / "forgotten")
    forgotten.folder.mkdir()
    config = forgotten.folder / "haproxy.cfg"
    config.write_text(f"defaults\n  mode tcp\nfrontend f\n  bind {writer.write}\n")
    forgotten.start(config)
    try:
        found = [finding for finding in writer.adapter().check(soon()) if finding.code == "haproxy.shared"]
        assert str(forgotten.workers()[0]) in " ".join(finding.text for finding in found)
    finally:
        forgotten.stop()
    assert list(writer.adapter().check(soon())) == []


def test_who_listens_at_the_same_port_of_another_address_is_no_stranger() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))
        other.listen()
        port = other.getsockname()[1]
        for host, found in {"127.0.0.1": (), "127.0.0.2": (os.getpid(),), "0.0.0.0": (os.getpid(),)}.items():
            assert strangers(Address(host, port), ()) == found, host
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::", 0))
        other.listen()
        port = other.getsockname()[1]
        assert strangers(Address("127.0.0.1", port), ()) == (os.getpid(),)
        assert strangers(Address("::1", port), (os.getpid(),)) == ()


def test_a_route_that_was_sent_and_cannot_be_read_back_is_unknown(
    writer: HAProxySubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Runtime.tell

    def tell_and_die(runtime: Runtime, command: str, deadline: Deadline) -> str:
        answer = tell(runtime, command, deadline)
        writer.haproxy.kill9()
        return answer

    monkeypatch.setattr(Runtime, "tell", tell_and_die)
    receipt = writer.adapter().apply(writer.table((1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.UNKNOWN
    assert "not read back" in receipt.detail


def test_a_haproxy_that_takes_no_commands_is_told_soon_by_that_cause(writer: HAProxySubject) -> None:
    """Its socket serves ten at once: ten that are left open keep all others waiting, and clients go on."""
    adapter, closed = writer.adapter(), writer.table((1, 2), None)
    with contextlib.ExitStack() as open_ones:
        for _ in range(10):
            stuck = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            stuck.connect(str(writer.settings.runtime_socket))
        until(lambda: "no answer" in adapter.observe(soon(0.2)).detail, "the socket to be full")
        verbs: tuple[Callable[[], Receipt], ...] = (
            lambda: adapter.hold("op-1", soon(60)),
            lambda: adapter.prepare(closed, closed, soon(60)),
            lambda: adapter.apply(closed, soon(60)),
            lambda: adapter.settle(closed, soon(60)),
        )
        for verb in verbs:
            began = time.monotonic()
            receipt = verb()
            assert time.monotonic() - began < 5.0, "whoever asks waits so long, and then takes it for a silent one"
            assert receipt.state is ReceiptState.FAILED
            assert "no answer from" in receipt.detail
        assert receipt.detail.endswith("; its files say !closed/1.2 for its next start")
        assert write(writer) == "db1"
