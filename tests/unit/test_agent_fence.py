"""Two engines publish, agents are restarted and killed: none ever goes back to an older epoch."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyroute.agent import Agent
from proxyroute.agent_memory import Local
from proxyroute.config_agent import AgentConfig
from proxyroute.errors import ShareError
from proxyroute.haproxy.release import Announcement, Answer, Memory, Phase, Release
from proxyroute.haproxy.share import Share
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Deadline, Epoch, Observed, Receipt, ReceiptState, RouteTable
from tests.support.wait import until
from tests.unit.test_release import KEY, release


@dataclass
class Memoryless:
    """A HAProxy that does what it is told and refuses nothing: only the agent stands between it and an old route."""

    routes: list[tuple[Epoch, str | None]] = field(default_factory=list)
    dies: bool = False

    def apply(self, table: RouteTable, _: Deadline) -> Receipt:
        if self.dies:
            raise _Killed
        self.routes.append((table.epoch, table.primary))
        return Receipt("edge1", ReceiptState.DONE, table.epoch)

    settle = apply

    def prepare(self, target: RouteTable, abort: RouteTable, _: Deadline) -> Receipt:
        return Receipt("edge1", ReceiptState.PREPARED, target.epoch)

    def hold(self, operation: str, _: Deadline) -> Receipt:
        return Receipt("edge1", ReceiptState.DONE, Epoch(0, 0))

    def release(self, _: Deadline) -> Receipt:
        return Receipt("edge1", ReceiptState.DONE, Epoch(0, 0))

    def observe(self, _: Deadline) -> Observed:
        return Observed("edge1", True)

    def pid(self, _: Deadline) -> int:
        return 1

    def follows(self, _: Deadline) -> bool:
        return False

    def seal(self) -> bool:
        return False


class _Killed(BaseException):
    pass


class Host(Agent):
    """An agent that drives the HAProxy of the test, and looks again by itself."""

    def __init__(self, config: AgentConfig, haproxy: Memoryless) -> None:
        super().__init__(config)
        self.told = haproxy
        self._watched = True

    def _haproxy(self, release: Release | None = None) -> Any:
        if release is None and self._route.release is None:
            raise ShareError("nothing has been published")
        return self.told


def config(folder: Path) -> AgentConfig:
    (folder / "shared").mkdir(exist_ok=True)
    key = folder / "key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    return AgentConfig(
        version=1,
        cluster="shop",
        host="edge1",
        folder=folder / "shared",
        key_file=key,
        config_file=folder / "haproxy.cfg",
        state_dir=folder / "state",
    )


def publish(
    share: Share, epoch: tuple[int, int], primary: str | None, phase: Phase, sequence: int, number: int
) -> None:
    """Publishes as an engine that has looked long ago would: whatever is there, it is overwritten."""
    wanted, back = release(epoch, primary), release(epoch, "db3")
    share.stage(wanted)
    share.stage(back)
    named = Announcement(f"id{number}", sequence, "shop", phase, "engine", route=wanted.name, seconds=1.0)
    if phase is Phase.PREPARE:
        named = replace(named, target=wanted.name, abort=back.name)
    share.publish(named, Deadline.after(10))


acts = st.one_of(
    st.tuples(
        st.just("publish"),
        st.tuples(st.integers(1, 3), st.integers(1, 3)),
        st.sampled_from(["db1", "db2", None]),
        st.sampled_from(list(Phase)),
        st.integers(1, 6),
    ),
    st.sampled_from([("step",), ("restart",), ("killed",), ("wiped",)]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(acts, min_size=2, max_size=14))
def test_no_interleaving_of_engines_and_restarts_leads_an_agent_back(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        made = config(Path(name))
        haproxy = Memoryless()
        share = Share(made.folder, "shop", KEY)
        share.make_folders()
        agent = Host(made, haproxy)
        for number, (what, *rest) in enumerate(script):
            if what == "publish":
                publish(share, *rest, number)
                agent.step()
            elif what == "step":
                agent.step()
            elif what == "wiped":  # somebody takes the announcement away
                (share.folder / "current.json").unlink(missing_ok=True)
                agent.step()
            else:
                if what == "killed":
                    haproxy.dies = True
                    try:
                        agent.step()
                    except _Killed:
                        haproxy.dies = False
                    haproxy.dies = False
                agent.close()
                agent = Host(made, haproxy)
                agent.step()
        agent.close()
        epochs = [epoch for epoch, _ in haproxy.routes]
        assert epochs == sorted(epochs)
        for epoch in set(epochs):
            primaries = [primary for known, primary in haproxy.routes if known == epoch]
            opened = [primary for primary in primaries if primary is not None]
            assert len(set(opened)) <= 1
            assert None not in primaries[primaries.index(opened[0]) :] if opened else True


def test_an_agent_that_was_away_takes_the_latest_route_and_says_so(tmp_path: Path) -> None:
    made, haproxy = config(tmp_path), Memoryless()
    share = Share(made.folder, "shop", KEY)
    share.make_folders()
    publish(share, (1, 1), "db1", Phase.SETTLE, 1, 1)
    publish(share, (1, 2), "db2", Phase.RELEASE, 2, 2)
    agent = Host(made, haproxy)
    agent.step()
    agent.close()
    assert haproxy.routes == [(Epoch(1, 2), "db2")]
    assert share.answer("edge1").answers == "id2"


def test_a_stale_engine_is_told_and_nothing_moves(tmp_path: Path) -> None:
    made, haproxy = config(tmp_path), Memoryless()
    share = Share(made.folder, "shop", KEY)
    share.make_folders()
    agent = Host(made, haproxy)
    publish(share, (2, 1), "db2", Phase.SETTLE, 1, 1)
    agent.step()
    for number, phase in enumerate(Phase, 2):
        publish(share, (1, 9), "db1", phase, number, number)
        agent.step()
        answer = share.answer("edge1")
        assert (answer.answers, answer.receipt.state) == (f"id{number}", ReceiptState.FAILED)
        assert "superseded" in answer.receipt.detail
    agent.close()
    assert set(haproxy.routes) == {(Epoch(2, 1), "db2")}


def test_on_a_disk_that_was_restored_what_is_staged_counts_and_what_is_old_does_not(tmp_path: Path) -> None:
    made, haproxy = config(tmp_path), Memoryless()
    share = Share(made.folder, "shop", KEY)
    share.make_folders()
    agent = Host(made, haproxy)
    publish(share, (2, 1), "db2", Phase.SETTLE, 1, 1)
    agent.step()
    old, target, back = release((1, 9), "db1"), release((3, 1), "db1"), release((2, 1), "db2")
    for each in (old, target, back):
        share.stage(each)
    told = []
    for number, phase in enumerate((Phase.HOLD, Phase.PREPARE, Phase.HOLD, Phase.RELEASE), 2):
        named = Announcement(f"id{number}", number, "shop", phase, "engine", route=old.name, seconds=1.0)
        if phase is Phase.PREPARE:
            named = replace(named, target=target.name, abort=back.name)
        share.publish(named, Deadline.after(10))
        agent.step()
        told.append(share.answer("edge1").receipt.state)
    agent.close()
    assert told == [ReceiptState.FAILED, ReceiptState.PREPARED, ReceiptState.DONE, ReceiptState.DONE]
    assert set(haproxy.routes) == {(Epoch(2, 1), "db2")}


def test_a_receipt_that_cannot_be_written_is_told_on_the_host_and_written_later(tmp_path: Path) -> None:
    made, haproxy = config(tmp_path), Memoryless()
    share = Share(made.folder, "shop", KEY)
    share.make_folders()
    publish(share, (2, 1), "db2", Phase.SETTLE, 1, 1)
    (share.folder / "acks").rmdir()
    agent = Host(made, haproxy)
    agent.step()
    assert haproxy.routes[-1] == (Epoch(2, 1), "db2")
    assert "the receipt cannot be written" in made.status_file.read_text()
    share.make_folders()
    agent.step()
    agent.close()
    assert share.answer("edge1").receipt.state is ReceiptState.DONE
    assert "cannot be written" not in made.status_file.read_text()


def test_a_receipt_waits_for_no_disk_and_soon_after_it_the_route_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Host(config(tmp_path), Memoryless())
    share = Share(tmp_path / "shared", "shop", KEY)
    share.make_folders()
    publish(share, (1, 2), "db1", Phase.APPLY, 1, 1)
    happened: list[str] = []
    acknowledge, sync = Share.acknowledge, os.fsync

    def told(share: Share, answer: Answer, deadline: Deadline) -> None:
        acknowledge(share, answer, deadline)
        happened.append(f"told {answer.receipt.state}")

    def synced(descriptor: int) -> None:
        happened.append("synced")
        sync(descriptor)

    monkeypatch.setattr(Worker, "call", lambda _, access, deadline: access())  # in this process, where we can count
    monkeypatch.setattr(Share, "acknowledge", told)
    monkeypatch.setattr(os, "fsync", synced)
    agent.step()
    assert happened == ["told done"]

    def lasting() -> bool:
        agent.step()
        return "synced" in happened

    until(lasting, "the route to be made lasting")
    agent.close()
    (tmp_path / "state" / "memory.last.json").unlink()
    recalled = Local(tmp_path / "state").recall()
    assert recalled is not None
    assert recalled[0].epoch == Epoch(1, 2)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 9}', b'{"format": 1, "release": {}}'])
def test_what_a_power_cut_damaged_is_passed_over_and_the_lasting_memory_counts(tmp_path: Path, damage: bytes) -> None:
    local = Local(tmp_path)
    first, second = release((1, 1), "db1"), release((1, 2), "db2")
    local.remember(Memory.of(first, 1), first)
    local.remember(Memory.of(second, 2), second, lasting=False)
    assert local.recall() == (Memory.of(second, 2), second)
    (tmp_path / "memory.last.json").write_bytes(damage)
    assert local.recall() == (Memory.of(first, 1), first)
    local.remember(Memory.of(second, 3), second)
    assert local.recall() == (Memory.of(second, 3), second)
    (tmp_path / "memory.json").write_bytes(damage)
    with pytest.raises(ShareError, match=r"memory\.json"):
        local.recall()
    local.close()
