"""``serve`` as a whole, on clusters of which no server can be reached: a new configuration, signs of life, the end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxyroute.charge import Charge
from proxyroute.config import load
from proxyroute.daemon import interval
from proxyroute.errors import ConfigError
from proxyroute.keeper import Keeper
from proxyroute.notify_message import Notice
from proxyroute.sdnotify import Manager
from proxyroute.serve_lock import Lock, server_of
from proxyroute.service import Service
from tests.support.systemd import Systemd
from tests.support.wait import until


class Served:
    """A service in a thread, and what it has told."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "proxyroute.yml"
        self.told: list[Notice] = []
        self.secret = folder / "secret"
        self.secret.write_text("one")
        self.write("one", "two")
        self.systemd = Systemd(str(folder / "notify"))

    def write(self, *clusters: str, port: int = 1, **more: Any) -> None:
        """Each cluster has one server, at a port where nobody listens."""
        account = {"user": "a", "password": {"file": "secret"}}
        part = {
            name: {"account": account, "replication": account, "servers": {"db1": f"127.0.0.{n + 2}:{port}"},
                   "serve": {"period": "50ms"}, "failover": {"probe_period": "100ms"}}
            for n, name in enumerate(clusters)
        }  # fmt: skip
        values = {"version": 1, "state_dir": "state", "clusters": part, **more}
        self.file.write_text(yaml.safe_dump(values, sort_keys=False))

    @contextlib.contextmanager
    def running(self, only: str | None = None, watchdog: str = "900000") -> Iterator[Service]:
        manager = Manager({"NOTIFY_SOCKET": self.systemd.address, "WATCHDOG_USEC": watchdog})
        service = Service(load(self.file), only, self.told.append, manager)
        ended: list[bool] = []
        thread = threading.Thread(target=lambda: ended.append(service.run()))
        thread.start()
        try:
            self.systemd.await_told("READY=1")
            yield service
        finally:
            service.ask_to_end()
            thread.join(60)
        assert ended == [True]

    def texts(self, kind: str, cluster: str = "") -> list[str]:
        return [n.text for n in list(self.told) if n.kind == kind and (n.cluster == cluster or not cluster)]

    def level(self, kind: str) -> str:
        return [n.level for n in list(self.told) if n.kind == kind][-1]

    def reload(self, service: Service) -> str:
        before = len(self.texts("reload"))
        service.ask_to_reload()
        until(lambda: len(self.texts("reload")) > before, "the reload to be told")
        self.systemd.await_told("READY=1")
        return self.texts("reload")[-1]

    def served(self) -> list[str]:
        return [name for name, config in load(self.file).clusters.items() if server_of(config)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path)
    with found.systemd:
        yield found


def test_clusters_are_added_removed_and_changed_by_a_new_configuration(served: Served) -> None:
    with served.running() as service:
        until(lambda: served.served() == ["one", "two"], "both to be served")
        served.write("one", "three")
        assert served.reload(service).endswith("in force: added: three; removed: two")
        until(lambda: served.texts("ended", "two"), "the removed one to end")
        until(lambda: served.texts("serving", "three"), "the added one to begin")
        assert not served.texts("ended", "one"), "what is as it was goes on"
        served.write("one", "three", port=2)
        assert served.reload(service).endswith("in force: changed: one, three")
        until(lambda: len(served.texts("serving", "one")) == 2, "the changed one to begin again")
        assert served.texts("ended", "one") == ["ended; nothing was changed by that"]
        assert served.served() == ["one", "three"]
        assert served.reload(service).endswith("in force: nothing has changed")
        assert served.level("reload") == "good"
    assert served.served() == []


def test_a_new_password_in_the_same_file_is_a_change(served: Served) -> None:
    with served.running() as service:
        served.secret.write_text("another")
        assert served.reload(service).endswith("in force: changed: one, two")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.file.write_text(s.file.read_text().replace("db1:", "db 1:")), "clusters.one.servers.db 1: "),
        (lambda s: s.file.write_text("version: [1"), "proxyroute.yml"),
        (lambda s: s.file.unlink(), "proxyroute.yml"),
        (lambda s: (s.write("one", "three"), s.secret.unlink()), "secret does not exist"),
        (lambda s: s.write("one", "two", state_dir="elsewhere"), "state_dir: "),
        (lambda s: s.write("two"), "no cluster 'one'"),
    ],
    ids=["mistake", "no-yaml", "no-file", "no-secret", "state-dir", "the-only-one-gone"],
)
def test_a_bad_configuration_is_refused_as_a_whole_and_the_old_one_goes_on(
    served: Served, spoil: Any, words: str
) -> None:
    with served.running(only="one") as service:
        good = served.file.read_text()
        spoil(served)
        text = served.reload(service)
        assert text.startswith("the new configuration is refused, and the old one goes on: ")
        assert words in text
        assert served.level("reload") == "bad"
        served.file.write_text(good)
        served.secret.write_text("one")
        assert served.served() == ["one"]
        assert served.reload(service).endswith("in force: nothing has changed")
        assert not served.texts("ended"), "nobody was stopped"


