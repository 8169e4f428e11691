"""The programs of a laboratory that stays: which may be ended and started again, host by host.

What starts each is written down when the laboratory is up: whoever ends one has no other way to know it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIGKILL, SIGSTOP, SIGTERM

from tests.support import netns
from tests.support.netlab import NetLab
from tests.support.network import Network
from tests.support.process import Daemon
from tests.support.vrrp import Pair
from tests.support.wait import until

_FILE = "programs.json"
_AGENT_MODULES = ("proxyroute.agent", "proxyroute.haproxy.helper")
AGENT = "agent"


@dataclass(frozen=True)
class Program:
    """What starts a program: its argv, where its words go, and files of its last life that it must not find."""

    argv: list[str]
    log: str
    stale: list[str]


Programs = Mapping[str, Mapping[str, Program]]
"""By host, then by name."""


def programs_of(lab: NetLab, pair: Pair | None) -> Programs:
    """Returns the programs of a laboratory whose address moves between the hosts of ``pair``, if there is one."""
    found: dict[str, dict[str, Program]] = {}
    for node in lab.cluster:
        found[node.name] = {"mariadbd": Program(node.argv, str(node.log_file), [])}
    for host in lab.hosts:
        haproxy = host.haproxy
        found[host.name] = {
            "haproxy": Program(haproxy.argv(host.config_file), str(haproxy.log_file), [str(haproxy.master_socket)]),
            AGENT: Program(host.agent_argv, str(host.folder / "agent.log"), []),
        }
        if pair is not None:
            one = pair.keepalived[host.name]
            found[host.name]["keepalived"] = Program(one.argv, str(one.log_file), [str(f) for f in one.pid_files])
    return found


def write(folder: Path, programs: Programs) -> None:
    """Writes down what starts each program."""
    told = {host: {name: asdict(program) for name, program in of.items()} for host, of in programs.items()}
    (folder / _FILE).write_text(json.dumps(told))


def read(folder: Path) -> Programs:
    """Returns what is written down. Raises OSError or ValueError."""
    told = json.loads((folder / _FILE).read_text())
    return {host: {name: Program(**value) for name, value in of.items()} for host, of in told.items()}


def running(network: Network, host: str) -> dict[int, str]:
    """Returns the processes on a host, by name: an agent is called as it is here, and its helper the same."""
    found = {}
    for pid in netns.processes_in(network.namespace(host)):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            found[pid] = AGENT if set(_AGENT_MODULES) & set(words) else Path(words[0]).name
    return found


def _program(network: Network, host: str, name: str) -> Program:
    network.namespace(host)
    of = read(network.folder).get(host, {})
    if name not in of:
        raise LookupError(f"there is no {name} on {host}; there is {', '.join(of) or 'nothing that could be ended'}")
    return of[name]


def end(network: Network, host: str, name: str, *, at_once: bool) -> bool:
    """Ends a program, by SIGKILL if ``at_once``; returns whether it ran. Raises LookupError for one that is none."""
    _program(network, host, name)
    pids = [pid for pid, called in running(network, host).items() if called == name]
    if at_once:  # whoever sees another one of them die is not to clear anything away first
        netns.signal_processes(pids, SIGSTOP)
    if not netns.end_processes(pids, SIGKILL if at_once else SIGTERM, 20):
        netns.end_processes(pids)
    return bool(pids)


def start(network: Network, host: str, name: str) -> bool:
    """Starts a program that does not run; returns whether it had to be. Raises LookupError, and RuntimeError with its
    words when it ends at once."""
    program = _program(network, host, name)
    if name in running(network, host).values():
        return False
    for file in program.stale:
        Path(file).unlink(missing_ok=True)
    log = Path(program.log)
    said = log.stat().st_size if log.exists() else 0
    daemon = Daemon(program.argv, log, outlive=True, launcher=network.launcher(host))
    until(lambda: not daemon.running or name in running(network, host).values(), f"{name} to start on {host}")
    if not daemon.running:
        words = log.read_bytes()[said:].decode(errors="replace").strip()
        raise RuntimeError(f"{name} on {host} has ended: {words}")
    return True
