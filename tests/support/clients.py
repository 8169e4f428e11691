"""Sessions of the application that stand around: idle ones, and ones whose last statement is still running."""

from __future__ import annotations

import contextlib
import threading

import pymysql

from tests.support.mariadb import APPLICATION, Account, Connection, Node
from tests.support.wait import until


class Clients:
    """Opens sessions on one node; all of them are over when ``ends`` is."""

    def __init__(self, node: Node, ends: contextlib.ExitStack) -> None:
        self._node, self._ends = node, ends

    def idle(self, *statements: str, account: Account = APPLICATION) -> int:
        """Runs ``statements`` in a new session, leaves it open, and returns its id."""
        return self._id(self._session(statements, account))

    def running(self, statement: str, *before: str) -> int:
        """Starts ``statement`` in a new session after ``before``, returns its id once it can be seen to run."""
        number = self.begun(statement, *before)
        sleeping = "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID=%s AND STATE='User sleep'"
        until(lambda: self._node.sql(sleeping, (number,)), f"{statement} to run")
        return number

    def begun(self, statement: str, *before: str) -> int:
        """Starts ``statement`` in a new session after ``before``; returns its id."""
        connection = self._session(before, APPLICATION)
        number = self._id(connection)

        def run() -> None:
            with contextlib.suppress(pymysql.err.Error), connection.cursor() as cursor:
                cursor.execute(statement)

        thread = threading.Thread(target=run)
        thread.start()
        self._ends.callback(thread.join)
        self._ends.callback(self.kill, number)
        return number

    def kill(self, number: int) -> None:
        """Ends session ``number``, if it is still there."""
        with contextlib.suppress(pymysql.err.Error):
            self._node.sql(f"KILL {number}")

    def alive(self, number: int) -> bool:
        """Tells whether session ``number`` is still there."""
        return bool(self._node.sql("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID=%s", (number,)))

    def _session(self, statements: tuple[str, ...], account: Account) -> Connection:
        connection = self._ends.enter_context(self._node.session(account))
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        return connection

    @staticmethod
    def _id(connection: Connection) -> int:
        return int(connection.thread_id())  # type: ignore[no-untyped-call]
