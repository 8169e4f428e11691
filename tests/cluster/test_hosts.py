"""A site with two proxy hosts that follow a shared folder, each with its own HAProxy and agent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.lab import Lab
from tests.support.mariadb import LocalCluster
from tests.support.scene import assert_order, books, configured, other, switched
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
FULL = ("mysql",)


@pytest.fixture(scope="module")
def site(servers: type[LocalCluster]) -> Iterator[Lab]:
    with Lab.start(3, hosts=2, provider=servers) as lab:
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


def proxies(site: Lab) -> dict[str, dict[str, Any]]:
    return {proxy["proxy"]: proxy for proxy in site.json("status")[1]["proxies"]}


def test_status_shows_for_each_host_what_is_intended_published_and_loaded(site: Lab) -> None:
    primary, (first, second) = site.cluster.primary.name, site.hosts
    epoch = first.route().partition("/")[2]
    second.haproxy.ask(f"set map {second.map_file} route {other(site)}/1.1")
    found = proxies(site)
    for name, differs in ((first.name, False), (second.name, True)):
        assert found[name]["intended"] == primary
        assert found[name]["published"] == {"primary": primary, "epoch": epoch}
        assert bool(found[name]["differences"]) is differs
    assert f"writes should go to {primary}, loaded is {other(site)}/1.1" in site.run("status").stdout
    published = site.run("publish")
    assert published.returncode == 0, published.stdout
    assert [line.split()[1] for line in published.stdout.splitlines()[1:]] == ["done", "done"]
    assert_order(site)


def test_a_host_that_does_not_hear_is_shown_with_what_it_has_taken(site: Lab) -> None:
    second = site.hosts[1]
    taken = second.receipt().release
    assert second.agent is not None
    second.agent.send(signal.SIGSTOP)
    try:
        assert site.run("publish").returncode == 7
        found = proxies(site)[second.name]
        assert (found["reachable"], found["intended"]) == (False, site.cluster.primary.name)
        assert found["published"]["epoch"] not in taken, "the folder has moved on"
        assert second.name in site.run("status").stdout
    finally:
        second.agent.send(signal.SIGCONT)
    until(lambda: not proxies(site)[second.name]["differences"], "the host to follow")
    assert_order(site)


def test_serve_brings_back_a_host_that_was_edited_by_hand_and_one_whose_haproxy_started_anew(site: Lab) -> None:
    primary, (first, second) = site.cluster.primary.name, site.hosts
    with serving(site) as served:
        first.haproxy.ask(f"set map {first.map_file} route {other(site)}/1.1")
        served.await_told("corrected", f"{first.name}: writes should go to {primary}")
        until(lambda: first.route().startswith(f"{primary}/"), "the route to come back")
        second.haproxy.kill9()
        served.await_told("state", f"proxy {second.name} cannot be read")
        second.start_haproxy()
        until(lambda: second.route().startswith(f"{primary}/"), "the agent to open it")
        until(lambda: "2 of 2 proxies send writes there" in served.texts("state")[-1], "the state to be good again")
    assert_order(site, primary)


@pytest.mark.full
def test_a_switchover_beside_serve_is_not_disturbed_by_its_questions(site: Lab) -> None:
    with configured(site, serve={"period": "200ms", "proxies_period": "200ms"}), serving(site) as served, books(site):
        for _ in range(3):
            switched(site)
        assert served.texts("corrected") == []
    assert_order(site)


def test_a_host_declared_absent_that_is_silent_costs_the_clients_nothing(site: Lab) -> None:
    second = site.hosts[1]
    proxies_now = yaml.safe_load(site.config.read_text())["clusters"]["demo"]["proxies"]
    declared = [{**proxy, "absent": proxy["name"] == second.name} for proxy in proxies_now]
    assert second.agent is not None
    second.agent.send(signal.SIGSTOP)
    try:
        with configured(site, proxies=declared), books(site):
            value = switched(site)
        steps = site.run("show", value["result"]["operation"]).stdout
        assert f"{second.name}: declared absent, so it was not waited for" in " ".join(steps.split())
    finally:
        second.agent.send(signal.SIGCONT)
    new = value["result"]["primary"]
    until(lambda: second.route().startswith(f"{new}/"), "the host that was silent to follow all the same")
    assert_order(site, new)
