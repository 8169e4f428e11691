"""A real cluster manager on hosts of the laboratory: Corosync and Pacemaker, with a fence device that ends hosts.

Each node is a host of a network, with mounts, processes, a name and an IPC of its own besides, so that each has its own
``/run``, ``/var/lib`` and ``/var/log`` of the daemons, and that the death of its first process is that of the node.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.lab import run_to_end
from tests.support.load import ROOT_FOLDER
from tests.support.network import Network
from tests.support.process import Daemon, find_program, search_path
from tests.support.wait import until

AGENT = ROOT_FOLDER / "scripts" / "ocf" / "proxyroute"
FENCE = Path(__file__).with_name("fence_lab")
FENCING = 'primitive power stonith:fence_lab params pcmk_host_list="{nodes}" folder="{folder}" op monitor interval=0\n'
PROGRAMS = ("corosync", "pacemakerd", "crm", "crm_mon", "cibadmin", "stonith_admin", "unshare", "nsenter")
_ONLINE = 60.0

_COROSYNC = """\
totem {
    version: 2
    cluster_name: laboratory
    transport: knet
    crypto_cipher: none
    crypto_hash: none
    token: 1000
}
system {
    sched_rr: no
    move_to_root_cgroup: no
    allow_knet_handle_fallback: yes
}
logging {
    to_syslog: no
    to_stderr: no
    to_logfile: yes
    logfile: /var/log/corosync/corosync.log
}
quorum {
    provider: corosync_votequorum
}
nodelist {
"""
_NODE = """\
    node {{
        name: {name}
        nodeid: {number}
        ring0_addr: {address}
    }}
"""
_CIB = """\
<cib crm_feature_set="3.0.0" validate-with="pacemaker-3.0" epoch="1" num_updates="0" admin_epoch="0">
<configuration><crm_config><cluster_property_set id="cib-bootstrap-options">{properties}</cluster_property_set>
</crm_config><nodes/><resources/><constraints/></configuration><status/></cib>
"""
# In a mount namespace of its own. What the test has in memory stays where it is below a /dev/shm of the node's own:
# libqb makes files there whose names are process ids, which are the same on every node.
_INIT = """\
set -e
home=$1 folder=$2
exec 9<"$folder"
hostname "$3"
for place in /run /var/lib/pacemaker /var/lib/corosync /var/log /dev/shm; do mount -t tmpfs none $place; done
mkdir -p "$folder"
mount --no-canonicalize --bind /proc/self/fd/9 "$folder"
exec 9<&-
mkdir -p /run/lock /run/crm /run/resource-agents /var/log/corosync /var/log/pacemaker /var/log/crmsh
mkdir -p /var/lib/pacemaker/cib /var/lib/pacemaker/cores /var/lib/pacemaker/pengine /var/lib/pacemaker/blackbox
cp "$home/cib.xml" /var/lib/pacemaker/cib/
chmod 600 /var/lib/pacemaker/cib/cib.xml
chown -R hacluster:haclient /var/lib/pacemaker /var/log/pacemaker /run/crm
mount --bind "$home/corosync.conf" /etc/corosync/corosync.conf
mount -t overlay overlay -o "lowerdir=$home/ocf:/usr/lib/ocf/resource.d" /usr/lib/ocf/resource.d
mount -t overlay overlay -o "lowerdir=$home/sbin:/usr/sbin" /usr/sbin
set +e
corosync -f &
until corosync-cmapctl totem.cluster_name >/dev/null 2>&1; do sleep 0.1; done
pacemakerd &
while :; do wait -n; sleep 0.1; done
"""


def require() -> None:
    """Returns when a cluster can be had here. Raises FileNotFoundError or PermissionError with the reason."""
    for program in PROGRAMS:
        find_program(program)
    trial = "mount -t tmpfs none /run && mount -t overlay overlay -o lowerdir=/usr/sbin:/usr/lib/ocf /usr/sbin"
    done = subprocess.run(
        [find_program("unshare"), "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "sh", "-ec", trial],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PermissionError(f"the kernel does not let us have nodes of their own: {done.stderr.strip()}")


class PacemakerNode:
    """One node: a host with daemons of its own. ``die`` ends it as a power cut does."""

    def __init__(self, network: Network, folder: Path, home: Path, name: str) -> None:
        self.name = name
        self.home = home
        self._network = network
        self._folder = folder
        self._daemon: Daemon | None = None

    def start(self) -> None:
        """Switches it on. When it is a member shows later."""
        own = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private")
        words = ["bash", "-c", _INIT, "init", str(self.home), str(self._folder), self.name]
        argv = [find_program("unshare"), *own, *words]
        self._daemon = Daemon(
            argv,
            self.home / f"{self.name}.log",
            launcher=self._network.launcher(self.name),
            environment={"PATH": search_path()},
        )

    @property
    def running(self) -> bool:
        return self._daemon is not None and self._daemon.running

    @property
    def first(self) -> int:
        """The pid of its first process. Raises AssertionError when it does not run."""
        assert self._daemon is not None, f"{self.name} is off"
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children")
        return int(until(lambda: children.read_text().split(), f"{self.name} to begin")[0])

    def die(self) -> None:
        """Ends everything that runs on it at once."""
        if self._daemon is not None:
            self._daemon.kill()
        self._daemon = None

    def run(
        self, argv: Sequence[str], *, check: bool = False, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program on it to its end. Raises RuntimeError with its words when ``check`` and it fails."""
        told = {"PATH": search_path(), **(environment or {})}
        return run_to_end([*self.launcher, *argv], check=check, environment=told)

    @property
    def launcher(self) -> tuple[str, ...]:
        """What stands before an argv to run it on this node."""
        return (find_program("nsenter"), "--target", str(self.first), "--all", "--")

    def log(self) -> str:
        """What Pacemaker has logged there."""
        return self.run(["cat", "/var/log/pacemaker/pacemaker.log"]).stdout


class PacemakerSite:
    """All nodes, and the power switch that the fence device asks: it ends a node, and whatever else is on its host."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        names: Sequence[str],
        switch_off: Callable[[str], None] = lambda name: None,
        **properties: str,
    ) -> None:
        """``switch_off`` ends what else is on a host; ``properties`` are those of the cluster, with - for _."""
        self.home = folder / "pacemaker"
        self.power = self.home / "power"
        self.power.mkdir(parents=True)
        (self.home / "ocf" / "proxyroute").mkdir(parents=True)
        (self.home / "sbin").mkdir()
        shutil.copy(AGENT, self.home / "ocf" / "proxyroute" / "proxyroute")
        shutil.copy(FENCE, self.home / "sbin" / "fence_lab")
        nodes = [_NODE.format(name=n, number=i, address=network.hosts[n]) for i, n in enumerate(names, 1)]
        (self.home / "corosync.conf").write_text(f"{_COROSYNC}{''.join(nodes)}}}\n")
        told = {"dc-deadtime": "2s", "stonith-action": "off", **{k.replace("_", "-"): v for k, v in properties.items()}}
        pairs = [f'<nvpair id="p-{name}" name="{name}" value="{value}"/>' for name, value in told.items()]
        (self.home / "cib.xml").write_text(_CIB.format(properties="".join(pairs)))
        self.nodes = {name: PacemakerNode(network, folder, self.home, name) for name in names}
        self._switch_off = switch_off
        self._over = threading.Event()
        self._switch = threading.Thread(target=self._serve_power, name="power switch", daemon=True)
        self.broken = False
        """The fence device does not answer any more."""

    def start(self) -> None:
        """Switches every node on; returns when all are members."""
        for node in self.nodes.values():
            node.start()
        self._switch.start()
        self.await_online(*self.nodes)

    def __getitem__(self, name: str) -> PacemakerNode:
        return self.nodes[name]

    @property
    def any(self) -> PacemakerNode:
        """A node that runs."""
        return next(node for node in self.nodes.values() if node.running)

    def crm(self, *words: str, text: str = "") -> str:
        """Types a command of crm on a node that runs, or gives it ``text`` to load. Raises RuntimeError."""
        if text:
            file = self.home / "load.crm"
            file.write_text(text)
            words = ("configure", "load", "update", str(file))
        return self.any.run([find_program("crm"), "--force", *words], check=True).stdout

    def standby(self, name: str, *, over: bool = False) -> None:
        """Lets nothing run on a node any more, or lets it again."""
        self.any.run(["crm_standby", "--node", name, "--update", "off" if over else "on"], check=True)

    def maintain(self, on: bool) -> None:
        """Sets the whole cluster into maintenance, or ends that."""
        self.crm("configure", "property", f"maintenance-mode={str(on).lower()}")

    def fence_device(self) -> str:
        """Returns, for crm, the fence device of this site."""
        return FENCING.format(nodes=" ".join(self.nodes), folder=self.power)

    def look(self, by: PacemakerNode | None = None) -> ET.Element:
        """Returns what crm_mon shows, on ``by`` or on any node; an empty element when it shows nothing."""
        done = (by or self.any).run(["crm_mon", "--one-shot", "--output-as=xml"])
        return ET.fromstring(done.stdout) if done.returncode == 0 else ET.Element("nothing")

    def online(self) -> set[str]:
        nodes = self.look().find("nodes")
        found = [node for node in (nodes if nodes is not None else ()) if node.get("pending") == "false"]
        return {node.get("name", "") for node in found if node.get("online") == "true"}

    def await_online(self, *names: str) -> None:
        def together() -> bool:
            for name in names:
                node = self.nodes[name]
                assert node.running, f"{name} has ended: {(self.home / f'{name}.log').read_text()}"
            return self.online() == set(names)

        until(together, f"{', '.join(names)} to be the members", _ONLINE, 0.2)

    def where(self, resource: str, role: str = "Started", by: PacemakerNode | None = None) -> str:
        """Returns the node where a resource is in a role, as ``by`` or any node sees it; empty when it is nowhere."""
        for found in self.look(by).iter("resource"):
            nodes = [node.get("name", "") for node in found.findall("node")]
            if found.get("id") == resource and found.get("role") == role and nodes:
                return nodes[0]
        return ""

    def await_at(self, resource: str, *names: str, seconds: float = 60.0) -> str:
        """Returns the node where a resource has been started, once that is one of ``names``, by default any."""
        wanted = names or tuple(self.nodes)

        def at() -> str:
            found = self.where(resource)
            return found if found in wanted else ""

        return until(at, f"{resource} to start at {', '.join(wanted)}", seconds, 0.1)

    def resources(self) -> set[str]:
        """The resources that the cluster knows of, also those that are to end because nobody configures them."""
        return {found.get("id", "") for found in self.look().iter("resource")}

    def unclean(self) -> set[str]:
        """The nodes that the cluster wants to have fenced, and of which nobody has confirmed that they are."""
        nodes = self.look().find("nodes")
        return {n.get("name", "") for n in (nodes if nodes is not None else ()) if n.get("unclean") == "true"}

    # -- the power switch --

    def _serve_power(self) -> None:
        while not self._over.wait(0.05):
            for asked in self.power.glob("*.asked"):
                if not self.broken:
                    asked.unlink()
                    self.cut_power(asked.stem)

    def cut_power(self, name: str) -> None:
        """Ends a node, and what else is on its host, as whoever pulls its plug does."""
        self.nodes[name].die()
        self._switch_off(name)
        (self.power / f"{name}.off").touch()

    def lose(self, name: str) -> None:
        """Ends a node and what else is on its host, and nobody has told the fence device to."""
        self.nodes[name].die()
        self._switch_off(name)

    def mend_device(self) -> None:
        """The fence device works again, and says at once of a node that is off already that it is."""
        for asked in self.power.glob("*.asked"):
            if not self.nodes[asked.stem].running:
                (self.power / f"{asked.stem}.off").touch()
                asked.unlink(missing_ok=True)
        self.broken = False
        history = ["stonith_admin", "--history=*", "--verbose", "--output-as=xml"]
        until(lambda: "pending" not in self.any.run(history).stdout, "no fencing to be under way", 60, 0.2)

    def restore_power(self, name: str) -> None:
        """Switches a node on again."""
        (self.power / f"{name}.off").unlink(missing_ok=True)
        self.nodes[name].start()

    def close(self) -> None:
        """Ends all nodes."""
        self._over.set()
        if self._switch.ident is not None:
            self._switch.join(10)
        for node in self.nodes.values():
            node.die()
