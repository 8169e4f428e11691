"""A site whose engine is a resource of a real cluster manager: the nodes are the hosts of the databases."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.support.lab import CLUSTER_NAME, PROGRAM, end_all, printed_object, processes_of
from tests.support.load import ROOT_FOLDER
from tests.support.netlab import NetLab
from tests.support.network import PREFIX_LENGTH, virtual_address
from tests.support.pacemaker import PacemakerSite
from tests.support.process import find_program, search_path
from tests.support.serving import notices
from tests.support.wait import until

GUIDE = ROOT_FOLDER / "docs" / "guide" / "pacemaker.md"
FENCE = ROOT_FOLDER / "scripts" / "ocf" / "fence"
ENGINE = "proxyroute"
"""The resource that is the engine, as the guide calls it."""
ADDRESS = "proxyroute-ip"
_PROGRAM = """\
#!/bin/sh
if [ -e {fault} ]; then export PROXYROUTE_FAULT="$(cat {fault})"; fi
exec {program} "$@"
"""


def documented(kind: str) -> str:
    """Returns the block of code of ``kind`` in the guide. Raises LookupError when there is none, or more than one."""
    found = re.findall(rf"^```{kind}\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        raise LookupError(f"{GUIDE} has {len(found)} blocks of {kind}")
    return str(found[0])


def commands(text: str) -> list[list[str]]:
    """Returns the words behind the name of the program of each command in ``text``."""
    return [shlex.split(line)[1:] for line in text.replace("\\\n", " ").strip().splitlines()]


class ManagedLab:
    """A laboratory of databases and proxies, and a cluster of the database hosts that has the engine as a resource.

    Commands are typed on a node (:meth:`run`). The laboratory's own engine1 sets the site up and then acts no more.
    """

    def __init__(self, lab: NetLab, site: PacemakerSite) -> None:
        self.lab = lab
        self.site = site
        self.config = lab.folder / "nodes.yml"
        self.log = lab.folder / "engine.log"
        self.fault = lab.folder / "fault"
        """What an engine that is started from now on dies of, or stops at; see :mod:`proxyroute.faults`."""
        self.program = lab.folder / "engine"
        self.program.write_text(_PROGRAM.format(fault=self.fault, program=PROGRAM))
        self.program.chmod(0o755)
        self.address = virtual_address()

    @classmethod
    def start(
        cls,
        databases: int = 3,
        *,
        more: Mapping[str, Any] | None = None,
        lease: Mapping[str, Any] | None = None,
        stop: str = "120s",
        **options: Any,
    ) -> ManagedLab:
        """Starts everything; returns when the engine serves on db1, the first primary.

        ``more`` and ``options`` are those of :meth:`NetLab.start`, ``lease`` are further values of the lease, ``stop``
        is the time-out for a stop of the engine.
        """
        lab = NetLab.start(databases, 1, more=more, **options)
        try:
            names = [node.name for node in lab.cluster]

            def switch_off(name: str) -> None:
                lab.network.cut(name)
                if lab.network.has_address(name, virtual_address()):
                    lab.network.drop_address(virtual_address())
                if lab.cluster[name].running:
                    lab.cluster[name].kill9()

            site = PacemakerSite(lab.network, lab.folder, names, switch_off, stonith_enabled="true")
            managed = cls(lab, site)
        except BaseException:
            lab.close()
            raise
        try:
            values = yaml.safe_load(lab.config.read_text())
            values["lease"] = {"type": "pacemaker", "resource": ENGINE, **(lease or {})}
            managed.config.write_text(yaml.safe_dump(values, sort_keys=False))
            site.start()
            site.crm(text=site.fence_device() + managed.configured(stop))
            site.await_at(ENGINE, "db1")
        except BaseException:
            managed.close()
            raise
        return managed

    @property
    def state(self) -> Path:
        return self.lab.folder / "engine1" / "state"

    def configured(self, stop: str = "120s", kind: str = "crm") -> str:
        """Returns the configuration of the guide for ``crm`` or ``pcs``, with the places of this site in it."""
        text = documented(kind)
        parameters = {
            "binary": str(self.program),
            "config": str(self.config),
            "user": "root",
            "state_dir": str(self.state),
            "logfile": str(self.log),
        }
        places = " ".join(f'{name}="{value}"' for name, value in parameters.items())
        for what, instead in (
            (r"\bstate_dir=\S+", places),
            (r"\bip=\S+", f"ip={self.address}"),
            (r"\bcidr_netmask=\S+", f"cidr_netmask={PREFIX_LENGTH}"),
            (r"\bstop timeout=\S+", f"stop timeout={stop}"),
            (r"node1\b", "db1"),
        ):
            text, count = re.subn(what, instead, text)
            assert count, f"the guide does not say {what}"
        return text

    def reconfigure(self, kind: str, stop: str = "120s") -> None:
        """Takes the engine and its address out of the running cluster, and has the guide's ``kind`` put them there."""
        self.site.crm("configure", "delete", ADDRESS, ENGINE)
        until(lambda: not self.site.resources() & {ADDRESS, ENGINE}, "the cluster to have ended them", 60)
        text = self.configured(stop, kind)
        if kind == "crm":
            self.site.crm(text=text)
        else:
            for words in commands(text.replace("engine.xml", str(self.site.home / "engine.xml"))):
                self.site.any.run([find_program("pcs"), *words], check=True)
        self.site.await_at(ENGINE)

    @contextlib.contextmanager
    def served_with(self, **changes: Any) -> Iterator[None]:
        """For a ``with`` block the cluster of servers is configured with ``changes``, and the engine has taken them."""
        before = self.config.read_text()
        values = yaml.safe_load(before)
        values["clusters"][CLUSTER_NAME].update(changes)
        self._serve(yaml.safe_dump(values, sort_keys=False))
        try:
            yield
        finally:
            self._serve(before)

    def _serve(self, text: str) -> None:
        self.config.write_text(text)
        told = len(self.told("reload"))
        for pid in self.processes("serve"):
            os.kill(pid, signal.SIGHUP)
        until(lambda: len(self.told("reload")) > told, "the engine to take its configuration")

    # -- typing commands on a node --

    def command(self, *words: str) -> list[str]:
        return [str(PROGRAM), "--config", str(self.config), *words]

    def popen(self, node: str, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a command of ours on a node."""
        return subprocess.Popen(
            [*self.site[node].launcher, *self.command(*words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": search_path(), **(environment or {})},
        )

    def processes(self, word: str) -> list[int]:
        """Returns the pids of this site's processes on any host that have ``word`` in their command line."""
        found = []
        for pid in processes_of(self.lab.folder):
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(pid)
        return found

    def run(
        self, node: str, *words: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Types a command of ours on a node."""
        return self.site[node].run(self.command(*words), environment=environment)

    def json(self, node: str, *words: str, environment: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """Types a command of ours on a node with ``--json``; returns its exit status and the object it printed."""
        return printed_object(self.run(node, *words, "--json", environment=environment))

    # -- what is seen --

    @property
    def at(self) -> str:
        """The node where the engine is started; empty when it is nowhere."""
        return self.site.where(ENGINE)

    def holder(self) -> tuple[str, ...]:
        """Who has the address that moves with the engine."""
        return tuple(n for n in self.site.nodes if self.lab.network.has_address(n, self.address))

    def told(self, kind: str) -> list[str]:
        """What the engines have told so far, on whichever node, oldest first."""
        return [notice["text"] for notice in notices(self.log) if notice["kind"] == kind]

    def bring_back(self, name: str) -> None:
        """Switches a host on that was switched off, with its server; returns when it is a member again."""
        self.lab.network.mend(name)
        self.site.restore_power(name)
        if not self.lab.cluster[name].running:
            self.lab.cluster[name].start()
        self.site.await_online(*(n for n, node in self.site.nodes.items() if node.running))

    # -- the end --

    def close(self) -> None:
        self.site.close()
        end_all(self.lab.folder)
        self.lab.close()

    def __enter__(self) -> ManagedLab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
