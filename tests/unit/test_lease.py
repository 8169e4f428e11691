"""The local lease: one holder across processes, terms and epochs that only grow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxyroute.errors import Busy, JournalError, LeaseLost
from proxyroute.lease.local import LocalLease
from proxyroute.model import NO_EPOCH, Deadline, Epoch

HOLD = """
import sys, time
from pathlib import Path
from proxyroute.lease.local import LocalLease
from proxyroute.model import Deadline
LocalLease(Path(sys.argv[1])).acquire("switchover of a test", Deadline.after(5))
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_is_refused_by_name_until_the_holder_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        lease = LocalLease(tmp_path)
        with pytest.raises(Busy, match=f"switchover of a test by .*:{holder.pid}"):
            lease.acquire("mine", Deadline.after(0.05))
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(5)
        assert lease.acquire("mine", Deadline.after(5)) > 1
        lease.release()
    finally:
        holder.kill()
        holder.wait(5)
        holder.stdin.close()
        holder.stdout.close()


def test_terms_and_epochs_only_grow(tmp_path: Path) -> None:
    seen = [NO_EPOCH]
    for number in range(4):
        lease = LocalLease(tmp_path)
        lease.acquire("test", Deadline.after(1))
        seen += [lease.claim(NO_EPOCH, f"op{number}") for _ in range(3)]
        lease.release()
    assert seen == sorted(set(seen))


def test_an_epoch_is_above_what_a_proxy_has_seen_even_of_a_later_term(tmp_path: Path) -> None:
    lease = LocalLease(tmp_path)
    lease.acquire("test", Deadline.after(1))
    assert lease.claim(Epoch(40, 7), "op") > Epoch(40, 7)
    lease.release()


def test_the_highest_epoch_of_others(tmp_path: Path) -> None:
    lease = LocalLease(tmp_path)
    lease.acquire("test", Deadline.after(1))
    mine = lease.claim(NO_EPOCH, "mine")
    theirs = lease.claim(NO_EPOCH, "theirs")
    again = lease.claim(NO_EPOCH, "mine")
    assert lease.highest() == again > theirs > mine
    assert lease.highest(besides="mine") == theirs
    lease.release()


def test_a_claim_whose_owner_was_never_written_is_nobodys(tmp_path: Path) -> None:
    """The process died between the two; it has not published anything under that epoch."""
    lease = LocalLease(tmp_path)
    lease.acquire("test", Deadline.after(1))
    lease.claim(NO_EPOCH, "mine")
    (tmp_path / "epochs" / "9.9").mkdir()
    assert lease.highest() == Epoch(9, 9)
    assert lease.highest(besides="mine") == NO_EPOCH
    assert lease.claim(NO_EPOCH, "mine") > Epoch(9, 9)
    lease.release()


def test_old_claims_are_forgotten(tmp_path: Path) -> None:
    lease = LocalLease(tmp_path)
    lease.acquire("test", Deadline.after(1))
    last = [lease.claim(NO_EPOCH, "op") for _ in range(70)][-1]
    assert len(list((tmp_path / "epochs").iterdir())) <= 50
    assert lease.highest() == last
    lease.release()


def test_a_lock_file_that_was_replaced_is_a_lost_lease(tmp_path: Path) -> None:
    lease = LocalLease(tmp_path)
    lease.acquire("test", Deadline.after(1))
    (tmp_path / "lease.lock").unlink()
    with pytest.raises(LeaseLost, match="replaced or removed"):
        lease.check()
    lease.release()
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(JournalError, match="taken"):
        LocalLease(tmp_path / "taken" / "x").acquire("test", Deadline.after(1))
