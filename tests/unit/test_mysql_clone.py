"""What became of a clone, as the server tells it once it answers again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from proxyroute.db import mysql_clone, mysql_rebuild
from proxyroute.db.mysql_clone import Begun, _passes
from proxyroute.db.mysql_rebuild import MySQLRebuild
from proxyroute.db.session import Login
from proxyroute.errors import ServerError, StatementError
from proxyroute.host import Host
from proxyroute.model import Address, Deadline

BEGUN = Begun(Decimal("1000.5"), supervised=True)


class Told:
    """Stands in for a session: answers with what the server tells of its last clone."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row

    def one(self, sql: str, deadline: Deadline) -> dict[str, Any]:
        return self.row


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        ({}, "nothing was cloned"),
        ({"state": "Completed", "begun": Decimal("1000.4"), "error": ""}, "nothing was cloned"),
        ({"state": "Completed", "begun": Decimal("1000.5"), "error": ""}, ""),
        ({"state": "Failed", "begun": Decimal("1001.0"), "error": "no room"}, "Failed no room"),
    ],
)
def test_only_what_was_begun_since_counts(row: dict[str, Any], outcome: str) -> None:
    assert mysql_clone.outcome(Told(row), BEGUN, Deadline.after(1)) == outcome  # type: ignore[arg-type]


def test_a_statement_that_never_arrived_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers, and neither clones nor restarts: for an hour it would have been started again and again."""

    @contextmanager
    def session(deadline: Deadline) -> Iterator[Told]:
        yield Told({"state": "Completed", "begun": Decimal("1.0"), "error": ""})

    rebuild = MySQLRebuild("db2", Address("127.0.0.1", 3306), Login("u", "p"), {}, Host("db2", (), data_dir="/data"))
    monkeypatch.setattr(rebuild, "_session", session)
    monkeypatch.setattr(mysql_rebuild, "_RESTART", 0.1)
    monkeypatch.setattr(mysql_rebuild, "start_server", lambda *_: None)
    deadline = Deadline.firm(5.0)
    with pytest.raises(ServerError, match="could not be cloned: nothing was cloned"):
        rebuild._await_clone(BEGUN, deadline)
    assert deadline.left > 4


LOOK = {
    "version": "9.7.4",
    "packet": 64 << 20,
    "innodb_page_size": 16384,
    "lower_case_table_names": 0,
    "version_compile_machine": "x86_64",
    "version_compile_os": "Linux",
    "character_set_server": "utf8mb4",
    "character_set_filesystem": "binary",
    "collation_server": "utf8mb4_0900_ai_ci",
    "clone": 1,
}


class Server(Told):
    """Stands in for a session of a server that may clone, and may be cloned."""

    def __init__(self, name: str, host: str = "192.0.2.1", **other: Any) -> None:
        super().__init__({**LOOK, **other})
        self.server, self.address = name, Address(host, 3306)

    def read(self, sql: str, deadline: Deadline) -> list[dict[str, Any]]:
        assert sql == "SHOW GRANTS"
        return [{"grants": "GRANT BACKUP_ADMIN,CLONE_ADMIN ON *.* TO me"}]


@pytest.mark.parametrize(
    ("here", "source", "told"),
    [
        ({}, {}, []),
        (
            {"collation_server": "utf8mb4_bin"},
            {},
            ["collation_server is utf8mb4_bin on db2 and utf8mb4_0900_ai_ci on db1"],
        ),
        ({}, {"character_set_server": "latin1"}, ["character_set_server is utf8mb4 on db2 and latin1 on db1"]),
        ({}, {"character_set_filesystem": "utf8mb3"}, ["character_set_filesystem is binary on db2 and utf8mb3 on db1"]),
        ({}, {"host": "2001:db8::1"}, ["MySQL clones from no IPv6 address, as db1 has; from a name for it, it does"]),
    ],
)
def test_what_the_server_itself_would_refuse_is_found_before(
    here: dict[str, Any], source: dict[str, Any], told: list[str]
) -> None:
    found = mysql_clone.cannot_clone(
        Server("db2", **here),
        Server("db1", **source),
        Deadline.after(1),  # type: ignore[arg-type]
    )
    assert found == told


@pytest.mark.parametrize(
    ("errno", "text", "soon"),
    [
        (3634, "Too many concurrent clone operations. Maximum allowed - 1.", True),
        (3862, "Clone Donor Error: 3634 : Too many concurrent clone operations. Maximum allowed - 1..", True),
        (3862, "Clone Donor Error: Connect failed: 2003 : Can't connect to MySQL server on 'db1'.", True),
        (3862, "Clone Donor Error: Connect failed: 2026 : SSL connection error: no.", False),
        (3862, "Clone Donor Error: Connect failed: 1045 : Access denied for user 'x'@'y'.", False),
        (3862, "Clone Donor Error: 1524 : Plugin 'clone' is not loaded.", False),
        (3862, "Clone Donor Error: something new", False),
        (3868, "Clone Configuration innodb_page_size: Donor value: 2003 : is different", False),
    ],
)
def test_what_is_over_soon_is_told_from_what_lasts(errno: int, text: str, soon: bool) -> None:
    assert _passes(StatementError("db3", errno, text)) is soon
