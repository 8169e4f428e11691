"""New data put in place of old ones: what cannot be moved is known before, and nobody is left without a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.db import mariadb_copy
from proxyroute.db.host_owner import Ownership
from proxyroute.db.mariadb_copy import cannot_copy, swap
from proxyroute.db.mariadb_rebuild import MariaDBRebuild
from proxyroute.db.session import Login
from proxyroute.errors import ScriptFailed
from proxyroute.gtid import MariaDBPosition
from proxyroute.host import Host
from proxyroute.model import Address, Deadline


class Place:
    """A folder with old data, and a host whose server writes down what it starts with."""

    def __init__(self, folder: Path, *, start: str = 'cat "$0"/name >>"$1"') -> None:
        self.data, self.log = folder / "data", folder / "log"
        self.data.mkdir()
        (self.data / "name").write_text("old")
        words = ("sh", "-c", start, str(self.data), str(self.log))
        self.host = Host("db1", ("env",), stop=("sh", "-c", 'printf stop, >>"$0"', str(self.log)), start=words)

    def copied(self) -> None:
        new = self.data.with_name("data.proxyroute-new")
        new.mkdir()
        (new / "name").write_text("new")

    def swap(self) -> str:
        return swap(self.host, str(self.data), Ownership(lambda: None), "r1", Deadline.after(10))


def test_the_server_starts_with_the_copy_and_the_old_data_are_kept(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.copied()
    kept = place.swap()
    assert place.log.read_text() == "stop,new"
    assert (Path(kept) / "name").read_text() == "old"


def test_one_whose_copy_cannot_be_put_in_place_starts_with_its_old_data(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(ScriptFailed, match=r"could not be put in place on the host of db1 .*old data again"):
        place.swap()  # there is no copy
    assert place.log.read_text() == "stop,old"
    assert not list(tmp_path.glob("data.proxyroute-old-*"))
    place.copied()
    place.swap()
    assert place.log.read_text() == "stop,oldstop,new"


def test_one_whose_old_data_cannot_be_moved_starts_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where they are a mount point."""
    place = Place(tmp_path)
    place.copied()
    busy = "mv() { echo device or resource busy >&2; return 1; }\n"
    monkeypatch.setattr(mariadb_copy, "_SWAP", busy + mariadb_copy._SWAP)
    with pytest.raises(ScriptFailed, match=r"device or resource busy.*old data again"):
        place.swap()
    assert place.log.read_text() == "stop,old"


def test_one_that_does_not_start_again_either_is_told(tmp_path: Path) -> None:
    place = Place(tmp_path, start="echo it is broken >&2; exit 1")
    with pytest.raises(ScriptFailed, match=r"could not be started with its old data: .*it is broken"):
        place.swap()


def test_a_data_folder_that_is_a_mount_point_is_found_before_anything_is_copied(tmp_path: Path) -> None:
    host, source, deadline = Host("db1", ("env",)), str(tmp_path), Deadline.after(10)
    found = cannot_copy(host, source, host, "/proc", deadline)
    assert "/proc of db1 is a mount point, and no other folder can take its place" in found
    assert not [told for told in cannot_copy(host, source, host, source, deadline) if "mount" in told]


def test_a_mount_point_is_found_without_the_program_for_it(tmp_path: Path) -> None:
    """Where no ``mountpoint`` is installed another disk than that of the folder above tells it."""
    without = mariadb_copy._MOUNTED.replace("command -v mountpoint", "false")
    host, deadline = Host("db1", ("env",)), Deadline.after(10)
    assert host.ask(without, "/proc", deadline=deadline) == "mounted\n"
    assert host.ask(without, str(tmp_path), deadline=deadline) == ""
    assert host.ask(without, str(tmp_path / "nothing"), deadline=deadline) == ""


@pytest.mark.parametrize("fails", ["copy", "prepare"])
def test_half_a_copy_is_taken_off_the_disk_of_the_server_that_still_runs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    place = Place(tmp_path)
    source, target = (
        MariaDBRebuild(
            name, Address("127.0.0.1", 1), Login("u", "p"), {}, replace(place.host, data_dir=str(place.data))
        )
        for name in ("db2", "db1")
    )
    monkeypatch.setattr(source, "_position_at", lambda *_: MariaDBPosition())

    def full(host: Host, data_dir: str, ownership: Ownership, *_: object) -> None:
        ownership.take(host, data_dir, Deadline.after(10))
        for name in ("proxyroute-new", "proxyroute-new-0815"):
            place.data.with_name(f"data.{name}").mkdir()
        raise ScriptFailed("mbstream exited with status 1: No space left on device")

    monkeypatch.setattr(mariadb_copy, "copy", lambda *a: full(*a[3:]) if fails == "copy" else ("b.1", 4))
    monkeypatch.setattr(mariadb_copy, "prepare", full)
    with pytest.raises(ScriptFailed, match="No space left"):
        target.copy_from(source, lambda _: None, Deadline.after(10))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "data.proxyroute-owner"]


@pytest.mark.parametrize(
    ("needed", "freed", "fits"), [(1 << 60, 0, False), (1 << 60, 2 << 60, True), (1 << 10, 0, True)]
)
def test_a_dump_that_cannot_fit_is_known_before_the_old_data_go(
    tmp_path: Path, needed: int, freed: int, fits: int
) -> None:
    place = Place(tmp_path)
    found = mariadb_copy.cannot_load(place.host, str(place.data), needed, freed, Deadline.after(10))
    assert (found == []) is bool(fits), found
    assert fits or "no room for the data on the host of db1" in found[0]
