"""The primary is cut off from its replicas and the engine while its clients write: what the report says is right.

With AFTER_SYNC it waits for acknowledgements that cannot come. Closed within its time-out, it has told nobody of a row
that is nowhere else; closed later it may have, and then the report says so, and the rows are kept once it is back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import netns
from tests.support.broken import archived_rows, ready, undone
from tests.support.death import LOSSLESS, waits_for_acknowledgements
from tests.support.lab import run_to_end
from tests.support.load import RowId, create_table
from tests.support.mariadb import LocalCluster, Node
from tests.support.netlab import NetLab
from tests.support.scene import assert_order
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
WATCHING = {"period": "200ms", "proxies_period": "400ms"}
AUTOMATIC = {"mode": "automatic", "single_engine": True, "quiet_period": "0s", "per_day": 100}


@pytest.fixture(autouse=True)
def possible() -> None:
    try:
        netns.require()
    except netns.Unavailable as reason:
        pytest.skip(str(reason))


@contextlib.contextmanager
def site(servers: type[LocalCluster], policy: str, timeout: float, n: int = 3) -> Iterator[NetLab]:
    """A site whose primary waits ``timeout`` seconds for an acknowledgement, and an automatic failover."""
    more = {"serve": WATCHING, "failover": {**AUTOMATIC, "policy": policy}}
    options = {**LOSSLESS, "rpl_semi_sync_master_timeout": int(timeout * 1000)}
    waits: dict[str, Any] = {"semi_sync": True, "options": options}
    with NetLab.start(n, more=more, policy={"prove": "3s", "settle": "5s"}, provider=servers, **waits) as lab:
        ready(lab)
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        until(lambda: waits_for_acknowledgements(lab.cluster), "somebody to acknowledge")
        yield lab


def cut_off(net: NetLab, old: Node) -> None:
    """Nothing passes any more between the primary and the replicas and the engine; its clients do not notice."""
    for other in (*(node.name for node in net.cluster if node is not old), *net.engines):
        net.cut(old.name, other)


def rows_of(node: Node) -> set[RowId]:
    return {(row["writer"], row["n"]) for row in node.sql("SELECT writer, n FROM app.load_rows")}


def partitioned(net: NetLab) -> tuple[Node, Node, str, set[RowId]]:
    """Clients write through both proxies while the primary is cut off, until they write again on another one.

    When all is mended the old primary has been closed. Returns it, the new one, what serve told of the failover, and
    the rows that were acknowledged and are not on the new one.
    """
    old = net.cluster.primary
    with serving(net) as served, net.load([host.write for host in net.hosts], writers=6, rate=30) as load:
        load.await_more(60)
        cut_off(net, old)
        told = served.await_told("acted", "failover", 90)
        assert old.is_writable(), "nobody could tell it"
        (new,) = (node for node in net.cluster if node is not old and node.is_writable())
        load.await_more(60)
        records = load.stop()
        missing = {(write.writer, write.n) for write in records.acknowledged} - rows_of(new)
        net.mend()
        served.await_told("acted", f"{old.name} was closed", 60)
        assert not old.is_writable()
    assert len(records.acknowledged) >= 120
    return old, new, told, missing


def report(net: NetLab) -> str:
    """What the command line shows of the failover, in one line."""
    operation = next(o for o in net.json("history")[1]["operations"] if o["kind"] == "failover")
    return " ".join(run_to_end(net.command("show", operation["operation"])).stdout.split())


def brought_back(net: NetLab, old: Node, new: Node) -> None:
    """The old primary follows, and what only it had is undone."""
    if not old.replicates():
        undone(net, old)
    until(old.replicates, f"{old.name} to follow")
    with net.inside("client1"):
        assert_order(net, new.name)


@pytest.mark.full
def test_closed_later_it_had_gone_on_alone_and_the_report_says_what_may_be_missing(servers: type[LocalCluster]) -> None:
    with site(servers, "most_advanced", 1) as net:
        old, new, told, missing = partitioned(net)
        assert missing, "it went on alone, and clients were told so: otherwise this tests nothing"
        assert "UNKNOWN" in told
        said = report(net)
        assert f"{old.name} was closed" in said, said
        assert "after the time until which it is known to have waited for acknowledgements" in said, said
        assert run_to_end(net.command("rejoin", old.name)).returncode == 3, "not silently"
        kept = archived_rows(net)
        assert missing <= kept, f"neither there nor kept: {sorted(missing - kept)}"
        brought_back(net, old, new)
        assert not missing & rows_of(old)
