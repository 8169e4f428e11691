"""Somebody stands in the way: locks, long transactions, readers, privileged writers, prepared transactions."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from tests.support.clients import Clients
from tests.support.lab import Lab
from tests.support.load import Load, create_table, read_rows
from tests.support.mariadb import Account
from tests.support.scene import (
    assert_order,
    beat,
    books,
    configured,
    connect,
    refused,
    standing,
    switched,
    switching,
)
from tests.support.verdict import judge
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {
    "n": 3,
    "force": True,
    "policy": {"long_transaction": "300ms", "long_wait": "700ms", "freeze_budget": "1s", "lock_pause": "20ms"},
}
BATCH = Account("batch", "lab-batch")


@pytest.fixture
def table(site: Lab) -> str:
    """A table with ten rows on every server."""
    site.cluster.primary.make_table("app.t", "id INT PRIMARY KEY, v INT NOT NULL DEFAULT 0")
    site.cluster.primary.sql(f"INSERT INTO app.t (id) VALUES {', '.join(f'({number})' for number in range(1, 11))}")
    site.cluster.await_synced()
    return "app.t"


def is_long(site: Lab) -> bool:
    """Whether the plan names somebody who has been writing for too long."""
    return "transaction.long" in {f["code"] for f in site.json("plan")[1]["findings"]}


def assert_aborted(site: Lab, *words: str) -> str:
    """Asserts that a switchover is undone and writes flow on where they did; returns what it said."""
    before, old = standing(site), site.cluster.primary.name
    status, value = site.json("switchover", "--yes", *words)
    assert (status, value["error"]["kind"]) == (4, "Aborted"), value
    assert standing(site) == before
    assert_order(site, old)
    return str(value["error"]["text"])


# -- Locks and long writers -----------------------------------------------------------------------------------


@pytest.mark.mariadb_only("it always tells who holds a table lock: refused beforehand, as the next one is")
def test_a_session_that_holds_lock_tables_is_met_at_the_deadline_and_writes_are_restored(
    site: Lab, table: str, clients: Clients
) -> None:
    holder = clients.idle(f"LOCK TABLES {table} WRITE")
    with books(site) as kept:
        said = assert_aborted(site)
        kept.go_on()
    assert f"session {holder} of app@" in said, "the offender is named"
    assert "LOCK TABLES" in said
    assert clients.alive(holder)
    clients.kill(holder)
    switched(site)


def test_a_session_that_holds_lock_tables_is_refused_by_name_where_the_server_can_tell_it(
    site: Lab, table: str, clients: Clients
) -> None:
    plugin = site.cluster.flavour != "mysql"  # which tells it by itself
    if plugin:
        site.cluster.primary.sql("INSTALL SONAME 'metadata_lock_info'")
    try:
        holder = clients.idle(f"LOCK TABLES {table} WRITE")
        until(lambda: is_long(site), "the holder to be seen")
        found = refused(site)["transaction.long"]
        assert f"session {holder}," in found["text"]
        assert "LOCK TABLES app.t WRITE" in found["text"]
        with books(site):
            switched(site, "--kill-long")
        assert_order(site)
    finally:
        for node in site.cluster if plugin else ():
            with contextlib.suppress(pymysql.err.Error):
                node.sql("UNINSTALL SONAME 'metadata_lock_info'")


def test_a_long_update_is_refused_at_the_deadline_with_the_offender_named_and_ended_by_kill_long(
    site: Lab, table: str, clients: Clients
) -> None:
    writing = clients.running(f"UPDATE {table} SET v=v+1+SLEEP(60) WHERE id=1")
    until(lambda: is_long(site), "the update to be long")
    with books(site) as kept:
        found = refused(site)["transaction.long"]
        for word in ("app@127.0.0.1", f"session {writing},", "UPDATE app.t SET", "--kill-long"):
            assert word in found["text"] + found["cure"]
        assert clients.alive(writing), "nobody is killed unasked"
        kept.go_on()
        switched(site, "--kill-long")
    assert not clients.alive(writing)
    primary = assert_order(site)
    assert primary.value(f"(SELECT v FROM {table} WHERE id=1)") == 0, "what was killed has not happened"


RUNNING = "SELECT id FROM information_schema.processlist WHERE info LIKE 'UPDATE%' AND state='User sleep'"
UPDATE = f"""
import pymysql, subprocess, sys
if sys.argv[2:]:
    pymysql.connect(unix_socket=sys.argv[1], user="root", password="lab-root").cursor().execute(sys.argv[2])
