"""What scenarios are told with: writers with books, refusals that touch nothing, the order there must be in the end."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pymysql
import yaml
from pymysql.cursors import DictCursor

from proxyroute.config import load
from proxyroute.engine import Engine, open_engine
from proxyroute.model import Address
from tests.support.clients import Clients
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import Load, Records, create_table, read_rows
from tests.support.mariadb import APPLICATION, Account, Connection, Node
from tests.support.verdict import Verdict, judge
from tests.support.wait import until

LIMIT = "@@global.max_connections"


def connect(address: Address, account: Account = APPLICATION, *, over: socket.socket | None = None) -> Connection:
    """Opens a session at a route of the proxy, as an application does. The caller closes it.

    With ``over``, a connection to there on which nobody has logged in yet, it is logged in.
    """
    session = pymysql.connect(
        host=address.host,
        port=address.port,
        user=account.user,
        password=account.password,
        cursorclass=DictCursor,
        ssl_disabled=True,
        autocommit=True,
        connect_timeout=10,
        read_timeout=30,
        defer_connect=over is not None,
    )
    if over is not None:
        session.connect(over)
    return session


def served_by(lab: Lab, address: Address) -> str:
    """Returns the name of the server that a newcomer at ``address`` gets."""
    with contextlib.closing(connect(address)) as session, session.cursor() as cursor:
        cursor.execute("SELECT @@server_id AS id")
        (row,) = cursor.fetchall()
    return next(node.name for node in lab.cluster if node.server_id == row["id"])


def beat(lab: Lab, address: Address | None = None) -> str:
    """Writes a row through the proxy, or that at ``address``, and returns the name of the server that took it."""
    with contextlib.closing(connect(address or lab.write)) as session, session.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS app.beat (id INT PRIMARY KEY, server INT)")
        cursor.execute("BEGIN")  # as a whole at one server, also where a proxy reads statements
        cursor.execute("REPLACE INTO app.beat VALUES (1, @@server_id)")
        cursor.execute("SELECT server FROM app.beat WHERE id=1")
        (row,) = cursor.fetchall()
        cursor.execute("COMMIT")
    return next(node.name for node in lab.cluster if node.server_id == row["server"])


def assert_order(
    lab: Lab, primary: str | None = None, *, below: Mapping[str, str] | None = None, aside: Collection[str] = ()
) -> Node:
    """Asserts that nothing is left in the middle, and returns the primary, which must be ``primary`` if that is given.

    One server takes writes, and a row written through the proxy arrives on every other one, each following the primary
    or whom ``below`` names; limits and accounts are as they were; the proxy sends writes and sessions there, holds
    nobody and runs what was published; no operation is open. Nothing is asked of servers that are ``aside`` or down.
    """
    found = lab.cluster.primary
    assert primary in (None, found.name), f"{found.name} is the primary, not {primary}"
    for address in [host.write for host in lab.hosts] or [lab.write]:
        assert beat(lab, address) == found.name, f"the proxy at {address} sends writes elsewhere"
    for node in lab.cluster:
        if node.name not in aside and node.running:
            assert_in_place(lab, node, found, below or {})
    for address in [host.read for host in lab.hosts] or [lab.read]:
        assert served_by(lab, address) in {node.name for node in lab.cluster if node.running}
    with engine(lab) as reading:
        observed, unfinished = reading.observe(), [o for o in reading.history() if o.outcome == "open"]
    for proxy in observed:
        assert (proxy.reachable, proxy.primary, proxy.held, proxy.drift) == (True, found.name, False, ()), proxy
        assert {name for name, count in proxy.sessions.items() if count} <= {found.name}, proxy
    assert not unfinished, unfinished
    return found


def assert_in_place(lab: Lab, node: Node, primary: Node, below: Mapping[str, str]) -> None:
    """Asserts of one server what ``assert_order`` asserts of all."""
    assert int(node.value(LIMIT)) == int(node.options["max-connections"] or 0), (
        f"{node.name} is left with another limit"
    )
    assert node.locked_accounts() == [], f"accounts on {node.name} are left locked"
    if node is primary:
        assert node.replication() == {}, f"{node.name} still has a source"
        return
    source = lab.cluster[below.get(node.name, primary.name)]
    assert same_place(node.source(), source.address), f"{node.name} does not follow {source.name}"
    assert node.replicates(), node.replication()
    assert node.await_position(primary.gtid()), f"{node.name} does not get what {primary.name} writes"


def same_place(one: Address | None, other: Address) -> bool:
    """Whether two addresses are of one place; a server may be known by name."""
    return one is not None and (socket.gethostbyname(one.host), one.port) == (
        socket.gethostbyname(other.host),
        other.port,
    )


# -- Refusals -------------------------------------------------------------------------------------------------


def standing(lab: Lab) -> dict[str, Any]:
    """Returns what a refused command must leave as it was: roles, channels, limits, routes, files."""
    servers = {node.name: _standing(node) for node in lab.cluster if node.running}
    proxies = [(h.haproxy, h.config_file) for h in lab.hosts] or [(lab.haproxy, lab.haproxy_config)]
    routes = [(haproxy.ask("show map"), config.read_text()) for haproxy, config in proxies]
    return {"servers": servers, "routes": routes}


def _standing(node: Node) -> tuple[Any, ...]:
    return (node.channels(), *(str(node.value(f"@@global.{name}")) for name in node.settings))


@dataclass(frozen=True)
class Refusal:
    """What the command line said when it refused."""

    text: str
    findings: tuple[dict[str, Any], ...]

    @property
    def codes(self) -> set[str]:
        return {f["code"] for f in self.findings}

    def __getitem__(self, code: str) -> dict[str, Any]:
        """Returns the finding with ``code``. Raises AssertionError when there is none."""
        for finding in self.findings:
            if finding["code"] == code:
                return finding
        raise AssertionError(f"no finding {code}, but {self.findings or self.text}")


def refused(lab: Lab, *words: str) -> Refusal:
    """Asserts that ``switchover`` with ``words`` is refused and touches nothing; returns what it said."""
    before = standing(lab)
    status, value = lab.json("switchover", "--yes", *words)
    assert status == 3, value
    assert standing(lab) == before, "a refused switchover has touched something"
    return Refusal(value["error"]["text"], tuple(value["error"]["findings"]))


def switched(lab: Lab, *words: str, code: int = 0, outcome: str = "done") -> dict[str, Any]:
    """Runs ``switchover`` with ``words``, asserts how it ended, and returns what it printed as JSON."""
    status, value = lab.json("switchover", "--yes", *words)
    ended = value.get("result", {}).get("outcome", outcome)
    assert (status, ended) == (code, outcome), _ending(value)
    return value


def _ending(value: Mapping[str, Any]) -> str:
    """How a switchover ended, in few words: its error, or what is left and what the proof could not show."""
    if "error" in value:
        return str(value["error"])
    result = value["result"]
    gaps = [e for e in (result["proof"] or {}).get("evidence", ()) if e["verdict"] != "PROVEN"]
    return f"{result['outcome']} {value['verdict']}, left: {result['leftovers']}, gaps: {gaps}"


def under_way(lab: Lab) -> str | None:
    """Returns the id of the operation that has begun and not ended, or None."""
    with engine(lab) as reading:
        last = reading.history()[-1:]
    return last[0].operation if last and last[0].outcome in ("begun", "open") else None


@contextlib.contextmanager
def switching(lab: Lab, *words: str, code: int = 0) -> Iterator[str]:
    """Runs ``switchover`` beside the ``with`` block, which begins when it waits for something, and awaits its end."""
    argv = lab.command("switchover", "--yes", *words)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as command:
        yield until(lambda: under_way(lab), "the switchover to begin") or ""
        said, _ = command.communicate(timeout=60)
    assert command.returncode == code, said


@contextlib.contextmanager
def in_its_midst(lab: Lab, *words: str, code: int = 0) -> Iterator[str]:
    """The ``with`` block runs when newcomers are held and writes are about to be blocked: a lock keeps that waiting.

    The policy must leave enough of ``freeze_budget`` for it.
    """
    primary = lab.cluster.primary
    primary.make_table("app.in_the_way", "id INT PRIMARY KEY")
    # however slowly it begins, the lock is not old enough to be met before the freeze
    patient = configured(lab, switchover={"long_transaction": "1h"})
    with contextlib.ExitStack() as ends, patient, engine(lab) as reading:
        clients = Clients(primary, ends)
        holder = clients.idle("LOCK TABLES app.in_the_way WRITE")
        with switching(lab, *words, code=code) as operation:
            until(lambda: reading.observe()[0].held, "newcomers to be held")
            yield operation
            clients.kill(holder)


def await_settled(lab: Lab) -> None:
    """The route of the readers moves at once; its file is written a little later."""
    until(lambda: not any(p["drift"] for p in lab.json("status")[1]["proxies"]), "the routes to be settled", 30)


def other(lab: Lab, *without: str) -> str:
    """Returns the name of the first replica that is not among ``without``."""
    return next(n.name for n in lab.cluster if n is not lab.cluster.primary and n.name not in without)


# -- Configuration --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def configured(lab: Lab, **changes: Any) -> Iterator[None]:
    """For a ``with`` block: the cluster's part of the configuration with ``changes``; mappings are merged one deep."""
    before = lab.config.read_text()
    values = yaml.safe_load(before)
    part = values["clusters"][CLUSTER_NAME]
    for name, change in changes.items():
        part[name] = {**part.get(name, {}), **change} if isinstance(change, dict) else change
    lab.config.write_text(yaml.safe_dump(values, sort_keys=False))
    try:
        yield
    finally:
        lab.config.write_text(before)