def test_a_mistake_of_ours_while_it_is_read_is_told_as_well(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.running() as service:
        with monkeypatch.context() as patched:
            patched.setattr("proxyroute.service.load", lambda _: {}["gone"])
            text = served.reload(service)
        assert text.startswith("the new configuration is refused, and the old one goes on: a mistake of ours: KeyError")
        assert served.reload(service).endswith("in force: nothing has changed")


def test_a_mistake_is_named_with_file_line_and_field(served: Served) -> None:
    with served.running() as service:
        served.write("one", "two", more=1)
        assert "proxyroute.yml:" in (text := served.reload(service))
        assert ": more: " in text


def test_what_only_a_restart_changes_is_said_and_the_rest_is_in_force(served: Served) -> None:
    with served.running() as service:
        served.write("one", web={"listen": "127.0.0.1:1234"}, log="json")
        assert served.reload(service).endswith("removed: two; only a restart changes: log, web")
        assert served.level("reload") == "warn"


def test_one_that_is_served_elsewhere_is_refused_and_nothing_else_is_taken(served: Served, tmp_path: Path) -> None:
    with served.running() as service:
        served.write("one", "three", "four")
        lock = Lock(load(served.file).clusters["four"])
        assert "four is served already by process" in served.reload(service)
        assert served.served() == ["one", "four"]
        lock.release()
        assert served.reload(service).endswith("added: three, four; removed: two")


def test_a_keeper_in_the_midst_of_something_finishes_it_before_the_next_begins(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, go = threading.Event(), threading.Event()
    step = Keeper.step

    def slow(self: Keeper) -> None:
        if self._config.name == "one" and not go.is_set():
            busy.set()
            assert go.wait(30)
        step(self)

    monkeypatch.setattr(Keeper, "step", slow)
    with served.running() as service:
        assert busy.wait(10)
        for port in (2, 3):  # a second change before the first could take effect
            served.write("one", port=port)
            assert "changed: one" in served.reload(service)
        served.write("two")
        assert "added: two; removed: one" in served.reload(service)
        served.write("one")
        assert "added: one; removed: two" in served.reload(service)
        assert served.texts("serving", "one") == ["serving"], "the first is still at it"
        go.set()
        until(lambda: len(served.texts("serving", "one")) == 2, "the last one to begin")
        told = [n.kind for n in served.told if n.cluster == "one" and n.kind in ("serving", "ended")]
        assert told[:2] == ["serving", "ended"]
        assert told[-1] == "serving"
    assert served.served() == []


def test_signs_of_life_end_when_one_keeper_hangs(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    hang, go = threading.Event(), threading.Event()
    step = Keeper.step

    def stuck(self: Keeper) -> None:
        if self._config.name == "two" and hang.is_set():
            go.wait(30)
        step(self)

    monkeypatch.setattr(Keeper, "step", stuck)
    monkeypatch.setattr("proxyroute.charge.STUCK", 1.0)
    with served.running(watchdog="300000"):
        for _ in range(3):
            served.systemd.await_told("WATCHDOG=1")
        assert any(s.startswith("STATUS=2 clusters, 2 with something the matter; one: ") for s in served.systemd.told)
        hang.set()
        served.systemd.await_told("STATUS=two: does not go on")
        served.systemd.heard()
        time.sleep(1.2)  # signs that do not come: longer than two rounds of the loop that would give them
        assert "WATCHDOG=1" not in served.systemd.heard()
        go.set()
        served.systemd.await_told("WATCHDOG=1")
    served.systemd.heard()
    assert served.systemd.told.index("STOPPING=1") > served.systemd.told.index("STATUS=two: does not go on")


def test_what_waits_for_long_and_asks_after_us_is_alive_and_a_dead_thread_is_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    charge = Charge(load(served.file).clusters["one"], served.told.append)
    assert not charge.turns, "it has not begun"
    monkeypatch.setattr("proxyroute.charge.STUCK", 0.05)
    monkeypatch.setattr(Charge, "_keep", lambda self: until(lambda: self._asked(), "the end", pause=0.005))
    charge.start(Lock(charge.config))
    for _ in range(20):
        threading.Event().wait(0.01)
        assert charge.turns
    charge.ask_to_end()
    until(lambda: charge.over, "it to end")
    assert not charge.turns


def test_a_cluster_that_is_served_already_is_refused_at_the_start(served: Served) -> None:
    lock = Lock(load(served.file).clusters["two"])
    with pytest.raises(ConfigError, match="two is served already"):
        Service(load(served.file), None, served.told.append)
    lock.release()
    with served.running():
        pass


@pytest.mark.parametrize(("servers", "seconds"), [(2, 0.005), (50, 0.005), (300, 0.03), (1000, 0.05), (9000, 0.05)])
def test_the_more_servers_the_more_seldom_waiting_threads_ask_for_the_interpreter(servers: int, seconds: float) -> None:
    assert interval(servers) == pytest.approx(seconds)
