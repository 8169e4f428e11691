"""What ``serve`` only looks at does not keep it from acting, and what a restart has cost is told."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute import keeper
from proxyroute.deadline import Deadline
from proxyroute.decided import Action, Diagnosis, Plan
from proxyroute.errors import Aborted
from proxyroute.history import Summary, summarize
from proxyroute.known import Known
from proxyroute.model import Epoch, Observed, Status, View
from proxyroute.notify_message import Notice
from proxyroute.operation import Operation
from proxyroute.outcome import Result
from proxyroute.sight import Sightings
from proxyroute.standing import Order, Standing
from tests.support.builders import position, replica, server, view
from tests.support.fakeworld import FakeLease, MortalJournal, make_world

FINE = Diagnosis("NoProblem", "", Action.NONE, "db1")
SILENT = Diagnosis("PrimarySilent", "", Action.WAIT, "db1", wanted=Action.WAIT)
SEEN = view(server(1), replica(2))


class Sentry:
    """Sees a cluster in order until ``diagnosis`` says otherwise."""

    def __init__(self) -> None:
        self.diagnosis = FINE
        self.standing = Standing()
        self.known: Known | None = None
        self.sight: Any = SimpleNamespace(complete=True, view=SEEN)

    def sightings(self) -> Any:
        return self.sight

    def diagnose(self, *_: object) -> Diagnosis:
        return self.diagnosis

    def remember(self, *_: object) -> None: ...


class Engine:
    """Its proxy hangs, or the primary does, and that is what is found out while it is waited for."""

    def __init__(self, sentry: Sentry, hangs: str) -> None:
        self._sentry, self._hangs = sentry, hangs
        self.cut_short = ""

    def busy(self) -> bool:
        return False

    def last_move(self) -> None: ...

    def history(self) -> tuple[()]:
        return ()

    def _wait(self, what: str) -> None:
        if what == self._hangs:
            self._sentry.diagnosis = SILENT
            deadline = Deadline.after(3.0)
            while not deadline.passed:
                time.sleep(0.01)
            self.cut_short = what if deadline.at > time.monotonic() else ""

    def observe(self) -> tuple[Observed, ...]:
        self._wait("observe")
        return (Observed("edge1", reachable=False, detail="out of time"),)

    def inspect(self, seen: View) -> View:
        self._wait("inspect")
        return seen


def kept(sentry: Sentry, engine: Any, told: list[Notice] | None = None, show: Any = None) -> keeper.Keeper:
    config: Any = SimpleNamespace(
        name="shop", failover=SimpleNamespace(mode="automatic"), serve=SimpleNamespace(proxies_period=2.0)
    )
    hear = (told if told is not None else []).append
    return keeper.Keeper(config, engine, sentry, hear, show=show)  # type: ignore[arg-type]


@pytest.mark.parametrize("hangs", ["observe", "inspect"])
def test_what_hangs_while_it_is_only_looked_at_is_left_once_the_primary_is_silent(hangs: str) -> None:
    sentry = Sentry()
    engine = Engine(sentry, hangs)
    served = kept(sentry, engine)
    served.step()
    assert engine.cut_short == hangs
    assert served._observed == (), "what was cut short is no answer"


def test_who_looks_on_sees_what_happens_while_a_chore_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "glance", lambda engine, sentry, sightings, observed, diagnosis: diagnosis)
    shown: list[Any] = []
    sentry = Sentry()
    served = kept(sentry, Engine(sentry, "observe"), show=shown.append)
    for name in ("db2 lags", "db3 lags"):
        sentry.diagnosis = Diagnosis(name, "", Action.NONE, "db1")
        served._ask_at = 0.0
        assert served._urgent() == ""
    assert [d.name for d in shown] == ["db2 lags", "db3 lags"]


@pytest.mark.parametrize("wanted", [Action.FAILOVER, Action.CLOSE])
def test_while_it_may_not_act_the_state_is_told_and_the_proxies_are_looked_at(wanted: Action) -> None:
    """A primary that is dead, or has a rival, and an engine that has been told to do nothing: somebody reads this."""
    told: list[Notice] = []
    sentry = Sentry()
    sentry.diagnosis = Diagnosis("DeadPrimary", "", Action.NONE, "db1", wanted=wanted)
    sentry.standing = Standing(paused=Order("root", 1.0, "the network is worked at"))
    engine: Any = Engine(sentry, "nothing")
    engine.address_findings = lambda _: ()
    served = kept(sentry, engine, told)
    served.step()
    assert [o.proxy for o in served._observed] == ["edge1"]
    assert "state" in [notice.kind for notice in told]


def test_what_a_primary_has_lost_is_told_when_it_is_opened_again() -> None:
    told: list[Notice] = []
    sentry = Sentry()
    sentry.known = Known("db1", 1.0, executed=position("0-1-103"))
    sentry.sight = Sightings.of(view(server(1, "0-1-100", writable=False)), 10.0)
    engine: Any = SimpleNamespace(reopen=lambda name, **_: f"{name} takes writes again")
    served = kept(sentry, engine, told)
    served._acted(Diagnosis("PrimaryRestarted", "", Action.REOPEN, "db1"))
    assert (told[-1].level, told[-1].text) == (
        "warn",
        "db1 takes writes again; but it has lost 0-1-103 in its restart, which nobody has received",
    )
    sentry.sight = Sightings.of(view(server(1, "0-1-103", writable=False)), 10.0)
    served._acted(Diagnosis("PrimaryRestarted", "", Action.REOPEN, "db1"))
    assert (told[-1].level, told[-1].text) == ("good", "db1 takes writes again")


def test_one_that_was_refused_and_follows_since_is_let_rejoin_again() -> None:
    """Somebody has put it in order by hand; when it comes back from its next death nobody need be asked."""
    refused = Summary("r1", "rejoin", "refused", 1.0, 1.0, "db1", "db2", None, None)
    asked: list[str] = []

    def rejoin(name: str, **_: object) -> Result:
        asked.append(name)
        return Result("", "rejoin", "done", text=f"{name} follows db1")

    engine: Any = SimpleNamespace(
        busy=lambda: False,
        history=lambda: (refused,),
        intended=lambda *_: ("db1", ""),
        rejoin=rejoin,
        show=lambda _: (),
    )
    sentry = Sentry()
    sentry.known = Known("db1", 1.0, ("db2",), {"db1": 1, "db2": 2})
    served = kept(sentry, engine)

    def seen(replica_: Status) -> Sightings:
        return Sightings.of(view(server(1), replica_), time.monotonic())

    alone = server(2, writable=False)
    served._rejoin_who_returned(seen(alone))
    assert asked == [], "a person has to decide"
    served._rejoin_who_returned(seen(replica(2)))
    served._rejoin_who_returned(seen(alone))
    assert asked == ["db2"]


def test_a_failover_that_came_to_nothing_is_told_with_its_report(tmp_path: Path) -> None:
    """A receiver at night wants to know at which step, and what it was that answered nothing."""
    told: list[Notice] = []
    world, _ = make_world()
    records: list[Any] = []

    def failover(*_: object, **__: object) -> Any:
        lease = FakeLease([], world)
        plan = Plan("shop", "db1", "db2", ())
        journal = MortalJournal(world, tmp_path / "f1.jsonl")
        op = Operation.create(
            journal, lease, "f1", "failover", Epoch(1, 1), plan, diagnosis={"automatic": True, "name": "DeadPrimary"}
        )
        op.end("aborted", "db2 has fallen silent")
        records.extend(journal.records)
        raise Aborted("everything was undone: db2 has fallen silent")

    engine: Any = SimpleNamespace(
        failover=failover, show=lambda _: tuple(records), history=lambda: (summarize(records),) if records else ()
    )
    served = kept(Sentry(), engine, told)
    served._acted(Diagnosis("DeadPrimary", "", Action.FAILOVER, "db1"))
    assert (told[-1].kind, told[-1].level) == ("blocked", "bad")
    assert told[-1].details["report"]["operation"] == "f1"
    assert told[-1].details["report"]["outcome"] == "aborted"


UNSERVED = "needs 0-1-3, which db1 has not in its binary log any more; type: proxyroute rejoin db2 --method reseed"


@pytest.mark.parametrize(
    ("leftovers", "tries"),
    [
        ((f"follow db2: {UNSERVED}",), 1),
        (("follow db2: out of time",), 10),
        ((f"follow db2: {UNSERVED}", "unlock_account db2/app: out of time"), 10),
        ((f"follow db2: {UNSERVED}", "follow db3: out of time"), 1),
    ],
    ids=["hopeless", "not yet", "and something else", "and one that is not there"],
)
def test_one_that_only_a_rejoin_can_help_is_not_tried_again_while_it_stands_where_it_stood(
    leftovers: tuple[str, ...], tries: int
) -> None:
    left_at = frozenset(text.split()[1].rstrip(":").partition("/")[0] for text in leftovers)
    summary = Summary("s1", "switchover", "done", 1.0, 1.0, "db3", "db1", None, None, leftovers, left_at)
    healed: list[float] = []

    def heal(**_: object) -> tuple[()]:
        healed.append(time.monotonic())
        return ()

    engine: Any = SimpleNamespace(history=lambda: (summary,), heal=heal)
    served = kept(Sentry(), engine)

    def take_up(seen: View) -> None:
        served._chores.reset()
        served._take_up_leftovers(seen)

    for _ in range(10):
        take_up(SEEN)
    assert len(healed) == tries
    take_up(view(server(1), replica(2, executed="0-1-101")))
    assert len(healed) == tries + 1, "somebody has done something there"
