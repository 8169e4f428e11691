"""A virtual address between proxy hosts of the laboratory: real VRRP by keepalived, and what can become of a host."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxyroute.model import Address
from proxyroute.vrrp import PRIORITY
from tests.support import netns
from tests.support.accounts import APPLICATION
from tests.support.hosts import ProxyHost
from tests.support.lab import run_to_end
from tests.support.load import ROOT_FOLDER, Load, Records, create_table, now, read_rows
from tests.support.netlab import NetLab
from tests.support.network import PREFIX_LENGTH, addresses, virtual_address
from tests.support.process import Daemon, find_program
from tests.support.verdict import Verdict, blackout, judge
from tests.support.wait import until

CHECK = ROOT_FOLDER / "scripts" / "keepalived" / "check"
_HOME = "/HOME-OF-THE-HOST"
"""Stands in the configuration for the folder of each host: on one machine they have their files beside each other."""
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATIENCE = 2.0
"""Seconds after which a client gives up a connection of which it hears nothing: its host may be dead."""


def vrrp_part(*hosts: str, advertisement: float = 0.2) -> dict[str, Any]:
    """Returns the part ``vrrp`` of an engine's configuration, for proxy hosts of the laboratory."""
    check = [str(CHECK), "--socket", f"{_HOME}/admin.sock", "--state", f"{_HOME}/state"]
    return {
        "addresses": [f"{virtual_address()}/{PREFIX_LENGTH}"],
        "hosts": addresses(hosts),
        "interface": "eth0",
        "router_id": 51,
        "advertisement": advertisement,
        "check": check,
        "priority_file": f"{_HOME}/state/priority",
    }


