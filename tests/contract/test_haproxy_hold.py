"""Newcomers wait in HAProxy while the write route moves; nobody is refused, nobody hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from proxyroute.model import Deadline, ReceiptState
from tests.contract.standin import Client, servers_of
from tests.contract.subjects import HAProxySubject, soon
from tests.support.wait import until

FLAVOURS = ("mariadb-11.8",)

MANY = 60


def waiting(proxy: HAProxySubject, count: int) -> list[Client]:
    """Returns ``count`` newcomers, once HAProxy has accepted all of them."""
    clients = [proxy.client() for _ in range(count)]
    until(lambda: sessions(proxy) == count, f"{count} newcomers to be accepted")
    return clients


def sessions(proxy: HAProxySubject) -> int:
    """Sessions of the write frontend, those included that no server has been chosen for."""
    line = next(line for line in proxy.runtime("show stat").splitlines() if line.startswith("shop_write,FRONTEND"))
    return int(line.split(",")[4])


def test_newcomers_wait_and_all_reach_the_new_primary(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    receipt = adapter.hold("op-1", soon(30))
    assert receipt.state is ReceiptState.DONE
    assert receipt.evidence["operation"] == "op-1"
    clients = waiting(writer, MANY)
    assert all(client.waiting for client in clients)
    assert writer.stand_ins["db1"].arrived == 0

    assert adapter.apply(writer.table((1, 2), "db2"), soon()).state is ReceiptState.DONE
    assert all(client.waiting for client in clients)
    adapter.release(soon())
    assert servers_of(clients) == {"db2"}
    assert writer.stand_ins["db1"].arrived == 0


def test_newcomers_go_back_to_the_old_primary_on_an_abort(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    adapter.hold("op-1", soon(30))
    clients = waiting(writer, 5)
    adapter.release(soon())
    assert servers_of(clients) == {"db1"}


def test_a_hold_ends_by_itself_when_nobody_is_left_to_release_it(writer: HAProxySubject) -> None:
    writer.adapter().hold("op-1", soon(0.5))
    clients = waiting(writer, 5)
    assert servers_of(clients) == {"db1"}
    assert not writer.adapter().observe(soon()).held


def test_a_clock_that_is_set_back_prolongs_no_hold(writer: HAProxySubject) -> None:
    tomorrow = int((time.time() + 86400) * 1000)
    writer.runtime(f"set map {writer.settings.map_file} hold {tomorrow}/400")
    assert servers_of(waiting(writer, 5)) == {"db1"}


def test_a_hold_that_nobody_took_back_is_over_when_its_time_is(writer: HAProxySubject) -> None:
    a_while_ago = int((time.time() - 5) * 1000)
    writer.runtime(f"set map {writer.settings.map_file} hold {a_while_ago}/600000")
    assert servers_of(waiting(writer, 5)) == {"db1"}


def test_a_later_hold_replaces_an_earlier_one(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    adapter.hold("op-1", soon(0.3))
    adapter.hold("op-2", soon(30))
    client = waiting(writer, 1)[0]
    with pytest.raises(AssertionError):
        until(lambda: not client.waiting, "the first hold to end", seconds=0.6)
    adapter.release(soon())
    assert servers_of([client]) == {"db1"}


def test_clients_that_gave_up_never_reach_a_server(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    adapter.hold("op-1", soon(30))
    patient, *impatient = waiting(writer, 6)
    for client in impatient:
        client.close()
    until(lambda: sessions(writer) == 1, "those who gave up to be forgotten")
    adapter.release(soon())
    assert servers_of([patient]) == {"db1"}
    assert writer.stand_ins["db1"].arrived == 1


def test_sessions_that_are_there_go_on_during_a_hold(writer: HAProxySubject) -> None:
    with writer.client() as client:
        assert client.server == "db1"
        writer.adapter().hold("op-1", soon(30))
        assert client.answers()
        writer.adapter().release(soon())


def test_a_session_held_by_a_replaced_process_is_closed_not_sent_to_an_outdated_route(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    adapter.hold("op-1", soon(30))
    client = waiting(writer, 1)[0]
    (worker,) = writer.haproxy.workers()
    writer.haproxy.ask_master("reload")
    assert client.server == ""
    assert writer.stand_ins["db1"].arrived == 0
    until(lambda: worker not in (writer.haproxy.workers() or [worker]), "a new process")


def test_nobody_is_lost_while_newcomers_keep_coming(writer: HAProxySubject) -> None:
    adapter = writer.adapter()
    greeted: list[str] = []
    stop = threading.Event()

    def keep_coming() -> None:
        while not stop.is_set():
            with writer.client() as client:
                greeted.append(client.server)

    threads = [threading.Thread(target=keep_coming) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(greeted) > 20, "clients before the move")
        for serial, primary in enumerate(("db2", "db3", "db1"), 2):
            adapter.hold("op", Deadline.after(30))
            assert adapter.apply(writer.table((1, serial), primary), soon()).state is ReceiptState.DONE
            adapter.release(soon())
            until(_seen(greeted, primary), f"newcomers on {primary}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert "" not in greeted


def _seen(greeted: list[str], server: str) -> Callable[[], bool]:
    return lambda: greeted[-5:] == [server] * 5
