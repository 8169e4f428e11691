"""A server whose flavour the server itself tells, by its greeting at the first contact; it is never configured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from proxyroute.db.mariadb import MariaDB
from proxyroute.db.mysql import MySQL
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.server import DatabaseServer
from proxyroute.db.session import Login, Session
from proxyroute.errors import OtherFlavour
from proxyroute.model import Address, Deadline, Peer
from proxyroute.policy import Policy
from proxyroute.ports import Server

_DRIVERS: dict[str, type[MariaDB] | type[MySQL]] = {"mariadb": MariaDB, "mysql": MySQL}


def recognised(
    name: str,
    address: Address,
    login: Login,
    replication: ReplicationLogin,
    monitor_users: Sequence[str] = (),
    permit: Callable[[], None] | None = None,
) -> Server:
    """Returns the server at ``address``; nothing is connected yet. ``permit`` as for a :class:`Session`."""

    def session() -> Session:
        return Session(name, address, login, permit)

    def driver(control: Session) -> DatabaseServer:
        kind = _DRIVERS[control.flavour]
        return kind(name, address, login, replication, monitor_users, permit, control)

    # its verbs are the driver's, which a type checker cannot see
    return cast(Server, _Recognised(name, address, session, driver))


class _Recognised:
    """Hands each verb on to the driver of the flavour that the server turned out to be."""

    def __init__(
        self, name: str, address: Address, session: Callable[[], Session], driver: Callable[[Session], DatabaseServer]
    ) -> None:
        self.name = name
        self.address = address
        self._session = session
        self._make = driver
        self._driver: DatabaseServer | None = None

    def _known(self, deadline: Deadline) -> DatabaseServer:
        if self._driver is None:
            self._driver = self._make(self._session().open(deadline))
        return self._driver

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb.startswith("_"):
            raise AttributeError(verb)

        def call(*arguments: Any, **named: Any) -> Any:
            deadline = next(a for a in (*arguments, *named.values()) if isinstance(a, Deadline))
            try:
                return getattr(self._known(deadline), verb)(*arguments, **named)
            except OtherFlavour:  # told when it connects anew, before it says anything: the server has been replaced
                self._driver = None
                return getattr(self._known(deadline), verb)(*arguments, **named)

        return call

    # Verbs that wait for nothing, and so may come before there was any contact

    def line(self) -> int | None:
        return None if self._driver is None else self._driver.line()

    def statements(self, verb: str, policy: Policy, peer: Peer) -> Sequence[str]:
        return (self._driver or MariaDB).statements(verb, policy, peer)

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
