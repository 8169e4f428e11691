"""The end of a primary, and what comes after it: failovers by command, those who are back, the books of a death."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pymysql

from proxyroute.config import load
from proxyroute.journal import journals, outcome, read
from proxyroute.sentry import Sentry, recall
from tests.support.broken import undone
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import Load, Records, create_table, read_rows
from tests.support.mariadb import Connection, LocalCluster, Node
from tests.support.mysql_words import semi_sync_as_told
from tests.support.netlab import NetLab
from tests.support.scene import Refusal, standing
from tests.support.serving import Serving
from tests.support.verdict import Verdict, judge
from tests.support.wait import until

ENDS: Mapping[str, Callable[[Node], None]] = {"killed": Node.kill9, "stopped": Node.stop, "hung": Node.sigstop}
"""How a primary can end. One that hangs still runs: its connections are there, and nobody answers."""

LOSSLESS = {
    "rpl_semi_sync_master_wait_point": "AFTER_SYNC",
    "rpl_semi_sync_master_wait_no_slave": 1,
    "rpl_semi_sync_master_timeout": 30000,
    "init_rpl_role": "SLAVE",
}
"""Options of servers of which none acknowledges what it alone has; what a crash leaves unacknowledged is cut off."""


def _uptime(node: Node) -> int:
    (row,) = node.sql("SHOW GLOBAL STATUS LIKE 'Uptime'")
    return int(row["Value"])


def remembered(lab: Lab) -> None:
    """Keeps what the cluster is like now, as ``proxyroute serve`` does all the time."""
    # whole seconds are told: a replica that has just started may have done so after this sight
    until(lambda: all(_uptime(node) >= 2 for node in lab.cluster if node.running), "servers of some age")
    with Sentry(load(lab.config).cluster(None)) as sentry:
        until(lambda: sentry.diagnose(sentry.sightings()).name != "JustStarted", "every server to be looked at")

        def told() -> bool:
            """Who sees a write wait at the first look cannot tell since when: it looks again."""
            sentry.remember(sentry.sightings(), ())
            assert sentry.known is not None
            sync = sentry.known.semi_sync
            return sync is None or sync.since is not None

        until(told, "the primary to be seen waiting for acknowledgements")


def seen_in_sync(lab: Lab) -> None:
    """Returns when a running ``serve`` can tell since when the primary waits for acknowledgements: it looks twice."""

    def told() -> bool:
        known, _ = recall(lab.folder / "state" / CLUSTER_NAME / "known.json")
        return known is not None and known.semi_sync is not None and known.semi_sync.since is not None

    until(told, "the primary to be seen waiting for acknowledgements, twice")


def failed_over(lab: Lab, *words: str, code: int = 0, outcome: str = "done") -> dict[str, Any]:
    """Runs ``failover`` with ``words``, asserts how it ended, and returns what it printed as JSON."""
    status, value = lab.json("failover", "--yes", *words)
    ended = value.get("result", {}).get("outcome", outcome)
    assert (status, ended) == (code, outcome), _ending(value)
    return value


def _ending(value: Mapping[str, Any]) -> str:
    if "error" in value:
        return str(value["error"])
    result = value["result"]
    gaps = [e for e in (result["proof"] or {}).get("evidence", ()) if e["verdict"] != "PROVEN"]
    return f"{result['outcome']} {value['verdict']}, left: {result['leftovers']}, gaps: {gaps}"


def no_failover(lab: Lab, *words: str) -> Refusal:
    """Asserts that ``failover`` with ``words`` is refused and touches nothing; returns what it said."""
    before = standing(lab)
    status, value = lab.json("failover", "--yes", *words)
    assert status == 3, value
    assert standing(lab) == before, "a refused failover has touched something"
    return Refusal(value["error"]["text"], tuple(value["error"]["findings"]))


def evidence(value: Mapping[str, Any]) -> str:
    """Returns the proof of an operation as text: every claim with what was seen."""
    return "\n".join(f"{e['verdict']} {e['claim']}: {e['seen']}" for e in value["result"]["proof"]["evidence"])


def steps(lab: Lab, operation: str) -> dict[str, str]:
    """Returns the steps of an operation that came to their end, in order, with what was said of each."""
    file = next((lab.folder / "state").rglob(f"{operation}.jsonl"))
    return {r["name"]: r["detail"] for r in read(file) if r["kind"] == "stepped" and "error" not in r}


@contextlib.contextmanager
def nothing_of_its_own(cluster: LocalCluster) -> Iterator[Node]:
    """The primary, to be ended in a ``with`` block so that once it is back it has nothing that no replica has.

    MariaDB cuts off at its start what nobody has acknowledged, where ``init_rpl_role`` says so. MySQL keeps it: there
    nobody commits in the block, and the replicas have everything.
    """
    primary = cluster.primary
    if cluster.flavour != "mysql":
        yield primary
        return
    with primary.session() as holding, holding.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        until(lambda: len({n.gtid() for n in cluster if n.running}) == 1, "the replicas to have everything")
        yield primary


def gone_for_good(node: Node) -> None:
    """Ends a server, also one that hangs."""
    if node.running:
        node.kill9()


def brought_back(lab: Lab, node: Node) -> None:
    """Starts a server that was the primary, if it does not run, and makes it follow; asserts that it does."""
    if not node.running:
        node.start()
    status, value = lab.json("rejoin", node.name)
    assert status == 0, value
    until(node.replicates, f"{node.name} to follow again")


def await_back(lab: Lab | NetLab, node: Node) -> None:
    """Returns when ``node`` follows and no operation is open: ``serve`` leaves a rejoin open when it is ended in it."""
    until(lambda: is_back(lab, node), f"{node.name} to rejoin by itself", 60)


def is_back(lab: Lab | NetLab, node: Node) -> bool:
    """Whether ``node`` follows and no operation is open."""
    try:
        if not node.replicates():
            return False
    except pymysql.err.OperationalError:  # its clients are cut just now, and we are one
        return False
    folders = {file.parent for file in lab.folder.rglob("journal/*.jsonl")}
    return all(outcome(read(file)) for folder in folders for file in journals(folder))


def comes_back(lab: Lab, served: Serving, node: Node) -> list[str]:
    """Starts a server that died as the primary; returns when it follows, and has nothing that only it has.

    It rejoins by itself, unless it kept what nobody had acknowledged when it died (``keeps_unacknowledged``): that is
    in an archive then, and is undone here, on a site that is :func:`ready`. Returns what ``serve`` said of that, if it
    had to.
    """

    def kept() -> list[str]:
        said = [text for text in served.texts("blocked") if f"{node.name} does not rejoin by itself" in text]
        return [text for text in said if node.keeps_unacknowledged and "they are kept in" in text]

    before = len(kept())
    node.start()
    until(lambda: len(kept()) > before or is_back(lab, node), f"{node.name} to rejoin by itself", 60)
    found = kept()[before:]
    if found:
        undone(lab, node)
        await_back(lab, node)
    return found


@contextlib.contextmanager
def table_locked(node: Node, table: str = "app.load_rows") -> Iterator[None]:
    """For a ``with`` block nothing is applied to ``table`` on a replica: somebody reads it under a lock."""
    connection: Connection = node.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLES {table} READ")
        yield
    finally:
        connection.close()


class Mourners:
    """Writers that go on through the death of a primary; ``verdict`` is there after the ``with`` block."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.records = Records()
        self.verdict = Verdict(0)

    def await_writes(self, number: int = 10, seconds: float = 60.0) -> None:
        self.load.await_more(number, seconds)


