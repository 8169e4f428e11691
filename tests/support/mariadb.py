"""A private MariaDB cluster from the local binaries: own folders, sockets and ports, gone when the test is.

db1 is the primary, the others follow it by GTID with a heartbeat of one second. Every option file says
``read_only=1``, as it should in the field; only db1 is opened, by hand. Nothing here is shared with a server
of the machine.
"""

from __future__ import annotations

import contextlib
import getpass
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import pymysql
from pymysql.cursors import DictCursor

from proxyroute.binlog import HALF_BUILT
from proxyroute.gtid import Containment, MariaDBPosition
from proxyroute.model import Address
from tests.support.accounts import APPLICATION, ENGINE, PROBE, REPLICATION, ROOT, Account
from tests.support.netns import Place
from tests.support.process import Daemon, Found, find_program, free_port, is_stopped, workspace
from tests.support.template import run_locally, template
from tests.support.wait import until

__all__ = ["APPLICATION", "ENGINE", "PROBE", "REPLICATION", "ROOT", "Account", "LocalCluster", "Node"]

Connection: TypeAlias = "pymysql.Connection[DictCursor]"
Options = Mapping[str, str | int | None]
"""Option file entries; None stands for an option without a value (``skip-log-bin``)."""


class Bare(NamedTuple):
    """The statements of the barest switchover there can be."""

    close: str = "SET GLOBAL read_only=1"
    position: str = "SELECT @@global.gtid_binlog_pos"
    wait: str = "SELECT MASTER_GTID_WAIT(%s, 5)"
    detach: str = "STOP SLAVE"
    forget: str = "RESET SLAVE ALL"
    demote: str = "SET GLOBAL gtid_slave_pos=@@global.gtid_binlog_pos"


class Process(Protocol):
    """The running server behind a node: a child process, or a container."""

    @property
    def running(self) -> bool: ...

    def send(self, number: signal.Signals) -> None: ...

    def kill(self) -> None: ...

    def terminate(self, seconds: float = 20.0) -> None: ...


