"""How a configuration says on which hosts commands run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxyroute.config import InvalidConfig, load

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", REFERENCE.read_text(), re.DOTALL)


def test_ssh_to_the_address_of_the_server(tmp_path: Path) -> None:
    path = tmp_path / "proxyroute.yml"
    path.write_text(EXAMPLE)
    servers = load(path).cluster(None).servers
    host = servers["db3"].host
    assert host is not None
    assert host.shell[-1] == "root@db3.example.net"
    assert host.joins
    assert servers["db1"].host is None


def test_the_account_that_rebuilds_is_not_taken_for_a_stray_writer(tmp_path: Path) -> None:
    path = tmp_path / "proxyroute.yml"
    path.write_text(EXAMPLE)
    assert load(path).cluster(None).policy.monitor_users == ("proxyroute_rejoin",)


@pytest.mark.parametrize(
    "wrong", ["{user: root, shell: [ssh, db3]}", "{data_dir: /var/lib/mysql}", "{user: root, data_dir: mysql}"]
)
def test_a_host_is_reached_in_one_way(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "proxyroute.yml"
    path.write_text(EXAMPLE.replace("host: {user: root}", f"host: {wrong}"))
    with pytest.raises(InvalidConfig, match=r"servers\.db3\.host"):
        load(path)
