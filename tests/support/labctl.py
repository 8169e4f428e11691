"""The laboratory behind ``scripts/lab``: one that stays when the command ends, and hands on its cables.

Its marks are written down before anything is made, so that ``down`` finds everything whatever has happened to ``up``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.support import labprograms, netns
from tests.support.accounts import APPLICATION, APPLICATION_SCHEMA, ROOT
from tests.support.gluster import SERVER, Gluster, unmount_below
from tests.support.lab import PROGRAM, end_all, processes_of
from tests.support.labshow import VIP, moves, show_help, show_hosts
from tests.support.load import ROOT_FOLDER
from tests.support.netlab import NetLab, names
from tests.support.network import Network, virtual_address
from tests.support.vrrp import Pair, vrrp_part
from tests.support.wait import until

STATE = Path(os.environ.get("PROXYROUTE_LAB_STATE", ROOT_FOLDER / ".lab" / "state.json"))
"""Where it is written down which laboratory is up."""
BASES = (Path("/dev/shm"), Path(tempfile.gettempdir()))
"""Where its folder is made: in memory, where that is possible."""
OF = "noted-in"
"""A file in its folder that says where it is written down."""


class Complaint(Exception):
    """What stands in the way, for people."""


@dataclass(frozen=True)
class Known:
    """The laboratory that is written down; ``ready`` when all of it was up."""

    mark: str
    folder: Path
    ready: bool = False

    @classmethod
    def read(cls) -> Known | None:
        """Returns what is written down, or None."""
        try:
            told = json.loads(STATE.read_text())
            return cls(told["mark"], Path(told["folder"]), told["ready"])
        except (OSError, ValueError, KeyError):
            return None

    def write(self) -> None:
        told = {"mark": self.mark, "folder": str(self.folder), "ready": self.ready}
        aside = STATE.with_suffix(".new")
        aside.write_text(json.dumps(told))
        aside.replace(STATE)

    def stands(self) -> bool:
        """Whether it was up, and no reboot has ended it since."""
        return self.ready and bool(netns.names(self.mark)) and (self.folder / "network.json").exists()

    def remove(self) -> None:
        """Ends it, and forgets it."""
        self.end()
        STATE.unlink(missing_ok=True)

    def end(self) -> None:
        """Ends and removes everything of it; whatever is missing already is no matter."""
        end_all(self.folder)
        netns.remove(self.mark)
        unmount_below(self.folder)
        until(lambda: not processes_of(self.folder), "the laboratory's processes to end")
        shutil.rmtree(self.folder, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    options = _options(argv)
    try:
        status: int = options.act(options)
        return status
    except (Complaint, netns.Unavailable, LookupError, ValueError, OSError, RuntimeError, AssertionError) as reason:
        print(f"scripts/lab: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; what it had begun has been taken down", file=sys.stderr)
        return 130


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/lab", add_help=False)  # scripts/lab itself has the help
    acts = parser.add_subparsers(required=True)
    command = acts.add_parser("up", add_help=False)
    for hosts, number in (("databases", 3), ("proxies", 2), ("engines", 1), ("clients", 1)):
        command.add_argument(f"--{hosts}", type=_some, default=number)
    for flag in ("--semi-sync", "--vrrp", "--disk"):
        command.add_argument(flag, action="store_true")
    command.set_defaults(act=up)
    acts.add_parser("down", add_help=False).set_defaults(act=down)
    acts.add_parser("status", add_help=False).set_defaults(act=status)
    command = acts.add_parser("run", add_help=False)
    command.add_argument("host")
    command.add_argument("argv", nargs=argparse.REMAINDER)
    command.set_defaults(act=run)
    command = acts.add_parser("sql", add_help=False)
    command.add_argument("host")
    command.add_argument("statement", nargs="?")
    command.set_defaults(act=sql)
    command = acts.add_parser("cut", add_help=False)
    command.add_argument("--one-way", action="store_true")
    command.add_argument("host")
    command.add_argument("other", nargs="?")
    command.set_defaults(act=cut)
    for name in ("kill", "stop", "start"):
        command = acts.add_parser(name, add_help=False)
        command.add_argument("host")
        command.add_argument("program")
        command.set_defaults(act=change, name=name)
    kind: Callable[[str], float]
    for name, kind in (("slow", float), ("lossy", int), ("narrow", int)):
        command = acts.add_parser(name, add_help=False)
        command.add_argument("host")
        command.add_argument("number", type=kind)
        command.set_defaults(act=worsen, name=name)
    command = acts.add_parser("mend", aliases=["heal"], add_help=False)
    command.add_argument("host", nargs="?")
    command.add_argument("other", nargs="?")
    command.set_defaults(act=mend)
    return parser.parse_args(argv)


def _some(word: str) -> int:
    if not 1 <= int(word) <= 20:
        raise argparse.ArgumentTypeError("from 1 to 20")
    return int(word)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One at a time starts a laboratory, or ends it. Raises Complaint when another is at it."""
    STATE.parent.mkdir(parents=True, exist_ok=True)
    with STATE.with_suffix(".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Complaint(
                f"another scripts/lab is at it (pid {lock.read().strip()}); wait until it is done, or end it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def up(options: argparse.Namespace) -> int:
    """Starts a laboratory that stays."""
    netns.require()
    with _alone():
        known = Known.read()
        if known and known.stands():
            raise Complaint("one is up already: scripts/lab status shows it, scripts/lab down ends it")
        if known:
            print("removing what is left of the last one …", flush=True)
            known.remove()
        begun = time.monotonic()
        mark = netns.kept_mark()
        base = next(base for base in BASES if os.access(base, os.W_OK))
        known = Known(mark, base / mark)
        known.write()
        known.folder.mkdir(mode=0o700)
        (known.folder / OF).write_text(str(STATE.resolve()))
        _remove_forgotten()
        try:
            lab = _build(options, known)
        except BaseException:
            known.remove()
            raise
        Known(known.mark, known.folder, ready=True).write()
    print(f"up in {time.monotonic() - begun:.1f} s, in {known.folder}\n")
    show_hosts(lab.network)
    show_help(lab.network)
    return 0


def _build(options: argparse.Namespace, known: Known) -> NetLab:
    """Makes the hosts and starts what runs on them: the disk, servers and proxies, then what moves the address."""
    edges, disk = names("edge", options.proxies), known.folder / SERVER
    if options.vrrp and len(edges) < 2:
        raise Complaint("an address moves between two proxies at the least: --vrrp wants --proxies 2, or more")

    def mounts(network: Network) -> Mapping[str, Path]:
        disk.mkdir()
        return Gluster.start([*names("engine", options.engines), *edges], patience=4, network=network, kept=disk).mounts

    lab = NetLab.start(
        options.databases,
        options.proxies,
        options.engines,
        options.clients,
        semi_sync=options.semi_sync,
        kept=(known.mark, known.folder),
        others=[SERVER] if options.disk else [],
        more={"vrrp": vrrp_part(*edges)} if options.vrrp else None,
        shared=mounts if options.disk else None,
    )
    pair = Pair(lab, outlive=True) if options.vrrp else None
    if pair is not None:
        pair.start()
    labprograms.write(known.folder, labprograms.programs_of(lab, pair))
    return lab


def down(options: argparse.Namespace) -> int:
    """Ends and removes the laboratory, whatever is left of it, and what others have left who are no more."""
    with _alone():
        known = Known.read()
        if known is None:
            print("No laboratory is up.")
        else:
            known.remove()
            print(f"The laboratory in {known.folder} has ended.")
        _remove_forgotten()
        netns.sweep()
    return 0


def _remove_forgotten() -> None:
    """Removes laboratories whose note is gone, with its checkout perhaps: nobody could end them any more."""
    for mark in netns.marks():
        for base in BASES:
            folder = base / mark
            with contextlib.suppress(OSError):
                if folder.stat().st_uid == os.getuid() and not _is_noted(Path((folder / OF).read_text()), mark):
                    Known(mark, folder).end()
                    print(f"A laboratory that nobody remembers has ended: {folder}")


def _is_noted(state: Path, mark: str) -> bool:
    try:
        return bool(json.loads(state.read_text())["mark"] == mark)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError):
        return True  # who knows


