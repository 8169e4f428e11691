"""What counts as beyond a replica in the files of a dead MySQL server, and what of it is applied. They are made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxyroute.archive import Archive
from proxyroute.binlog import read_log
from proxyroute.errors import Refused, ScriptFailed
from proxyroute.gtid import MySQLPosition, Position
from proxyroute.model import Deadline
from proxyroute.remains import replay, save_left
from tests.support.binlogs import UUID, MySQLWriter, Writer
from tests.unit.test_salvage import Files

OTHER = "8beb7869-eb88-11f1-81d5-02fc00000002"
Spans = tuple[tuple[int, int], ...]


def log(before: Spans, *numbers: int) -> MySQLWriter:
    """A file before which ``before`` were logged, with transactions of one row each."""
    made = MySQLWriter().previous(("", before)) if before else MySQLWriter().previous()
    for number in numbers:
        made.begins(number).query("BEGIN")
        made.changed().commit()
    return made


def own(text: str) -> MySQLPosition:
    """Returns those of the dead server by their numbers, as ``1-5:7``, or what is written out."""
    return MySQLPosition.parse(text if not text or "-eb88-" in text else f"{UUID}:{text}")


def kept(files: Mapping[str, Writer], stood: str, folder: Path, now: str = "", identity: str | None = UUID) -> Archive:
    source = Files(dict(files))
    return save_left(source, 1, identity, own(stood), own(now or stood), folder, Deadline.after(10))


def beyond(archive: Archive) -> list[int]:
    found = [str(t.gtid) for t in archive.transactions]
    assert all(gtid.startswith(f"{UUID}:") for gtid in found)
    return [int(gtid.rpartition(":")[2]) for gtid in found]


@dataclass
class Heir:
    executed: MySQLPosition
    fails_at: int = 0
    name: str = "db2"
    applied: list[int] = field(default_factory=list)

    def replay(self, file: Path, start: int, end: int, deadline: Deadline) -> None:
        for found in read_log(file).transactions:
            if start <= found.start < end:
                number = int(str(found.gtid).rpartition(":")[2])
                if number == self.fails_at:
                    raise ScriptFailed("mysql exited with status 1")
                self.applied.append(number)
                self.executed = self.executed.merge(found.position)

    def settle_replay(self, deadline: Deadline, applied: Position | None = None) -> None: ...


def applied(archive: Archive, heir: Heir) -> int:
    return replay(archive, heir, lambda: heir.executed, Deadline.after(10))


def test_only_the_files_that_can_hold_more_are_fetched(tmp_path: Path) -> None:
    files = Files({"b.1": log((), 1, 2), "b.2": log(((1, 2),), 3, 4), "b.3": log(((1, 4),), 5)})
    archive = save_left(files, 1, UUID, own("1-3"), own("1-3"), tmp_path, Deadline.after(10))
    assert beyond(archive) == [4, 5]
    assert files.fetched == ["b.3", "b.2"]
    assert (archive.path / "empty.sql").exists()
    heir = Heir(own("1-3"))
    assert applied(archive, heir) == 2
    assert heir.applied == [4, 5]
    assert applied(archive, heir) == 0


def test_what_a_parallel_replica_has_had_in_another_order_is_left_out(tmp_path: Path) -> None:
    archive = kept({"b.1": log((), 1, 2, 3, 4, 5)}, "1-2:4", tmp_path)
    assert beyond(archive) == [3, 5]
    heir = Heir(own("1-2:4"))
    assert applied(archive, heir) == 2
    assert heir.applied == [3, 5]


def test_a_second_try_goes_on_where_the_first_has_ended(tmp_path: Path) -> None:
    archive = kept({"b.1": log((), 1, 2, 3, 4)}, "1", tmp_path)
    failing = Heir(own("1"), fails_at=3)
    with pytest.raises(ScriptFailed):
        applied(archive, failing)
    assert failing.applied == [2]
    failing.fails_at = 0
    assert applied(archive, failing) == 2
    assert failing.applied == [2, 3, 4]


def test_nothing_beyond_leaves_nothing_behind(tmp_path: Path) -> None:
    archive = kept({"b.1": log((), 1, 2)}, "1-2", tmp_path)
    assert (beyond(archive), archive.cut) == ([], "")
    assert list(tmp_path.iterdir()) == []


def test_what_the_new_primary_has_had_since_is_not_beyond(tmp_path: Path) -> None:
    assert beyond(kept({"b.1": log((), 1, 2, 3)}, "1", tmp_path, now=f"{UUID}:1:3,{OTHER}:1-9")) == [2]


def test_what_is_purged_is_told_and_nothing_is_applied_on_top_of_the_gap(tmp_path: Path) -> None:
    archive = kept({"b.9": log(((1, 8),), 9)}, "1-5", tmp_path)
    assert (beyond(archive), archive.missing) == ([9], own("6-8"))
    with pytest.raises(Refused, match=f"lacks {UUID}:6-8"):
        applied(archive, Heir(own("1-5")))


def test_what_it_had_besides_is_no_objection_and_what_has_come_since_is(tmp_path: Path) -> None:
    """Another source's transactions were there when these would have come by replication as well."""
    besides = f"{UUID}:1-2,{OTHER}:1-9"
    archive = kept({"b.1": log((), 1, 2, 3)}, besides, tmp_path)
    assert applied(archive, Heir(own(besides))) == 1
    for more in (f"{UUID}:1-2,{OTHER}:1-10", f"{UUID}:1-2:7,{OTHER}:1-9"):
        with pytest.raises(Refused, match="begins before"):
            applied(archive, Heir(own(more)))
    with pytest.raises(Refused, match=f"begins after {UUID}:2"):
        applied(archive, Heir(own(f"{UUID}:1,{OTHER}:1-9")))


