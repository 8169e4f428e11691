"""What two proxies of one host must not share: a file, a socket, a port. Each would undo what the other does."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.config import load
from proxyroute.config_yaml import InvalidConfig

CLUSTER = """\
  {name}:
    account: {{user: proxyroute, password: {{env: ENGINE_PASSWORD}}}}
    replication: {{user: repl, password: {{env: REPL_PASSWORD}}}}
    servers: {{db1: "10.0.{n}.1:3306", db2: "10.0.{n}.2:3306"}}
    proxies: [{proxies}]
"""
OWN = "runtime_socket: /run/haproxy/{0}.sock, master_socket: /run/haproxy-{0}.sock, config_file: /etc/haproxy/{0}.cfg"


def complaints(folder: Path, *clusters: str) -> list[tuple[str, str]]:
    """Returns field and text of each mistake in a file of clusters ``c1`` … with these proxies."""
    parts = [CLUSTER.format(name=f"c{n}", n=n, proxies=proxies) for n, proxies in enumerate(clusters, 1)]
    file = folder / "proxyroute.yml"
    file.write_text(f"version: 1\nclusters:\n{''.join(parts)}")
    try:
        load(file)
    except InvalidConfig as invalid:
        return [(problem.field, problem.text) for problem in invalid.problems]
    return []


def haproxy(own: str, port: int, name: str = "local") -> str:
    return f"{{type: haproxy, name: {name}, {own}, write: '*:{port}'}}"


def test_two_clusters_that_render_one_haproxy_are_a_mistake(tmp_path: Path) -> None:
    same = "config_file: /etc/haproxy/haproxy.cfg"
    found = complaints(tmp_path, haproxy(same, 3306), haproxy(same, 3307))
    text = "is that of c1.local already; each needs its own, and a process of its own"
    assert dict(found) == {
        "clusters.c2.proxies[0].config_file": f"/etc/haproxy/haproxy.cfg {text}",
        "clusters.c2.proxies[0].runtime_socket": f"/run/haproxy/admin.sock {text}",
        "clusters.c2.proxies[0].master_socket": f"/run/haproxy-master.sock {text}",
    }, "the sockets are those of Debian unless something else is said"


@pytest.mark.parametrize("apart", [True, False])
def test_one_port_twice_is_a_mistake_also_within_a_cluster(tmp_path: Path, apart: bool) -> None:
    one, other = haproxy(OWN.format("a"), 3306, "a"), haproxy(OWN.format("b"), 3306, "b")
    found = complaints(tmp_path, one, other) if apart else complaints(tmp_path, f"{one}, {other}")
    where = "clusters.c2.proxies[0].write" if apart else "clusters.c1.proxies[1].write"
    assert found == [(where, "*:3306 is that of c1.a already; each needs its own, and a process of its own")]


def test_a_haproxy_for_each_cluster_and_agents_of_one_folder_are_none(tmp_path: Path) -> None:
    agents = f"{{type: haproxy-agents, name: edge1, folder: {tmp_path}, key_file: /k, write: '*:3309'}}"
    one, other = haproxy(OWN.format("a"), 3306), haproxy(OWN.format("b"), 3307)
    assert complaints(tmp_path, f"{one}, {agents}", f"{other}, {agents}") == []
