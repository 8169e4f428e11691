"""How servers reach each other is kept: TLS, credentials of their own, names or addresses, semi-synchronous commits."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import REPLICATION
from tests.support.death import semi_sync
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.scene import assert_order, books, configured, other, switched

FLAVOURS = ("mysql", "mariadb-11.8")
SITE = {"n": 3}


def replicas(site: Lab) -> list[Node]:
    return [node for node in site.cluster if node is not site.cluster.primary]


# -- TLS ------------------------------------------------------------------------------------------------------


def certificates(folder: Path) -> dict[str, str]:
    """Makes a CA and a server certificate for 127.0.0.1 in ``folder``; returns the server's options."""
    extension = folder / "extension"
    extension.write_text("subjectAltName=IP:127.0.0.1\n")
    for argv in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab-ca -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extension -out server.pem",
    ):
        subprocess.run(["openssl", *argv.split()], cwd=folder, check=True, capture_output=True)
    return {
        "ssl_ca": str(folder / "ca.pem"),
        "ssl_cert": str(folder / "server.pem"),
        "ssl_key": str(folder / "server.key"),
    }


def tls_of(node: Node) -> tuple[str, str, str]:
    row = node.replication()
    return row["Master_SSL_Allowed"], row["Master_SSL_CA_File"], row["Master_SSL_Verify_Server_Cert"]


def test_replication_over_tls_is_kept_when_repointed(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    options = certificates(tmp_path)
    with start_lab(3, options=options) as lab:
        first = lab.cluster.primary
        side = {"mariadb": "MASTER", "mysql": "SOURCE"}[lab.cluster.flavour]
        for node in replicas(lab):
            node.follow(first, f"{side}_SSL=1, {side}_SSL_CA='{options['ssl_ca']}', {side}_SSL_VERIFY_SERVER_CERT=1")
        first.sql(f"ALTER USER '{REPLICATION.user}'@'%' REQUIRE SSL")
        lab.cluster.await_synced()
        for name in ("db2", "db1"):
            with books(lab):
                switched(lab, "--to", name)
            assert_order(lab, name)
            assert {tls_of(node) for node in replicas(lab)} == {("Yes", options["ssl_ca"], "Yes")}


def test_replication_over_tls_as_the_configuration_has_it(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    options = certificates(tmp_path)
    with start_lab(2, options=options) as lab, configured(lab, replication={"tls": {"ca": options["ssl_ca"]}}):
        switched(lab)
        assert_order(lab, "db2")
        assert tls_of(lab.cluster["db1"]) == ("Yes", options["ssl_ca"], "Yes")


# -- Credentials and addresses --------------------------------------------------------------------------------


@pytest.fixture
def own_accounts(site: Lab) -> Iterator[dict[str, Any]]:
    """An account for replication for every server; the value is the part ``servers`` of the configuration."""
    servers: dict[str, Any] = {}
    for node in site.cluster:
        user, password = f"repl_{node.name}", f"secret-of-{node.name}"
        site.cluster.primary.sql(f"CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'")
        site.cluster.primary.sql(f"GRANT REPLICATION SLAVE ON *.* TO '{user}'@'%'")
        file = site.folder / f"{user}.password"
        file.touch(mode=0o600)
        file.write_text(password)
        login = {"user": user, "password": {"file": str(file)}}
        servers[node.name] = {"address": str(node.address), "replication": login}
    site.cluster.await_synced()
    with configured(site, servers=servers):
        yield servers


def test_the_credentials_for_replication_differ_per_server(site: Lab, own_accounts: dict[str, Any]) -> None:
    for _ in range(2):
        switched(site)
        assert_order(site)
        for node in replicas(site):
            assert node.replication()["Master_User"] == f"repl_{node.name}"


def test_servers_are_configured_by_name_and_follow_each_other_by_address(site: Lab) -> None:
    names = {node.name: f"localhost:{node.port}" for node in site.cluster}
    with configured(site, servers=names):
        with books(site):
            switched(site)
        assert_order(site)
        assert {node.replication()["Master_Host"] for node in replicas(site)} == {"localhost"}
        assert site.json("status")[1]["level"] == "good"
    assert site.run("publish").returncode == 0


def test_servers_follow_each_other_by_name_and_are_configured_by_address(site: Lab) -> None:
    for node in replicas(site):
        node.sql("STOP SLAVE")
        node.sql("CHANGE MASTER TO MASTER_HOST='localhost', MASTER_HEARTBEAT_PERIOD=1")
        node.sql("START SLAVE")
    site.cluster.await_synced()
    with books(site):
        switched(site)
    assert_order(site)
    assert {node.replication()["Master_Host"] for node in replicas(site)} == {"127.0.0.1"}


# -- Semi-synchronous -----------------------------------------------------------------------------------------


def roles(node: Node) -> tuple[int, int]:
    """Whether semi-synchronous replication is enabled as primary and as replica."""
    enabled = (node.value(f"@@global.rpl_semi_sync_{side}_enabled") for side in ("master", "slave"))
    primary, replica = (int(value) for value in enabled)
    return primary, replica


@pytest.mark.parametrize("n", [2, 3])
def test_semi_sync_on_all_nodes_the_first_commits_are_acknowledged_and_the_roles_move(
    start_lab: Callable[..., Lab], n: int
) -> None:
    options = {"rpl_semi_sync_master_wait_point": "AFTER_SYNC", "rpl_semi_sync_master_timeout": 30000}
    with start_lab(n, semi_sync=True, options=options) as lab:
        for _ in range(2):
            old, new = lab.cluster.primary, lab.cluster[other(lab)]
            with books(lab):
                steps = lab.json("plan", "--to", new.name)[1]["steps"]
                switched(lab, "--to", new.name)
            attached = [step["acts"][0] for step in steps if step["name"] == "attach semi-sync replica"]
            assert [act.rpartition(" ")[2] for act in attached] == ["IO_THREAD"] * (n - 2), attached
            assert_order(lab, new.name)
            assert roles(new)[0] == 1
            assert {roles(node) for node in replicas(lab)} == {(0, 1)}
            now = semi_sync(new)
            assert (now["master_status"], int(now["master_clients"])) == ("ON", n - 1), now
            assert int(now["master_no_tx"]) == 0, "a commit was not acknowledged by any replica"
            assert int(now["master_yes_tx"]) > 0
            assert new.value("@@global.rpl_semi_sync_master_wait_point") == "AFTER_SYNC"
            assert semi_sync(old)["slave_status"] == "ON"