else:
    again = [*sys.orig_argv, "UPDATE app.t SET v=v+1+SLEEP(60) WHERE id=1"]
    subprocess.Popen(again, stderr=subprocess.DEVNULL)
    cursor = pymysql.connect(unix_socket=sys.argv[1], user="root", password="lab-root").cursor()
    while not cursor.execute({RUNNING!r}):
        pass
"""


def test_an_update_that_begins_after_the_preflight_is_named_when_the_lock_is_not_to_be_had(
    site: Lab, table: str
) -> None:
    primary = site.cluster.primary
    script = [sys.executable, "-c", UPDATE, str(primary.socket_file)]
    with books(site), configured(site, scripts={"address_down": script}):
        said = assert_aborted(site)
    assert "hold writes open: UPDATE app.t SET v=v+1+SLEEP(60) WHERE id=1" in said
    for row in primary.sql(RUNNING):
        primary.sql(f"KILL {row['id']}")


def test_an_open_transaction_that_has_written_is_waited_for(site: Lab, table: str) -> None:
    with configured(site, switchover={"long_wait": "20s"}), connect(site.write) as session, session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE {table} SET v=5 WHERE id=5")
        until(lambda: is_long(site), "the transaction to be long")
        with switching(site):
            cursor.execute("COMMIT")
    assert assert_order(site).value(f"(SELECT v FROM {table} WHERE id=5)") == 5


@pytest.mark.parametrize(
    "statements",
    [
        ("START TRANSACTION WITH CONSISTENT SNAPSHOT", "SELECT COUNT(*) FROM app.t"),
        ("BEGIN", "SELECT * FROM app.t WHERE id=1 LOCK IN SHARE MODE"),
    ],
    ids=["snapshot", "shared row lock"],
)
def test_an_open_read_only_transaction_does_not_block(
    site: Lab, table: str, clients: Clients, statements: tuple[str, ...]
) -> None:
    clients.idle(*statements)
    switched(site)
    assert_order(site)


def test_a_long_select_does_not_block(site: Lab, table: str, clients: Clients) -> None:
    reading = clients.running(f"SELECT id, SLEEP(60) FROM {table}")
    switched(site)
    assert not clients.alive(reading), "sessions on the old primary are ended, after the freeze"
    assert_order(site)


# -- Privileged writers ---------------------------------------------------------------------------------------


NOBODY = "super_read_only stops every account, and so nobody is a privileged writer"


@pytest.fixture
def batch(site: Lab) -> Iterator[Account]:
    """An account that may write past read_only."""
    past = {"mariadb": "READ_ONLY ADMIN", "mysql": "CONNECTION_ADMIN"}[site.cluster.flavour]
    site.cluster.primary.sql(f"CREATE USER '{BATCH.user}'@'%' IDENTIFIED BY '{BATCH.password}'")
    site.cluster.primary.sql(f"GRANT SELECT, INSERT, UPDATE ON app.* TO '{BATCH.user}'@'%'")
    site.cluster.primary.sql(f"GRANT {past} ON *.* TO '{BATCH.user}'@'%'")
    site.cluster.await_synced()
    yield BATCH
    site.cluster.primary.sql(f"DROP USER '{BATCH.user}'@'%'")
    site.cluster.await_synced()


@pytest.mark.mariadb_only(NOBODY)
def test_a_direct_privileged_writer_is_refused_by_name_and_locked_when_forced(
    site: Lab, table: str, batch: Account, clients: Clients
) -> None:
    session, old = clients.idle("SELECT 1", account=batch), site.cluster.primary
    found = refused(site)["writer.privileged"]
    assert found["text"].startswith("batch@% may write")
    assert found["forceable"]
    with books(site):
        value = switched(site, "--force")
    assert value["plan"]["plan"]["lock_accounts"] == ["batch@%"]
    assert not clients.alive(session)
    primary = assert_order(site)  # which asserts that no account is left locked
    for node in (primary, old):
        node.sql(f"SELECT COUNT(*) FROM {table}", account=batch)
    events = [e for log in old.sql("SHOW BINARY LOGS") for e in old.sql(f"SHOW BINLOG EVENTS IN '{log['Log_name']}'")]
    assert not [e for e in events if "ACCOUNT" in str(e["Info"])], "the lock is not in the binary log"


@pytest.mark.parametrize("mode", ["pooled", "fresh"])
def test_a_privileged_account_that_writes_all_the_time_through_the_proxy_makes_no_errant_transaction(
    site: Lab, table: str, batch: Account, mode: str
) -> None:
    """Whether it is in the plan depends, for one that connects anew for each write, on the moment."""
    create_table(site.cluster.primary)
    with Load.start(site.write, writers=2, rate=50, mode=mode, account=batch) as writing:
        if mode == "pooled" and site.cluster.flavour != "mysql":
            assert "writer.privileged" in refused(site).codes, "it cannot be told from a direct one"
        switched(site, "--force")
        writing.await_more(5)
        records = writing.stop()
    primary = assert_order(site)
    verdict = judge(records, read_rows(site.cluster), primary.name)
    assert verdict.clean, verdict


UNSEEN = """
import contextlib, pymysql, subprocess, sys, time
if sys.argv[2:]:
    end, first = time.monotonic() + 6, True
    while time.monotonic() < end:
        with contextlib.suppress(pymysql.err.Error):
            session = pymysql.connect(unix_socket=sys.argv[1], user="root", password="lab-root", autocommit=True)
            session.cursor().execute("INSERT INTO app.unseen VALUES ()")
            session.close()
            if first:
                print(flush=True)
            first = False
