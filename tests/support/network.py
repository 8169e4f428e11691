"""Hosts with a network of their own: a namespace each, a switch in one more, and what is wrong with their cables.

Everything is made between namespaces of ours; the machine's own has no part in it. What is wrong is written down
before it is done, and doing it again changes nothing: whoever finds the folder can go on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from signal import SIGTERM

from tests.support import netns
from tests.support.damage import Damage, late_port, port
from tests.support.process import Daemon
from tests.support.wait import until

SWITCH = "switch"
PREFIX_LENGTH = 16
_BRIDGE = "br0"
_CABLE = "eth0"
_RELAY = Path(__file__).with_name("delay.py")
_NETWORKS = {"db": 1, "edge": 2, "engine": 3, "client": 4}
_OTHERS = 5
_VIRTUAL = 9


def virtual_address(number: int = 1) -> str:
    """Returns an address that belongs to no host, but can be put on any."""
    return f"10.77.{_VIRTUAL}.{number}"


def addresses(names: Sequence[str]) -> dict[str, str]:
    """Returns the address of each host: db2 is 10.77.1.2, edge1 10.77.2.1; any other name gets the next in 10.77.5."""
    found, rest = {}, 0
    for name in names:
        kind = name.rstrip("0123456789")
        number = name[len(kind) :]
        if kind in _NETWORKS and number:
            found[name] = f"10.77.{_NETWORKS[kind]}.{number}"
        else:
            rest += 1
            found[name] = f"10.77.{_OTHERS}.{rest}"
    return found


class Network:
    """Hosts and their cables. Use :meth:`build`; :meth:`load` finds one that stands."""

    def __init__(self, mark: str, folder: Path, hosts: Mapping[str, str], *, outlive: bool = False) -> None:
        self.mark = mark
        self.folder = folder
        self.hosts = dict(hosts)
        """Addresses by name."""
        self._outlive = outlive
        self._relays: dict[str, Daemon] = {}

    @classmethod
    def build(cls, mark: str, folder: Path, names: Sequence[str], *, outlive: bool = False) -> Network:
        """Makes the hosts called ``names`` and the switch between them; leftovers of others are removed on the way.

        ``mark`` is the beginning of the namespaces' names. Raises netns.Unavailable where that cannot be had, with
        the reason.
        """
        netns.require()
        netns.sweep()
        for name in names:
            if not name.isalnum() or len(name) > 12 or name == SWITCH:
                raise ValueError(f"{name!r} is no name for a host: letters and digits, at most 12")
        network = cls(mark, folder, addresses(names), outlive=outlive)
        _write(folder / "network.json", {"mark": mark, "hosts": network.hosts})
        try:
            network._make()
        except BaseException:
            network.close()
            raise
        return network

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Returns the network that was built in ``folder``. Raises OSError or ValueError when there is none."""
        told = json.loads((folder / "network.json").read_text())
        return cls(told["mark"], folder, told["hosts"], outlive=True)

    def _make(self) -> None:
        for name in (SWITCH, *self.hosts):
            netns.command(["ip", "netns", "add", self.namespace(name)])
            # nobody is to say more in this network than we do, and the switch is not to look into what it hands on
            quiet = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done"
            seen = "f=/proc/sys/net/bridge/bridge-nf-call-iptables; if [ -e $f ]; then echo 0 > $f; fi"
            netns.command(["sh", "-c", f"{quiet}; {seen}"], namespace=self.namespace(name))
        self._ip(SWITCH, f"link add name {_BRIDGE} type bridge stp_state 0 forward_delay 0", f"link set {_BRIDGE} up")
        switch = self.namespace(SWITCH)
        for name, address in self.hosts.items():
            hardware = ":".join(f"{int(part):02x}" for part in ("2", "0", *address.split(".")))
            self._ip(
                name,
                "link set lo up",
                f"link add name {_CABLE} address {hardware} type veth peer name {port(name)} netns {switch}",
                f"addr add {address}/{PREFIX_LENGTH} dev {_CABLE}",
                f"link set {_CABLE} up",
            )
        plug = [f"link set {port(name)} master {_BRIDGE} up" for name in self.hosts]
        self._ip(SWITCH, *plug)

    def _ip(self, host: str, *lines: str) -> str:
        """Runs lines of ``ip`` in a host. Raises OSError with its words."""
        return netns.command(["ip", "-n", self.namespace(host), "-batch", "-"], "\n".join((*lines, "")))

    # Being there

    def namespace(self, host: str) -> str:
        """Returns the name of a host's namespace. Raises LookupError when there is no such host."""
        if host != SWITCH and host not in self.hosts:
            raise LookupError(f"there is no host {host}; there are {', '.join(self.hosts)}")
        return f"{self.mark}-{host}"

    def launcher(self, host: str) -> tuple[str, ...]:
        """Returns what stands before an argv that is to run on a host."""
        return netns.launcher(self.namespace(host))

    def place(self, host: str, port: int) -> netns.Place:
        """Returns where a server of this host's listens."""
        return netns.Place(self.hosts[host], port, self.namespace(host))

    def inside(self, host: str) -> AbstractContextManager[None]:
        """For a ``with`` block this thread, its new sockets and whatever it starts are on a host."""
        return netns.inside(self.namespace(host))

    # What is wrong

    @property
    def damage(self) -> Damage:
        """What is written down."""
        return Damage.read(self.folder / "links.json")

    def cut(self, host: str, other: str | None = None) -> None:
        """Pulls the cable of a host; with ``other``, nothing passes between these two any more, and all else does."""
        self._change(lambda now: now.with_apart(host, other) if other else now.with_cut(host))

    def cut_one_way(self, source: str, target: str) -> None:
        """What ``source`` sends to ``target`` is lost, and the other way all is well. ARP passes both ways."""
        self._change(lambda now: now.with_one_way(source, target))

    def slow(self, host: str, milliseconds: float) -> None:
        """Every frame to or from a host takes so much longer; a round trip twice that."""
        self._change(lambda now: replace(now, slow={**now.slow, host: float(milliseconds)}))

    def lossy(self, host: str, percent: int) -> None:
        """So many of a hundred frames to a host, and from it, are lost."""
        if not 0 < percent <= 100:
            raise ValueError(f"{percent} is not between 1 and 100")
        self._change(lambda now: replace(now, lossy={**now.lossy, host: percent}))

    def narrow(self, host: str, kilobits: int) -> None:
        """No more than that per second passes to a host, and from it."""
        self._change(lambda now: replace(now, narrow={**now.narrow, host: kilobits}))

    def mend(self, host: str | None = None, other: str | None = None) -> None:
        """Takes back whatever is wrong with everybody, with a host, or between two."""
        for name in filter(None, (host, other)):
            self.namespace(name)
        if host is None:
            self._change(lambda now: Damage())
        else:
            self._change(lambda now: now.between(host, other) if other else now.without(host))

    def _change(self, change: Callable[[Damage], Damage]) -> None:
        """Writes down what is wrong now, and makes it so. Raises LookupError when a host is none of ours."""
        with (self.folder / "links.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            damage = change(self.damage)
            for host in damage.named:
                self.namespace(host)
            _write(self.folder / "links.json", asdict(damage))
            self._apply(damage)

    def _apply(self, damage: Damage) -> None:
        """Makes the cables so; those that are are left alone."""
        netns.command(["nft", "-f", "-"], damage.ruleset(), namespace=self.namespace(SWITCH))
        self._ip(SWITCH, *(f"link set {port(host)} {'down' if host in damage.off else 'up'}" for host in self.hosts))
        shaped = netns.command(["tc", "-n", self.namespace(SWITCH), "qdisc", "show"]).splitlines()
        links = json.loads(netns.command(["ip", "-n", self.namespace(SWITCH), "-j", "link", "show"]))
        there = {link["ifname"] for link in links}
        relays = self._running_relays()
        for host in self.hosts:
            kilobits, late = damage.narrow.get(host), damage.slow.get(host)
            if kilobits:
                self._narrow(host, kilobits)
            elif any("qdisc tbf" in line and f"dev {port(host)} " in line for line in shaped):
                self._widen(host)
            running = [milliseconds for _, milliseconds in relays.get(host, [])]
            built = _relay_port(host) in there
            if (running, built) != ([late] if late else [], bool(late)):
                self._take_relay_out(host, [pid for pid, _ in relays.get(host, [])], built)
                if late:
                    self._put_relay_in(host, late)
            if late:
                # last, when the relay listens: no frame is lost, though some may come twice
                self._ip(SWITCH, f"link set {port(host)} nomaster")

    def _ends(self, host: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """The switch's end of the cable and the host's: namespace and device."""
        return (self.namespace(SWITCH), port(host)), (self.namespace(host), _CABLE)

    def _narrow(self, host: str, kilobits: int) -> None:
        # a bucket large enough for what passes between two ticks of a slow clock
        bucket = max(16 * 1024, kilobits * 1000 // 8 // 50)
        how = ["tbf", "rate", f"{kilobits}kbit", "burst", str(bucket), "latency", "400ms"]
        for namespace, device in self._ends(host):
            netns.command(["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *how])

    def _widen(self, host: str) -> None:
        # the switch's end last: by that one we see whether it is still to be done
        for namespace, device in reversed(self._ends(host)):
            if "qdisc tbf" in netns.command(["tc", "-n", namespace, "qdisc", "show", "dev", device]):
                netns.command(["tc", "-n", namespace, "qdisc", "del", "dev", device, "root"])

    # A relay in the cable: the host's end, the relay, a link of its own, the bridge

    def _running_relays(self) -> dict[str, list[tuple[int, float]]]:
        """Returns pid and milliseconds of the relays in each cable, whoever has started them."""
        found: dict[str, list[tuple[int, float]]] = {}
        for pid in netns.processes(self.mark):
            with contextlib.suppress(OSError, ValueError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                at = words.index(str(_RELAY))
                host = words[at + 1].removeprefix(port(""))
                found.setdefault(host, []).append((pid, float(words[at + 3])))
        return found

    def _put_relay_in(self, host: str, milliseconds: float) -> None:
        """Starts a relay between the cable and the bridge, beside which the cable is still in the bridge itself."""
        self._ip(
            SWITCH,
            f"link add name {_relay_port(host)} type veth peer name {late_port(host)}",
            f"link set {_relay_port(host)} up",
            f"link set {late_port(host)} master {_BRIDGE} up",
        )
        self._forget_relay(host)
        log = self.folder / f"delay.{host}.log"
        log.unlink(missing_ok=True)
        relay = self._relays[host] = Daemon(
            [sys.executable, "-IS", str(_RELAY), port(host), _relay_port(host), str(milliseconds)],
            log,
            outlive=self._outlive,
            launcher=self.launcher(SWITCH),
        )
        until(lambda: not relay.running or "ready" in log.read_text(), f"the relay for {host} to listen")
        if not relay.running:
            raise OSError(f"the relay for {host} has ended: {log.read_text()}")

    def _take_relay_out(self, host: str, pids: Sequence[int], built: bool) -> None:
        """The cable is in the bridge again before the last frames come out of the relay; a few may be lost."""
        netns.signal_processes(pids, SIGTERM)
        self._ip(SWITCH, f"link set {port(host)} master {_BRIDGE}")
        if not netns.end_processes(pids, SIGTERM):
            netns.end_processes(pids)
        self._forget_relay(host)
        if built:
            self._ip(SWITCH, f"link del {_relay_port(host)}")

    def _forget_relay(self, host: str) -> None:
        """Whoever has ended it, we have to wait for it if it was our child."""
        ours = self._relays.pop(host, None)
        if ours is not None:
            ours.kill()

    # Addresses that move

    def put_address(self, address: str, host: str) -> None:
        """Takes an address from whoever has it, puts it on a host, and lets everybody know (gratuitous ARP)."""
        self.drop_address(address)
        self._ip(host, f"addr add {address}/{PREFIX_LENGTH} dev {_CABLE}")
        self.announce(address, host)

    def drop_address(self, address: str) -> None:
        """Takes an address from whoever has it."""
        for host in self.hosts:
            if self.has_address(host, address):
                self._ip(host, f"addr del {address}/{PREFIX_LENGTH} dev {_CABLE}")

    def has_address(self, host: str, address: str) -> bool:
        """Whether a host has an address, on the network or not."""
        told = netns.command(["ip", "-n", self.namespace(host), "-o", "-4", "addr", "show"])
        return f" {address}/" in told

    def announce(self, address: str, host: str) -> None:
        """Tells everybody that an address is at a host now, as whoever takes one over does."""
        everybody = b"\xff" * 6
        with self.inside(host), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((_CABLE, 0))
            mine = out.getsockname()[4]
            request = b"\0\1" + b"\x08\0" + b"\6\4" + b"\0\1"
            ours = socket.inet_aton(address)
            out.send(everybody + mine + b"\x08\x06" + request + mine + ours + everybody + ours)

    # The end

    def close(self) -> None:
        """Ends whatever runs on the hosts, and removes them."""
        for relay in self._relays.values():
            relay.kill()
        netns.remove(self.mark)


def _relay_port(host: str) -> str:
    return f"r_{host}"


def _write(file: Path, value: object) -> None:
    """Replaces a file whole."""
    aside = file.with_suffix(".new")
    aside.write_text(json.dumps(value))
    aside.replace(file)
