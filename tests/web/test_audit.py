"""The file of the audit: each line whole or not there, whatever a crash or a full disk has left."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from proxyroute.errors import JournalError
from proxyroute.web.audit import Actor, Audit
from proxyroute.web.tokens import Scope
from tests.support.wait import until
from tests.support.web import make_web

ANN = Actor("ann", "192.0.2.1", "operate")


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path / "state" / "audit.jsonl")


def test_what_comes_after_a_torn_line_can_be_read(audit: Audit) -> None:
    audit.write(ANN, "heal", cluster="shop")
    with audit._file.open("ab") as file:
        file.write(b'{"at":1.0,"who":"ann","address":"192')
    audit.write(ANN, "pause", cluster="shop", why="the network")
    assert [e.what for e in audit.last()] == ["pause", "heal"]
    assert audit._file.read_bytes().endswith(b"}\n")


def test_after_a_crash_in_the_midst_of_a_line_the_same_key_still_counts(tmp_path: Path) -> None:
    order = {"kind": "publish", "reason": "once"}
    web = make_web(tmp_path)
    file = web.hub.audit._file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b'{"at":1.0,"who"')
    client = web.client(Scope.OPERATE, {"Idempotency-Key": "one"})
    first = client.post("/v1/clusters/shop/operations", json=order)
    assert first.status_code == 202
    until(lambda: any(e.what == "publish.ended" for e in web.hub.audit.last()), "its end to be on record")
    again = make_web(tmp_path)
    headers = {"Authorization": client.headers["Authorization"], "Idempotency-Key": "one"}
    second = again.client(headers=headers).post("/v1/clusters/shop/operations", json=order)
    assert second.json()["id"] == first.json()["id"], "it would be done twice"


def test_nobody_pushes_what_was_asked_for_out_of_sight(tmp_path: Path) -> None:
    """By orders as long as a body may be, or because another cluster is busy."""
    web = make_web(tmp_path)
    audit = web.hub.audit
    for number in range(20):
        audit.write(ANN, "pause", cluster="bank", why=f"early {number}")
    for _ in range(8):
        audit.write(ANN, "verify", cluster="shop", arguments={"tables": ["x" * 200] * 300})
    client = web.client(Scope.ADMIN)
    told = client.get("/v1/audit", params={"limit": 1000}).json()
    assert [e["what"] for e in told] == ["verify"] * 8 + ["pause"] * 20
    quiet = client.get("/v1/audit", params={"cluster": "bank", "limit": 5}).json()
    assert [e["why"] for e in quiet] == [f"early {n}" for n in (19, 18, 17, 16, 15)]
    more = client.get("/v1/audit", params={"cluster": "bank", "limit": 5, "before": quiet[-1]["at"]}).json()
    assert [e["why"] for e in more] == [f"early {n}" for n in (14, 13, 12, 11, 10)]
    assert client.get("/v1/audit", params={"before": "yesterday"}).status_code == 422


@pytest.mark.parametrize("longest", [1, 70, 1000, 65536, 65537, 200_000, 10**7])
def test_it_is_read_backwards_in_blocks_as_it_stands_there(audit: Audit, longest: int) -> None:
    for number in range(60):
        audit.write(ANN, "pause", why="x" * (number * 997 % 9000))
    lines = audit._file.read_bytes()[-longest:].split(b"\n")
    whole = lines[1:] if longest < audit._file.stat().st_size else lines
    wanted = [json.loads(line)["at"] for line in reversed(whole) if line]
    assert [e.at for e in audit.backwards(longest)] == wanted


def test_it_may_be_renamed_at_any_time(audit: Audit) -> None:
    audit.write(ANN, "pause")
    audit._file.rename(audit._file.with_suffix(".jsonl.1"))
    audit.write(ANN, "resume")
    assert [e.what for e in audit.last()] == ["resume"]


@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_what_a_full_disk_refuses_is_not_on_record(audit: Audit, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    audit.write(ANN, "heal", cluster="shop")
    before = audit._file.read_bytes()
    write = os.write

    def half(handle: int, data: bytes) -> int:
        return write(handle, data[: len(data) // 2])

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, fails, half if fails == "write" else full)
        with pytest.raises(JournalError, match=r"No space left on device; the audit must be writable"):
            audit.write(ANN, "pause", cluster="shop")
    assert audit._file.read_bytes() == before
    audit.write(ANN, "resume", cluster="shop")
    assert [e.what for e in audit.last()] == ["resume", "heal"]
