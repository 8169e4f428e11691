"""What counts as beyond a replica in the files of a dead server, and what of it is applied. The files are made up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from proxyroute import deadline as deadlines
from proxyroute.archive import Archive
from proxyroute.binlog import Remains, read_log
from proxyroute.errors import Refused, ScriptFailed, TimedOut
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.model import Deadline
from proxyroute.remains import replay, save_left
from tests.support.binlogs import TRANSACTIONAL, Writer

XA = 64


@dataclass
class Files:
    """A host with files of a binary log, oldest first."""

    logs_: dict[str, Writer]
    name: str = "db1"
    fetched: list[str] = field(default_factory=list)

    def look(self, deadline: Deadline) -> Remains:
        return Remains("/data", {name: len(log.data) for name, log in self.logs_.items()})

    def logs(self, deadline: Deadline) -> Mapping[str, int]:
        return {name: len(log.data) for name, log in self.logs_.items()}

    def fetch_log(self, file: str, folder: Path, deadline: Deadline) -> Path:
        self.fetched.append(file)
        (folder / file).write_bytes(self.logs_[file].data)
        return folder / file

    def decode(self, file: Path, start: int, end: int, sink: Callable[[bytes], object], deadline: Deadline) -> None:
        sink(b"### INSERT INTO `app`.`t`\n")


@dataclass
class Heir:
    executed: MariaDBPosition
    fails_at: str = ""
    name: str = "db2"
    applied: list[str] = field(default_factory=list)

    def replay(self, file: Path, start: int, end: int, deadline: Deadline) -> None:
        for found in read_log(file).transactions:
            if start <= found.start < end:
                if str(found.gtid) == self.fails_at:
                    raise ScriptFailed("mariadb exited with status 1")
                self.applied.append(str(found.gtid))
                self.executed = self.executed.merge(MariaDBPosition((found.gtid,)))

    def settle_replay(self, deadline: Deadline, applied: Position | None = None) -> None: ...


def kept(files: Files, stood: str, folder: Path, now: str = "") -> Archive:
    stands = MariaDBPosition.parse(stood)
    return save_left(files, 1, 1, stands, MariaDBPosition.parse(now or stood), folder, Deadline.after(10))


def beyond(archive: Archive) -> list[str]:
    return [str(t.gtid) for t in archive.transactions]


def applied(archive: Archive, heir: Heir) -> int:
    return replay(archive, heir, lambda: heir.executed, Deadline.after(10))


def test_only_the_files_that_can_hold_more_are_fetched(tmp_path: Path) -> None:
    files = Files(
        {
            "b.1": Writer().state().whole((0, 1, 1), (0, 1, 2)),
            "b.2": Writer().state((0, 1, 2)).whole((0, 1, 3), (0, 1, 4)),
            "b.3": Writer().state((0, 1, 4)).whole((0, 1, 5)),
        }
    )
    archive = kept(files, "0-1-3", tmp_path)
    assert beyond(archive) == ["0-1-4", "0-1-5"]
    assert files.fetched == ["b.3", "b.2"]
    assert archive.rows == {"app.t": {"inserted": 2}}
    heir = Heir(MariaDBPosition.parse("0-1-3"))
    assert applied(archive, heir) == 2
    assert heir.applied == ["0-1-4", "0-1-5"]
    assert applied(archive, heir) == 0


def test_what_a_replica_was_seeded_with_is_no_loss(tmp_path: Path) -> None:
    """The state of a replica that was built from a copy knows nothing of the servers that wrote before."""
    files = Files({"b.1": Writer().state((0, 3, 7)).whole((0, 3, 8), (0, 1, 9), (0, 1, 10), (0, 1, 11))})
    archive = kept(files, "0-1-10", tmp_path)
    assert beyond(archive) == ["0-1-11"]
    assert archive.missing.empty
    assert applied(archive, Heir(MariaDBPosition.parse("0-1-10"))) == 1


def test_nothing_beyond_leaves_nothing_behind(tmp_path: Path) -> None:
    files = Files({"b.1": Writer().state().whole((0, 1, 1), (0, 1, 2))})
    archive = kept(files, "0-1-2", tmp_path)
    assert (beyond(archive), archive.cut) == ([], "")
    assert list(tmp_path.iterdir()) == []


def test_what_the_new_primary_has_written_since_is_not_the_dead_ones(tmp_path: Path) -> None:
    """The old primary is back already and follows when somebody comes to save."""
    files = Files({"b.1": Writer().state().whole((0, 1, 1), (0, 1, 2), (0, 2, 3), (0, 2, 4))})
    assert beyond(kept(files, "0-1-1", tmp_path, now="0-1-1,0-2-4")) == ["0-1-2"]


def test_domains_that_a_parallel_replica_has_had_in_another_order(tmp_path: Path) -> None:
    files = Files({"b.1": Writer().state().whole((0, 1, 1), (1, 1, 1), (0, 1, 2), (1, 1, 2), (0, 1, 3))})
    archive = kept(files, "0-1-1,1-1-2", tmp_path)
    assert beyond(archive) == ["0-1-2", "0-1-3"]
    heir = Heir(MariaDBPosition.parse("0-1-1,1-1-2"))
    assert applied(archive, heir) == 2
    assert heir.applied == ["0-1-2", "0-1-3"], "what it has is not applied again"


def test_another_servers_files_are_refused(tmp_path: Path) -> None:
    files = Files({"b.1": Writer(server_id=3).state().whole((0, 1, 1))})
    with pytest.raises(Refused, match=r"b\.1 was written by the server with id 3, and db1 has 1"):
        kept(files, "0-1-0", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_purged_is_told_and_nothing_is_applied_on_top_of_the_gap(tmp_path: Path) -> None:
    files = Files({"b.9": Writer().state((0, 1, 8)).whole((0, 1, 9))})
    archive = kept(files, "0-1-5", tmp_path)
    assert (beyond(archive), str(archive.missing)) == (["0-1-9"], "0-1-8")
    with pytest.raises(Refused, match="lacks 0-1-8"):
        applied(archive, Heir(MariaDBPosition.parse("0-1-5")))


def test_a_log_that_ends_before_what_was_received_from_it_is_told(tmp_path: Path) -> None:
    """An old copy of the folder, or a disk that has lost what was not synced: nothing beyond would sound too good."""
    files = Files({"b.1": Writer().state().whole((0, 1, 1), (0, 1, 2))})
    archive = kept(files, "0-1-5", tmp_path)
    assert beyond(archive) == []
    assert "it ends before 0-1-5, which was received from db1" in archive.cut


@pytest.mark.parametrize("last", [b"", b"\xfeb", Writer().data, Writer().state((0, 1, 3)).data[:-5]])
def test_a_last_file_that_has_lost_everything_does_not_hide_the_one_before(tmp_path: Path, last: bytes) -> None:
    """It had only just been begun when the power went."""
    begun = Writer()
    begun.data = last
    archive = kept(
        Files({"b.1": Writer().state().whole((0, 1, 1), (0, 1, 2), (0, 1, 3)), "b.2": begun}), "0-1-2", tmp_path
    )
    assert beyond(archive) == ["0-1-3"]
    assert archive.missing.empty
    assert applied(archive, Heir(MariaDBPosition.parse("0-1-2"))) == 1


def test_after_a_file_that_is_damaged_in_the_middle_nothing_is_applied(tmp_path: Path) -> None:
    torn = Writer().state((0, 1, 1)).whole((0, 1, 2)).gtid(3).rows()
    files = Files({"b.1": torn, "b.2": Writer().state((0, 1, 3)).whole((0, 1, 4))})
    archive = kept(files, "0-1-1", tmp_path)
    assert beyond(archive) == ["0-1-2"]
    assert archive.cut == "0-1-3 has no end; what is in b.2 and after it is kept raw only"
    assert (archive.path / "raw" / "b.2").exists()


def test_a_file_that_takes_too_long_to_read_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 0.01)
    monkeypatch.setattr(deadlines, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    large = Writer().state((0, 1, 1))
    rest = Writer()
    rest.data = b""
    rest.whole((0, 1, 2))
    large.data += rest.data * 20_000
    stood = MariaDBPosition.parse("0-1-1")
    with pytest.raises(TimedOut, match=r"waiting for b\.1 to be read"):
        save_left(Files({"b.1": large}), 1, 1, stood, stood, tmp_path, Deadline.after(0.5))
    assert list(tmp_path.iterdir()) == []
    assert next(clock) < 1.0, "it has asked often, and not once more than it had to"


def test_what_comes_before_an_xa_transaction_and_before_an_error_is_applied(tmp_path: Path) -> None:
    log = Writer().state().whole((0, 1, 1), (0, 1, 2))
    log.gtid(3, TRANSACTIONAL | XA).event(38, bytes(20))
    files = Files({"b.1": log.whole((0, 1, 4))})
    archive = kept(files, "0-1-1", tmp_path)
    assert beyond(archive) == ["0-1-2", "0-1-3", "0-1-4"]
    heir = Heir(MariaDBPosition.parse("0-1-1"))
    with pytest.raises(Refused, match="0-1-3 is part of an XA transaction"):
        applied(archive, heir)
    assert heir.applied == ["0-1-2"]
    with pytest.raises(Refused, match="XA"):
        applied(archive, heir)
    assert heir.applied == ["0-1-2"]
    failing = Heir(MariaDBPosition.parse("0-1-1"), fails_at="0-1-2")
    with pytest.raises(ScriptFailed):
        applied(archive, failing)


def test_it_is_applied_only_where_it_goes_on(tmp_path: Path) -> None:
    files = Files({"b.1": Writer().state().whole((0, 1, 1), (0, 1, 2))})
    archive = kept(files, "0-1-1", tmp_path)
    with pytest.raises(Refused, match="stands at 0-1-1,0-2-2"):
        applied(archive, Heir(MariaDBPosition.parse("0-1-1,0-2-2")))


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_rows_are_counted_in_a_text_that_is_never_in_memory_as_a_whole(tmp_path: Path, size: int) -> None:
    files = Files({"b.1": Writer().state().whole((0, 1, 1), (0, 1, 2))})
    long = b"###   @1='" + b"x### INSERT INTO `no`.`row`" * 100_000 + b"'\n" if size > 7 else b"###   @1=1\n"
    text = b"### INSERT INTO `app`.`t`\n" + long + b"### DELETE FROM `app`.`a``b`\n###   @1=1\n### UPDATE `app`.`t`"

    def decode(file: Path, start: int, end: int, sink: Callable[[bytes], object], deadline: Deadline) -> None:
        for at in range(0, len(text), size):
            sink(text[at : at + size])

    files.decode = decode  # type: ignore[method-assign]
    archive = kept(files, "0-1-1", tmp_path)
    assert archive.rows == {"app.t": {"inserted": 1, "updated": 1}, "app.a`b": {"deleted": 1}}
    assert (archive.path / "decoded.sql").read_bytes().endswith(text)
