"""The product's driver for one server of a test, whichever flavour that is."""

from __future__ import annotations

from collections.abc import Callable

from proxyroute.db.recognised import recognised
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.session import Login
from proxyroute.model import Address
from proxyroute.ports import Server
from tests.support.accounts import ENGINE, REPLICATION, Account
from tests.support.mariadb import Node


def server_of(
    node: Node,
    permit: Callable[[], None] | None = None,
    *,
    address: Address | None = None,
    account: Account = ENGINE,
) -> Server:
    """Returns the server with the engine's account, not connected yet; ``address`` if another one is to be tried."""
    login, replication = Login(account.user, account.password), ReplicationLogin(REPLICATION.user, REPLICATION.password)
    return recognised(node.name, address or node.address, login, replication, (), permit)
