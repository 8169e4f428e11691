"""Two servers take writes, and neither was the primary's predecessor: a person decides, and ``serve`` only tells."""

from __future__ import annotations

from tests.support.death import await_back, no_failover
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.scene import assert_order, beat, other
from tests.support.serving import serving
from tests.support.wait import until

AUTOMATIC = {"mode": "automatic", "single_engine": True, "policy": "most_advanced", "quiet_period": "0s"}
FLAVOURS = ("mysql",)
SITE = {"n": 3, "more": {"failover": AUTOMATIC, "serve": {"period": "200ms", "proxies_period": "400ms"}}}


def test_two_that_take_writes_are_named_and_neither_is_touched(site: Lab) -> None:
    primary, second = site.cluster.primary, site.cluster[other(site)]
    with serving(site) as served:
        until((site.folder / "state" / CLUSTER_NAME / "known.json").exists, "serve to know the primary")
        second.sql("SET GLOBAL read_only=0")
        second.sql("STOP SLAVE")
        second.sql("RESET SLAVE ALL")
        told = served.await_told("diagnosis", "TwoWritable", 60)
        assert f"{primary.name} and {second.name} take writes and follow nobody" in told, told
        found = no_failover(site, "--force")["failover.diagnosis"]
        assert found["text"].startswith("TwoWritable"), "nobody forces that"
        assert beat(site) == primary.name
        assert (primary.is_writable(), second.is_writable()) == (True, True)
        assert served.texts("acted") == []
        second.sql("SET GLOBAL read_only=1")  # a person has decided
        served.await_told("diagnosis", "NoProblem", 60)
        if served.texts("acted") == []:
            assert site.run("rejoin", second.name).returncode == 0
        await_back(site, second)
    assert_order(site, primary.name)