else:
    writer = subprocess.Popen([*sys.orig_argv, "write"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert writer.stdout.readline(), "it writes from now on"
"""


def test_a_privileged_writer_that_nobody_could_see_is_told_afterwards_and_nobody_rejoins_silently(
    start_lab: Callable[..., Lab],
) -> None:
    """It begins after the preflight, directly at the old primary, and connects anew for each write.

    MySQL refuses its writes as everybody's: there is nothing to tell.
    """
    with start_lab(3, policy={"prove": "500ms"}) as lab:
        old, new, third = lab.cluster
        old.sql("CREATE TABLE app.unseen (id INT AUTO_INCREMENT PRIMARY KEY)")
        lab.cluster.await_synced()
        with configured(lab, scripts={"address_down": [sys.executable, "-c", UNSEEN, str(old.socket_file)]}):
            value = switched(lab, "--to", "db2", code=0 if lab.cluster.flavour == "mysql" else 7)
        if lab.cluster.flavour == "mysql":
            assert value["verdict"] == "PROVEN"
            assert_order(lab, "db2")
            return
        assert value["verdict"] == "NOT PROVEN"
        left = left_of(value)
        assert any(told.startswith("follow db1") and "which db2 does not have" in told for told in left), left
        assert lab.cluster.writable == ("db2",)
        assert old.replication() == {}, "the old primary does not follow: it has what nobody else should get"
        assert third.source_port() in (old.port, new.port)
        assert beat(lab) == "db2"


def left_of(value: dict[str, Any]) -> list[str]:
    found: list[str] = value["result"]["leftovers"]
    return found


def test_an_account_that_merely_could_and_is_not_connected_does_not_block(site: Lab, batch: Account) -> None:
    switched(site)
    assert_order(site)


# -- Prepared transactions ------------------------------------------------------------------------------------


def test_a_prepared_xa_transaction_is_a_finding_because_it_survives_kills(
    site: Lab, table: str, clients: Clients
) -> None:
    primary = site.cluster.primary
    prepared = clients.idle("XA START 'a'", f"UPDATE {table} SET v=17 WHERE id=1", "XA END 'a'", "XA PREPARE 'a'")
    clients.kill(prepared)
    until(lambda: not clients.alive(prepared), "its session to be gone")
    found = refused(site)["transaction.xa"]
    assert (found["subject"], found["forceable"]) == (primary.name, True)
    assert "XA ROLLBACK" in found["cure"]
    assert beat(site) == primary.name
    primary.sql(found["cure"].rpartition("or ")[2].rstrip(";"))
    switched(site)
    assert_order(site)
