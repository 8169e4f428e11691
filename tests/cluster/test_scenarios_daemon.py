"""The daemon on real servers: a new configuration, and an end in the midst of anything that the web asked for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.support.disk import Disk
from tests.support.lab import Lab
from tests.support.process import free_port
from tests.support.scene import assert_order, await_settled, books, configured, other, served_by, state_in
from tests.support.serving import Serving, serving
from tests.support.systemd import Systemd
from tests.support.wait import until

FLAVOURS = ("mysql",)
QUICK = {"period": "200ms", "proxies_period": "400ms"}
AUTOMATIC = {"mode": "automatic", "single_engine": True, "policy": "most_advanced"}
SITE = {"n": 3, "more": {"serve": QUICK}, "policy": {"freeze_budget": "6s", "settle": "10s", "prove": "2s"}}


class Api:
    """The API of the daemon, with a token that may command."""

    def __init__(self, site: Lab) -> None:
        before = yaml.safe_load(site.config.read_text())
        self.url = f"http://127.0.0.1:{free_port()}"
        site.config.write_text(yaml.safe_dump({**before, "web": {"listen": self.url.removeprefix("http://")}}))
        self.log_in(site)

    def log_in(self, site: Lab) -> None:
        """Makes a token in the present state_dir, and uses it."""
        make = site.command("token", "create", f"operator{time.monotonic_ns()}", "--scope", "operate")
        token = subprocess.run(make, capture_output=True, text=True, check=True).stdout.strip()
        self.token = token
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        answer = requests.get(self.url + path, headers=self._headers, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def switchover(self, target: str) -> str:
        """Asks for a switchover; returns its id."""
        answer = self.ask(target)
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["id"]
        return id

    def ask(self, target: str) -> requests.Response:
        asked = {"kind": "switchover", "target": target, "reason": "a test"}
        return requests.post(f"{self.url}/v1/clusters/demo/operations", json=asked, headers=self._headers, timeout=10)

    def state(self, id: str) -> str:
        return str(self.get(f"/v1/operations/{id}")["state"])


@pytest.fixture
def api(site: Lab) -> Iterator[Api]:
    before = site.config.read_text()
    yield Api(site)
    site.config.write_text(before)


def reloaded(served: Serving) -> str:
    """Sends SIGHUP; returns what was told of it."""
    before = len(served.texts("reload"))
    served.daemon.send(signal.SIGHUP)
    until(lambda: len(served.texts("reload")) > before, "the reload to be told")
    return served.texts("reload")[-1]


def test_a_bad_configuration_is_refused_while_the_old_one_goes_on_and_a_good_one_is_taken(
    site: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Systemd(str(tmp_path / "notify")) as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
        with serving(site) as served:
            systemd.await_told("STATUS=")
            with configured(site, serve={"periode": "1s"}):
                told = reloaded(served)
            assert "the old one goes on" in told
            assert f"{site.config}:" in told
            assert "clusters.demo.serve.periode" in told
            site.runtime(f"set map {site.haproxy_config.with_suffix('.route.map')} route {other(site)}/1.1")
            served.await_told("corrected")
            with configured(site, serve={"assert_routes": False}):
                assert reloaded(served).endswith("in force: changed: demo")
                until(lambda: len(served.texts("serving")) == 2, "the cluster to be kept again")
                site.runtime(f"set map {site.haproxy_config.with_suffix('.route.map')} route {other(site)}/1.1")
                served.await_told("state", f"sends writes to {other(site)}")
                assert len(served.texts("corrected")) == 1
            assert reloaded(served).endswith("in force: changed: demo")
            until(lambda: len(served.texts("corrected")) == 2, "the route to be brought back")
            until(lambda: served_by(site, site.write) == site.cluster.primary.name, "the route to be back")
            systemd.heard()
            assert any(line.startswith("STATUS=demo: ") for line in systemd.told)
            assert systemd.told.count("RELOADING=1") == 3
        systemd.heard()
        assert systemd.told[-1] != "READY=1"
        assert "STOPPING=1" in systemd.told
    assert_order(site)


def test_sigterm_brings_what_the_web_asked_for_to_its_end_and_who_waits_for_it_learns_it(site: Lab, api: Api) -> None:
    new = other(site)
    with books(site), serving(site) as served:
        id = api.switchover(new)
        until(lambda: api.state(id) == "running", "it to begin")
        served.daemon.send(signal.SIGTERM)
        states: list[str] = []

        def ended() -> bool:
            try:
                states.append(api.state(id))
            except requests.ConnectionError:
                return True
            return False

        until(ended, "the daemon to end", 60)
        assert states[-1] in ("done", "running")
        assert served.daemon.wait(60) == 0
        assert [told["kind"] for told in served.told if told["kind"] != "record"][-1] == "ended"
    (last,) = site.json("history")[1]["operations"][-1:]
    assert (last["operation"], last["outcome"]) == (id, "done")
    assert_order(site, new)


def test_sighup_in_the_midst_of_a_switchover_changes_nothing_of_it(site: Lab, api: Api) -> None:
    new = other(site)
    with books(site), serving(site) as served:
        id = api.switchover(new)
        with configured(site, serve={"period": "300ms"}):
            assert reloaded(served).endswith("in force: changed: demo")
            until(lambda: api.state(id) not in ("waiting", "running"), "it to end", 40)
            assert api.state(id) == "done"
            until(lambda: f"{new} takes writes" in api.get("/v1/clusters")[0]["truth"], "the new primary to be seen")
    assert_order(site, new)


@pytest.mark.parametrize("point", ["mariadb.limit_connections:after", "mariadb.accept_writes:after"])
def test_killed_in_the_midst_of_what_the_web_asked_for_the_next_one_heals(site: Lab, api: Api, point: str) -> None:
    new = other(site)
    fault = {"PROXYROUTE_FAULT": f"serve/{point},guard/guard.take_over:before"}
    with books(site):
        served = Serving(site, environment=fault)
        try:
            served.await_told("state")
            id = api.switchover(new)
            assert served.daemon.wait(60) == -signal.SIGKILL
        finally:
            served.daemon.kill()
        with serving(site) as again:
            again.await_told("healed", id)
            until(lambda: len(site.cluster.writable) == 1, "one primary")
            until(lambda: api.state(id) in ("done", "aborted"), "whoever asked to learn how it ended")
            healed = [n for n in again.told if n["kind"] == "healed"]
            assert healed[0]["operation"] == id
    assert_order(site)


def test_with_a_full_disk_it_watches_says_so_and_does_not_act(
    site: Lab, api: Api, small_disk: Disk, tmp_path: Path
) -> None:
    primary = site.cluster.primary
    with state_in(site, tmp_path), configured(site, failover=AUTOMATIC):
        api.log_in(site)
        with serving(site) as served:
            small_disk.fill()
            wrong = other(site)
            answer = api.ask(wrong)
            assert answer.status_code == 503, answer.text
            site.cluster[wrong].sql("STOP SLAVE SQL_THREAD")
            served.await_told("state", "1 of 2 replicas")
            site.cluster[wrong].sql("START SLAVE SQL_THREAD")
            primary.kill9()
            served.await_told("blocked", "No space left")
            assert len(site.cluster.writable) == 0
            primary.start()
            small_disk.free()
            primary.accept_writes()
            until(lambda: "2 of 2 replicas follow" in served.texts("state")[-1], "the state to be good again")
            await_settled(site)
    assert_order(site, primary.name)


# -- The command line beside the daemon -----------------------------------------------------------------------


def test_the_command_line_does_it_by_the_daemon_and_tells_it_as_on_its_host(site: Lab, api: Api) -> None:
    new = other(site)
    far = {"PROXYROUTE_TOKEN": api.token, "PROXYROUTE_CONFIG": "/nowhere"}
    program = site.command("status")[0]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "--url", api.url, *words], capture_output=True, text=True, timeout=120, env={**os.environ, **far}
        )

    with books(site), serving(site):
        until(lambda: "takes writes, 2 of 2 replicas follow" in run("status").stdout, "the state to be seen")
        planned, here = run("plan", "--to", new), site.run("plan", "--to", new)
        assert planned.returncode == here.returncode == 0
        told = [line for line in here.stdout.splitlines() if line.strip() and "Predicted" not in line]
        assert told[0] == planned.stdout.splitlines()[0]
        assert "Who could take over" in planned.stdout
        moved = run("switchover", "--to", new, "--yes")
        assert moved.returncode in (0, 7), moved.stdout + moved.stderr  # on a busy machine a proof may have a gap
        assert ("PROVEN" in moved.stdout) or moved.returncode, moved.stdout
        assert "freeze" in moved.stdout, "each step is shown"
        (last,) = json.loads(run("--json", "history", "--limit", "1").stdout)["operations"]
        assert (last["candidate"], last["outcome"]) == (new, "done")
        assert "from here on nothing is taken back" in run("show", last["operation"]).stdout
        again = run("switchover", "--to", new, "--yes")
        assert (again.returncode, "already" in again.stdout) == (0, True), again.stdout + again.stderr
    assert_order(site, new)


def test_a_command_typed_here_and_one_by_the_daemon_never_act_at_once(site: Lab, api: Api) -> None:
    new = other(site)

    def moves() -> int:
        found = site.json("history")[1]["operations"]
        return sum(o["outcome"] == "done" and o["candidate"] == new for o in found)

    with books(site), serving(site):
        before = moves()
        id = api.switchover(new)
        until(lambda: api.get(f"/v1/operations/{id}")["journals"], "it to have begun")
        here = site.run("switchover", "--to", new, "--yes")
        until(lambda: api.state(id) not in ("waiting", "running"), "it to end", 40)
        assert api.state(id) == "done"
        # the other one had the cluster; or had it no more, and there was nothing left to do
        late = here.returncode == 0 and "already" in here.stdout
        assert late or here.returncode in (3, 6), here.stdout + here.stderr
        assert moves() - before == 1
    assert_order(site, new)


# -- For long -------------------------------------------------------------------------------------------------


class Listening(threading.Thread):
    """Listens to the events, as a page does, until the stream ends; or with ``once`` to one, and leaves."""

    def __init__(self, api: Api, *, once: bool = False) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._once = once
        self.heard = 0

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {self._api.token}"}
        with (
            contextlib.suppress(requests.RequestException),
            requests.get(f"{self._api.url}/v1/events", headers=headers, stream=True, timeout=60) as stream,
        ):
            for line in stream.iter_lines():
                self.heard += line.startswith(b"id:")
                if self.heard and self._once:
                    return


def held(pid: int) -> tuple[float, int, int]:
    """Returns the megabytes, threads and descriptors that a process has."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in status if line.startswith(("VmRSS", "Threads"))}
    return int(values["VmRSS"]) / 1024, int(values["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize(
    ("seconds", "warm"),
    [
        pytest.param(20, 2, id="short"),
        pytest.param(
            *(900, 8),
            id="long",
            marks=[
                pytest.mark.full,
                pytest.mark.timeout(1500),
                pytest.mark.mariadb_only("what grows slowly is the daemon's own; the short one runs there"),
            ],
        ),
    ],
)
def test_memory_threads_and_descriptors_stay_as_they_are(site: Lab, api: Api, seconds: int, warm: int) -> None:
    """With listeners that come and go, and one switchover after the other; measured once ``warm`` of them are over."""
    with serving(site) as served:
        listeners = [Listening(api) for _ in range(5)]
        for listener in listeners:
            listener.start()
        began, moves, first = time.monotonic(), 0, (0.0, 0, 0)
        while moves <= warm or time.monotonic() - began < seconds:
            passing = [Listening(api, once=True) for _ in range(3)]
            for listener in passing:
                listener.start()
            id = api.switchover(other(site))
            until(lambda id=id: api.state(id) not in ("waiting", "running"), "it to end", 60)  # type: ignore[misc]
            assert api.state(id) == "done"
            api.get("/v1/clusters/demo")
            moves += 1
            if moves == warm:
                first = held(served.daemon.pid)
        last = held(served.daemon.pid)
        assert last[0] <= 1.15 * first[0] + 8, f"{first[0]:.0f} MB have become {last[0]:.0f} MB in {moves} switchovers"
        # those who passed by just now may not be gone yet
        assert last[1] <= first[1] + 8, f"{first[1]} threads have become {last[1]}"
        assert last[2] <= first[2] + 8, f"{first[2]} descriptors have become {last[2]}"
        assert all(listener.heard for listener in listeners)
        until(lambda: all(n.replicates() for n in site.cluster if n is not site.cluster.primary), "all to follow", 30)
        until(lambda: not site.json("status")[1]["open_operations"], "a rejoin by serve to be closed", 30)
    assert_order(site)
