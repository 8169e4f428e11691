"""The stream of events, over a real connection: nothing is missed, or it says so; it ends with the right to it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from proxyroute.web.ring import Ring
from proxyroute.web.tokens import Scope
from tests.support.builders import replica, server, view
from tests.support.web import Web, listening


class Blocks:
    """Reads a stream, one block at a time."""

    def __init__(self, url: str, token: str, **headers: str) -> None:
        self._answer = requests.get(
            url, headers={"Authorization": f"Bearer {token}", **headers}, stream=True, timeout=10
        )  # fmt: skip
        assert self._answer.status_code == 200, self._answer.text
        assert self._answer.headers["content-type"].startswith("text/event-stream")
        self._lines = self._answer.iter_lines(chunk_size=1, decode_unicode=True)

    def next(self) -> dict[str, Any]:
        """Returns the fields of the next block, its data as values. Raises StopIteration when the stream has ended."""
        found: dict[str, Any] = {}
        while line := next(self._lines):
            name, _, value = line.partition(": ")
            found[name or "comment"] = json.loads(value) if name == "data" else value
        return found

    def rest(self) -> Iterator[dict[str, Any]]:
        """Yields what comes until the stream ends."""
        with contextlib.suppress(StopIteration):
            while True:
                yield self.next()

    def close(self) -> None:
        self._answer.close()


@pytest.fixture
def address(web: Web) -> Iterator[str]:
    web.app.state.streams.heartbeat = 0.2
    with listening(web) as url:
        yield f"{url}/v1/events"


def events(blocks: Blocks, number: int) -> list[dict[str, Any]]:
    found = []
    while len(found) < number:
        if "event" in (block := blocks.next()):
            found.append(block)
    return found


def test_who_comes_again_with_the_last_event_he_has_misses_nothing(web: Web, address: str) -> None:
    token = web.token()
    blocks = Blocks(address, token)
    assert blocks.next()["event"] == "ready"
    web.hub.events.publish("notice", "shop", {"n": 1})
    (first,) = events(blocks, 1)
    assert (first["event"], first["data"]["n"], first["data"]["cluster"]) == ("notice", 1, "shop")
    blocks.close()
    for n in (2, 3):
        web.hub.events.publish("notice", "shop", {"n": n})
    blocks = Blocks(address, token, **{"Last-Event-ID": first["id"]})
    assert [e["data"].get("n") for e in events(blocks, 3)] == [None, 2, 3]
    blocks = Blocks(f"{address}?after={first['id']}", token)
    assert [e["data"].get("n") for e in events(blocks, 3)] == [None, 2, 3]


def test_who_was_away_for_too_long_or_meets_a_new_daemon_is_told_to_read_everything_again(
    web: Web, address: str
) -> None:
    token = web.token()
    web.hub.events = Ring(kept=2)
    old = web.hub.events.last_id
    for n in range(4):
        web.hub.events.publish("notice", "shop", {"n": n})
    for id in (old, "another-run-7", "nonsense"):
        blocks = Blocks(address, token, **{"Last-Event-ID": id})
        reset = events(blocks, 1)[0]
        assert (reset["event"], reset["id"]) == ("reset", web.hub.events.last_id)
        blocks.close()


def test_only_the_clusters_that_were_asked_for_are_told(web: Web, address: str) -> None:
    blocks = Blocks(f"{address}?cluster=bank", web.token())
    blocks.next()
    web.hub.events.publish("notice", "shop", {"n": 1})
    web.hub.events.publish("notice", "bank", {"n": 2})
    assert events(blocks, 1)[0]["data"]["n"] == 2


def test_what_is_seen_is_told_whenever_it_is_new(web: Web, address: str) -> None:
    web.see(view(server(1), replica(2), replica(3)))
    blocks = Blocks(f"{address}?cluster=shop&view=true", web.token())

    def next_view() -> dict[str, Any]:
        while (block := blocks.next()).get("event") != "view":
            pass
        assert "id" not in block
        data: dict[str, Any] = block["data"]
        return data

    assert next_view()["primary"] == "db1"
    web.see(view(replica(1), server(2), replica(3)))
    assert next_view()["primary"] == "db2"


def test_a_silent_stream_is_told_that_it_lives_and_where_it_is(web: Web, address: str) -> None:
    blocks = Blocks(f"{address}?cluster=bank", web.token())
    blocks.next()
    web.hub.events.publish("notice", "shop", {"n": 1})
    while (block := blocks.next())["id"] != web.hub.events.last_id:
        assert "event" not in block
    assert "comment" in block


def test_a_stream_ends_with_the_token_of_whoever_listens(web: Web, address: str) -> None:
    blocks = Blocks(address, web.token(Scope.READ, "ann"))
    blocks.next()
    web.tokens.revoke("ann")
    while (block := blocks.next()).get("event") != "ended":
        assert "event" not in block
    with pytest.raises(StopIteration):
        blocks.next()


def test_there_are_only_so_many_streams_and_one_that_is_closed_makes_room(web: Web, address: str) -> None:
    streams, token = web.app.state.streams, web.token()
    streams.most = 1
    blocks = Blocks(address, token)
    blocks.next()
    answer = requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    blocks.close()
    ends = time.monotonic() + 10
    while streams.count and time.monotonic() < ends:
        web.hub.events.publish("notice", "shop", {})  # whoever is gone is noticed at the latest when something is sent
        time.sleep(0.02)
    assert Blocks(address, token).next()["event"] == "ready"


def test_one_token_leaves_room_for_others(web: Web, address: str) -> None:
    streams = web.app.state.streams
    streams.most, streams.each = 3, 2
    ann, ben = (web.token(Scope.READ, name) for name in ("ann", "ben"))
    open_ones = [Blocks(address, ann) for _ in range(2)]
    assert [blocks.next()["event"] for blocks in open_ones] == ["ready", "ready"]
    answer = requests.get(address, headers={"Authorization": f"Bearer {ann}"}, stream=True, timeout=10)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert Blocks(address, ben).next()["event"] == "ready"
    for blocks in open_ones:
        blocks.close()


def test_the_end_of_the_daemon_does_not_wait_for_who_listens(web: Web) -> None:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(listening(web))
        blocks = Blocks(f"{url}/v1/events", web.token())
        blocks.next()
        began = time.monotonic()
        stack.close()
        assert time.monotonic() - began < 3
        assert list(blocks.rest()) == []
