"""Releases, announcements and receipts: their bytes, whom to believe, what may follow what."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyroute.atomic import put
from proxyroute.errors import Conflict, OtherFormat, Outdated, ShareError, Tampered, TimedOut, Torn
from proxyroute.haproxy.release import (
    Announcement,
    Answer,
    Memory,
    Phase,
    Question,
    Release,
    Shape,
    accept,
    seal,
    unseal,
)
from proxyroute.haproxy.share import KEPT_RELEASES, Share, read_key
from proxyroute.haproxy.worker import Worker
from proxyroute.model import (
    Address,
    Deadline,
    Endpoint,
    Epoch,
    Finding,
    Observed,
    Reader,
    Receipt,
    ReceiptState,
    RouteTable,
    Severity,
)
from tests.support.wait import until

KEY = b"0123456789abcdef"
SERVERS = tuple(Endpoint(f"db{n}", Address("10.0.0.1", 3300 + n)) for n in (1, 2, 3))


def release(epoch: tuple[int, int], primary: str | None = "db1", weight: int = 100) -> Release:
    return Release(RouteTable("shop", Epoch(*epoch), SERVERS, primary, (Reader("db3", weight),)), Shape("*:3306"))


def announcement(sequence: int = 1, **values: object) -> Announcement:
    return replace(Announcement(f"id{sequence}", sequence, "shop", Phase.APPLY, "engine"), **values)  # type: ignore[arg-type]


def test_a_release_is_named_by_epoch_and_content() -> None:
    assert release((2, 1)).name.startswith("2.1-")
    assert release((2, 1)).name == release((2, 1)).name
    others = {release((2, 1), "db2").name, release((2, 1), None).name, release((2, 1), weight=50).name}
    assert len({*others, release((2, 1)).name}) == 4


def test_everything_that_is_told_survives_its_bytes() -> None:
    seen = Observed("edge1", True, Epoch(2, 1), "db1", ("db3",), {"db1": 4}, drift=("odd",))
    found = Finding("haproxy.drift", Severity.WARNING, "edge1", "odd", "publish")
    receipt = Receipt("edge1", ReceiptState.DONE, Epoch(2, 1), "", {"pid": 4})
    answer = Answer("edge1", "shop", "x", "apply", "op", "2.1-x", receipt, {"e": "q"}, seen, (found,), "events")
    announced = announcement(route=release((2, 1)).name, phase=Phase.HOLD, seconds=2.5)
    question = Question("q", "engine", "shop", True)
    assert Answer.of(unseal("receipt", seal("receipt", answer.values(), KEY), KEY)) == answer
    assert Announcement.of(unseal("a", seal("a", announced.values(), KEY), KEY)) == announced
    assert Question.of(unseal("q", seal("q", question.values(), KEY), KEY)) == question
    assert Release.of(unseal("r", seal("r", release((2, 1)).values(), KEY), KEY)) == release((2, 1))


@given(st.integers(min_value=0, max_value=400))
def test_a_file_that_is_cut_off_is_torn(length: int) -> None:
    data = seal("release", release((2, 1)).values(), KEY)
    with pytest.raises(Torn):
        unseal("release", data[: min(length, len(data) - 3)], KEY)


def test_a_file_is_believed_only_with_our_key_as_its_own_kind_and_unchanged() -> None:
    data = seal("release", release((2, 1)).values(), KEY)
    with pytest.raises(Tampered):
        unseal("release", data, b"another key, too")
    with pytest.raises(Tampered):
        unseal("receipt", data, KEY)
    with pytest.raises(Tampered):
        unseal("release", data.replace(b'"db1"', b'"db2"'), KEY)
    unsigned = {k: v for k, v in json.loads(data).items() if k != "hmac"}
    with pytest.raises(Tampered):
        unseal("release", json.dumps(unsigned).encode(), KEY)


def test_another_format_is_named() -> None:
    data = seal("release", release((2, 1)).values(), KEY).replace(b'"format":1', b'"format":2')
    with pytest.raises(OtherFormat, match="2"):
        unseal("release", data, KEY)


@pytest.mark.parametrize("kind", [Release, Announcement, Answer, Question])
def test_what_is_signed_and_makes_no_sense_is_torn(kind: type[Release]) -> None:
    with pytest.raises(Torn):
        kind.of({"epoch": "x", "receipt": 3, "observed": None})


def test_a_higher_epoch_is_accepted_and_a_lower_one_is_not() -> None:
    known = accept(None, release((2, 1)), 7)
    assert accept(known, release((2, 2), "db2"), 1).epoch == Epoch(2, 2)
    with pytest.raises(Outdated, match=r"superseded: route 2\.1 to db1 is published, 1\.9 is older"):
        accept(known, release((1, 9), "db2"), 8)


def test_an_epoch_means_one_primary() -> None:
    known = accept(None, release((2, 1)), 7)
    for other in ("db2", None):
        with pytest.raises(Conflict, match=r"conflict: route 2\.1 to db1"):
            accept(known, release((2, 1), other), 8)


def test_within_an_epoch_a_closed_route_opens_and_readers_change_in_order() -> None:
    closed = accept(None, release((2, 1), None), 1)
    opened = accept(closed, release((2, 1)), 2)
    later = accept(opened, release((2, 1), weight=50), 3)
    assert later.sequence == 3
    with pytest.raises(Outdated, match="announcement 3"):
        accept(later, release((2, 1)), 2)
    assert accept(later, release((2, 1), weight=50), 2) == later


epochs = st.tuples(st.integers(1, 3), st.integers(1, 3))
steps = st.lists(st.tuples(epochs, st.sampled_from(["db1", "db2", None]), st.integers(1, 20)), max_size=30)


@given(steps)
def test_whatever_is_offered_memory_only_grows(
    offered: list[tuple[tuple[int, int], str | None, int]],
) -> None:
    known: Memory | None = None
    for epoch, primary, sequence in offered:
        try:
            fresh = accept(known, release(epoch, primary), sequence)
        except (Outdated, Conflict):
            continue
        if known is not None:
            assert (fresh.epoch, fresh.sequence) >= (known.epoch, known.sequence) or fresh.epoch > known.epoch
            assert fresh.epoch > known.epoch or known.primary in (None, fresh.primary)
        known = fresh


# -- On disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def share(tmp_path: Path) -> Share:
    made = Share(tmp_path, "shop", KEY)
    made.make_folders()
    return made


def test_what_is_published_is_read(share: Share) -> None:
    share.stage(release((2, 1)))
    share.publish(announcement(route=release((2, 1)).name), Deadline.after(10))
    current = share.current()
    assert current is not None
    assert current.route is not None
    assert share.release(current.route) == release((2, 1))


def test_a_claimed_epoch_belongs_to_one_primary_for_ever(tmp_path: Path, share: Share) -> None:
    share.claim(release((2, 1), None))
    share.claim(release((2, 1), "db2"))
    other_engine = Share(tmp_path, "shop", KEY)
    other_engine.claim(release((2, 1), "db2"))
    with pytest.raises(Conflict, match="db2"):
        other_engine.claim(release((2, 1), "db1"))


def test_a_damaged_release_is_not_believed_and_is_written_anew(share: Share) -> None:
    share.stage(release((2, 1)))
    (share.folder / "releases" / release((2, 1)).name / "release.json").write_bytes(b'{"format":1')
    with pytest.raises(Torn):
        share.release(release((2, 1)).name)
    share.stage(release((2, 1)))
    assert share.release(release((2, 1)).name) == release((2, 1))


def test_a_release_under_another_name_is_not_believed(share: Share) -> None:
    share.stage(release((2, 1), "db2"))
    folder = share.folder / "releases"
    (folder / release((2, 1), "db2").name).rename(folder / release((3, 1)).name)
    with pytest.raises(Torn, match="in truth"):
        share.release(release((3, 1)).name)


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ShareError, match="mount it"):
        Share(tmp_path / "unmounted", "shop", KEY).make_folders()
    assert not (tmp_path / "unmounted").exists()


def test_old_releases_go_but_never_one_that_is_named(share: Share) -> None:
    names = []
    for serial in range(1, KEPT_RELEASES + 11):
        share.stage(release((1, serial)))
        share.claim(release((1, serial)))
        names.append(release((1, serial)).name)
    share.publish(announcement(route=names[0]), Deadline.after(10))
    share.acknowledge(Answer("edge1", "shop", release=names[1]), Deadline.after(10))
    assert set(share.prune()) == set(names[2:-KEPT_RELEASES])
    left = {entry.name for entry in (share.folder / "releases").iterdir()}
    assert left == {names[0], names[1], *names[-KEPT_RELEASES:]}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "current.json"
    put(file, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("proxyroute.haproxy.share.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        put(file, b"new")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("current.json", b"old")]


@pytest.mark.parametrize(("content", "mode", "words"), [(b"short", 0o600, "5 bytes"), (KEY, 0o644, "everybody")])
def test_a_key_that_protects_nothing_is_refused(tmp_path: Path, content: bytes, mode: int, words: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ShareError, match=words):
        read_key(file)


def test_a_missing_key_is_refused_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ShareError, match="urandom"):
        read_key(tmp_path / "key")


def test_a_key_that_is_there_is_never_to_be_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ShareError, match=f"chown {os.geteuid()} {tmp_path / 'key'}") as raised:
        read_key(tmp_path / "key")
    assert "urandom" not in str(raised.value)


def test_a_disk_that_hangs_is_left_behind_and_in_the_end_not_asked_any_more(tmp_path: Path) -> None:
    worker = Worker("the disk")
    worker.start(Deadline.after(10))
    hung = tmp_path / "hung"
    os.mkfifo(hung)
    for _ in range(8):
        with pytest.raises(TimedOut, match="has not answered"):
            worker.call(hung.read_bytes, Deadline.after(0.01))
    with pytest.raises(TimedOut, match="8 accesses"):
        worker.call(hung.read_bytes, Deadline.after(10))
    until(lambda: _let_go(hung), "those who wait to have begun to")
    until(lambda: worker.stuck == 0, "all to have returned")
    assert worker.call(os.getpid, Deadline.after(10)) != os.getpid()


def _let_go(fifo: Path) -> bool:
    """Opens ``fifo`` for writing, by which all who read it come to its end; tells whether somebody did."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_what_was_given_up_is_not_published_later_over_what_came_after_it(share: Share) -> None:
    share.publish(announcement(id="later"), Deadline.after(10))
    with pytest.raises(TimedOut):
        share.publish(announcement(id="given up"), Deadline.after(0))
    with pytest.raises(TimedOut):
        share.acknowledge(Answer("edge1", "shop"), Deadline.after(0))
    found = share.current()
    assert found is not None
    assert found.id == "later"
    assert [path.name for path in share.folder.rglob("*.new")] == []
    assert list((share.folder / "acks").iterdir()) == []


def test_what_the_disk_says_is_passed_on(tmp_path: Path) -> None:
    worker = Worker("the disk")
    assert worker.call(partial(max, 3, 4), Deadline.after(10)) == 4
    with pytest.raises(ShareError, match="No such file"):
        worker.call((tmp_path / "none").read_bytes, Deadline.after(10))
    with pytest.raises(Conflict):
        worker.call(_conflict, Deadline.after(10))


def _conflict() -> None:
    raise Conflict("two")
