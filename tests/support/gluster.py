"""A real GlusterFS on loopback: one brick, and a mount of its own for the engine and for every host.

Without glusterd: volume files by hand, one ``glusterfsd`` that serves and one ``glusterfs`` for each mount, all
children of the test. On a network of the laboratory the brick is on a host of its own, and each mount's client on its
host: whoever is cut off from that host is cut off from the disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.network import Network
from tests.support.process import Daemon, find_program, free_port, workspace
from tests.support.wait import until

KIND = "fuse.glusterfs"
SERVER = "disk"
"""The host of the brick, where there is a network."""

_BRICK = """
volume posix
  type storage/posix
  option directory {brick}
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume brick
  {kind}
  subvolumes locks
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address {address}
  option transport.socket.listen-port {port}
  option auth.addr.brick.allow *
  subvolumes brick
end-volume
"""
_SLOW = """type debug/delay-gen
  option delay-duration {microseconds}
  option delay-percentage 100"""
_MOUNT = """
volume routes
  type protocol/client
  option transport-type tcp
  option remote-host {address}
  option remote-port {port}
  option remote-subvolume brick
  option ping-timeout {patience}
end-volume
"""


class Gluster:
    """The disk. ``mounts`` says where each host sees it."""

    def __init__(
        self,
        folder: Path,
        hosts: Sequence[str],
        *,
        delay: float,
        patience: int,
        network: Network | None = None,
        brick: Path | None = None,
        outlive: bool = False,
    ) -> None:
        self.folder = folder
        self._network = network
        self._outlive = outlive
        self._address = network.hosts[SERVER] if network is not None else "127.0.0.1"
        self.mounts: Mapping[str, Path] = {host: folder / "mounts" / host for host in hosts}
        self.brick = brick or folder / "brick"
        self._port = free_port()
        self._server: Daemon | None = None
        self._clients: dict[str, Daemon] = {}
        for made in (self.brick, *self.mounts.values()):
            made.mkdir(parents=True, exist_ok=True)
        values = {"brick": self.brick, "port": self._port, "patience": patience, "address": self._address}
        kind = _SLOW.format(microseconds=round(delay * 1e6)) if delay else "type performance/io-threads"
        (folder / "server.vol").write_text(_BRICK.format(**values, kind=kind))
        (folder / "client.vol").write_text(_MOUNT.format(**values))

    @classmethod
    def start(
        cls,
        hosts: Sequence[str] = ("engine", "edge1", "edge2"),
        *,
        delay: float = 0.0,
        patience: int = 42,
        network: Network | None = None,
        brick: Path | None = None,
        kept: Path | None = None,
    ) -> Gluster:
        """Starts the brick and mounts it for each of ``hosts``.

        Each operation of the brick takes ``delay`` seconds more. After ``patience`` seconds without an answer a mount
        takes its connection for dead (GlusterFS's own default is 42). On a ``network`` the brick is on the host SERVER.
        A folder that is to be the ``brick`` may be given; what is ``kept`` in a folder outlives this process. Raises
        PermissionError where nothing can be mounted, FileNotFoundError when GlusterFS is not installed.
        """
        _refuse_without_fuse()
        _remove_leftovers()
        outlive, folder = kept is not None, kept or workspace()
        started = cls(folder, hosts, delay=delay, patience=patience, network=network, brick=brick, outlive=outlive)
        try:
            started.restore()
            for host in hosts:
                started._mount(host)
        except BaseException:
            started.close()
            raise
        return started

    def _run(self, program: str, name: str, *words: str, host: str = "") -> Daemon:
        log = self.folder / f"{name}.log"
        argv = [find_program(program), "--no-daemon", "-l", str(log), "-p", str(self.folder / f"{name}.pid"), *words]
        launcher = self._network.launcher(host) if self._network is not None else ()
        return Daemon(argv, log, launcher=launcher, outlive=self._outlive)

    def _mount(self, host: str) -> None:
        point = self.mounts[host]
        words = ["-f", str(self.folder / "client.vol"), "--attribute-timeout=0", "--entry-timeout=0", str(point)]
        self._clients[host] = self._run("glusterfs", host, *words, host=host)
        until(lambda: point in _mounted() and _answers(point), f"{point} to be mounted; {self.folder / host}.log")

    def unmount(self, host: str) -> Path:
        """The disk is not mounted at a host any more; returns the bare folder that is seen there now."""
        point = self.mounts[host]
        command = [find_program("umount"), "-l", str(point)]
        subprocess.run(command, capture_output=True, check=True)
        self._clients.pop(host).kill()
        return point

    def mount(self, host: str) -> None:
        """Mounts it there again."""
        self._mount(host)

    def cut(self) -> None:
        """Ends the server at once: who reads gets an error."""
        assert self._server is not None
        self._server.kill()
        self._server = None

    def restore(self) -> None:
        """Starts the server, again; mounts come back by themselves some seconds later."""
        if self._server is None:
            self._server = self._run("glusterfsd", "server", "-f", str(self.folder / "server.vol"), host=SERVER)
            until(self._listens, f"the server to listen; {self.folder / 'server.log'}")

    def _listens(self) -> bool:
        there = self._network.inside(SERVER) if self._network is not None else contextlib.nullcontext()
        with there, socket.socket() as probe:
            return probe.connect_ex((self._address, self._port)) == 0

    def freeze(self) -> None:
        """From now on the server answers nothing: who reads waits."""
        assert self._server is not None
        self._server.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on, with what it was asked meanwhile."""
        if self._server is not None:
            self._server.send(signal.SIGCONT)

    def close(self) -> None:
        """Ends all of it. Whoever still waits for this disk gets an error."""
        for client in self._clients.values():
            client.kill()
        if self._server is not None:
            self._server.kill()
        unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Gluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_without_fuse() -> None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise PermissionError(f"a network disk cannot be mounted here: /dev/fuse: {error.strerror}") from None
    if os.getuid() != 0:
        raise PermissionError("a network disk can only be mounted as root")


def _mounted() -> Iterator[Path]:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == KIND:
            yield Path(fields[4].encode().decode("unicode_escape"))


def _answers(point: Path) -> bool:
    try:
        os.listdir(point)
    except OSError:
        return False
    return True


def unmount_below(folder: Path) -> None:
    """Takes every such disk away that is mounted somewhere in ``folder``, also one whose daemon is no more."""
    for point in list(_mounted()):
        if point.is_relative_to(folder):
            with contextlib.suppress(FileNotFoundError):
                subprocess.run([find_program("umount"), "-l", str(point)], capture_output=True, check=False)


def _remove_leftovers() -> None:
    """Unmounts what test runs that were killed have left: their daemons died with them, the mounts stay."""
    for point in list(_mounted()):
        owner = re.search(r"/proxyroute-(\d+)-[^/]*/mounts/", str(point))
        if owner and not Path("/proc", owner[1]).exists():
            unmount_below(point)
