"""A container engine of a test's own: in namespaces of network, mounts and processes, which end with it.

Nothing of the machine's network is touched (a ``dockerd`` sets the policy of FORWARD, and makes bridges), nothing stays
mounted, and every container ends with the engine, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.images import Unavailable, docker
from tests.support.process import Daemon, find_program
from tests.support.wait import until

SOCKET = Path("/var/run/docker.sock")
_RUN = 'ip link set lo up && exec "$0" "$@"'


@contextlib.contextmanager
def container_engine() -> Iterator[str]:
    """DOCKER_HOST of an engine, for a ``with`` block: the one that is named, else the machine's, else one of our own.

    Raises Unavailable with the reason when there is none.
    """
    if os.environ.get("DOCKER_HOST") or SOCKET.exists():
        docker("version", seconds=20)
        yield os.environ.get("DOCKER_HOST", f"unix://{SOCKET}")
        return
    if os.getuid() != 0:
        raise Unavailable("no container engine runs, and only root can start one")
    try:
        for program in ("dockerd", "containerd", "docker", "unshare", "iptables"):
            find_program(program)
    except FileNotFoundError as error:
        raise Unavailable(f"no container engine: {error}") from None
    # on a disk: images are too large for memory
    folder = Path(tempfile.mkdtemp(prefix=f"{_group()}-", dir="/var/tmp"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        ends.callback(_remove_groups)
        daemon = _start(folder)
        ends.callback(daemon.kill)
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
        ends.callback(_restore, before)
        try:
            until(lambda: not daemon.running or _answers(), "the container engine to answer", 60, pause=0.1)
        except AssertionError as error:
            raise Unavailable(f"{error}; {_last_words(folder)}") from None
        if not daemon.running:
            raise Unavailable(f"a container engine cannot be started here: {_last_words(folder)}")
        yield os.environ["DOCKER_HOST"]


def _start(folder: Path) -> Daemon:
    apart = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    engine = [
        find_program("dockerd"),
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'dockerd.pid'}",
        f"--host=unix://{folder / 'docker.sock'}",
        f"--cgroup-parent=/{_group()}",
        "--bip=10.78.0.1/24",
        "--default-address-pool=base=10.78.0.0/16,size=24",
    ]
    return Daemon([find_program("unshare"), *apart, "sh", "-c", _RUN, *engine], folder / "dockerd.log")


def _remove_groups() -> None:
    """Control groups are the only thing that no namespace of ours ends: empty as soon as the last process is gone."""

    def gone() -> bool:
        left = list(Path("/sys/fs/cgroup").glob(f"*/{_group()}")) + list(Path("/sys/fs/cgroup").glob(_group()))
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        return not left

    until(gone, "the control groups of the container engine to go", 30, pause=0.05)


def _group() -> str:
    return f"proxyroute-{os.getpid()}"


def _answers() -> bool:
    try:
        docker("version", seconds=20)
    except Unavailable:
        return False
    return True


def _last_words(folder: Path) -> str:
    log = folder / "dockerd.log"
    return log.read_text(errors="replace")[-1000:].strip() if log.exists() else "it said nothing"


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop("DOCKER_HOST", None)
    else:
        os.environ["DOCKER_HOST"] = before