def _network() -> Network:
    """Returns the network that is up. Raises Complaint when none is."""
    netns.require()
    known = Known.read()
    if known is None or not known.stands():
        raise Complaint("no laboratory is up; scripts/lab up starts one")
    return Network.load(known.folder)


def status(options: argparse.Namespace) -> int:
    """Shows the hosts, what runs on them, and what is wrong with their cables."""
    network = _network()
    show_hosts(network)
    print("\n" + "\n".join(network.damage.lines() or ["All cables are well."]))
    return 0


def change(options: argparse.Namespace) -> int:
    """Ends a program on a host, at once or not, or starts it."""
    network = _network()
    host, program = options.host, options.program
    if options.name == "start":
        done = labprograms.start(network, host, program)
        print(f"{program} runs on {host}" if done else f"{program} runs on {host} already")
    else:
        done = labprograms.end(network, host, program, at_once=options.name == "kill")
        print(f"{program} on {host} has ended" if done else f"{program} did not run on {host}")
    return 0


def run(options: argparse.Namespace) -> int:
    """Becomes a command on a host."""
    network = _network()
    if not options.argv:
        raise Complaint(f"what is to run on {options.host}? Type scripts/lab run {options.host} COMMAND")
    return _become(network, options.host, options.argv)


def sql(options: argparse.Namespace) -> int:
    """Becomes a client: of a server, by its socket, or of a proxy, from the first client's host."""
    network = _network()
    home = network.folder / options.host
    say = ["--execute", options.statement] if options.statement else []
    if (home / "my.cnf").exists():
        client = ["mariadb", "--no-defaults", f"--socket={home / 'mariadb.sock'}", f"--user={ROOT.user}"]
        return _become(network, options.host, [*client, *say], ROOT.password)
    address = virtual_address() if options.host == VIP and moves(network) else ""
    if not address:
        network.namespace(options.host)
        address = network.hosts[options.host]
    client = ["mariadb", "--no-defaults", f"--host={address}", f"--user={APPLICATION.user}"]
    return _become(network, "client1", [*client, *say, APPLICATION_SCHEMA], APPLICATION.password)


