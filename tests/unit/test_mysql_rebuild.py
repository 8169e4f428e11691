"""What keeps a MySQL server from new data is told while the old ones are there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute.db import mysql_clone
from proxyroute.db.mysql_rebuild import MySQLRebuild
from proxyroute.db.session import Login
from proxyroute.errors import Unreachable
from proxyroute.host import Host
from proxyroute.model import Address, Deadline

_MYSQLDUMP = """#!/bin/sh
for word; do
    case $word in
    {unknown}*) echo "mysqldump: [ERROR] unknown variable '$word'." >&2; exit 7 ;;
    --version) echo 'mysqldump  Ver {version} for Linux on x86_64 (MySQL Community Server - GPL)' ;;
    esac
done
"""


def rebuild(name: str, host: Host | None = None) -> MySQLRebuild:
    return MySQLRebuild(name, Address("127.0.0.1", 1), Login("u", "p"), {}, host)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes MySQL's client programs, and nothing else, which do not know one option."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def make(version: str, unknown: str) -> None:
        for name in ("mysqldump", "mysql"):
            (tmp_path / name).write_text(_MYSQLDUMP.format(version=version, unknown=unknown))
            (tmp_path / name).chmod(0o755)

    return make


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> MySQLRebuild:
    """One whose server has nothing against being copied."""

    @contextmanager
    def session(deadline: Deadline) -> Iterator[object]:
        yield SimpleNamespace(server="db1")

    server = rebuild("db1")
    monkeypatch.setattr(server, "_session", session)
    for name in ("_inconsistent", "_lacks", "_held_up"):
        monkeypatch.setattr(server, name, lambda *_: [])
    return server


@pytest.mark.parametrize(
    ("version", "unknown", "told"),
    [
        ("9.7.4", "--nothing", ""),
        ("8.0.36", "--init-command", "too old, a newer client package is needed: .*--init-command"),
        ("8.0.16", "--set-gtid-purged=COMMENTED", "too old, a newer client package is needed: .*COMMENTED"),
    ],
)
def test_a_mysqldump_that_would_not_take_what_it_is_told_is_found_before(
    client: Callable[[str, str], None], source: MySQLRebuild, version: str, unknown: str, told: str
) -> None:
    client(version, unknown)
    found = source.cannot_dump(Deadline.after(10))
    assert bool(found) == bool(told)
    assert not told or re.search(told, found[0])


def target(folder: Path, monkeypatch: pytest.MonkeyPatch, size: Callable[..., int]) -> MySQLRebuild:
    """One that runs on this machine, with ``size`` of its own."""

    @contextmanager
    def session(deadline: Deadline) -> Iterator[object]:
        yield object()

    server = rebuild("db2", Host("db2", ("env",), data_dir=str(folder)))
    monkeypatch.setattr(server, "_session", session)
    monkeypatch.setattr(server, "data_size", size)
    monkeypatch.setattr(server, "_inconsistent", lambda *_: [])
    for name in ("cannot_be_cloned", "cannot_clone", "unverified"):
        monkeypatch.setattr(mysql_clone, name, lambda *_: [])
    monkeypatch.setattr(mysql_clone, "libraries", lambda *_: (str(folder), ()))
    return server


@pytest.mark.parametrize(("needed", "own", "fits"), [(1 << 60, 0, False), (1 << 60, 2 << 60, True), (1 << 10, 0, True)])
def test_a_clone_that_does_not_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: MySQLRebuild, needed: int, own: int, fits: bool
) -> None:
    """What is there goes first, and nothing would be left of it when the disk is full."""
    monkeypatch.setattr(source, "data_size", lambda *_, **__: needed)
    found = target(tmp_path, monkeypatch, lambda *_, **__: own).cannot_copy(source, Deadline.after(10))
    assert bool(found) != fits
    assert fits or "no room for the data on the host of db2" in found[0]


def test_a_server_that_is_down_may_be_cloned_whatever_is_on_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: MySQLRebuild
) -> None:
    def silent(*_: Any, **__: Any) -> int:
        raise Unreachable("db2", "nobody listens")

    monkeypatch.setattr(source, "data_size", lambda *_, **__: 1 << 60)
    assert target(tmp_path, monkeypatch, silent).cannot_copy(source, Deadline.after(10)) == ()


@pytest.mark.parametrize(
    ("folder", "told"),
    [("plugins", ["db1 has loaded rewriter.so, and {folder} of db2 lacks it"]), ("out/of/sight", [])],
)
def test_a_plugin_that_could_not_be_loaded_after_a_clone_is_named_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: MySQLRebuild, folder: str, told: list[str]
) -> None:
    """The server would refuse the clone. Where its plugin folder is not to be seen, as in a container, it is asked."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mysql_clone.so").touch()
    monkeypatch.setattr(source, "data_size", lambda *_, **__: 0)
    server = target(tmp_path, monkeypatch, lambda *_, **__: 0)
    needed = (str(tmp_path / folder), ("mysql_clone.so", "rewriter.so"))
    monkeypatch.setattr(mysql_clone, "libraries", lambda *_: needed)
    found = server.cannot_copy(source, Deadline.after(10))
    assert found == tuple(text.format(folder=needed[0]) for text in told)
