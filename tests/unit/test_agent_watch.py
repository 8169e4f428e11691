"""How an agent learns of changes: events where they are heard, a look where they are not, and it says which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.events import FileCreatedEvent, FileMovedEvent

from proxyroute import agent_watch
from proxyroute.agent_watch import Watch
from proxyroute.atomic import put
from proxyroute.haproxy.mounts import file_system


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("asks", "acks"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    made.end()


def test_the_type_of_a_file_system_is_told() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    with pytest.raises(OSError, match="nothing"):
        file_system(Path("/nothing/here"))


def test_on_a_local_disk_a_change_wakes_at_once(folder: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_watch, "_LOCAL", frozenset({file_system(folder)}))
    watch.begin(folder, "edge1", file_system(folder))
    assert watch.delivers
    assert watch.how == f"events of {file_system(folder)}"
    for file in (folder / "current.json", folder / "asks" / "engine.json"):
        put(file, b"x")
        assert watch.wait(10.0), file
    assert sorted(os.listdir(folder / "acks")) == []


def test_receipts_and_files_that_are_being_written_wake_nobody(folder: Path, watch: Watch) -> None:
    watch.on_any_event(FileMovedEvent(str(folder / "acks" / ".x.new"), str(folder / "acks" / "edge1.json")))
    watch.on_any_event(FileCreatedEvent(str(folder / ".current.json.1.new")))
    assert not watch.wait(0.0)
    watch.on_any_event(FileMovedEvent(str(folder / ".x.new"), str(folder / "current.json")))
    assert watch.wait(0.0)


def test_where_other_hosts_write_unheard_it_looks_again(
    folder: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_watch, "_LOCAL", frozenset())
    watch.begin(folder, "edge1", file_system(folder))
    assert not watch.delivers
    assert watch.how == f"looks again: {file_system(folder)} does not tell what other hosts do"


def test_where_a_canary_is_not_heard_it_looks_again(
    folder: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_watch, "_LOCAL", frozenset({file_system(folder)}))
    monkeypatch.setattr(agent_watch, "_CANARY_SECONDS", 0.1)
    monkeypatch.setattr(Watch, "on_any_event", lambda *_: None)
    watch.begin(folder, "edge1", file_system(folder))
    assert not watch.delivers
    assert "delivered no event" in watch.how