@contextlib.contextmanager
def state_in(lab: Lab, folder: Path) -> Iterator[None]:
    """For a ``with`` block the engine keeps its state in ``folder``: it is another engine than before."""
    before = lab.config.read_text()
    lab.config.write_text(yaml.safe_dump({**yaml.safe_load(before), "state_dir": str(folder)}, sort_keys=False))
    try:
        yield
    finally:
        lab.config.write_text(before)


@contextlib.contextmanager
def engine(lab: Lab) -> Iterator[Engine]:
    """The engine in this process, with the site's configuration, for what the command line does not show."""
    opened = open_engine(load(lab.config).cluster(None))
    try:
        yield opened
    finally:
        opened.close()


# -- Writers --------------------------------------------------------------------------------------------------


@dataclass
class Books:
    """Writers at work through the proxy; their records and the verdict are there after the ``with`` block."""

    loads: tuple[Load, ...]
    records: Records = field(default_factory=Records)
    verdict: Verdict = field(default_factory=lambda: Verdict(0))

    def go_on(self, number: int = 5) -> None:
        """Returns when every kind of writer has had ``number`` more writes acknowledged."""
        for writers in self.loads:
            writers.await_more(number)


@contextlib.contextmanager
def books(
    lab: Lab, *, writers: int = 2, rate: float = 40, address: Address | None = None, doubt: bool = False
) -> Iterator[Books]:
    """Clients that keep their session, and one that connects anew for each write, for a ``with`` block.

    They write through ``address``, by default through the first proxy.

    At its end all must still get through, and no write may be lost, doubled, in doubt or on one server only. With
    ``doubt`` a row may be in doubt: a proxy that is killed takes the answers along that were on their way.
    """
    create_table(lab.cluster.primary)
    with (
        Load.start(address or lab.write, writers=writers, rate=rate) as pooled,
        Load.start(address or lab.write, writers=1, rate=rate, mode="fresh", first=100) as fresh,
    ):
        kept = Books((pooled, fresh))
        yield kept
        kept.go_on()
        kept.records = pooled.stop() + fresh.stop()
    lab.cluster.await_synced()
    kept.verdict = judge(kept.records, read_rows(lab.cluster), lab.cluster.primary.name)
    judged = replace(kept.verdict, ambiguous=frozenset()) if doubt else kept.verdict
    assert judged.clean, kept.verdict
