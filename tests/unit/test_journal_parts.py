"""A journal that several hosts go on with, one file each: only the last holder of the lease counts, in every order."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyroute import journal
from proxyroute.decided import Plan
from proxyroute.errors import JournalError
from proxyroute.journal import Journal
from proxyroute.model import Epoch
from proxyroute.operation import Operation, resume
from tests.support.fakeworld import FakeLease


def kinds(file: Path) -> list[str]:
    return [r["kind"] for r in journal.read(file)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "op.jsonl"


def begun(file: Path, term: int = 3) -> Journal:
    book = Journal(file)
    book.write("begin", operation="op", term=term)
    return book


def test_what_the_former_holder_still_writes_does_not_count(file: Path) -> None:
    with contextlib.closing(begun(file)) as old:
        with contextlib.closing(Journal(file, term=4)) as new:
            new.write("resumed")
            old.write("commit")
            old.write("end", outcome="done")
            new.write("end", outcome="aborted")
            assert new.path != old.path
            assert new.records == journal.read(file)
        assert kinds(file) == ["begin", "part", "resumed", "end"]
        assert journal.outcome(journal.read(file)) == "aborted"
        assert [r["n"] for r in journal.read(file)] == [1, 2, 3, 4]


def test_who_has_lost_the_lease_before_it_begins_its_part_does_not_count_either(file: Path) -> None:
    begun(file).close()
    with contextlib.closing(Journal(file, term=4)) as late:
        aside = late.path.rename(file.with_suffix(".aside"))  # it has read everything, and is about to begin its part
        with contextlib.closing(Journal(file, term=5)) as new:
            new.write("end", outcome="aborted")
            aside.rename(late.path)
            late.write("end", outcome="done")
            assert journal.outcome(journal.read(file)) == "aborted"
    with pytest.raises(JournalError, match="under a later lease"):
        Journal(file, term=4)


def test_the_same_term_appends_to_the_same_file(file: Path) -> None:
    """A guard that goes on under the lease of its dead engine."""
    begun(file, term=7).close()
    with contextlib.closing(Journal(file, term=7)) as guard:
        guard.write("end", outcome="done")
    assert [f.name for f in file.parent.iterdir()] == ["op.jsonl"]


def test_one_process_that_tries_again_and_again_leaves_one_part(file: Path) -> None:
    begun(file).close()
    for term in (4, 5, 6):
        with contextlib.closing(Journal(file, term=term)) as book:
            book.write("resumed", term=term)
    (part,) = (f for f in file.parent.glob("*.jsonl") if f != file)
    assert part.name.startswith("op.6-")
    assert [r["term"] for r in journal.read(file) if r["kind"] == "resumed"] == [4, 5, 6]


def test_a_torn_or_damaged_end_of_the_former_file_is_of_no_account(file: Path) -> None:
    begun(file).close()
    with contextlib.closing(Journal(file, term=4)) as new:
        with file.open("ab") as old:
            old.write(b'{nonsense\n{"v":1,"n":2,"ki')
        new.write("end", outcome="aborted")
    assert kinds(file) == ["begin", "part", "end"]
    assert file.read_bytes().endswith(b"ki"), "it is not ours to cut"


def test_a_part_whose_writer_died_before_its_first_record_does_not_count(file: Path) -> None:
    begun(file).close()
    (file.parent / "op.9-elsewhere.jsonl").write_bytes(b'{"v":1,"n":2,"kind":"pa')
    assert kinds(file) == ["begin"]


def test_a_former_file_that_was_cut_is_told(file: Path) -> None:
    book = begun(file)
    book.write("step", name="a")
    book.close()
    Journal(file, term=4).close()
    file.write_bytes(file.read_bytes().partition(b"\n")[0] + b"\n")
    with pytest.raises(JournalError, match="ends before record 2"):
        journal.read(file)


def test_parts_are_no_operations_of_their_own_and_a_change_in_one_is_seen(file: Path) -> None:
    begun(file).close()
    before = journal.stamps(file.parent)
    with contextlib.closing(Journal(file, term=4)) as new:
        new.write("note", text="x")
    assert journal.journals(file.parent) == [file]
    assert list(journal.stamps(file.parent)) == [file]
    assert journal.stamps(file.parent) != before
    assert [f for f in file.parent.iterdir() if f.suffix == ".ballast"] == []


STEPS = st.lists(st.tuples(st.sampled_from(["acquire", "open", "write", "write"]), st.integers(0, 4)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_in_every_order_what_is_read_is_what_the_last_holder_that_began_has_written(
    steps: list[tuple[str, int]],
) -> None:
    """Five engines get the lease one after the other; each may open its part late, and write long after it lost it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        file = Path(folder, "op.jsonl")
        book = ends.enter_context(contextlib.closing(begun(file, term=1)))
        books, terms, clock = {-1: book}, {-1: 1}, 1
        journal._written.clear()  # each engine stands for a process of its own
        for number, (what, engine) in enumerate(steps):
            if what == "acquire" and engine not in terms:
                clock += 1
                terms[engine] = clock
            elif what == "open" and engine in terms and engine not in books:
                with contextlib.suppress(JournalError):  # somebody with a later term has begun already
                    books[engine] = ends.enter_context(contextlib.closing(Journal(file, term=terms[engine])))
            elif what == "write" and engine - 1 in books:
                books[engine - 1].write("note", text=f"{engine - 1} at {number}", wait=False)
            latest = max(books, key=lambda e: terms[e])
            assert journal.read(file) == books[latest].records


class NewLease(FakeLease):
    """A distributed lease that counts from one again."""

    distributed = True

    def claim(self, above: Epoch, operation: str) -> Epoch:
        self.term = max(self.term, above.term + 1)
        return Epoch(self.term, 1)


def test_where_the_lease_is_kept_was_set_up_anew_and_the_operation_is_gone_on_with_all_the_same(file: Path) -> None:
    lease = NewLease([])
    lease.term = 50
    plan = Plan("shop", "db1", "db2", ())
    Operation.create(Journal(file), lease, "op", "switchover", Epoch(50, 1), plan).journal.close()
    lease.term = 1
    op = resume(file, lease, "test")
    assert op is not None
    op.end("aborted")
    op.journal.close()
    assert op.journal.path.name.startswith("op.51-")
    assert journal.outcome(journal.read(file)) == "aborted"
    assert resume(file, lease, "test") is None
