"""The agent's file: what is this host's own affair."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.config_agent import load_agent
from proxyroute.errors import ConfigError
from proxyroute.haproxy.release import Shape

FILE = """
version: 1
host: edge1
cluster: shop
folder: /mnt/routes
key_file: /etc/proxyroute/shared.key
config_file: /etc/haproxy/haproxy.cfg
"""


def written(folder: Path, more: str) -> Path:
    file = folder / "agent.yml"
    file.write_text(FILE + more)
    return file


@pytest.mark.parametrize(
    ("address", "asked", "bound"),
    [
        ("", "*:3306", "*:3306"),
        ("10.0.0.11", "*:3306", "10.0.0.11:3306"),
        ("10.0.0.11", "0.0.0.0:3306", "10.0.0.11:3306"),
        ("fd00::11", "[::]:3306", "[fd00::11]:3306"),
        ("10.0.0.11", "10.0.0.9:3306", "10.0.0.9:3306"),
    ],
)
def test_the_address_of_a_host_is_bound_where_the_engine_says_every_address(
    tmp_path: Path, address: str, asked: str, bound: str
) -> None:
    config = load_agent(written(tmp_path, f"address: '{address}'\n"))
    settings = config.local(Shape(write=asked, read=asked, stats=asked), None)
    assert (settings.write, settings.read, settings.stats) == (bound, bound, bound)
    assert config.local(Shape(write=asked), None).read == ""


@pytest.mark.parametrize("address", ["10.0.0.11:3306", "edge1", "*"])
def test_an_address_that_cannot_be_bound_is_told_with_its_field(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"address: .* write the address without a port"):
        load_agent(written(tmp_path, f"address: '{address}'\n"))


def test_the_folder_lies_where_its_disk_is_mounted(tmp_path: Path) -> None:
    assert load_agent(written(tmp_path, "mount_point: /mnt/routes\n")).mount_point == "/mnt/routes"
    with pytest.raises(ConfigError, match="mount_point: /mnt/routes does not lie in /mnt/other"):
        load_agent(written(tmp_path, "mount_point: /mnt/other\n"))


def test_virtual_addresses_are_addresses_and_nothing_else(tmp_path: Path) -> None:
    assert load_agent(written(tmp_path, "virtual_addresses: [10.0.0.100]\n")).virtual_addresses == ("10.0.0.100",)
    with pytest.raises(ConfigError, match=r"virtual_addresses: '10.0.0.100/24' is not an address; write one without"):
        load_agent(written(tmp_path, "virtual_addresses: [10.0.0.100/24]\n"))
