"""The agent is killed before and after each of its acts: traffic goes by one route or the other, and all ends well."""

from __future__ import annotations

import pytest

from proxyroute.model import ReceiptState
from tests.contract.agents import AgentsSubject
from tests.contract.subjects import soon
from tests.support.wait import until

FLAVOURS = ("mariadb-11.8",)

ACTS = ("agent.priority", "agent.remember", "agent.status", "haproxy.runtime", "haproxy.write_file", "share.receipt")
MOMENTS = [f"{act}:{when}" for act in ACTS for when in ("before", "after")]


def traced(host: AgentsSubject) -> list[str]:
    """The points an agent passes from a switchover's first word to its last."""
    file = host.folder / "trace"
    host.host.kill_agent()
    host.host.start_agent(PROXYROUTE_FAULT_TRACE=str(file))
    switch(host)
    return sorted({line.rpartition(":")[0].removeprefix("agent/") for line in file.read_text().splitlines()})


def switch(host: AgentsSubject) -> None:
    adapter = host.adapter()
    target, abort = host.table((1, 2), "db2"), host.table((1, 2), "db1")
    assert adapter.prepare(target, abort, soon()).state is ReceiptState.PREPARED
    assert adapter.hold("op-1", soon()).state is ReceiptState.DONE
    assert adapter.apply(target, soon()).state is ReceiptState.DONE
    assert adapter.release(soon()).state is ReceiptState.DONE
    assert adapter.settle(target, soon()).state is ReceiptState.DONE


def test_the_moments_below_are_those_that_a_switchover_passes(host: AgentsSubject) -> None:
    passed = {point for point in traced(host) if not point.startswith("share.canary")}
    assert passed == set(MOMENTS)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_agent_that_is_killed_takes_up_where_it_was(host: AgentsSubject, moment: str) -> None:
    host.host.kill_agent()
    host.host.start_agent(PROXYROUTE_FAULT=f"agent/{moment}")
    adapter = host.adapter()
    target = host.table((1, 2), "db2")
    adapter.apply(target, soon(0.3))
    adapter.settle(target, soon(0.3))
    killed = host.host.agent
    assert killed is not None
    until(lambda: not killed.running, f"the agent to die at {moment}")
    assert host.host.route() in ("db1/1.1", "db2/1.2")
    assert host.client().server in ("db1", "db2")
    host.host.start_agent()
    until(lambda: host.host.route() == "db2/1.2", "the new route")
    receipt = adapter.settle(target, soon())
    assert receipt.state is ReceiptState.DONE, receipt
    seen = adapter.observe(soon())
    assert (seen.primary, seen.drift) == ("db2", ())
    assert host.client().server == "db2"
    assert "!closed" in host.host.map_file.read_text()


@pytest.mark.parametrize("moment", ["haproxy.master:before", "haproxy.master:after"])
def test_an_agent_that_is_killed_around_a_reload_leaves_no_open_map_behind(host: AgentsSubject, moment: str) -> None:
    host.host.kill_agent()
    host.host.start_agent(PROXYROUTE_FAULT=f"agent/{moment}")
    adapter = host.adapter(hard_stop_after=31.0)
    target, abort = host.table((1, 2), "db2"), host.table((1, 2), "db1")
    killed = host.host.agent
    assert killed is not None
    adapter.prepare(target, abort, soon(0.5))
    until(lambda: not killed.running, f"the agent to die at {moment}")
    until(lambda: host.client().server == "db1", "the old route to serve")
    host.host.start_agent()
    until(lambda: "!closed" in host.host.map_file.read_text(), "the map file to be closed again")
    assert adapter.prepare(target, abort, soon()).state is ReceiptState.PREPARED
    assert adapter.apply(target, soon()).state is ReceiptState.DONE
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    assert host.client().server == "db2"