def test_before_an_xa_transaction_it_ends(tmp_path: Path) -> None:
    files = log((), 1, 2)
    files.begins(3).query("XA START X'78'")
    files.changed().query("XA END X'78'").event(38, b"\0")
    files.begins(4).query("BEGIN")
    files.changed().commit()
    heir = Heir(own("1"))
    with pytest.raises(Refused, match=f"{UUID}:3 is part of an XA transaction"):
        applied(kept({"b.1": files}, "1", tmp_path), heir)
    assert heir.applied == [2]


def test_a_log_that_ends_before_what_was_received_from_it_is_told(tmp_path: Path) -> None:
    archive = kept({"b.1": log((), 1, 2)}, "1-5", tmp_path)
    assert beyond(archive) == []
    assert f"it ends before {UUID}:3-5, which was received from db1" in archive.cut
    assert kept({"b.1": log((), 1, 2)}, "1-5", tmp_path, identity=None).cut == "", "nobody knows whose they are"


def test_what_a_server_wrote_before_it_got_its_data_anew_is_not_missed(tmp_path: Path) -> None:
    """Its log begins anew then, and the position it was given is in no file."""
    archive = kept({"b.1": log((), 51, 52, 53)}, "1-52", tmp_path)
    assert (beyond(archive), archive.cut) == ([53], "")
    assert applied(archive, Heir(own("1-52"))) == 1


@pytest.mark.parametrize("rest", ["nothing", "no-state", "cut-off"])
def test_a_last_file_that_has_lost_everything_does_not_hide_the_one_before(tmp_path: Path, rest: str) -> None:
    """It had only just been begun when the power went."""
    last = MySQLWriter()
    if rest == "nothing":
        last.data = b""
    if rest == "cut-off":
        last.data = log(((1, 3),)).data[:-5]
    archive = kept({"b.1": log((), 1, 2, 3), "b.2": last}, "1-2", tmp_path)
    assert beyond(archive) == [3]
    assert bool(archive.cut) == (rest != "no-state")
    assert applied(archive, Heir(own("1-2"))) == 1


def test_an_event_that_is_damaged_where_nothing_is_summed_up_is_told(tmp_path: Path) -> None:
    damaged = MySQLWriter(checksum=False).previous(("", ((1, 3),)))
    damaged.event(33, b"\0" * 9)
    with pytest.raises(ScriptFailed, match=r"b\.1 is damaged"):
        kept({"b.1": damaged}, "1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_server_and_of_another_flavour_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"b\.1 was written by the server with id 3, and db1 has 1"):
        kept({"b.1": MySQLWriter(server_id=3).previous()}, "1", tmp_path)
    with pytest.raises(Refused, match=r"b\.1 was written by a server of another flavour"):
        kept({"b.1": Writer().state().whole((0, 1, 1))}, "1", tmp_path)
    assert list(tmp_path.iterdir()) == []
