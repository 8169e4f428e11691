"""A site with two proxy hosts that follow a shared folder, each with its own HAProxy and agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import Lab
from tests.support.scene import assert_order, books, switched
from tests.support.wait import until


@pytest.fixture(scope="module")
def site() -> Iterator[Lab]:
    with Lab.start(3, hosts=2) as lab:
        yield lab


def test_a_switchover_goes_through_the_agents_to_every_host(site: Lab) -> None:
    with books(site, address=site.hosts[1].write):
        value = switched(site)
    new = value["result"]["primary"]
    assert_order(site, new)
    routes = {host.route() for host in site.hosts}
    assert len(routes) == 1
    assert routes.pop().startswith(f"{new}/")


def test_hosts_bind_the_same_ports_at_addresses_of_their_own(site: Lab) -> None:
    assert [host.write.port for host in site.hosts] == [site.write.port] * 2
    assert [f"bind {host.write}\n" in host.config_file.read_text() for host in site.hosts] == [True, True]
    status, value = site.json("check")
    assert (status, value["findings"]) == (0, [])


def test_a_host_whose_haproxy_does_not_run_refuses_a_switchover_by_its_name(site: Lab) -> None:
    first, second = site.hosts
    before = first.route()
    second.haproxy.kill9()
    status, value = site.json("switchover", "--yes")
    assert status == 3, value
    assert {finding["subject"] for finding in value["error"]["findings"]} == {second.name}
    assert first.route() == before
    second.start_haproxy()
    until(lambda: second.route() == before, "the agent to confirm the route to the HAProxy that was started")
    assert_order(site)
