"""What a rejoin makes of an error before anything was changed: a refusal is for a person, a silence is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute.decided import Plan
from proxyroute.errors import LeaseLost, ProxyRouteError, Refused, StatementError, TimedOut, Unreachable
from proxyroute.history import Ledger, Summary, fenced
from proxyroute.journal import Journal
from proxyroute.model import NO_EPOCH
from proxyroute.operation import Operation
from proxyroute.rejoin import rejoin
from proxyroute.site import Site
from tests.support.fakeworld import FakeLease, make_world


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unreachable("db3", "cannot connect"), "superseded"),
        (TimedOut("out of time while waiting for db3"), "superseded"),
        (LeaseLost("the lease is lost"), "superseded"),
        (StatementError("db3", 1227, "access denied"), "refused"),
    ],
)
def test_one_that_falls_silent_is_asked_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ProxyRouteError, outcome: str
) -> None:
    world, _ = make_world()
    server = world.servers["db3"]

    def fail(*_: object) -> Any:
        raise error

    monkeypatch.setattr(server, "look", fail)
    means: Any = SimpleNamespace(parts=SimpleNamespace(site=Site("shop", dict(world.servers))))
    plan = Plan("shop", "db1", "db3", ())
    op = Operation.create(Journal(tmp_path / "r1.jsonl"), FakeLease([]), "r1", "rejoin", NO_EPOCH, plan)
    with pytest.raises(Refused, match="db3 was left as it is"):
        rejoin(means, op, None)
    assert op.outcome == outcome
    barred = [s.candidate for s in fenced(Ledger(tmp_path).summaries())]
    assert barred == (["db3"] if outcome == "refused" else [])


def asked(folder: Path, means: Any, method: str) -> Operation:
    """Asks for ``method`` at db3, which is refused."""
    plan = Plan("shop", "db1", "db3", ())
    op = Operation.create(Journal(folder / f"{method}.jsonl"), FakeLease([]), method, "rejoin", NO_EPOCH, plan)
    with pytest.raises(Refused) as refusal:
        rejoin(means, op, method)
    op.note("; ".join(f.text for f in refusal.value.findings) or str(refusal.value))
    return op


def test_what_is_asked_in_vain_says_nothing_of_the_server(tmp_path: Path) -> None:
    """An undo where there is nothing to undo; a dump for one that is down. Both may follow by themselves later."""
    world, _ = make_world()
    no_way = SimpleNamespace(
        physical="copy",
        cannot_copy=lambda *_: ("db1 has no host",),
        cannot_dump=lambda *_: (),
        logs=lambda *_: (),
        name="db3",
    )
    site = Site("shop", dict(world.servers))
    claim: Any = SimpleNamespace(check=lambda: None)
    means: Any = SimpleNamespace(
        parts=SimpleNamespace(site=site, aside=tuple),
        rebuild={"db1": no_way, "db3": no_way},
        archive=tmp_path / "archive",
        claim=claim,
        settled=lambda: None,
    )
    undo = asked(tmp_path, means, "flashback")
    assert undo.outcome == "superseded"
    assert "db3 has nothing that db1 lacks" in undo.journal.records[-1]["text"]
    world.servers["db3"].alive = False
    anew = asked(tmp_path, means, "reseed")
    assert anew.outcome == "superseded"
    assert not anew.committed, "nobody waits for it to be built anew"
    assert "db3 is down, and a dump is loaded into a server that runs" in anew.journal.records[-1]["text"]
    assert fenced(Ledger(tmp_path).summaries()) == ()


def test_a_refusal_is_over_once_the_server_has_been_the_primary() -> None:
    def summary(kind: str, outcome: str, candidate: str) -> Summary:
        return Summary(kind, kind, outcome, 1.0, 1.0, "db1", candidate, None, None)

    refused = summary("rejoin", "refused", "db2")
    assert fenced([refused]) == (refused,)
    assert fenced([refused, summary("switchover", "done", "db3")]) == (refused,)
    assert fenced([refused, summary("switchover", "done", "db2")]) == ()
    assert fenced([summary("switchover", "done", "db2"), refused]) == (refused,)
    assert fenced([refused, summary("switchover", "aborted", "db2")]) == (refused,), "db1 stayed the primary"
