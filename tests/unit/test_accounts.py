"""Who may write past read_only, judged from the grant tables; and what an account lacks, judged from SHOW GRANTS."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from proxyroute.db import mariadb_grants, mysql_grants
from proxyroute.db.accounts import Account, Client, account_of, privileged_writers
from proxyroute.db.grants import Accounts, Version
from proxyroute.db.mariadb_grants import (
    ENGINE,
    FORCE,
    SCHEDULER,
    account_statements,
    missing_privileges,
    required_privileges,
)
from proxyroute.db.mariadb_inspect import is_writing
from proxyroute.db.mysql_accounts import privileged_writers as mysql_writers

V10_6, V10_11, V11_8 = (10, 6, 12), (10, 11, 19), (11, 8, 6)
BY_SUPER = {
    *("SET USER", "REPLICATION SLAVE ADMIN", "REPLICATION MASTER ADMIN", "BINLOG ADMIN", "BINLOG MONITOR"),
    *("CONNECTION ADMIN", "SLAVE MONITOR"),
}
TO_CLONE_OR_REPLAY = {"BACKUP_ADMIN", "CLONE_ADMIN", "REPLICATION_APPLIER", "INDEX", "UPDATE", "DELETE"}
FOR_TAGS = "TRANSACTION_GTID_TAG"
SUPER, READ_ONLY_ADMIN, EVERYTHING, INSERT = 1 << 15, 1 << 33, 2**64 - 1, 1 << 1
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "privileges.md"


def row(user: str, host: str = "%", **document: Any) -> dict[str, Any]:
    return {"user": user, "host": host, "priv": json.dumps(document)}


def role_of(user: str, role: str, host: str = "%") -> dict[str, Any]:
    return {"user": user, "host": host, "role": role}


def writers(
    *accounts: dict[str, Any],
    roles: tuple[dict[str, Any], ...] = (),
    version: Version = V10_11,
    clients: tuple[Client, ...] = (Client("app", "10.0.0.7:4711"),),
) -> tuple[str, ...]:
    return privileged_writers(version, accounts, roles, clients)


@pytest.mark.parametrize(
    ("access", "made_by", "version", "may"),
    [
        (EVERYTHING, 0, V10_11, True),
        (READ_ONLY_ADMIN, 101119, V10_11, True),
        (READ_ONLY_ADMIN, 100406, V10_11, False),
        (SUPER, 101119, V10_11, False),
        (SUPER, 101019, V10_11, True),
        (SUPER, 0, V11_8, True),
        (SUPER, 100612, V10_6, True),
        (INSERT, 101119, V10_11, False),
    ],
)
def test_super_and_read_only_admin_count_by_the_version_that_made_the_account(
    access: int, made_by: int, version: Version, may: bool
) -> None:
    found = writers(row("app", access=access, version_id=made_by), version=version)
    assert found == (("app@%",) if may else ())


def test_an_account_without_a_session_is_not_named() -> None:
    assert writers(row("root", "localhost", access=EVERYTHING), row("app", access=INSERT)) == ()


def test_a_role_counts_at_any_depth_and_one_granted_to_public_as_well() -> None:
    accounts = (
        row("app", access=INSERT, version_id=101119),
        row("middle", "", access=0, is_role=True, version_id=101119),
        row("inner", "", access=READ_ONLY_ADMIN, is_role=True, version_id=101119),
    )
    nested = (role_of("app", "middle"), role_of("middle", "inner", ""))
    assert writers(*accounts, roles=nested) == ("app@%",)
    assert writers(*accounts, roles=(role_of("PUBLIC", "inner", ""),)) == ("app@%",)
    assert writers(*accounts) == ()


def test_a_locked_account_is_not_named() -> None:
    assert writers(row("app", access=EVERYTHING, account_locked=True)) == ()


def test_the_session_belongs_to_the_most_specific_account() -> None:
    anywhere = row("app", "%", access=EVERYTHING)
    assert writers(anywhere, row("app", "10.0.0.%", access=INSERT)) == ()
    assert writers(anywhere, row("app", "10.1.0.%", access=INSERT)) == ("app@%",)


@pytest.mark.parametrize(
    ("host", "pattern"),
    [
        ("localhost", "localhost"),
        ("10.0.0.7:4711", "10.0.0.7"),
        ("10.0.0.7:4711", "10.0.0._"),
        ("10.0.0.7:4711", "10.0.%"),
        ("10.0.0.7:4711", "10.0.0.0/255.255.255.0"),
        ("fe80::1:4711", "fe80::1"),
        ("web3.example:4711", "WEB_.example"),
        ("anything", ""),
    ],
)
def test_a_host_matches_its_pattern(host: str, pattern: str) -> None:
    account = Account("app", pattern)
    assert account_of(Client("app", host), [account]) == account


@pytest.mark.parametrize(
    ("host", "pattern"),
    [("10.0.0.7:4711", "10.0.0.70"), ("10.0.1.7:1", "10.0.0.0/255.255.255.0"), ("web:1", "10.0.0.0/255.0.0.0")],
)
def test_a_host_does_not_match_another_pattern(host: str, pattern: str) -> None:
    assert account_of(Client("app", host), [Account("app", pattern)]) is None


# -- On MySQL -------------------------------------------------------------------------------------------------

BATCH = Account("batch", "10.%")


def on_mysql(
    *,
    admins: tuple[Account, ...] = (),
    roles: tuple[tuple[Account, Account], ...] = (),
    client: str = "batch",
    more: tuple[Account, ...] = (),
    **changes: str,
) -> tuple[str, ...]:
    """Returns who may write past read_only of those who are connected: ``client``, from 10.0.0.7."""
    known = (BATCH, Account("app", "%"), *more)
    accounts = [a._asdict() | {"super": "N", "locked": "N"} | (changes if a is BATCH else {}) for a in known]
    edges = [{**to._asdict(), "role": role.user, "role_host": role.host} for to, role in roles]
    return mysql_writers(accounts, [a._asdict() for a in admins], edges, [Client(client, "10.0.0.7:4711")])


def test_on_mysql_who_may_administer_connections_or_is_super_writes_past_read_only() -> None:
    assert on_mysql() == ()
    assert on_mysql(admins=(BATCH,)) == on_mysql(super="Y") == ("batch@10.%",)
    assert on_mysql(admins=(BATCH,), client="app") == (), "it is not connected"
    assert on_mysql(admins=(BATCH,), locked="Y") == ()


def test_on_mysql_the_account_counts_that_the_client_was_let_in_by() -> None:
    assert on_mysql(admins=(BATCH,), more=(Account("batch", "10.0.0.7"),)) == ()


def test_on_mysql_a_role_counts_at_any_depth() -> None:
    one, two = Account("writers", "%"), Account("admins", "%")
    assert on_mysql(admins=(two,), roles=((BATCH, one), (one, two))) == ("batch@10.%",)
    assert on_mysql(admins=(two,), roles=((BATCH, one),)) == ()


# -- What an account lacks ------------------------------------------------------------------------------------

FULL = (
    "GRANT " + ", ".join(p.name for p in ENGINE if p.on == "*.*") + " ON *.* TO `proxyroute`@`%` IDENTIFIED BY 'x'",
    "GRANT SELECT ON `mysql`.`global_priv` TO `proxyroute`@`%`",
    "GRANT SELECT ON `mysql`.`roles_mapping` TO `proxyroute`@`%`",
)


def test_nothing_is_missing_when_everything_required_is_granted() -> None:
    assert missing_privileges(V10_11, FULL) == ()


def test_a_privilege_that_was_not_granted_is_named_as_it_must_be_granted() -> None:
    assert missing_privileges(V10_11, (FULL[0].replace("PROCESS, ", ""), FULL[1])) == (
        "PROCESS",
        "SELECT ON mysql.roles_mapping",
    )


def test_super_is_wanted_only_where_the_event_scheduler_is_on() -> None:
    assert missing_privileges(V10_11, FULL, scheduler=True) == ("SUPER",)


@pytest.mark.parametrize(
    ("version", "missing"),
    [
        (V10_6, ()),
        (V10_11, ("READ_ONLY ADMIN",)),
        (
            V11_8,
            (
                "SET USER",
                "READ_ONLY ADMIN",
                "REPLICATION SLAVE ADMIN",
                "REPLICATION MASTER ADMIN",
                "BINLOG ADMIN",
                "BINLOG MONITOR",
                "CONNECTION ADMIN",
                "SLAVE MONITOR",
            ),
        ),
    ],
)
def test_super_stands_for_less_with_each_version(version: Version, missing: tuple[str, ...]) -> None:
    grants = ("GRANT RELOAD, PROCESS, SUPER, EVENT ON *.* TO `x`@`%`", "GRANT SELECT ON `mysql`.* TO `x`@`%`")
    assert missing_privileges(version, grants) == missing


def test_all_privileges_and_those_of_an_active_role_count() -> None:
    assert missing_privileges(V10_11, ("GRANT ALL PRIVILEGES ON *.* TO `x`@`%` WITH GRANT OPTION",)) == ()
    role = tuple(line.replace("`proxyroute`@`%`", "`engine`") for line in FULL)
    assert missing_privileges(V10_11, ("GRANT `engine` TO `x`@`%`", "GRANT USAGE ON *.* TO `x`@`%`", *role)) == ()


def test_slave_monitor_is_not_asked_of_servers_that_do_not_know_it() -> None:
    assert "SLAVE MONITOR" not in required_privileges((10, 5, 8))
    assert "SLAVE MONITOR" in required_privileges((10, 5, 9))


@pytest.mark.parametrize(
    ("version", "named", "absent"),
    [
        ((9, 7, 4), {"REPLICATION_APPLIER", "SET_ANY_DEFINER", "ALLOW_NONEXISTENT_DEFINER"}, {"SET_USER_ID"}),
        ((8, 0, 44), {"REPLICATION_APPLIER", "SET_USER_ID"}, {"SET_ANY_DEFINER", "ALLOW_NONEXISTENT_DEFINER"}),
        ((8, 0, 17), {"BINLOG_ADMIN", "SET_USER_ID"}, {"REPLICATION_APPLIER", "SET_ANY_DEFINER"}),
    ],
)
def test_an_older_mysql_is_given_privileges_by_the_names_it_knows(
    version: Version, named: set[str], absent: set[str]
) -> None:
    text = "\n".join(mysql_grants.rebuild_statements(version, "rejoin"))
    found = {name for name in named | absent if re.search(rf"\b{name}\b", text)}
    assert found == named


@pytest.mark.parametrize(
    ("grants", "version", "aside"),
    [
        (mariadb_grants, V10_11, {"LOCK TABLES", "BINLOG REPLAY", "UPDATE", "DELETE", *BY_SUPER}),
        (mariadb_grants, V11_8, {"LOCK TABLES", "BINLOG REPLAY", "UPDATE", "DELETE"}),
        (mysql_grants, (8, 0, 36), TO_CLONE_OR_REPLAY),
        (mysql_grants, (9, 7, 4), {*TO_CLONE_OR_REPLAY, FOR_TAGS}),
    ],
)
def test_a_reseed_misses_whatever_the_printed_account_lacks_but_for_what_only_other_ways_take(
    grants: ModuleType, version: Version, aside: set[str]
) -> None:
    _, granted = grants.rebuild_statements(version, "x")
    assert grants.missing_to_reseed(version, (granted,)) == ()
    names = granted.removeprefix("GRANT ").partition(" ON *.*")[0].split(", ")
    for name in names:
        less = f"GRANT {', '.join(n for n in names if n != name)} ON *.* TO `x`@`%`"
        assert grants.missing_to_reseed(version, (less,)) == (() if name in aside else (name,))
    assert grants.missing_to_reseed(version, ("GRANT ALL PRIVILEGES ON *.* TO `x`@`%`",)) == ()


@pytest.mark.parametrize(("version", "known"), [((8, 2, 0), False), ((8, 3, 0), True), ((9, 7, 4), True)])
def test_gtids_with_tags_take_a_privilege_where_there_are_any(version: Version, known: bool) -> None:
    """And a dump of a server that has none goes without it: accounts made for an earlier release lack it."""
    _, granted = mysql_grants.rebuild_statements(version, "x")
    assert (FOR_TAGS in granted) == known
    less = granted.replace(f"{FOR_TAGS}, ", "")
    assert mysql_grants.missing_to_reseed(version, (less,)) == ()
    assert mysql_grants.missing_to_reseed(version, (less,), tagged=True) == ((FOR_TAGS,) if known else ())


def test_names_in_the_statements_are_quoted() -> None:
    first, *_ = account_statements(V10_11, Accounts("o'hara", "10.%"))
    assert first == "CREATE USER IF NOT EXISTS 'o''hara'@'10.%' IDENTIFIED BY '<password of o''hara>'"


def test_the_reference_lists_exactly_the_privileges_there_are() -> None:
    mariadb, _, rest = REFERENCE.read_text().partition("## The engine's account on MySQL")
    listed = re.compile(r"^\| `([^`]+)`", re.MULTILINE)
    assert listed.findall(mariadb) == [str(privilege) for privilege in (*ENGINE, SCHEDULER, FORCE)]
    mysql = (*mysql_grants.ENGINE, *mysql_grants.WRITERS, mysql_grants.FORCE)
    assert listed.findall(rest) == [str(privilege) for privilege in mysql]


# -- Statements -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t SET v=1",
        "  insert into t values (1)",
        "/* job 7 */ DELETE FROM t",
        "/*+ hint */ /* two */\nREPLACE INTO t VALUES (1)",
        "-- nightly\nLOAD DATA INFILE 'x' INTO TABLE t",
        "# nightly\nALTER TABLE t ADD c INT",
        "/*!40000 TRUNCATE t */",
        "CALL p()",
        "COMMIT",
    ],
)
def test_a_writing_statement_is_told_by_its_first_word(statement: str) -> None:
    assert is_writing(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM t FOR UPDATE",
        "(SELECT 1) UNION (SELECT 2)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "SHOW CREATE TABLE t",
        "/* UPDATE */ SELECT 1",
        "FLUSH TABLES WITH READ LOCK",
        "updates",
        "",
        "/* not closed",
    ],
)
def test_a_reading_statement_is_told_by_its_first_word(statement: str) -> None:
    assert not is_writing(statement)
