"""``scripts.fence`` by the cluster manager: whom it has fenced, and when it does not even ask. With stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

FENCE = Path(__file__).parents[2] / "scripts" / "ocf" / "fence"


class Node:
    """A node of a cluster, by the programs that are asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.says("crm_node", "case $1 in --name) echo db1;; --quorum) echo 1;; *) exit 9;; esac")
        self.says("stonith_admin", f'echo "$@" >>{folder}/asked')

    def says(self, program: str, text: str) -> None:
        file = self.folder / program
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def fence(self, *words: str, server: str = "db2", moment: str = "fence") -> tuple[int, str]:
        told = {"PROXYROUTE_MOMENT": moment, "PROXYROUTE_OLD_PRIMARY": server, "PROXYROUTE_NEW_PRIMARY": "db3"}
        path = f"{self.folder}{os.pathsep}{os.defpath}"
        done = subprocess.run([FENCE, *words], capture_output=True, text=True, env={"PATH": path, **told}, timeout=20)
        return done.returncode, (done.stdout + done.stderr).strip()

    @property
    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), "db2"),
        (("db1=n1", "db2=host-2", "db22=n3"), "host-2"),
        (("10.0.0.1", "10.0.0.2", "3306", "3306", "db2", "db3", "failover"), "db2"),  # for replication-manager's
        (("db2=",), "db2"),
    ],
)
def test_the_host_of_the_old_primary_is_fenced_by_its_name_in_the_cluster(
    node: Node, words: tuple[str, ...], wanted: str
) -> None:
    assert node.fence(*words) == (0, f"{wanted} is fenced")
    assert node.asked == [f"--fence={wanted}"]


def test_nobody_is_fenced_without_quorum_from_the_very_host_or_by_mistake(node: Node) -> None:
    assert node.fence(server="db1") == (1, "db1 is this very node: it cannot be fenced from here")
    assert node.fence("db2=db1") == (1, "db1 is this very node: it cannot be fenced from here")
    assert node.fence(moment="address_down")[0] == 1
    assert node.fence(server="")[0] == 1
    node.says("crm_node", "case $1 in --name) echo db1;; --quorum) echo 0;; esac")
    assert node.fence() == (1, "db1 has no quorum: it may not have anybody fenced")
    node.says("crm_node", "exit 102")
    assert node.fence() == (1, "crm_node does not say what this node is called; does Pacemaker run here?")
    assert node.asked == []


def test_what_the_device_does_not_confirm_is_no_fence(node: Node) -> None:
    node.says("stonith_admin", 'echo "$@: No such device" >&2; exit 105')
    assert node.fence() == (1, "stonith_admin --fence=db2 ended with status 105: --fence=db2: No such device")
