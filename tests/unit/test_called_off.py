"""A switchover that is called off, at every moment where that can be: undone before its commit, finished after it."""

from __future__ import annotations

import itertools
from pathlib import Path

from proxyroute.election import elect, make_plan
from proxyroute.errors import Aborted, ProxyRouteError, Refused
from proxyroute.model import Deadline
from proxyroute.operation import Operation
from proxyroute.site import Site
from proxyroute.switchover import switchover
from tests.support.fakeworld import FakeLease, FakeProxy, MortalJournal, World, make_world
from tests.unit.test_interrupted import POLICY, _assert_legal, _parts

_SAID = "called off by ann"


def _operation(world: World, proxy: FakeProxy, file: Path) -> Operation:
    lease = FakeLease([], world)
    view = Site("shop", dict(world.servers)).look(Deadline.after(1.0))
    plan = make_plan(view, "db1", elect(view, "db1", POLICY, "db2"), POLICY)
    epoch = lease.claim(proxy.epoch, "op")
    return Operation.create(MortalJournal(world, file), lease, "op", "switchover", epoch, plan)


def _switchover(world: World, proxy: FakeProxy, file: Path, after: int) -> tuple[ProxyRouteError | None, bool]:
    """Runs one that is called off once it was asked ``after`` times; returns how it ended, and whether it was asked."""
    asked = itertools.count()
    heeded = []

    def called_off() -> str:
        if next(asked) < after:
            return ""
        heeded.append(_SAID)
        return _SAID

    op = _operation(world, proxy, file)
    op.called_off = called_off
    try:
        switchover(_parts(world, proxy), op)
    except (Refused, Aborted) as error:
        return error, bool(heeded)
    else:
        return None, bool(heeded)
    finally:
        op.journal.close()


def test_it_is_undone_wherever_it_is_heeded_and_never_after_the_commit(tmp_path: Path) -> None:
    ended: list[str] = []
    for after in itertools.count():
        world, proxy = make_world()
        error, heeded = _switchover(world, proxy, tmp_path / f"{after}.jsonl", after)
        _assert_legal(world, proxy, f"called off after {after}")
        assert world.most_open == 1
        if not heeded:
            assert error is None
            assert world.servers["db2"].writable
            break
        assert error is not None
        assert _SAID in str(error)
        assert world.servers["db1"].writable
        assert world.servers["db2"].follows == "db1"
        ended.append(type(error).__name__)
    assert ended == sorted(ended, reverse=True), "refused as long as nothing was touched, aborted from then on"
    assert ended.count("Refused") >= 5
    assert ended.count("Aborted") >= 5


def test_a_wait_for_a_candidate_that_is_slow_ends_at_once(tmp_path: Path) -> None:
    world, proxy = make_world()
    op = _operation(world, proxy, tmp_path / "op.jsonl")
    said: list[str] = []
    op.called_off = lambda: "".join(said)
    with op.revocable():
        wait = op.patience(3600.0)
        assert not wait.passed
        assert wait.slice < 1.0, "whoever blocks asks again soon"
        said.append(_SAID)
        assert wait.passed
    op.heed()  # not heeded any more
    assert not op.patience(3600.0).passed
    op.journal.close()
