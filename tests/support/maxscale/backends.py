"""What a monitor finds when it looks at the servers: a cluster that is made up, or real ones that are asked."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import pymysql
from pymysql.cursors import DictCursor

from proxyroute.model import Address
from tests.support.accounts import ENGINE, Account


@dataclass(frozen=True)
class Reading:
    """One server as a monitor sees it."""

    server_id: int
    read_only: bool
    source: Address | None = None
    receiving: str = "Yes"
    """``Yes``, ``No`` or ``Connecting``."""
    applying: bool = True
    gtid: str = "0-1-14"
    version: str = "10.11.19-MariaDB-0+deb12u1-log"

    @property
    def replicates(self) -> bool:
        return self.source is not None and self.applying and self.receiving != "No"


class Backend(Protocol):
    """Who is asked by the monitor's tick."""

    def read(self, address: Address) -> Reading | None:
        """Returns what a server says, None when it does not answer."""


@dataclass
class MadeUp:
    """A cluster that exists only here; ``alive`` names who answers."""

    servers: dict[Address, Reading] = field(default_factory=dict)
    dead: set[Address] = field(default_factory=set)

    @classmethod
    def with_primary(cls, addresses: Mapping[str, Address], primary: str) -> MadeUp:
        """Returns a cluster in which everybody follows ``primary``."""
        made = cls()
        made.servers = {a: Reading(n, read_only=True) for n, a in enumerate(addresses.values(), 1)}
        made.promote(addresses[primary])
        return made

    def read(self, address: Address) -> Reading | None:
        return None if address in self.dead else self.servers.get(address)

    def promote(self, address: Address, *, but: tuple[Address, ...] = ()) -> None:
        """``address`` takes the writes and everybody but itself and ``but`` follows it."""
        for other, reading in self.servers.items():
            if other == address:
                self.servers[other] = replace(reading, read_only=False, source=None)
            elif other not in but and other not in self.dead:
                self.servers[other] = replace(reading, read_only=True, source=address, receiving="Yes", applying=True)

    def close(self) -> None:
        """Nobody takes writes."""
        for address, reading in self.servers.items():
            self.servers[address] = replace(reading, read_only=True)

    def kill(self, address: Address) -> None:
        self.dead.add(address)
        for other, reading in self.servers.items():
            if reading.source == address:
                self.servers[other] = replace(reading, receiving="Connecting")

    def revive(self, address: Address) -> None:
        self.dead.discard(address)


@dataclass(frozen=True)
class Databases:
    """Real servers, asked anew by each tick."""

    account: Account = ENGINE
    seconds: float = 1.0

    def read(self, address: Address) -> Reading | None:
        with contextlib.suppress(pymysql.err.Error, OSError), contextlib.closing(self._connect(address)) as session:
            with session.cursor() as cursor:
                cursor.execute(
                    "SELECT @@server_id AS id, @@read_only AS closed, @@gtid_binlog_pos AS gtid, @@version AS v"
                )
                (row,) = cursor.fetchall()
                cursor.execute("SHOW ALL SLAVES STATUS")
                channels = list(cursor.fetchall())
            found = Reading(int(row["id"]), bool(row["closed"]), gtid=str(row["gtid"]), version=str(row["v"]))
            if not channels:
                return found
            channel = channels[0]
            return replace(
                found,
                source=Address(str(channel["Master_Host"]), int(channel["Master_Port"])),
                receiving=str(channel["Slave_IO_Running"]),
                applying=channel["Slave_SQL_Running"] == "Yes",
            )
        return None

    def _connect(self, address: Address) -> pymysql.Connection[DictCursor]:
        return pymysql.connect(
            host=address.host,
            port=address.port,
            user=self.account.user,
            password=self.account.password,
            cursorclass=DictCursor,
            ssl_disabled=True,
            connect_timeout=1,
            read_timeout=self.seconds,
        )
