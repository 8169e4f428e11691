"""What can be said about the lease, and how mistakes in it are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxyroute.assembly import build_lease
from proxyroute.config import ClusterConfig, InvalidConfig, from_snapshot, load, snapshot
from proxyroute.config_lease import LeaseConfig
from proxyroute.config_secrets import Secret
from proxyroute.lease.database import DatabaseLease
from proxyroute.lease.etcd import EtcdLease
from proxyroute.lease.local import LocalLease
from proxyroute.lease.pacemaker import PacemakerLease

FILE = """\
version: 1
{top}
clusters:
  shop:
    account: {{user: proxyroute, password: {{env: ENGINE_PASSWORD}}}}
    replication: {{user: repl, password: {{env: REPL_PASSWORD}}}}
    servers: {{db1: "10.0.0.1", db2: "10.0.0.2"}}
    {inside}
"""
ETCD = 'lease: {type: etcd, endpoints: ["https://10.0.0.1:2379/"], time: 5s, ca: etcd.pem, user: u, password: {env: P}}'


def loaded(folder: Path, top: str = "", inside: str = "") -> ClusterConfig:
    path = folder / "proxyroute.yml"
    path.write_text(FILE.format(top=top, inside=inside))
    return load(path).cluster(None)


def test_without_a_word_it_is_that_of_one_host(tmp_path: Path) -> None:
    shop = loaded(tmp_path)
    assert shop.lease == LeaseConfig()
    assert "lease" not in snapshot(shop)["cluster"]


def test_it_stands_at_the_top_for_all_or_in_a_cluster_for_that_one(tmp_path: Path) -> None:
    etcd = LeaseConfig(
        "etcd", 5.0, ("https://10.0.0.1:2379",), ca=tmp_path / "etcd.pem", user="u", password=Secret("env", "P")
    )
    assert loaded(tmp_path, ETCD).lease == etcd
    assert loaded(tmp_path, inside=ETCD).lease == etcd
    assert loaded(tmp_path, ETCD, "lease: {type: database}").lease == LeaseConfig("database")
    assert loaded(tmp_path, ETCD, "lease: {type: local}").lease == LeaseConfig()


def test_a_snapshot_carries_it_without_its_secret(tmp_path: Path) -> None:
    shop = loaded(tmp_path, ETCD)
    assert from_snapshot(json.loads(json.dumps(snapshot(shop)))) == shop


def test_that_of_a_cluster_manager_has_the_name_of_its_resource(tmp_path: Path) -> None:
    assert loaded(tmp_path, "lease: {type: pacemaker}").lease == LeaseConfig("pacemaker")
    shop = loaded(tmp_path, "lease: {type: pacemaker, resource: engine, node: n1, time: 5s}")
    assert shop.lease == LeaseConfig("pacemaker", 5.0, resource="engine", node="n1")
    assert from_snapshot(json.loads(json.dumps(snapshot(shop)))) == shop


def test_each_type_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "secret")
    monkeypatch.setenv("ENGINE_PASSWORD", "secret")
    texts = ("", ETCD, "lease: {type: database}", "lease: {type: pacemaker, node: n1}")
    built = {text: build_lease(loaded(tmp_path, text)) for text in texts}
    assert [type(lease) for lease in built.values()] == [LocalLease, EtcdLease, DatabaseLease, PacemakerLease]
    assert [lease.distributed for lease in built.values()] == [False, True, True, True]
    assert [lease.automatic for lease in built.values()] == [False, True, False, False]


def test_files_and_secrets_are_looked_for(tmp_path: Path) -> None:
    http = ETCD.replace("https", "http").replace("ca: etcd.pem, ", "")
    assert {f.code for f in loaded(tmp_path, ETCD).lease.findings()} == {"config.secret", "config.tls"}
    assert {f.code for f in loaded(tmp_path, http).lease.findings()} == {"config.secret", "lease.plain"}


@pytest.mark.parametrize(
    ("lease", "told"),
    [
        ("{type: raft}", "clusters.shop.lease.type: must be 'local', 'etcd', 'database' or 'pacemaker'"),
        ("{type: etcd}", "has no endpoints; write endpoints: ['https://10.0.0.1:2379'"),
        ('{type: etcd, endpoints: ["10.0.0.1"]}', "'10.0.0.1' is not an address of etcd"),
        ('{type: etcd, endpoints: ["http://a:2379"], ca: x}', "does not use TLS, and ca or cert is given"),
        ('{type: etcd, endpoints: ["https://a:2379"], cert: x}', "cert and key come together"),
        ('{type: etcd, endpoints: ["https://a:2379"], user: x}', "user and password come together"),
        ('{type: etcd, endpoints: ["https://a:2379"], user: x, password: y}', "a secret is never written"),
        ('{type: database, endpoints: ["https://a:2379"]}', "endpoints is for type: etcd only"),
        ("{type: etcd, endpoints: [https://a:1], node: n1}", "node is for type: pacemaker only; this is type: etcd"),
        ("{type: local, resource: engine}", "resource is for type: pacemaker only"),
        ("{type: pacemaker, user: x}", "user is for type: etcd only"),
        ("{type: pacemaker, resource: 'a b'}", "is no name of a resource; crm_resource --list names them"),
        ("{type: database, time: 1500ms}", "whole seconds, from 2s to 600s"),
        ("{type: database, time: 1s}", "whole seconds, from 2s to 600s"),
        ("{type: database, tiem: 5s}", "did you mean time?"),
    ],
)
def test_a_mistake_is_told_with_what_would_be_right(tmp_path: Path, lease: str, told: str) -> None:
    for top, inside in (("", f"lease: {lease}"), (f"lease: {lease}", "")):
        with pytest.raises(InvalidConfig) as caught:
            loaded(tmp_path, top, inside)
        assert told.removeprefix("" if inside else "clusters.shop.") in str(caught.value)