class Keepalived:
    """keepalived on one host, with the configuration that the product has rendered for it."""

    def __init__(self, lab: NetLab, host: ProxyHost, *, outlive: bool = False) -> None:
        self.host = host
        self._outlive = outlive
        self.file = host.folder / "keepalived.conf"
        self.log_file = host.folder / "keepalived.log"
        self._launcher = lab.network.launcher(host.name)
        self._daemon: Daemon | None = None
        text = run_to_end(lab.command("render", "keepalived", "--host", host.name), check=True).stdout
        self.file.write_text(text.replace(_HOME, str(host.folder)))

    def start(self) -> None:
        """Starts it. Who holds the address shows a moment later."""
        for file in self.pid_files:
            file.unlink(missing_ok=True)
        # as an init system starts it: a developer's own python3, before the system's, may take ten times as long
        path = os.pathsep.join((SYSTEM_PATH, os.environ.get("PATH", "")))
        self._daemon = Daemon(
            self.argv, self.log_file, launcher=self._launcher, outlive=self._outlive, environment={"PATH": path}
        )

    @property
    def pid_files(self) -> tuple[Path, Path]:
        """What it writes, and must not find when it starts."""
        return self.host.folder / "keepalived.pid", self.host.folder / "vrrp.pid"

    @property
    def argv(self) -> list[str]:
        """What starts it on its host."""
        own, vrrp = map(str, self.pid_files)
        return [find_program("keepalived"), "-n", "-l", "-D", "-P", "-f", str(self.file), "-p", own, "-r", vrrp]

    def stop(self) -> None:
        """SIGTERM: it gives the address away and says so."""
        if self._daemon is not None:
            self._daemon.terminate()
        self._daemon = None

    def kill9(self) -> None:
        """SIGKILL for all of it: the address stays where it is, and nobody hears of this host any more."""
        if self._daemon is not None:
            children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split()
            for pid in (self._daemon.pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._daemon.kill()
        self._daemon = None

    @property
    def running(self) -> bool:
        return self._daemon is not None and self._daemon.running

    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def state(self) -> str:
        """What it says it is since it was started: ``MASTER``, ``BACKUP`` or ``FAULT``; empty before it says."""
        states = re.findall(r"entering (\w+) state", self._said(), re.IGNORECASE)
        return str(states[-1]).upper() if states else ""

    @property
    def unfit(self) -> bool:
        """Whether the check has said no, the last time that its word changed."""
        words = re.findall(r"VRRP_Script\(route\) (succeeded|failed)", self._said())
        return words[-1:] == ["failed"]

    @property
    def steps_back(self) -> bool:
        """Whether keepalived has been told that the host may know less than another one."""
        priorities = re.findall(r"Changing effective priority from \d+ to (\d+)", self._said())
        return bool(priorities) and int(priorities[-1]) < PRIORITY

    def _said(self) -> str:
        """What it has said since it was started."""
        return self.log().rpartition("Starting Keepalived")[2] if self.log_file.exists() else ""


class Pair:
    """The proxy hosts of a laboratory under VRRP. ``address`` is where clients go."""

    def __init__(self, lab: NetLab, *, outlive: bool = False) -> None:
        self.lab = lab
        self.address: Address = lab.virtual
        self.keepalived: Mapping[str, Keepalived] = {
            host.name: Keepalived(lab, host, outlive=outlive) for host in lab.hosts
        }
        self._hosts = {host.name: host for host in lab.hosts}

    def __getitem__(self, name: str) -> ProxyHost:
        return self._hosts[name]

    @property
    def holders(self) -> tuple[str, ...]:
        """Who has the address."""
        return tuple(name for name in self._hosts if self.lab.network.has_address(name, self.address.host))

    def others(self, name: str) -> tuple[str, ...]:
        return tuple(other for other in self._hosts if other != name)

    def start(self) -> None:
        """Starts keepalived everywhere, and has agents watch the address; returns when one host has it."""
        for host in self.lab.hosts:
            host.kill_agent()
            host.write_agent_file(virtual_addresses=[self.address.host])
            host.start_agent()
        for one in self.keepalived.values():
            one.start()
        self.await_one()

    def await_one(self, *names: str) -> str:
        """Returns who has the address, once it is exactly one host, among ``names`` if these are given."""
        found = until(lambda: self._one(names), f"one of {names or 'the hosts'} to have the address", 30)
        return str(found)

    def _one(self, names: tuple[str, ...]) -> str:
        holders = self.holders
        return holders[0] if len(holders) == 1 and (not names or holders[0] in names) else ""

    # What may become of a host

    def power_off(self, name: str) -> None:
        """The host is gone from one moment to the next, with everything that was in its memory."""
        self.lab.cut(name)
        host = self._hosts[name]
        host.kill_agent()
        host.haproxy.kill9()
        self.keepalived[name].kill9()
        netns.end_processes(netns.processes_in(self.lab.network.namespace(name)))
        self._forget_address(name)

    def power_on(self, name: str) -> None:
        """The host starts: cable, agent, HAProxy, keepalived, in no order that anybody should rely on."""
        self._forget_address(name)
        self.lab.mend(name)
        host = self._hosts[name]
        self.keepalived[name].start()
        host.start_haproxy()
        host.start_agent()

    def _forget_address(self, name: str) -> None:
        network = self.lab.network
        if network.has_address(name, self.address.host):
            argv = ["ip", "addr", "del", f"{self.address.host}/{PREFIX_LENGTH}", "dev", "eth0"]
            netns.command(argv, namespace=network.namespace(name))

    def restore(self, name: str) -> None:
        """Whatever of a host does not run is started; returns when it may hold the address again."""
        host = self._hosts[name]
        self.lab.mend(name)
        if not host.haproxy.running:
            host.start_haproxy()
        if host.agent is None or not host.agent.running:
            host.start_agent()
        one = self.keepalived[name]
        if not one.running:
            self._forget_address(name)
            one.start()
        self.await_fit(name)
        until(lambda: one.state in ("BACKUP", "MASTER"), f"keepalived on {name} to find its host fit", 30)

    def await_fit(self, name: str) -> None:
        """Returns when the check lets a host hold the address."""
        host = self._hosts[name]
        argv = [str(CHECK), "--socket", str(host.haproxy.runtime_socket), "--state", str(host.state_dir)]
        until(lambda: run_to_end(argv).returncode == 0, f"{name} to be fit for the address", 30, pause=0.1)

    def close(self) -> None:
        """Ends keepalived everywhere."""
        for name, one in self.keepalived.items():
            one.kill9()
            self._forget_address(name)


FAULTS: Mapping[str, Callable[[Pair, str], None]] = {
    "haproxy": lambda pair, name: pair[name].haproxy.kill9(),
    "keepalived": lambda pair, name: pair.keepalived[name].stop(),
    "host": Pair.power_off,
    "cable": lambda pair, name: pair.lab.cut(name),
}
"""What takes the address away from a host that holds it."""


@dataclass
class Seen:
    """What clients behind the address saw; complete after the ``with`` block."""

    loads: tuple[Load, ...]
    begun: float
    ended: float = 0.0
    records: Records = field(default_factory=Records)
    verdict: Verdict = field(default_factory=lambda: Verdict(0))

    def go_on(self, number: int = 5) -> None:
        """Returns when every kind of client has had ``number`` more writes acknowledged."""
        for load in self.loads:
            load.await_more(number, 60)

    @property
    def longest_gap(self) -> float:
        """Seconds in which no write of any client was acknowledged."""
        return blackout(self.records, (self.begun, self.ended))

    def __str__(self) -> str:
        return f"behind the address: longest gap {self.longest_gap:.2f} s; {self.verdict}"


def _at_work(lab: NetLab) -> int:
    count = "(SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER=%s AND COMMAND<>'Sleep')"
    running = [node for node in lab.cluster if node.running]
    return sum(int(node.sql(f"SELECT {count} AS n", (APPLICATION.user,))[0]["n"]) for node in running)


@contextlib.contextmanager
def behind(pair: Pair, *, rate: float = 20, lossless: bool = True) -> Iterator[Seen]:
    """Clients that know only the virtual address, for a ``with`` block: some keep their session, one connects anew.

    At its end all get through, nothing that was acknowledged is lost, and nothing was taken by two servers. A row may
    be in doubt, once for each client: a host that dies takes the answers along that were on their way. Without
    ``lossless`` what a primary that was killed had acknowledged may be lost; the test says how much.
    """
    lab = pair.lab
    create_table(lab.cluster.primary)
    lab.cluster.await_synced()
    with (
        lab.load(pair.address, writers=3, rate=rate, patience=_PATIENCE) as pooled,
        lab.load(pair.address, writers=1, rate=rate, patience=_PATIENCE, mode="fresh", first=100) as fresh,
    ):
        seen = Seen((pooled, fresh), now())
        yield seen
        seen.go_on()
        seen.ended = now()
        seen.records = pooled.stop() + fresh.stop()
    # a client that gave up waiting has left a statement behind: it ends, or it does not, before rows are compared
    until(lambda: not _at_work(lab), "the statements of clients that gave up to end", 40)
    lab.cluster.await_synced()
    seen.verdict = judge(seen.records, read_rows(lab.cluster), lab.cluster.primary.name)
    print(seen)  # what a scenario is for; pytest shows it with -rA, and when it fails
    assert not seen.verdict.double_primary, seen.verdict
    assert not seen.verdict.unexplained, seen.verdict
    assert not (lossless and seen.verdict.lost), seen.verdict
