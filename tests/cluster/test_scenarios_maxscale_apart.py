"""A real cluster behind a MaxScale that is only reached by its REST API and its listener: the double, or a real one.

The real one is that of ``PROXYROUTE_MAXSCALE_URL``, which must run on this host, for the servers are on loopback; else
one in a container that shares the host's network. It is driven; what is made in it is taken out again.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.chaos.world import await_closed
from tests.support.clients import Clients
from tests.support.death import brought_back, failed_over, remembered
from tests.support.maxscale.bench import MaxScaleBench
from tests.support.maxscale.double import Double
from tests.support.maxscale.real import real_maxscale
from tests.support.scene import assert_order, books, configured, other, switched

POLICY = {"freeze_budget": "3s", "lock_pause": "20ms", "lock_attempt": "100ms"}
IN_THE_WAY = {"freeze_budget": "400ms", "long_wait": "100ms", "long_transaction": "60s"}


@dataclass(frozen=True)
class Behind:
    """The site, and where its MaxScale is asked."""

    site: MaxScaleBench
    url: str

    def assert_roles(self, primary: str) -> None:
        shown = self.site.states(self.url)
        assert shown == {
            node.name: {"Master" if node.name == primary else "Slave", "Running"} for node in self.site.cluster
        }


@pytest.fixture(params=["double", "real"])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    with contextlib.ExitStack() as ends:
        if request.param == "double":
            url = ends.enter_context(Double.empty()).login_url
        else:
            try:
                url = ends.enter_context(real_maxscale(shares_network=True))
            except LookupError as reason:
                pytest.skip(str(reason))
        more = {"failover": {"policy": "most_advanced"}}
        yield Behind(ends.enter_context(MaxScaleBench.behind(url, policy=POLICY, more=more)), url)


def test_there_and_back_under_load(behind: Behind) -> None:
    site = behind.site
    old, new = site.cluster.primary.name, other(site)
    with books(site) as kept:
        assert switched(site, "--to", new)["verdict"] == "PROVEN"
        behind.assert_roles(new)
        kept.go_on()
        assert switched(site, "--to", old)["verdict"] == "PROVEN"
    behind.assert_roles(old)
    assert_order(site, old)


def test_aborted_before_the_commit_its_states_are_as_they_were(behind: Behind) -> None:
    site = behind.site
    old, before = site.cluster.primary, site.states(behind.url)
    old.sql("CREATE OR REPLACE TABLE app.in_the_way (id INT PRIMARY KEY)")
    with contextlib.ExitStack() as ends, configured(site, switchover=IN_THE_WAY):
        Clients(old, ends).idle("LOCK TABLES app.in_the_way WRITE")
        done = site.run("switchover", "--yes")
    assert done.returncode == 4, done.stdout + done.stderr
    assert site.states(behind.url) == before
    assert_order(site, old.name)


def test_killed_when_the_new_one_is_a_master_the_guard_goes_on(behind: Behind) -> None:
    site = behind.site
    new = other(site)
    fault = {"PROXYROUTE_FAULT": "engine/maxscale.state:after:1"}
    done = site.run("switchover", "--yes", "--to", new, environment=fault)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    await_closed(site)
    behind.assert_roles(new)
    assert_order(site, new)


def test_the_primary_dies_and_comes_back_as_a_replica(behind: Behind) -> None:
    site = behind.site
    old = site.cluster.primary
    remembered(site)
    old.kill9()
    new = failed_over(site, code=7)["plan"]["plan"]["candidate"]
    assert "Master" not in site.states(behind.url)[old.name]
    brought_back(site, old)
    assert site.run("publish").returncode == 0
    behind.assert_roles(new)
    assert_order(site, new)