def _stands_still(pid: int) -> bool:
    """Whether a SIGSTOP has reached every thread of a process: a busy one may answer for a moment after it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return all(is_stopped(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir())
    return False


class Node:
    """One server. Its methods connect anew each time, so that no session of ours stays on it.

    They connect from the place it is at: they reach it also when it is cut off from everybody.
    """

    section = "mariadbd"
    """Of its option file."""
    settings: tuple[str, ...] = ("read_only", "max_connections", "rpl_semi_sync_master_enabled", "event_scheduler")
    """Variables that a switchover may change, and a refused one must not."""
    bare = Bare()
    holding = "%backup lock%"
    """What the process list says of a session that waits for the write lock."""
    event_aside = "SLAVESIDE_DISABLED"
    """Status of an event that is there and does not run, because its server is a replica."""
    ends_at: tuple[str, ...] = ("RESET MASTER", "SET GLOBAL gtid_slave_pos='GOAL'")
    """The statements after which a server's history is what is in GOAL."""
    copy_points: Mapping[str, str] = {}
    """Where a fault point stands in a reseed that clones, for one in a reseed that copies beside the data."""
    replica_privilege = "REPLICATION SLAVE ADMIN"
    """What an account needs to start, stop and repoint replication."""
    any_definer = "SUPER, SET USER"
    """What an account needs to leave a definer that is not itself."""
    physical = "copy"
    """How new data come that are no dump."""
    varying = 285
    """At the head of a file of its binary log, how many bytes depend on whether the server still has it open."""
    channel_filter = "CHANGE MASTER TO IGNORE_DOMAIN_IDS=(7,9)"
    """Gives the one replication channel a filter of its own."""
    keeps_unacknowledged = False
    """Whether what nobody has acknowledged may be there after a crash, however its option file is (LOSSLESS)."""
    fetches_its_own = True
    """Whether it gets back from a source what it once wrote itself, and has lost."""

    def __init__(
        self, name: str, server_id: int, folder: Path, options: Options, place: Place | None = None, *, outlive: bool
    ) -> None:
        self.name = name
        self.server_id = server_id
        self.folder = folder
        self.place = place or Place()
        self.port = self.place.port or free_port()
        self.options: dict[str, str | int | None] = {}
        self._base(folder, server_id)
        self.set_options(options)
        self.process: Process | None = None
        self._outlive = outlive

    def _base(self, folder: Path, server_id: int) -> None:
        self.options |= {
            "user": getpass.getuser(),
            "datadir": str(folder / "data"),
            "tmpdir": str(folder),
            "socket": str(self.socket_file),
            "pid-file": str(folder / "mariadb.pid"),
            "log-error": str(self.log_file),
            "bind-address": self.place.host,
            "port": self.port,
            "server-id": server_id,
            "log-bin": "binlog",
            "relay-log": "relay",
            "log-slave-updates": 1,
            "binlog-format": "ROW",
            "gtid-strict-mode": 1,
            "sync-binlog": 1,
            "innodb-flush-log-at-trx-commit": 1,
            "read-only": 1,
            "slave-net-timeout": 4,
            "skip-name-resolve": None,
            "character-set-server": "utf8mb4",
            "performance-schema": 0,
            "innodb-buffer-pool-size": "8M",
            "innodb-log-file-size": "4M",
            "innodb-log-buffer-size": "1M",
            "aria-pagecache-buffer-size": "1M",
            "key-buffer-size": "1M",
            "max-connections": 150,
            "skip-slave-start": 0,
        }

    def program(self) -> str:
        """The path of the server's program."""
        return find_program("mariadbd")

    @property
    def socket_file(self) -> Path:
        return self.folder / "mariadb.sock"

    @property
    def log_file(self) -> Path:
        return self.folder / "error.log"

    @property
    def address(self) -> Address:
        return Address(self.place.host, self.port)

    def __repr__(self) -> str:
        return f"<{self.name} at {self.address}>"

    @staticmethod
    def words(statement: str) -> tuple[str, ...]:
        """How a ``statement`` of MariaDB is said here, for what does not go through :meth:`sql`."""
        return (statement,)

    def log(self) -> str:
        """What the server has written to its error log."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # Life

    def set_options(self, options: Options) -> None:
        """Changes the option file; the server reads it at its next start."""
        self.options |= {name.replace("_", "-"): value for name, value in options.items()}
        if "skip-log-bin" in self.options:
            self.options.pop("log-bin", None)
        lines = [name if value is None else f"{name}={value}" for name, value in self.options.items()]
        (self.folder / "my.cnf").write_text("\n".join((f"[{self.section}]", *lines, "")))

    @property
    def argv(self) -> list[str]:
        """What starts the server where it belongs."""
        return [self.program(), f"--defaults-file={self.folder / 'my.cnf'}"]

    def launch(self) -> None:
        """Starts the server without waiting for it."""
        if self.process is not None and self.process.running:
            raise RuntimeError(f"{self.name} runs already")
        self.process = Daemon(
            self.argv,
            self.log_file,
            outlive=self._outlive,
            launcher=self.place.launcher,
        )

    def start(self) -> None:
        """Starts the server; returns when it lets a client in."""
        self.launch()
        self.wait_ready()

    def started_elsewhere(self) -> None:
        """Knows of the server again that a command on its host has started anew meanwhile."""
        if not self.running:
            self.process = Found(int((self.folder / "mariadb.pid").read_text()))

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Returns when a connection succeeds. Raises RuntimeError, with the server's words, when it ends."""

        def answers() -> bool:
            if self.process is None or not self.process.running:
                raise RuntimeError(f"{self.name} has ended:\n{self.log()[-3000:]}")
            # asked first with a socket of our own: PyMySQL leaves one open when a socket file refuses it
            with contextlib.suppress(OSError, pymysql.err.OperationalError):
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.socket_file))
                self.connect().close()
                return True
            return False

        until(answers, f"{self.name} to answer", seconds)

    def stop(self) -> None:
        """Shuts the server down cleanly; does nothing when it does not run."""
        if self.process is not None and self.process.running:
            self.process.terminate()

    def kill9(self) -> None:
        """Ends the server as a power cut would end its process."""
        if self.process is not None and self.process.running:
            self.process.kill()

    def sigstop(self) -> None:
        """Hangs the server: it accepts connections and answers nothing, from when this returns."""
        process = self._running()
        process.send(signal.SIGSTOP)
        if isinstance(process, Daemon):
            until(lambda: _stands_still(process.pid), f"every thread of {self.name} to stand still")

    def sigcont(self) -> None:
        self._running().send(signal.SIGCONT)

    def restart(self, **options: str | int | None) -> None:
        """Stops the server, changes its option file (``read_only=0``) and starts it again."""
        self.stop()
        self.set_options(options)
        self.start()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.running

    def _running(self) -> Process:
        if self.process is None or not self.process.running:
            raise RuntimeError(f"{self.name} does not run")
        return self.process

    # Talking to it

    def connect(self, account: Account = ROOT, **settings: Any) -> Connection:
        """Opens a connection: root through the socket, everybody else over TCP. The caller closes it."""
        where: dict[str, Any] = {"unix_socket": str(self.socket_file)}
        if account is not ROOT:
            where = {"host": self.place.host, "port": self.port}
        usual = {"autocommit": True, "connect_timeout": 5, "read_timeout": 30, "charset": "utf8mb4"}
        with self.place.inside():
            return pymysql.connect(
                user=account.user,
                password=account.password,
                cursorclass=DictCursor,
                ssl_disabled=True,
                **(where | usual | settings),
            )

    @contextlib.contextmanager
    def session(self, account: Account = ROOT, **settings: Any) -> Iterator[Connection]:
        """A connection for a ``with`` block, closed at its end even if the server has gone meanwhile."""
        connection = self.connect(account, **settings)
        try:
            yield connection
        finally:
            with contextlib.suppress(pymysql.err.Error):
                connection.close()

    def sql(self, statement: str, args: tuple[Any, ...] = (), account: Account = ROOT) -> list[dict[str, Any]]:
        """Runs one statement in a connection of its own; returns its rows."""
        with self.session(account) as connection, connection.cursor() as cursor:
            cursor.execute(statement, args or None)
            return list(cursor.fetchall())

    def past_read_only(self, *statements: str) -> tuple[str, ...]:
        """The statements with which root's session runs ``statements`` also where nobody is to write."""
        return statements

    def begin_anew(self, goal: str, *statements: str) -> None:
        """Runs ``statements``, on record nowhere, and lets what is on record end at ``goal``; it follows on from there.

        That is how one gets rid by hand of what only this server has.
        """
        told = ("STOP SLAVE", "SET sql_log_bin=0", *statements, *self.ends_at, "START SLAVE")
        with self.session() as session, session.cursor() as cursor:
            for line in self.past_read_only(*told):
                cursor.execute(line.replace("GOAL", goal) if line in self.ends_at else line)

    def make_table(self, name: str, columns: str) -> None:
        """Makes an empty table, in place of one that may be there."""
        self.sql(f"DROP TABLE IF EXISTS {name}")
        self.sql(f"CREATE TABLE {name} ({columns})")

    def value(self, expression: str, account: Account = ROOT) -> Any:
        """Returns the value of an expression, e.g. ``@@read_only`` or ``(SELECT COUNT(*) FROM app.t)``."""
        return self.sql(f"SELECT {expression} AS value", account=account)[0]["value"]

    def is_writable(self) -> bool:
        """Whether ordinary accounts may write."""
        return not self.value("@@global.read_only")

    @contextlib.contextmanager
    def open_to_root(self) -> Iterator[None]:
        """For a ``with`` block root may write although nobody else may."""
        yield

    def refuses_everybody(self) -> bool:
        """Whether nobody may write who can be kept from it."""
        return bool(self.value("@@global.read_only"))

    def accept_writes(self) -> None:
        """Ordinary accounts may write from now on."""
        self.sql("SET GLOBAL read_only=0")

    def refuse_writes(self) -> None:
        """Ordinary accounts may not write any more."""
        self.sql("SET GLOBAL read_only=1")

    def locked_accounts(self) -> list[str]:
        """The accounts that nobody can log in with, but for those that come so."""
        rows = self.sql("SELECT User, Host FROM mysql.global_priv WHERE JSON_VALUE(Priv, '$.account_locked')")
        return [f"{row['User']}@{row['Host']}" for row in rows if row["User"] != "mariadb.sys"]

    def allow_copies(self) -> None:
        """Another server may be given the data of this one, file by file."""

    def acknowledge_commits(self) -> None:
        """Commits wait for a replica from now on."""
        self.sql("SET GLOBAL rpl_semi_sync_master_wait_point=AFTER_SYNC")
        self.sql("SET GLOBAL rpl_semi_sync_master_enabled=1")

    def acknowledging(self) -> int:
        """How many replicas are there to acknowledge commits."""
        return int(self.sql("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_clients'")[0]["Value"])

    def gtid(self) -> str:
        """Everything in its binary log, as the server writes it."""
        return str(self.value("@@global.gtid_binlog_pos"))

    def has(self, transactions: str) -> bool:
        """Whether ``transactions`` are in its history, by their GTIDs."""
        history = MariaDBPosition.parse(str(self.value("@@global.gtid_binlog_state")))
        return history.contains(MariaDBPosition.parse(transactions)) is Containment.YES

    @property
    def own_gtids(self) -> str:
        """How the GTID of a transaction begins that was written here first."""
        return f"{self.options.get('gtid-domain-id', 0)}-{self.server_id}-"

    def write_as_another(self, statement: str) -> str:
        """Writes as a server would that is not there any more; returns how the GTID of that begins."""
        with self.session() as session, session.cursor() as cursor:
            cursor.execute("SET SESSION server_id=9")
            cursor.execute(statement)
        return "0-9-"

    def forget_before(self, position: str) -> None:
        """Its records begin after ``position``, which it has, as those of a server that was built anew there."""
        for statement in ("STOP SLAVE", "RESET MASTER", f"SET GLOBAL gtid_slave_pos='{position}'", "START SLAVE"):
            self.sql(statement)

    def recorded(self) -> str:
        """What its binary log has, by the servers that wrote it."""
        return str(self.value("@@global.gtid_binlog_state"))

    def await_position(self, goal: str, seconds: float = 20.0) -> bool:
        """Waits until everything in ``goal`` is here, and tells whether it is."""
        return bool(self.value(f"MASTER_GTID_WAIT('{goal}', {seconds})") == 0)

    def replication(self) -> dict[str, Any]:
        """The first row of SHOW ALL SLAVES STATUS; empty for a server that follows nobody."""
        rows = self.replications()
        return rows[0] if rows else {}

    def replications(self) -> list[dict[str, Any]]:
        """Every row of SHOW ALL SLAVES STATUS."""
        return self.sql("SHOW ALL SLAVES STATUS")

    def channel_filters(self) -> str:
        """What is told of the filter that ``channel_filter`` has given."""
        return str(self.replication()["Replicate_Ignore_Domain_Ids"]).replace(" ", "")

    def history(self) -> str:
        """Everything it has executed, by whom it was written."""
        return str(self.value("@@global.gtid_binlog_state"))

    def half_built(self) -> bool:
        """Whether it is marked as one whose data are not whole."""
        return str(HALF_BUILT) in str(self.value("@@global.gtid_slave_pos"))

    def let_copy(self) -> None:
        """Lets data be copied from here and to here, apart from what the host has."""

    def held_back(self) -> list[dict[str, Any]]:
        """The sessions that wait for a lock on the whole server."""
        return self.sql(
            "SELECT id, user, info FROM information_schema.processlist WHERE state LIKE %s", (self.holding,)
        )

    def channels(self) -> list[tuple[Any, ...]]:
        """Name, port of the source and delay of each replication channel."""
        rows = self.sql("SHOW ALL SLAVES STATUS")
        return [(c["Connection_name"], c["Master_Port"], c["SQL_Delay"]) for c in rows]

    def follow(self, source: Node, options: str = "") -> None:
        """Replicates from ``source``, with more CHANGE MASTER ``options``; returns when both threads run."""
        self.sql("STOP SLAVE")
        self.sql(
            f"CHANGE MASTER TO MASTER_HOST='{source.place.host}', MASTER_PORT={source.port},"
            f" MASTER_USER='{REPLICATION.user}', MASTER_PASSWORD='{REPLICATION.password}',"
            f" MASTER_USE_GTID=slave_pos, MASTER_HEARTBEAT_PERIOD=1, MASTER_CONNECT_RETRY=1"
            f"{', ' + options if options else ''}"
        )
        self.sql("START SLAVE")
        until(self.replicates, f"{self.name} to follow {source.name}")

    def follow_too(self, source: Node, channel: str = "elsewhere") -> None:
        """Replicates from another ``source`` as well, by a channel of that name."""
        self.sql(
            f"CHANGE MASTER '{channel}' TO MASTER_HOST='{source.place.host}', MASTER_PORT={source.port},"
            f" MASTER_USER='{REPLICATION.user}', MASTER_PASSWORD='{REPLICATION.password}',"
            " MASTER_USE_GTID=slave_pos, MASTER_HEARTBEAT_PERIOD=1"
        )
        self.sql(f"START SLAVE '{channel}'")

    def replicates(self) -> bool:
        """Whether receiver and applier run."""
        row = self.replication()
        return row.get("Slave_IO_Running") == "Yes" and row.get("Slave_SQL_Running") == "Yes"

    def source(self) -> Address | None:
        """Where the server is that it is told to follow; None for a server that follows nobody."""
        row = self.replication()
        return Address(row["Master_Host"], int(row["Master_Port"])) if row else None

    def source_port(self) -> int | None:
        """The port of the server it is told to follow; None for a server that follows nobody."""
        source = self.source()
        return source.port if source else None


