"""One MySQL server becomes a clone of another: whom it trusts, how far it tells that it is, what a failure leaves."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxyroute.db import mysql_clone
from proxyroute.db.grants import password_of
from proxyroute.db.mysql_grants import rebuild_statements
from proxyroute.db.mysql_rebuild import MySQLRebuild
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Login, Session
from proxyroute.errors import StatementError
from proxyroute.host import Host
from proxyroute.model import Address, Deadline
from tests.support.broken import REBUILD
from tests.support.certificates import make_certificate
from tests.support.mariadb import Node
from tests.support.mysql import MySQLCluster

pytestmark = pytest.mark.matrix
MIB = 2**20
SETTINGS = "SHOW GLOBAL VARIABLES WHERE Variable_name LIKE 'clone_ssl%' OR Variable_name='clone_valid_donor_list'"


@pytest.fixture
def pair(start_mysql: Callable[..., MySQLCluster]) -> tuple[Node, Node]:
    """A server that may become a clone of the other one, and that other one."""
    cluster = start_mysql(2)
    source, target = cluster["db1"], cluster["db2"]
    for statement in rebuild_statements(parse_version(source.value("@@version")), REBUILD.user):
        source.sql(statement.replace(password_of(REBUILD.user), REBUILD.password))
    source.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    cluster.await_synced()
    target.sql("STOP SLAVE")
    for node in (source, target):
        node.let_copy()
    return target, source


@pytest.fixture
def sessions(pair: tuple[Node, Node]) -> Iterator[tuple[Session, Session]]:
    target, login, deadline = pair[0], Login(REBUILD.user, REBUILD.password), Deadline.after(60)
    with (
        Session(target.name, target.address, login).open(deadline) as here,
        Session(target.name, target.address, login).open(deadline) as aside,
    ):
        yield here, aside


class Throttled:
    """A way to a server that hands on no more of what it sends than was let through so far.

    For a clone that has to last until somebody has looked: its own ``clone_max_data_bandwidth`` holds up nothing that
    is over within a second.
    """

    def __init__(self, server: Address, octets: int) -> None:
        self._server, self._left, self._more = server, octets, threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self._listener.getsockname()[1])

    def let(self, octets: int) -> None:
        """Lets so many octets more through."""
        with self._more:
            self._left += octets
            self._more.notify_all()

    def close(self) -> None:
        """Ends every connection."""
        self.let(sys.maxsize)
        for end in self._ends:
            with contextlib.suppress(OSError):  # the other side was quicker
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in self._ends:
            end.close()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._server.host, self._server.port))
                self._ends += (near, far)
                self._start(self._hand_on, near, far, False)
                self._start(self._hand_on, far, near, True)

    def _hand_on(self, one: socket.socket, other: socket.socket, throttled: bool) -> None:
        with contextlib.suppress(OSError):  # whoever ends its side ends the other one
            while piece := one.recv(65_536):
                if throttled:
                    with self._more:
                        self._more.wait_for(lambda: self._left > 0)
                        self._left -= len(piece)
                other.sendall(piece)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)


def test_how_far_a_clone_is_is_told_while_it_goes_on(
    pair: tuple[Node, Node], sessions: tuple[Session, Session]
) -> None:
    source, told = pair[1], list[int]()

    def watch(done: int) -> None:
        told.append(done)
        # what came is counted when more comes, some time later
        way.let(4 * MIB if len(set(told)) < 3 else sys.maxsize)

    login = Login(REBUILD.user, REBUILD.password)
    with contextlib.closing(Throttled(source.address, 4 * MIB)) as way:
        mysql_clone.clone(*sessions, way.address, login, {}, watch, lambda: None, Deadline.after(60))
    assert told == sorted(told)
    assert len(set(told)) > 2, told


def test_a_source_that_a_stranger_has_certified_gets_no_login_and_all_is_as_before(
    pair: tuple[Node, Node], sessions: tuple[Session, Session], tmp_path: Path
) -> None:
    target, source = pair
    target.sql("SET GLOBAL clone_ssl_key='/nowhere/key.pem'")
    before = target.sql(SETTINGS)
    trusting = ssl.create_default_context(cafile=str(source.folder / "data/ca.pem"))
    login, deadline = Login(REBUILD.user, REBUILD.password, trusting), Deadline.after(60)
    assert mysql_clone.unverified(sessions[0], login, {}, deadline) == [
        "db2 would not verify from whom it clones: name replication.tls.ca in the configuration, a file on that "
        "server; or on it: SET PERSIST clone_ssl_ca=…"
    ]
    strange = {"clone_ssl_ca": str(make_certificate(tmp_path).ca), "clone_ssl_key": "", "clone_ssl_cert": ""}
    assert mysql_clone.unverified(sessions[0], login, strange, deadline) == []
    with pytest.raises(StatementError, match="certificate verify failed"):
        mysql_clone.clone(*sessions, source.address, login, strange, lambda _: None, lambda: None, deadline)
    assert target.sql(SETTINGS) == before
    assert target.value("(SELECT COUNT(*) FROM app.t)") == 0


def test_a_server_whose_plugin_cannot_be_had_keeps_its_channels(pair: tuple[Node, Node]) -> None:
    target, source = pair
    target.sql("UNINSTALL PLUGIN clone")
    with target.open_to_root():
        target.sql(f"REVOKE INSERT ON *.* FROM '{REBUILD.user}'@'%'")
    login = Login(REBUILD.user, REBUILD.password)
    host = Host(target.name, ("env",), data_dir=str(target.folder / "data"))
    here, there = (MySQLRebuild(node.name, node.address, login, {}, host) for node in (target, source))
    before = target.gtid()
    with pytest.raises(StatementError, match="INSERT command denied"):
        here.copy_from(there, lambda _: None, Deadline.after(60))
    assert len(target.channels()) == 1
    assert not target.half_built()
    assert target.gtid() == before
    assert target.refuses_everybody()
