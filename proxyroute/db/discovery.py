"""Finds the members of a cluster from a few of them: upwards by their sources, downwards by who is connected."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from proxyroute.db.reading import read_status
from proxyroute.db.session import Login, Session
from proxyroute.errors import ServerError, StatementError, Unreachable
from proxyroute.model import Address, Deadline, Status

_DUMPS = "SELECT host FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
_SECONDS = 5.0


@dataclass(frozen=True)
class Discovery:
    """What was found. ``silent`` maps the addresses that could not be read to the reason."""

    servers: tuple[Status, ...]
    silent: dict[Address, str]


def discover(start: Iterable[Address], login: Login) -> Discovery:
    """Reads the servers at ``start``, then their sources and replicas, until nothing new turns up.

    Changes nothing; never raises for a server that cannot be read.
    """
    found: dict[tuple[str, int, int], Status] = {}
    silent: dict[Address, str] = {}
    waiting, seen = list(start), set[Address]()
    while waiting:
        address = waiting.pop(0)
        if address in seen:
            continue
        seen.add(address)
        session = Session(str(address), address, login)
        deadline = Deadline.after(_SECONDS)
        try:
            session.open(deadline)
            status = read_status(session, str(address), address, deadline)
            row = session.one("SELECT @@hostname AS host, @@port AS port", deadline)
            neighbours = [*(s.address for s in status.sources), *possible_replicas(session, address, deadline)]
        except ServerError as error:
            silent[address] = str(error)
            continue
        finally:
            session.close()
        # one server may be reached by several addresses; the first one is kept
        found.setdefault((str(row["host"]), int(row["port"]), status.server_id), status)
        waiting += neighbours
    return Discovery(tuple(found.values()), silent)


def possible_replicas(session: Session, address: Address, deadline: Deadline) -> list[Address]:
    """Returns where the replicas of the server at ``address`` probably are.

    A replica without ``report_host`` tells its port only: it is looked for on every host that one connects from.
    Without the privilege for that question, they are taken to listen on their hosts at their source's own port.
    """
    try:
        rows = session.read("SHOW REPLICAS" if session.flavour == "mysql" else "SHOW SLAVE HOSTS", deadline)
    except StatementError:
        return [Address(host, address.port) for host in _connected_from(session, deadline)]
    told = [Address(str(row["Host"]), int(row["Port"])) for row in rows if row["Host"]]
    ports = sorted({int(row["Port"]) for row in rows if not row["Host"]} - {0})
    guessed = [Address(host, port) for host in _connected_from(session, deadline) for port in ports] if ports else []
    return list(dict.fromkeys(told + guessed))


def _connected_from(session: Session, deadline: Deadline) -> list[str]:
    return sorted({str(row["host"]).rpartition(":")[0] for row in session.read(_DUMPS, deadline)})


def greeting(address: Address, deadline: Deadline) -> str:
    """Returns the version that a server tells before anybody logs in. Raises Unreachable."""
    try:
        with socket.create_connection((address.host, address.port), timeout=deadline.left) as connection:
            connection.settimeout(deadline.left)
            packet = connection.recv(256)
    except OSError as error:
        raise Unreachable(str(address), f"cannot connect: {error}") from error
    # four bytes of header, the protocol's number, then the version up to a zero byte
    if len(packet) < 6 or packet[4] != 10:
        raise Unreachable(str(address), "does not greet like a database server, or greets with an error")
    return packet[5:].partition(b"\0")[0].decode("ascii", "replace")
