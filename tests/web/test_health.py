"""Health for load balancers: yes only for what is so now, by a fresh look; and a real HAProxy that asks for it."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest
import requests

from proxyroute.config_web import WebConfig
from proxyroute.errors import Silence
from proxyroute.model import Status, View
from proxyroute.sight import Sighting, Sightings
from proxyroute.standing import Order, Standing
from proxyroute.web.tokens import Scope
from tests.support.builders import channel, replica, server, silent, view
from tests.support.haproxy import LocalHAProxy
from tests.support.process import free_port
from tests.support.wait import until
from tests.support.web import Web, listening, make_web

GOOD = view(server(1), replica(2), replica(3))
LATE = view(server(1), replica(2, channel(lag_seconds=7.0)), silent(3))


@pytest.mark.parametrize("prefix", ["/v1/health", "/health"])
@pytest.mark.parametrize(
    ("seen", "path", "status", "word"),
    [
        (GOOD, "shop/db1/primary", 200, "primary"),
        (GOOD, "shop/db1/master-status", 200, "primary"),
        (GOOD, "shop/db2/primary", 503, "not the primary"),
        (GOOD, "shop/db2/replica", 200, "replica"),
        (GOOD, "shop/db2/slave-status", 200, "replica"),
        (GOOD, "shop/db1/replica", 503, "not a replica"),
        (GOOD, "shop/db1/read-only", 200, "primary"),
        (GOOD, "shop/db2/read-only", 200, "replica"),
        (GOOD, "shop/db2/readiness", 200, "replica"),
        (GOOD, "shop/db3/health", 200, "answers"),
        (GOOD, "shop/db3/liveness", 200, "looked at"),
        (GOOD, "shop/primary", 200, "one primary"),
        (GOOD, "shop/health", 200, "one primary"),
        (GOOD, "shop/readiness", 200, "ready"),
        (GOOD, "shop/liveness", 200, "alive"),
        (LATE, "shop/db2/replica", 200, "replica"),
        (LATE, "shop/db2/replica?lag=8", 200, "replica"),
        (LATE, "shop/db2/replica?lag=500ms", 503, "too far behind"),
        (LATE, "shop/db2/read-only?lag=2s", 503, "too far behind"),
        (LATE, "shop/db1/read-only?lag=2s", 200, "primary"),
        (LATE, "shop/db3/health", 503, "silent"),
        (view(server(1), replica(2, channel(lag_seconds=None, applier=False)), replica(3)), "shop/db2/replica", 503,
         "does not follow the primary"),
        (view(server(1), replica(2, channel(lag_seconds=None)), replica(3)), "shop/db2/replica?lag=9", 503,
         "too far behind"),
        (view(server(1), server(2), replica(3)), "shop/db1/primary", 503, "not the primary"),
        (view(server(1), server(2), replica(3)), "shop/health", 503, "no primary"),
        (view(server(1, writable=False), replica(2), replica(3)), "shop/db1/primary", 503, "not the primary"),
    ],
)  # fmt: skip
def test_only_what_is_asked_for_gets_a_yes(
    web: Web, prefix: str, seen: View, path: str, status: int, word: str
) -> None:
    web.see(seen)
    client = web.client()
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = client.request(method, f"{prefix}/{path}")
        assert answer.status_code == status, method
        assert answer.text == ("" if method == "HEAD" else f"{word}\n")
        assert answer.headers["cache-control"] == "no-store"


def test_a_server_that_takes_writes_and_is_not_meant_to_is_no_primary(web: Web) -> None:
    web.see(view(replica(1), server(2), replica(3)), intended="db1")
    client = web.client()
    assert client.get("/health/shop/db2/primary").status_code == 503
    assert client.get("/health/shop/db1/primary").status_code == 503


def test_a_replica_in_maintenance_gets_no_reads_and_answers(web: Web) -> None:
    web.see(GOOD, standing=Standing(maintenance={"db2": Order("ann", 1.0)}))
    client = web.client()
    for question in ("replica", "read-only", "readiness"):
        assert client.get(f"/health/shop/db2/{question}").text == "in maintenance\n"
    assert client.get("/health/shop/db2/health").status_code == 200
    assert client.get("/health/shop/db3/replica").status_code == 200


def test_an_old_look_is_no_answer_also_while_the_keeper_is_at_work(web: Web) -> None:
    client, now = web.client(), time.monotonic()
    assert client.get("/health/shop/db1/primary").status_code == 503  # not looked at yet
    web.see(GOOD, at=time.time() - 60)
    assert web.client().get("/health/shop/primary").text == "stale\n"
    for path in ("db1/primary", "db2/replica", "db2/health", "db2/liveness", "liveness"):
        assert client.get(f"/health/shop/{path}").text == "stale\n"
    live = Sightings.of(GOOD, now)
    web.see(GOOD, at=time.time() - 60, live=lambda: live)
    assert client.get("/health/shop/db1/primary").status_code == 200
    # that we ourselves were late says nothing about the server
    doubtful = Sighting(now, now + 1, silent(1, Silence.HUNG), doubtful=True)
    web.see(GOOD, live=lambda: live.add(doubtful))
    assert client.get("/health/shop/db1/primary").status_code == 200
    web.see(GOOD, live=lambda: live.add(replace(doubtful, doubtful=False)))
    assert client.get("/health/shop/db1/primary").status_code == 503


def test_what_there_is_not_is_no_503(web: Web) -> None:
    web.see(GOOD)
    client = web.client()
    for path in ("/health/nope/db1/primary", "/health/shop/db9/primary", "/health/nope/health"):
        assert client.get(path).status_code == 404
    assert client.get("/health/shop/db1/leader").status_code == 422
    assert client.get("/health/shop/db1/replica?lag=soon").json()["where"] == "query.lag"


def test_the_daemon_is_ready_once_everything_was_looked_at(web: Web) -> None:
    client = web.client()
    assert client.get("/liveness").status_code == 200
    web.see(GOOD)
    assert client.get("/readiness").status_code == 503
    web.see(replace(view(server(1), replica(2)), cluster="bank"))
    assert client.get("/readiness").status_code == 200


def test_health_waits_for_no_disk_and_no_free_thread(web: Web) -> None:
    web.see(GOOD)
    bearer = {"Authorization": f"Bearer {web.token()}"}
    with listening(web) as url, ThreadPoolExecutor(80) as others:
        with web.hub._ledgers:  # a disk that does not answer: everything else waits, until no thread is left
            waiting = [others.submit(requests.get, f"{url}/v1/clusters", headers=bearer) for _ in range(80)]
            until(lambda: len(_waiting_in("states")) >= 40, "every thread to wait")
            assert requests.get(f"{url}/health/shop/db1/primary", timeout=5).status_code == 200
        assert {w.result().status_code for w in waiting} == {200}


def _waiting_in(function: str) -> list[int]:
    """Returns the threads that are somewhere in a function of this name."""
    found = []
    for thread, frame in sys._current_frames().items():
        at: FrameType | None = frame
        while at is not None and at.f_code.co_name != function:
            at = at.f_back
        found += [thread] if at is not None else []
    return found


def test_health_can_be_for_those_with_a_token_only(tmp_path: Path) -> None:
    web = make_web(tmp_path, settings=WebConfig(health="token"))
    web.see(GOOD)
    for path in ("/health/shop/db1/primary", "/v1/health/shop/health", "/liveness"):
        assert web.client().get(path).status_code == 401
    client = web.client(Scope.READ)
    web.see(GOOD)  # on a busy machine making the clients takes longer than a look is good for
    assert client.get("/health/shop/db1/primary").status_code == 200
    assert client.get("/liveness").status_code == 200


_HAPROXY = """
global
    stats socket {folder}/admin.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 10s
    timeout server 10s
