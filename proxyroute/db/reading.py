"""A reading of a server of either flavour."""

from __future__ import annotations

from proxyroute.db import mariadb_read, mysql_read
from proxyroute.db.session import Session
from proxyroute.model import Address, Deadline, Status


def read_status(session: Session, name: str, address: Address, deadline: Deadline) -> Status:
    """Returns a fresh reading of the server at the other end of ``session``, which is open. Raises as both do."""
    read = mysql_read.read_status if session.flavour == "mysql" else mariadb_read.read_status
    return read(session, name, address, deadline)
