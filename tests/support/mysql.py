"""A private MySQL cluster: the same as one of MariaDB to whoever tells a scenario, by MySQL's own statements."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pymysql

from proxyroute.gtid import Containment, MySQLPosition
from proxyroute.logged import HALF_BUILT_HERE
from tests.support.accounts import APPLICATION, APPLICATION_SCHEMA, REPLICATION, ROOT, Account, mysql_statements
from tests.support.mariadb import Bare, LocalCluster, Node, Options
from tests.support.mysql_words import as_told, translated
from tests.support.netns import Place
from tests.support.roots import Root, find_root
from tests.support.template import install
from tests.support.wait import until

__all__ = ["MySQLCluster", "MySQLNode"]

_FOR_MARIADB = {
    "binlog-format",
    "gtid-strict-mode",
    "aria-pagecache-buffer-size",
    "skip-slave-start",
    "init-rpl-role",
    "gtid-domain-id",
}
_READ_ONLY = 1290
_RENAMED = {
    "innodb-log-file-size": "innodb-redo-log-capacity",
    "slave-net-timeout": "replica-net-timeout",
    "log-slave-updates": "log-replica-updates",
    "slave-parallel-threads": "replica-parallel-workers",
    "read-only": "super-read-only",
    "rpl-semi-sync-slave-enabled": "rpl-semi-sync-replica-enabled",
    "rpl-semi-sync-master-enabled": "rpl-semi-sync-source-enabled",
    "rpl-semi-sync-master-timeout": "rpl-semi-sync-source-timeout",
    "rpl-semi-sync-master-wait-point": "rpl-semi-sync-source-wait-point",
    "rpl-semi-sync-master-wait-no-slave": "rpl-semi-sync-source-wait-no-replica",
}
"""Options of scenarios that were written for MariaDB, by their names here."""


_SMALL: Options = {
    "performance-schema": 1,
    "performance-schema-max-thread-instances": 300,
    "performance-schema-max-digest-length": 0,
    "performance-schema-digests-size": 0,
    "performance-schema-error-size": 0,
    "performance-schema-max-statement-classes": 0,
    "performance-schema-events-statements-history-long-size": 0,
    "performance-schema-events-waits-history-long-size": 0,
    "performance-schema-events-stages-history-long-size": 0,
    "performance-schema-events-transactions-history-long-size": 0,
    "table-open-cache": 400,
    "table-definition-cache": 400,
    "temptable-max-ram": "2M",
}
"""What keeps a server below 300 MB of memory, and quick to start; what the product reads is all there."""


def mysql_root() -> Root:
    """Returns the root that MySQL is in. Raises LookupError with the reason when there is none."""
    return find_root("sid")


class MySQLNode(Node):
    """One MySQL server."""

    root: Root
    section = "mysqld"
    settings = ("super_read_only", "max_connections", "rpl_semi_sync_source_enabled", "event_scheduler")
    bare = Bare(
        close="SET GLOBAL super_read_only=1",
        position="SELECT @@global.gtid_executed",
        wait="SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 5)",
        detach="STOP REPLICA",
        forget="RESET REPLICA ALL",
        demote="",
    )
    holding = "Waiting for % lock"
    event_aside = "REPLICA_SIDE_DISABLED"
    ends_at = ("RESET REPLICA", "RESET BINARY LOGS AND GTIDS", "SET GLOBAL gtid_purged='GOAL'")
    copy_points: Mapping[str, str] = {
        "rejoin.copy:before": "rejoin.clone:before",
        "rejoin.stop_server:before": "rejoin.stop_replication:before",
        "rejoin.swap:before": "rejoin.clone:before:2",
        "rejoin.reset:before": "mariadb.change_source:before",
    }
    replica_privilege = "REPLICATION_SLAVE_ADMIN"
    any_definer = "SET_ANY_DEFINER"
    physical = "clone"
    varying = 22
    channel_filter = "CHANGE REPLICATION FILTER REPLICATE_WILD_IGNORE_TABLE=('x%.y', 'aside.%') FOR CHANNEL ''"
    keeps_unacknowledged = True
    fetches_its_own = False

    def _base(self, folder: Path, server_id: int) -> None:
        super()._base(folder, server_id)
        system = self.root.folder / "usr"
        self.options = {
            **{_RENAMED.get(name, name): value for name, value in self.options.items() if name not in _FOR_MARIADB},
            "basedir": str(system),
            "plugin-dir": str(system / "lib/mysql/plugin"),
            "lc-messages-dir": str(system / "share/mysql"),
            "secure-file-priv": "NULL",
            "mysqlx": 0,
            "gtid-mode": "ON",
            "enforce-gtid-consistency": "ON",
            "cte-max-recursion-depth": 1000000,  # rows are made up by one statement
            "binlog-rows-query-log-events": 1,  # as binlog_annotate_row_events is there
            "innodb-redo-log-capacity": "8M",
            "innodb-buffer-pool-size": "16M",
            **_SMALL,
            "report-host": self.place.host,
            "event-scheduler": "OFF",  # as on MariaDB: whoever is to run events is told to
            "plugin-load-add": "semisync_source.so;semisync_replica.so",
        }

    def set_options(self, options: Options) -> None:
        named = {name.replace("_", "-"): value for name, value in options.items()}
        super().set_options({_RENAMED.get(n, n): v for n, v in named.items() if n not in _FOR_MARIADB})

    @staticmethod
    def words(statement: str) -> tuple[str, ...]:
        return translated(statement)

    def program(self) -> str:
        return self.root.program("mysqld")

    def sql(self, statement: str, args: tuple[Any, ...] = (), account: Account = ROOT) -> list[dict[str, Any]]:
        """Runs a statement, said in MariaDB's words or in MySQL's.

        Root may write past read-only, as scenarios expect it: ``super_read_only`` gives way for that statement.
        """
        words = translated(statement)
        try:
            return self._run(words, args, account)
        except pymysql.err.OperationalError as error:
            if error.args[0] != _READ_ONLY or account is not ROOT:
                raise
        self._run(("SET GLOBAL super_read_only=0",), (), ROOT)
        try:
            return self._run(words, args, account)
        finally:
            self._run(("SET GLOBAL super_read_only=1",), (), ROOT)

    def _run(self, words: Sequence[str], args: tuple[Any, ...], account: Account) -> list[dict[str, Any]]:
        with self.session(account) as connection, connection.cursor() as cursor:
            for before in words[:-1]:
                cursor.execute(before)
            cursor.execute(words[-1], args or None)
            return list(cursor.fetchall())

    def past_read_only(self, *statements: str) -> tuple[str, ...]:
        said = [words for statement in statements for words in translated(statement)]
        before = ("SET @closed=@@global.super_read_only", "SET GLOBAL super_read_only=0")
        return (*before, *said, "SET GLOBAL super_read_only=@closed")

    @contextlib.contextmanager
    def open_to_root(self) -> Iterator[None]:
        if not self.value("@@global.super_read_only"):
            yield
            return
        self.sql("SET GLOBAL super_read_only=0")
        try:
            yield
        finally:
            self.refuse_writes()

    def refuses_everybody(self) -> bool:
        return bool(self.value("@@global.super_read_only"))

    def refuse_writes(self) -> None:
        self.sql("SET GLOBAL super_read_only=1")

    def gtid(self) -> str:
        return str(MySQLPosition.parse(str(self.value("@@global.gtid_executed"))))

    def has(self, transactions: str) -> bool:
        return MySQLPosition.parse(self.gtid()).contains(MySQLPosition.parse(transactions)) is Containment.YES

    @property
    def own_gtids(self) -> str:
        return f"{self.value('@@global.server_uuid')}:"

    def write_as_another(self, statement: str) -> str:
        other = "00000000-0000-0000-0000-000000000009:"
        with self.session() as session, session.cursor() as cursor:
            cursor.execute(f"SET SESSION gtid_next='{other}1'")
            cursor.execute(statement)
            cursor.execute("SET SESSION gtid_next='AUTOMATIC'")
        return other

    def forget_before(self, position: str) -> None:
        purged = f"SET GLOBAL gtid_purged='{position}'"
        for statement in ("STOP REPLICA", "RESET BINARY LOGS AND GTIDS", purged, "START REPLICA"):
            self.sql(statement)

    def recorded(self) -> str:
        return str(self.value("GTID_SUBTRACT(@@global.gtid_executed, @@global.gtid_purged)"))

    def await_position(self, goal: str, seconds: float = 20.0) -> bool:
        return bool(self.value(f"WAIT_FOR_EXECUTED_GTID_SET('{goal}', {seconds})") == 0)

    def replications(self) -> list[dict[str, Any]]:
        return [as_told(row) for row in self.sql("SHOW REPLICA STATUS")]

    def channel_filters(self) -> str:
        row = self.replication()
        return str(row["Replicate_Wild_Ignore_Table"])

    def history(self) -> str:
        return self.gtid()

    def half_built(self) -> bool:
        return MySQLPosition.parse(self.gtid()).contains(HALF_BUILT_HERE) is Containment.YES

    def let_copy(self) -> None:
        self.sql("INSTALL PLUGIN clone SONAME 'mysql_clone.so'")

    def follow_too(self, source: Node, channel: str = "elsewhere") -> None:
        self.sql(
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{source.place.host}', SOURCE_PORT={source.port},"
            f" SOURCE_USER='{REPLICATION.user}', SOURCE_PASSWORD='{REPLICATION.password}',"
            f" SOURCE_AUTO_POSITION=1, SOURCE_HEARTBEAT_PERIOD=1, SOURCE_SSL=1 FOR CHANNEL '{channel}'"
        )
        self.sql(f"START REPLICA FOR CHANNEL '{channel}'")

    def channels(self) -> list[tuple[Any, ...]]:
        rows = self.sql("SHOW REPLICA STATUS")
        return [(c["Channel_Name"], c["Source_Port"], c["SQL_Delay"]) for c in rows]

    def follow(self, source: Node, options: str = "") -> None:
        self.sql("STOP REPLICA")
        self.sql(
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{source.place.host}', SOURCE_PORT={source.port},"
            f" SOURCE_USER='{REPLICATION.user}', SOURCE_PASSWORD='{REPLICATION.password}',"
            f" SOURCE_AUTO_POSITION=1, SOURCE_HEARTBEAT_PERIOD=1, SOURCE_CONNECT_RETRY=1, SOURCE_SSL=1"
            f"{', ' + options if options else ''}"
        )
        self.sql("START REPLICA")
        until(self.replicates, f"{self.name} to follow {source.name}")

    def locked_accounts(self) -> list[str]:
        rows = self.sql(
            "SELECT CONCAT(user, '@', host) AS account FROM mysql.user WHERE account_locked='Y'"
            " AND user NOT LIKE 'mysql.%'"
        )
        return [str(row["account"]) for row in rows]

    def allow_copies(self) -> None:
        if not self.value("(SELECT COUNT(*) FROM information_schema.PLUGINS WHERE PLUGIN_NAME='clone')"):
            self.sql("INSTALL PLUGIN clone SONAME 'mysql_clone.so'")

    def acknowledge_commits(self) -> None:
        self.sql("SET GLOBAL rpl_semi_sync_source_enabled=1")

    def acknowledging(self) -> int:
        return int(self.sql("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_clients'")[0]["Value"])


class MySQLCluster(LocalCluster):
    """MySQL servers db1…dbN; started and used as the others are. Starting raises LookupError without a root."""

    flavour = "mysql"
    undoing = "reseed"
    dumper = "mysqldump"

    @classmethod
    def programs(cls) -> Path:
        """Where the programs are that go with these servers. Raises LookupError without the root."""
        return mysql_root().programs

    def make_template(self, *, scheduler: bool, force: bool) -> Path:
        return _template(mysql_root(), force=force)

    def run_program(self, argv: Sequence[str], folder: Path) -> str:
        return _run([mysql_root().program(argv[0]), *argv[1:]])

    def make_node(
        self, name: str, server_id: int, folder: Path, options: Options, place: Place | None, outlive: bool
    ) -> Node:
        kind = type("MySQLNode", (MySQLNode,), {"root": mysql_root()})
        node: Node = kind(name, server_id, folder, options, place, outlive=outlive)
        return node


def _run(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _accounts(version: tuple[int, int, int], *, force: bool) -> list[str]:
    """Returns everything a fresh data folder is given before it is first used."""
    return [
        f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{ROOT.password}'",
        *mysql_statements(version, force=force),
        f"CREATE SCHEMA {APPLICATION_SCHEMA}",
        f"CREATE USER '{APPLICATION.user}'@'%' IDENTIFIED BY '{APPLICATION.password}'",
        f"GRANT ALL ON {APPLICATION_SCHEMA}.* TO '{APPLICATION.user}'@'%'",
    ]


def _template(root: Root, *, force: bool) -> Path:
    """Returns a data folder with system tables and accounts, never started, without a server's own UUID."""
    told = _run([root.program("mysqld"), "--no-defaults", "--version"])
    match = re.search(r"Ver (\d+)\.(\d+)\.(\d+)", told)
    if not match:
        raise RuntimeError(f"mysqld does not tell its version: {told!r}")
    version = (int(match[1]), int(match[2]), int(match[3]))
    statements = _accounts(version, force=force)
    key = hashlib.sha256("\n".join((told, *statements)).encode()).hexdigest()[:16]
    return install(f"mysql-{'.'.join(map(str, version))}-{key}", lambda aside: _initialize(root, statements, aside))


def _initialize(root: Root, statements: Sequence[str], aside: Path) -> Path:
    accounts, data = aside / "accounts.sql", aside / "data"
    accounts.write_text("".join(f"{statement};\n" for statement in statements))  # each on a line of its own
    system = root.folder / "usr"
    _run(
        [
            root.program("mysqld"),
            "--no-defaults",
            "--initialize-insecure",
            f"--basedir={system}",
            f"--lc-messages-dir={system / 'share/mysql'}",
            f"--datadir={data}",
            f"--init-file={accounts}",
            "--secure-file-priv=NULL",
            "--innodb-redo-log-capacity=8M",
            *(["--user=root"] if os.getuid() == 0 else []),
        ]
    )
    # a copy that kept it would be the same server to its replicas
    (data / "auto.cnf").unlink(missing_ok=True)
    return data
