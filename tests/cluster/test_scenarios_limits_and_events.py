"""Things of the servers that must be as they were afterwards: connection limits, and scheduled events."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from tests.support.lab import Lab
from tests.support.mariadb import APPLICATION, Node
from tests.support.scene import LIMIT, assert_order, books, configured, connect, other, switched
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {"n": 3, "scheduler": True, "policy": {"freeze_budget": "1s", "lock_pause": "20ms"}}


# -- Connections ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def crowd(site: Lab, *, direct: bool) -> Iterator[int]:
    """For a ``with`` block the application has as many sessions on the primary as it lets in; yields how many."""
    primary = site.cluster.primary
    with contextlib.ExitStack() as sessions:
        for number in itertools.count():
            try:
                session = primary.connect(APPLICATION) if direct else connect(site.write)
            except pymysql.err.Error:
                yield number
                return
            sessions.callback(_close, session)


def _close(session: Any) -> None:
    with contextlib.suppress(pymysql.err.Error):
        session.close()


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "through the proxy"])
def test_the_connection_limit_is_exhausted_by_the_application(site: Lab, direct: bool) -> None:
    old = site.cluster.primary
    old.sql("SET GLOBAL max_connections=20")
    try:
        with crowd(site, direct=direct) as sessions:
            assert sessions > 10
            switched(site)
            assert int(old.value(LIMIT)) == 20, "the limit is as it was"
    finally:
        old.sql(f"SET GLOBAL max_connections={old.options['max-connections']}")
    assert_order(site)


def test_the_limit_of_the_old_primary_is_restored_when_a_switchover_is_undone(site: Lab) -> None:
    primary = site.cluster.primary
    with primary.session(APPLICATION) as session, session.cursor() as cursor:
        primary.make_table("app.t", "id INT PRIMARY KEY")
        cursor.execute("LOCK TABLES app.t WRITE")
        with configured(site, switchover={"long_transaction": "1h"}):  # MySQL tells of it, or would beforehand
            switched(site, code=4)
    assert_order(site, primary.name)


# -- Events ---------------------------------------------------------------------------------------------------

EVENT = (
    "CREATE DEFINER='app'@'%' EVENT app.{name} ON SCHEDULE EVERY 1 SECOND {state}"
    " DO INSERT INTO app.ticks (server) VALUES (@@server_id)"
)
COLUMNS = (
    "DEFINER, SQL_MODE, TIME_ZONE, EVENT_DEFINITION, INTERVAL_VALUE, INTERVAL_FIELD, EVENT_COMMENT, ON_COMPLETION,"
    " CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION"
)


@pytest.fixture
def events(site: Lab) -> Iterator[None]:
    """An event that ticks every second, one that is disabled; the scheduler is on everywhere."""
    primary = site.cluster.primary
    for node in site.cluster:
        node.sql("SET GLOBAL event_scheduler=ON")
    primary.make_table("app.ticks", "id INT AUTO_INCREMENT PRIMARY KEY, server INT, at TIMESTAMP(6)")
    with primary.session(charset="latin1") as session, session.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode='ANSI_QUOTES', collation_connection='latin1_german1_ci'")
        cursor.execute(EVENT.format(name="running", state="ENABLE"))
        cursor.execute(EVENT.format(name="resting", state="DISABLE"))
    site.cluster.await_synced()
    yield
    for name in ("running", "resting"):
        site.cluster.primary.sql(f"DROP EVENT app.{name}")
    for node in site.cluster:
        node.sql("SET GLOBAL event_scheduler=OFF")


def described(node: Node, name: str) -> dict[str, Any]:
    return node.sql(f"SELECT {COLUMNS} FROM information_schema.EVENTS WHERE EVENT_NAME=%s", (name,))[0]


def states(node: Node) -> dict[str, str]:
    rows = node.sql("SELECT EVENT_NAME AS name, STATUS AS status FROM information_schema.EVENTS")
    return {row["name"]: row["status"] for row in rows}


def ticking(site: Lab) -> None:
    """Returns when another tick has come from the primary; none may come from anybody else from now on."""
    primary = site.cluster.primary
    last = primary.value("(SELECT COALESCE(MAX(id), 0) FROM app.ticks)")
    rows = until(lambda: primary.sql("SELECT server FROM app.ticks WHERE id > %s", (last,)), "a tick")
    assert {row["server"] for row in rows} == {primary.server_id}


def test_events_run_on_the_primary_only_and_keep_what_they_are(site: Lab, events: None) -> None:
    old, new = site.cluster.primary, site.cluster[other(site)]
    before = {name: described(old, name) for name in ("running", "resting")}
    ticking(site)
    for primary in (new, old):
        with books(site):
            switched(site, "--to", primary.name)
        assert states(primary) == {"running": "ENABLED", "resting": "DISABLED"}
        for node in site.cluster:
            assert str(node.value("@@global.event_scheduler")) == "ON"
            if node is not primary:
                assert states(node)["running"] == node.event_aside
                assert states(node)["resting"] != "ENABLED"
        assert {name: described(primary, name) for name in before} == before
        ticking(site)
    assert_order(site)
