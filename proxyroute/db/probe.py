"""The proof's own row: written and read as a client would, by an ordinary account, through a route."""

from __future__ import annotations

from proxyroute.db.session import Login, Session
from proxyroute.model import Address, Deadline, Epoch

TABLE = "probe"
COLUMNS = (
    "id INT PRIMARY KEY, operation VARCHAR(64) NOT NULL, epoch VARCHAR(32) NOT NULL, written_at TIMESTAMP(6) NOT NULL"
)


class RowProbe:
    """Writes and reads the one row of ``schema``.probe. Implements :class:`proxyroute.ports.Probe`."""

    def __init__(self, schema: str, login: Login) -> None:
        self._table = f"`{schema.replace('`', '``')}`.`{TABLE}`"
        self._login = login

    def write(self, route: Address, operation: str, epoch: Epoch, deadline: Deadline) -> int:
        """Returns the server id of the server that took the row."""
        with Session("the write route", route, self._login).open(deadline) as session:
            session.change(
                "mariadb.write_probe",
                f"INSERT INTO {self._table} (id, operation, epoch, written_at) VALUES (1, %s, %s, NOW(6))"
                " ON DUPLICATE KEY UPDATE operation=VALUES(operation), epoch=VALUES(epoch), written_at=NOW(6)",
                deadline,
                (operation, str(epoch)),
            )
            # a proxy that splits reads from writes sends a mere reading elsewhere; this one goes where the row went
            (row,) = session.change("mariadb.write_probe", "SELECT @@server_id AS id FOR UPDATE", deadline)
            return int(row["id"])

    def read(self, route: Address, deadline: Deadline) -> str:
        """Returns the operation of the row, or an empty string."""
        with Session("the read route", route, self._login).open(deadline) as session:
            row = session.one(f"SELECT operation FROM {self._table} WHERE id=1", deadline)
            return str(row.get("operation", ""))
