"""Whoever opens connections and asks nothing keeps nobody else from asking, and holds no descriptor for long."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from proxyroute.web import connections
from proxyroute.web.pages.shell import STATIC
from tests.support.wait import until
from tests.support.web import Web, listening

ALIVE = b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def place(web: Web) -> Iterator[tuple[str, int]]:
    with listening(web) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def connect(ends: contextlib.ExitStack, place: tuple[str, int], said: bytes = b"") -> socket.socket:
    made = ends.enter_context(socket.create_connection(place, timeout=10))
    made.sendall(said)
    return made


def ended(connection: socket.socket) -> bool:
    """Tells whether the other side has ended it; what was sent before is read away."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /liveness HTTP/1.1\r\nHost: lo",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntoken=",
        ALIVE + b"GET /live",
    ],
    ids=["nothing", "half-headers", "half-body", "half-second"],
)
def test_a_request_that_does_not_come_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch, place: tuple[str, int], said: bytes
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.3)
    with contextlib.ExitStack() as ends:
        silent = connect(ends, place, said)
        began = time.monotonic()
        until(lambda: ended(silent), "it to be ended", 10)
        assert time.monotonic() - began < 4, "that is longer than one that has been answered is kept open"


def test_a_request_that_is_whole_may_be_answered_late_and_followed_by_others(
    monkeypatch: pytest.MonkeyPatch, place: tuple[str, int], web: Web
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.2)
    url = f"http://{place[0]}:{place[1]}"
    stream = requests.get(
        f"{url}/v1/events", headers={"Authorization": f"Bearer {web.token()}"}, stream=True, timeout=10
    )  # fmt: skip
    with contextlib.closing(stream), requests.Session() as session:
        lines = stream.iter_lines(chunk_size=1)
        assert next(lines).startswith(b"retry")
        for _ in range(4):
            assert session.get(f"{url}/liveness", timeout=10).status_code == 200
            time.sleep(0.1)  # no condition: it is the time itself in which nothing must be ended
        web.hub.events.publish("notice", "shop", {"text": "later"})
        until(lambda: b"later" in next(lines), "the stream to go on", 10)


def test_where_there_is_no_room_the_one_that_has_asked_nothing_for_longest_makes_it(
    monkeypatch: pytest.MonkeyPatch, place: tuple[str, int]
) -> None:
    monkeypatch.setattr(connections, "MOST", 5)
    with contextlib.ExitStack() as ends:
        silent = [connect(ends, place) for _ in range(5)]
        for _ in range(3):
            asking = connect(ends, place, ALIVE)
            assert asking.recv(100).startswith(b"HTTP/1.1 200")
            asking.close()
        until(lambda: ended(silent[0]), "the first one to be ended", 10)
        assert not ended(silent[-1])


def test_one_that_takes_no_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, place: tuple[str, int]) -> None:
    monkeypatch.setattr(connections, "STUCK", 0.3)
    given_up, give_up = threading.Event(), connections.Connection.give_up

    def noted(connection: connections.Connection) -> None:
        give_up(connection)
        given_up.set()

    monkeypatch.setattr(connections.Connection, "give_up", noted)
    one = b"GET /static/pages.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
    number = 1000
    with contextlib.ExitStack() as ends:
        greedy = ends.enter_context(socket.socket())
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.settimeout(10)
        greedy.connect(place)
        greedy.sendall(one * number)
        assert given_up.wait(30), "it was not given up"
        length, ended_early = 0, False
        while not ended_early:
            try:
                taken = greedy.recv(1 << 20)
            except ConnectionResetError:
                taken = b""
            length += len(taken)
            ended_early = not taken
        assert length < number * (STATIC / "pages.css").stat().st_size / 2, "all of it was kept for it"