class LocalCluster:
    """Servers db1…dbN. Use :meth:`start`, best in a ``with`` statement."""

    flavour = "mariadb"
    undoing = "flashback"
    """The method of ``rejoin`` by which a server gets rid of what only it has, and follows."""
    dumper = "mariadb-dump"
    """The program that makes a dump."""

    @property
    def haproxy(self) -> str:
        """The path of the HAProxy that goes with these servers."""
        return find_program("haproxy")

    def __init__(self, folder: Path, nodes: dict[str, Node]) -> None:
        self.folder = folder
        self.nodes = nodes

    @classmethod
    def start(
        cls,
        n: int = 3,
        *,
        semi_sync: bool = False,
        options: Options | None = None,
        node_options: Mapping[str, Options] | None = None,
        base: Path | None = None,
        disk: bool = False,
        outlive: bool = False,
        scheduler: bool = False,
        force: bool = False,
        folder: Path | None = None,
        places: Mapping[str, Place] | None = None,
    ) -> Self:
        """Starts ``n`` servers, replicating from db1, and returns when all is well.

        ``options`` go into every option file, ``node_options["db2"]`` into that of db2. The folder is made
        below ``base``, else in memory, else (``disk``) where temporary files go. ``outlive`` lets the servers
        live on when the calling thread ends. ``scheduler`` and ``force`` give the engine's account the privileges
        that these need. An empty ``folder`` that is there may be given instead of all that, and the ``places`` of
        servers by name. Raises RuntimeError with the words of a server that failed.
        """
        cluster = cls(folder or workspace(base, disk=disk, outlive=outlive), {})
        try:
            data = cluster.make_template(scheduler=scheduler, force=force)
            cluster._build(n, data, semi_sync, options or {}, node_options or {}, places or {}, outlive)
        except BaseException:
            cluster.close()
            raise
        return cluster

    def _build(
        self,
        n: int,
        data: Path,
        semi_sync: bool,
        options: Options,
        node_options: Mapping[str, Options],
        places: Mapping[str, Place],
        outlive: bool,
    ) -> None:
        for number in range(1, n + 1):
            name = f"db{number}"
            folder = self.folder / name
            folder.mkdir()
            # cp knows how to share blocks where the file system can; shutil does not
            subprocess.run(["cp", "-a", "--reflink=auto", str(data), str(folder / "data")], check=True)
            mine = {"rpl-semi-sync-slave-enabled": int(semi_sync), **options, **node_options.get(name, {})}
            self.nodes[name] = self.make_node(name, number, folder, mine, places.get(name), outlive)
            self.nodes[name].launch()
        for node in self:
            node.wait_ready()
        first = self["db1"]
        if semi_sync:
            first.acknowledge_commits()
        for node in self:
            if node is not first:
                node.follow(first)
        first.accept_writes()
        if semi_sync and n > 1:
            until(lambda: first.acknowledging() == n - 1, "semi-synchronous replicas to connect")

    def make_template(self, *, scheduler: bool, force: bool) -> Path:
        """Returns the data folder that each server gets a copy of."""
        return template(self.run_program, scheduler=scheduler, force=force)

    def run_program(self, argv: Sequence[str], folder: Path) -> str:
        """Runs a program of the server's, which may use ``folder``; another provider runs it elsewhere."""
        return run_locally(argv, folder)

    def make_node(
        self, name: str, server_id: int, folder: Path, options: Options, place: Place | None, outlive: bool
    ) -> Node:
        """Makes one node; another provider makes another kind."""
        return Node(name, server_id, folder, options, place, outlive=outlive)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def writable(self) -> tuple[str, ...]:
        """Names of the running servers that take writes of ordinary accounts."""
        return tuple(node.name for node in self if node.running and node.is_writable())

    @property
    def primary(self) -> Node:
        """The one writable server. Raises AssertionError when there is none, or more than one."""
        writable = self.writable
        if len(writable) != 1:
            raise AssertionError(f"exactly one server should take writes, but these do: {writable}")
        return self[writable[0]]

    def await_synced(self, seconds: float = 20.0) -> str:
        """Waits until all running servers have the primary's position, and returns it."""
        running = [node for node in self if node.running]
        goal = self.primary.gtid()
        until(lambda: all(node.gtid() == goal for node in running), f"everybody to reach {goal}", seconds)
        return goal

    def kill(self) -> None:
        """Ends all servers at once; the data stays."""
        for node in self:
            node.kill9()

    def close(self) -> None:
        """Ends all servers and removes their data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