def _become(network: Network, host: str, argv: Sequence[str], password: str = "") -> int:
    """Becomes a program on a host, which finds the product there, and its configuration. Returns only in theory."""
    found = {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    config = network.folder / host / "proxyroute.yml"
    if config.exists():
        found["PROXYROUTE_CONFIG"] = str(config)
    if password:
        found["MYSQL_PWD"] = password
    full = [*network.launcher(host), *argv]
    sys.stdout.flush()
    os.execve(full[0], full, {**os.environ, **found})


def cut(options: argparse.Namespace) -> int:
    """Cuts a host off, or one from another."""
    network = _network()
    if not options.one_way:
        network.cut(options.host, options.other)
    elif options.other:
        network.cut_one_way(options.host, options.other)
    else:
        raise Complaint("--one-way wants two hosts: scripts/lab cut --one-way A B")
    return _said(network)


def worsen(options: argparse.Namespace) -> int:
    """Makes a cable slow, lossy or narrow."""
    network = _network()
    getattr(network, options.name)(options.host, options.number)
    return _said(network)


def mend(options: argparse.Namespace) -> int:
    """Takes back what is wrong."""
    network = _network()
    network.mend(options.host, options.other)
    return _said(network)


def _said(network: Network) -> int:
    print("\n".join(network.damage.lines() or ["All cables are well."]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
