"""What an engine can see of a host that has not answered in time: whether it is silent, by what lies in the folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.adapters.publisher import AgentsSettings
from proxyroute.adapters.shared import SharedAdapter
from proxyroute.errors import TimedOut
from proxyroute.haproxy.release import Announcement, Answer
from proxyroute.haproxy.share import Share
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Deadline, Epoch, Receipt, ReceiptState
from tests.unit.test_release import KEY, release

CLOSED = release((1, 2), None).table
SILENCE = 10.0


@pytest.fixture
def share(tmp_path: Path) -> Share:
    """The folder, with a host in it that has said once that it closes by itself."""
    (tmp_path / "shared").mkdir()
    made = Share(tmp_path / "shared", "shop", KEY)
    made.make_folders()
    say(made, Answer("edge1", "shop", closes_after=SILENCE))
    return made


@pytest.fixture
def adapter(tmp_path: Path, share: Share) -> Iterator[SharedAdapter]:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    made = SharedAdapter(
        "edge1", "shop", CLOSED.servers, AgentsSettings(share.folder.parent, key, write="127.0.0.1:3306")
    )
    yield made
    made.close()


def say(share: Share, answer: Answer) -> None:
    share.acknowledge(answer, Deadline.after(5))


def announced(share: Share) -> Announcement:
    found = share.current()
    assert found is not None
    return found


def unanswered(adapter: SharedAdapter) -> Receipt:
    receipt = adapter.settle(CLOSED, Deadline.after(0.5))
    assert receipt.state is ReceiptState.UNKNOWN
    return receipt


def test_the_silence_of_a_host_counts_from_when_it_was_told(adapter: SharedAdapter, share: Share) -> None:
    assert adapter.closes_at(CLOSED) is None, "nobody has told it anything"
    before = time.monotonic()
    unanswered(adapter)
    told = adapter.closes_at(CLOSED)
    assert told is not None
    assert before + SILENCE < told < time.monotonic() + SILENCE - 0.3, "not from when nobody waited any longer"
    assert adapter.closes_at(release((1, 1), None).table) is None
    assert adapter.answer(CLOSED, Deadline.after(0.1)) is None
    say(share, Answer("edge1", "shop"))
    assert adapter.closes_at(CLOSED) is None, "it never closes by itself"


def test_a_host_that_has_read_its_route_is_not_silent(adapter: SharedAdapter, share: Share) -> None:
    unanswered(adapter)
    say(share, Answer("edge1", "shop", heard=announced(share).id, closes_after=SILENCE))
    found = adapter.answer(CLOSED, Deadline.after(0.1))
    assert found is not None
    assert (found.state, found.detail) == (
        ReceiptState.UNKNOWN,
        "it has read its route, and has not said yet what became of it",
    )


@pytest.mark.parametrize("state", [ReceiptState.DONE, ReceiptState.FAILED, ReceiptState.UNKNOWN])
def test_a_host_that_answers_late_is_heard_at_once(adapter: SharedAdapter, share: Share, state: ReceiptState) -> None:
    unanswered(adapter)
    said = Answer("edge1", "shop", announced(share).id, receipt=Receipt("edge1", state, CLOSED.epoch, "so it is"))
    timer = threading.Timer(0.1, say, (share, said))
    timer.start()
    began = time.monotonic()
    found = adapter.answer(CLOSED, Deadline.after(60))
    timer.join()
    assert time.monotonic() - began < 10
    assert found is not None
    assert (found.state, found.detail) == (state, "so it is")


def test_a_folder_that_did_not_take_the_route_is_no_silence_of_the_host(
    adapter: SharedAdapter, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs for the engine alone: the host goes on hearing of the route before."""

    def hangs(*_: object) -> None:
        raise TimedOut("the folder hangs")

    unanswered(adapter)
    with monkeypatch.context() as patched:
        patched.setattr(Worker, "call", hangs)
        receipt = unanswered(adapter)
    assert receipt.detail == "the folder hangs"
    assert adapter.closes_at(CLOSED) is None
    found = adapter.answer(CLOSED, Deadline.after(0.1))
    assert found is not None
    assert found.state is ReceiptState.UNKNOWN


def test_where_the_folder_cannot_be_read_in_the_end_nobody_knows(adapter: SharedAdapter, share: Share) -> None:
    unanswered(adapter)
    (share.folder / "acks" / "edge1.json").write_text("torn")
    found = adapter.answer(CLOSED, Deadline.after(0.1))
    assert found is not None
    assert found.state is ReceiptState.UNKNOWN
    assert found.detail.startswith("nobody knows whether it is silent: the receipt is cut off")


def test_a_receipt_without_the_sign_is_one_that_an_older_engine_reads() -> None:
    answer = Answer("edge1", "shop", "id", heard="other", receipt=Receipt("edge1", ReceiptState.DONE, Epoch(1, 1)))
    assert Answer.of(answer.values()) == answer
    assert "heard" not in replace(answer, heard="").values()
