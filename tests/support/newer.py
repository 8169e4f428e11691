"""A newer MariaDB with a newer HAProxy than this machine's packages have, from the trixie root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.mariadb import LocalCluster, Node, Options
from tests.support.netns import Place
from tests.support.roots import Root, find_root
from tests.support.template import run_locally

__all__ = ["NewerCluster"]


def newer_root() -> Root:
    """Returns the root they are in. Raises LookupError with the reason when there is none."""
    return find_root("trixie")


class _Node(Node):
    root: Root

    def _base(self, folder: Path, server_id: int) -> None:
        super()._base(folder, server_id)
        system = self.root.folder / "usr"
        self.options |= {
            "basedir": str(system),
            "plugin-dir": str(system / "lib/mysql/plugin"),
            "lc-messages-dir": str(system / "share/mysql"),
        }

    def program(self) -> str:
        return self.root.program("mariadbd")


class NewerCluster(LocalCluster):
    """Servers db1…dbN of the newer MariaDB. Starting raises LookupError without the root."""

    @classmethod
    def programs(cls) -> Path:
        """Where the programs are that go with these servers. Raises LookupError without the root."""
        return newer_root().programs

    @property
    def haproxy(self) -> str:
        return newer_root().program("haproxy")

    def run_program(self, argv: Sequence[str], folder: Path) -> str:
        root = newer_root()
        if argv[0] == "mariadb-install-db":
            argv = [*argv, f"--basedir={root.folder / 'usr'}", "--force"]
        return run_locally([root.program(argv[0]), *argv[1:]], folder)

    def make_node(
        self, name: str, server_id: int, folder: Path, options: Options, place: Place | None, outlive: bool
    ) -> Node:
        kind = type("NewerNode", (_Node,), {"root": newer_root()})
        node: Node = kind(name, server_id, folder, options, place, outlive=outlive)
        return node
