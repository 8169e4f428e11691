"""The old primary comes back by itself and takes writes: it is closed, and its clients cut, within one probe period."""

from __future__ import annotations

import threading
import time

import pymysql
import pytest

from tests.support.broken import REBUILD, ready, undone
from tests.support.death import await_back, failed_over, remembered
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.mariadb import APPLICATION, Node
from tests.support.scene import assert_order
from tests.support.serving import serving

FLAVOURS = ("mysql",)
PERIOD = 2.0
"""Seconds; long, so that one period and two are told apart on a machine that is busy."""
MACHINE = 1.0
"""Seconds for what is not waiting: to look, to close, to end sessions, and to notice it here."""
SITE = {
    "n": 3,
    "more": {
        "failover": {"policy": "most_advanced", "probe_period": f"{PERIOD:g}s"},
        "serve": {"period": "200ms", "proxies_period": "400ms"},
    },
    "policy": {"prove": "3s", "settle": "10s"},
}


class Client(threading.Thread):
    """An application that goes to a server directly, from when it answers; it writes until it is not let any more."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.answered = self.refused = self.cut = 0.0
        self.written = 0

    def run(self) -> None:
        session = self._session()
        self.answered = time.monotonic()
        idle = self._session()
        try:
            with session.cursor() as cursor:
                while True:
                    cursor.execute("INSERT INTO app.load_rows VALUES (7, %s, @@server_id)", (self.written,))
                    self.written += 1
        except pymysql.err.Error:
            self.refused = time.monotonic()
        try:
            with idle.cursor() as cursor:
                while True:
                    cursor.execute("SELECT 1")
                    time.sleep(0.01)
        except pymysql.err.Error:
            self.cut = time.monotonic()

    def _session(self) -> pymysql.Connection[pymysql.cursors.Cursor]:
        end = time.monotonic() + 30
        while True:
            try:
                session = self.node.connect(APPLICATION)
            except (pymysql.err.Error, OSError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)
            else:
                return session


@pytest.mark.parametrize("number", [1, *(pytest.param(n, marks=pytest.mark.full) for n in range(2, 7))])
def test_it_is_closed_and_its_clients_cut_within_one_probe_period(site: Lab, number: int) -> None:
    if REBUILD.user not in site.config.read_text():
        ready(site)
    old = site.cluster.primary
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    old.kill9()
    failed_over(site, code=7)
    new = site.cluster.primary
    old.set_options({"read_only": 0})
    with serving(site) as served:
        client = Client(old)
        client.start()
        old.start()
        client.join(60)
        assert client.refused, f"it still takes writes: {served.told}"
        assert client.cut, f"its clients are still there: {served.told}"
        closed, cut = client.refused - client.answered, client.cut - client.answered
        print(f"round {number}: closed after {closed:.2f} s, clients cut after {cut:.2f} s, {client.written} written")
        assert closed < PERIOD + MACHINE, f"closed after {closed:.1f} s"
        assert cut < PERIOD + MACHINE, f"clients cut after {cut:.1f} s"
        assert f"{new.name} is the primary" in served.await_told("acted", f"{old.name} was closed", 30)
        if client.written:  # nobody else has that: it is kept, and a person decides
            served.await_told("blocked", f"{old.name} does not rejoin by itself", 60)
        else:
            await_back(site, old)
    old.set_options({"read_only": 1})
    if client.written:
        undone(site, old)
    assert_order(site, new.name)