@contextlib.contextmanager
def mourning(lab: Lab, *, writers: int = 4, rate: float = 40) -> Iterator[Mourners]:
    """Writers through the proxy for a ``with`` block, in which a primary dies and comes back.

    At its end they must get through, and every running server must have the same rows. Rows that were acknowledged by
    the dead and are not there are in ``verdict.lost``: the test says whether there may be any.
    """
    create_table(lab.cluster.primary)
    lab.cluster.await_synced()
    with Load.start(lab.write, writers=writers, rate=rate) as load:
        kept = Mourners(load)
        yield kept
        kept.await_writes()
        kept.records = load.stop()
    lab.cluster.await_synced()
    kept.verdict = judge(kept.records, read_rows(lab.cluster), lab.cluster.primary.name)
    assert not kept.verdict.double_primary, kept.verdict
    assert not kept.verdict.unexplained, kept.verdict


def semi_sync(node: Node) -> dict[str, str]:
    """Returns the status of semi-synchronous replication on a server."""
    rows = node.sql("SHOW STATUS LIKE 'Rpl_semi_sync_%'")
    return {semi_sync_as_told(row["Variable_name"]).removeprefix("Rpl_semi_sync_"): row["Value"] for row in rows}


def waits_for_acknowledgements(cluster: LocalCluster) -> bool:
    """Whether the primary waits for acknowledgements and somebody can give them."""
    status = semi_sync(cluster.primary)
    return status["master_status"] == "ON" and int(status["master_clients"]) > 0


def count(node: Node, table: str = "app.load_rows") -> int:
    """Returns the number of rows."""
    return int(node.value(f"(SELECT COUNT(*) FROM {table})"))