backend writes
    option httpchk
    http-check send meth GET uri-lf /health/shop/%[srv_name]/primary
    default-server check addr 127.0.0.1 port {port} inter 100ms fall 1 rise 1
    server db1 127.0.0.1:1
    server db2 127.0.0.1:1
backend reads
    option httpchk
    http-check send meth HEAD uri-lf /health/shop/%[srv_name]/replica?lag=5s
    default-server check addr 127.0.0.1 port {port} inter 100ms fall 1 rise 1
    server db1 127.0.0.1:1
    server db2 127.0.0.1:1
backend plain
    option httpchk OPTIONS /health/shop/db1/master-status
    default-server check addr 127.0.0.1 port {port} inter 100ms fall 1 rise 1
    server db1 127.0.0.1:1
"""


@pytest.fixture
def up(web: Web, tmp_path: Path) -> Iterator[HAProxyStates]:
    haproxy = LocalHAProxy(tmp_path)
    port = free_port()
    with listening(web, port):
        file = tmp_path / "haproxy.cfg"
        file.write_text(_HAPROXY.format(folder=tmp_path, port=port))
        haproxy.start(file)
        try:
            yield HAProxyStates(haproxy)
        finally:
            haproxy.kill9()


class HAProxyStates:
    def __init__(self, haproxy: LocalHAProxy) -> None:
        self._haproxy = haproxy

    def await_up(self, *wanted: str) -> None:
        """Waits until exactly these are up, as ``backend/server``."""

        def up() -> bool:
            rows = csv.DictReader(self._haproxy.ask("show stat").lstrip("# ").splitlines())
            found = {f"{r['pxname']}/{r['svname']}" for r in rows if r["status"] == "UP" and r["svname"] != "BACKEND"}
            return found == set(wanted)

        until(up, f"{wanted} to be up", 20)


def test_a_real_haproxy_follows_the_primary_by_these_answers(web: Web, up: HAProxyStates) -> None:
    def keep(seen: View, at: float) -> None:
        web.see(seen, live=lambda: Sightings.of(seen, at))

    up.await_up()  # nothing was looked at yet: nobody gets anything
    keep(GOOD, time.monotonic())
    up.await_up("writes/db1", "reads/db2", "plain/db1")
    moved = view(replica(1, channel(2)), server(2), replica(3, channel(2)))
    keep(moved, time.monotonic())
    up.await_up("writes/db2", "reads/db1")
    assert isinstance(moved.servers["db2"], Status)
    keep(moved, time.monotonic() - 60)  # nobody looks any more
    up.await_up()
