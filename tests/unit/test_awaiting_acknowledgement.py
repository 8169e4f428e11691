"""A MySQL primary whose commits wait does not count them yet, and who acknowledges has them: nothing is errant or lost.

The source counts a commit (``gtid_executed``) once as many as it wants have acknowledged it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxyroute import topology
from proxyroute.decided import Diagnosis
from proxyroute.diagnosis import diagnose
from proxyroute.election import elect, make_plan, rejections
from proxyroute.gtid import MySQLPosition
from proxyroute.journal import Journal
from proxyroute.latecomers import look_again
from proxyroute.model import Deadline, Epoch, Receiver, SemiSync, Source, Status
from proxyroute.opening import APART
from proxyroute.operation import Operation
from proxyroute.outcome import Verdict
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.preflight import survey
from proxyroute.proof import _replica
from proxyroute.site import Site
from proxyroute.switchover import _apart
from tests.support.builders import channel, replica, server, silent, view
from tests.support.fakeworld import FakeLease, make_world
from tests.support.story import look, well
from tests.unit.test_interrupted import _parts

ONE, TWO, THREE = (f"{n:08x}-0000-0000-0000-000000000000" for n in (1, 2, 3))
COUNTED, PENDING = f"{ONE}:1-100", f"{ONE}:1-101"
WAITING = SemiSync(True, True, True, clients=2, wait_point="AFTER_SYNC", timeout_seconds=60.0, wanted=2, waiting=1)
POLICY = FailoverPolicy(policy="most_advanced")
QUIET = replace(WAITING, waiting=0)


def gtids(text: str) -> MySQLPosition:
    return MySQLPosition.parse(text)


def primary(sync: SemiSync = WAITING, **changes: Any) -> Status:
    """db1, a MySQL primary that has been up for long."""
    told: dict[str, Any] = {
        "flavour": "mysql",
        "uuid": ONE,
        "executed": gtids(COUNTED),
        "semi_sync": sync,
        "uptime_seconds": 9e4,
    }
    return replace(server(1), **(told | changes))


def follower(number: int, executed: str = PENDING, *sources: Source, **changes: Any) -> Status:
    """A MySQL replica of db1 that has got what db1 still waits with."""
    uuid = (ONE, TWO, THREE)[number - 1]
    told: dict[str, Any] = {"flavour": "mysql", "uuid": uuid, "executed": gtids(executed)}
    return replace(replica(number, *(sources or (fetching(executed),))), **(told | changes))


def fetching(received: str = PENDING, **changes: Any) -> Source:
    return replace(channel(source_uuid=ONE, **changes), received=gtids(received))


STOPPED = fetching(receiver=Receiver.STOPPED, receiver_errno=13114, error="has more GTIDs than its source")


# -- What is on its way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "status", "coming"),
    [
        (primary(), follower(2), True),
        (primary(), follower(2, PENDING, fetching(applier=False)), True),
        (primary(QUIET), follower(2), False),
        (primary(replace(WAITING, primary_enabled=False)), follower(2), False),
        (primary(), follower(2, PENDING, STOPPED), False),
        (primary(), follower(2, PENDING, fetching(receiver=Receiver.CONNECTING)), False),
        (primary(), follower(2, PENDING, replace(fetching(), source_uuid=THREE)), False),
        (primary(), follower(2, f"{PENDING},{TWO}:1"), False),
        (primary(uptime_seconds=3.0), follower(2), False),
    ],
    ids=[
        "waits",
        "not-applying",
        "nothing-waits",
        "off",
        "refused",
        "no-contact",
        "another-source",
        "its-own",
        "young",
    ],
)
def test_only_what_a_live_receiver_gets_from_a_waiting_primary_is_on_its_way(
    top: Status, status: Status, coming: bool
) -> None:
    assert topology.on_its_way(top, status, status.executed.minus(top.executed)) is coming


# -- What is counted a moment after it was sent -----------------------------------------------------------------------


class _Read:
    """A server that is read as ``status``; its position may have got further each time that it is asked for."""

    def __init__(self, status: Status, *positions: str) -> None:
        self.name, self.address, self._status = status.name, status.address, status
        self.left = list(positions)

    def look(self, deadline: Deadline) -> Status:
        return self._status

    def position(self, deadline: Deadline) -> MySQLPosition:
        return gtids(self.left.pop(0) if len(self.left) > 1 else self.left[0])


@pytest.mark.parametrize(
    ("positions", "errant"), [((COUNTED, COUNTED, PENDING), set()), ((COUNTED,), {"db2"})], ids=["soon", "never"]
)
def test_what_a_primary_counts_in_a_moment_is_nobodys_errant_transaction(
    positions: tuple[str, ...], errant: set[str]
) -> None:
    """Without any acknowledgement: MySQL counts a commit some milliseconds after it has sent it."""
    servers: dict[str, Any] = {s.name: s for s in (_Read(primary(QUIET), *positions), _Read(follower(2)))}
    seen = Site("shop", servers).look(Deadline.after(5))
    assert {f.subject for f in survey(seen, Policy()) if f.code in ("candidate.errant", "replica.errant")} == errant


def test_what_waits_to_be_acknowledged_is_not_waited_for() -> None:
    top = _Read(primary(), COUNTED, PENDING)
    Site("shop", cast(Any, {"db1": top, "db2": _Read(follower(2))})).look(Deadline.after(5))
    assert top.left == [PENDING]


# -- A diagnosis ----------------------------------------------------------------------------------------------------


def judge(*seen: Status) -> Diagnosis:
    return diagnose(well(*seen), POLICY, 5.1)


@pytest.mark.parametrize(
    ("clients", "wanted", "told"),
    [
        (1, 2, "wait for 2 acknowledgements and replicas can give 1 (waiting: 1, for up to 60 s)"),
        (0, 2, "wait for 2 acknowledgements and replicas can give none"),
        (0, 1, "wait for an acknowledgement and no replica can give one"),
    ],
)
def test_fewer_acknowledgers_than_wanted_lock_a_primary_and_it_has_lost_nothing(
    clients: int, wanted: int, told: str
) -> None:
    sync = replace(WAITING, clients=clients, wanted=wanted)
    found = judge(primary(sync), follower(2), follower(3, COUNTED, fetching(COUNTED, receiver=Receiver.STOPPED)))
    assert found.name == "LockedSemiSyncPrimary"
    assert told in found.text


def test_nor_has_it_lost_anything_in_the_first_moment_of_that() -> None:
    locked = replace(WAITING, clients=1)
    found = well(primary(QUIET), follower(2, COUNTED), follower(3, COUNTED))
    found = look(look(found, 5.0, follower(2, PENDING, STOPPED)), 5.5, primary(locked))
    assert diagnose(found, POLICY, 5.6).name != "PrimaryLostEvents"


def test_nor_when_it_is_read_right_after_a_replica_that_has_just_received() -> None:
    found = well(primary(QUIET), follower(2, COUNTED), follower(3, COUNTED))
    found = look(look(found, 5.0, follower(2, PENDING)), 5.02, primary(QUIET))
    assert diagnose(found, POLICY, 5.1).name == "NoProblem"
    assert diagnose(look(found, 5.5, primary(QUIET)), POLICY, 5.6).name == "PrimaryLostEvents"


def test_nor_while_enough_can_acknowledge_and_one_is_slow() -> None:
    assert judge(primary(), follower(2), follower(3, COUNTED)).name == "NoProblem"


def test_what_a_crash_took_is_told_although_others_acknowledge() -> None:
    found = judge(primary(), follower(2, PENDING, STOPPED), follower(3, COUNTED))
    assert found.name == "PrimaryLostEvents"
    assert judge(primary(QUIET), follower(2), follower(3, COUNTED)).name == "PrimaryLostEvents"


# -- A plan, a switchover and its proof -----------------------------------------------------------------------------


def against(top: Status, status: Status) -> list[str]:
    seen = view(top, status, follower(3, COUNTED))
    found = [r.code for r in rejections(seen, "db1", Policy(), status.name)]
    return found + [f.code for f in survey(seen, Policy()) if f.code == "replica.errant"]


def test_a_replica_that_acknowledged_is_not_errant() -> None:
    assert against(primary(), follower(2)) == []
    assert elect(view(primary(), follower(2), follower(3, COUNTED)), "db1", Policy()).winner == "db2"


def test_what_nothing_waits_for_or_it_wrote_itself_is_errant() -> None:
    assert "candidate.errant" in against(primary(QUIET), follower(2))
    assert "candidate.errant" in against(primary(), follower(2, f"{PENDING},{TWO}:1"))


def test_it_is_not_set_apart_so_that_what_it_gets_later_still_counts() -> None:
    assert _apart(view(primary(), follower(2), follower(3, f"{COUNTED},{THREE}:1"))) == ["db3"]
    assert _apart(view(primary(QUIET), follower(2))) == ["db2"]


@pytest.mark.parametrize(("sync", "apart"), [(WAITING, []), (QUIET, ["db3"])])
def test_nor_when_it_was_silent_at_first(tmp_path: Path, sync: SemiSync, apart: list[str]) -> None:
    world, proxy = make_world()
    parts, lease = _parts(world, proxy), FakeLease([])
    seen = parts.site.look(Deadline.after(1.0))
    plan = make_plan(seen, "db1", elect(seen, "db1", Policy()), Policy())
    op = Operation.create(Journal(tmp_path / "1.jsonl"), lease, "op", "switchover", Epoch(1, 1), plan)
    world.servers["db1"].look = lambda _: primary(sync)  # type: ignore[method-assign]
    world.servers["db3"].look = lambda _: follower(3)  # type: ignore[method-assign]
    assert look_again(parts, op, replace(seen, servers={**seen.servers, "db3": silent(3)})) == "db3 is back"
    assert op.kept(APART, []) == apart


@pytest.mark.parametrize(
    ("sync", "verdict", "told"),
    [(WAITING, Verdict.UNKNOWN, "still waits there to be acknowledged"), (QUIET, Verdict.NOT_PROVEN, f"{ONE}:101")],
)
def test_a_proof_calls_it_unknown(sync: SemiSync, verdict: Verdict, told: str) -> None:
    status = follower(2)
    op = cast("Operation", SimpleNamespace(goal=None))
    (found,) = _replica(op, status, primary(sync), status.executed, mine=False)
    assert found.verdict is verdict
    assert found.seen.endswith(told)
