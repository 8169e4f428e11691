"""The journal: whole records only, torn ends cut, a full disk survived."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute import journal
from proxyroute.errors import JournalError
from proxyroute.journal import Journal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "op.jsonl"


@pytest.fixture
def book(file: Path) -> Iterator[Journal]:
    book = Journal(file)
    yield book
    book.close()


def test_records_are_numbered_lines_of_json_and_are_heard(file: Path) -> None:
    heard: list[str] = []
    book = Journal(file, lambda record: heard.append(record["kind"]))
    book.write("begin", operation="op")
    book.write("step", name="ümlaut", wait=False)
    book.close()
    lines = file.read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2]
    assert "ümlaut" in lines[1]
    assert heard == ["begin", "step"]
    assert journal.read(file) == book.records
    assert file.stat().st_mode & 0o077 == 0, "nobody else reads it"


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_line_was_never_a_record(file: Path, cut: int) -> None:
    book = Journal(file)
    book.write("begin", operation="op")
    book.write("end", outcome="done")
    book.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert [r["kind"] for r in journal.read(file)] == ["begin"]
    again = Journal(file)
    again.write("end", outcome="aborted")
    again.close()
    assert [r["kind"] for r in journal.read(file)] == ["begin", "end"]
    assert journal.outcome(journal.read(file)) == "aborted"


def test_a_damaged_line_in_the_middle_is_told_with_its_number(file: Path, book: Journal) -> None:
    book.write("begin", operation="op")
    with file.open("ab") as other:
        other.write(b"{nonsense\n")
    book.write("end", outcome="done")
    with pytest.raises(JournalError, match="line 2"):
        journal.read(file)


def test_a_newer_format_is_refused(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"v":2,"kind":"begin"}\n')
    with pytest.raises(JournalError, match="format 2, and this version reads 1"):
        journal.read(file)


def _full(monkeypatch: pytest.MonkeyPatch, file: Path, *, for_good: bool) -> None:
    real = os.write

    def write(handle: int, data: bytes) -> int:
        if for_good or file.with_suffix(".ballast").exists():
            real(handle, data[:3])  # as a full disk does: a piece of it fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(journal.os, "write", write)


def test_an_operation_that_has_begun_can_be_ended_on_a_full_disk(
    file: Path, book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.write("begin", operation="op")
    _full(monkeypatch, file, for_good=False)
    book.write("commit", goal={})
    book.write("end", outcome="done")
    assert [r["kind"] for r in journal.read(file)] == ["begin", "commit", "end"]


def test_what_only_tells_is_left_out_when_nothing_fits_and_what_counts_raises(
    file: Path, book: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.write("begin", operation="op")
    _full(monkeypatch, file, for_good=True)
    book.write("step", name="undo", wait=False)
    for kind in ("undo", "commit", "opening", "end"):
        with pytest.raises(JournalError, match="No space left"):
            book.write(kind)
    monkeypatch.undo()
    assert [r["kind"] for r in journal.read(file)] == ["begin"]


def test_the_ballast_goes_with_the_operation(file: Path) -> None:
    book = Journal(file)
    assert file.with_suffix(".ballast").stat().st_size > 10_000
    book.write("begin", operation="op")
    book.close()
    assert not file.with_suffix(".ballast").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(JournalError, match="taken"):
        Journal(tmp_path / "taken" / "op.jsonl")
