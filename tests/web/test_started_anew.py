"""Who follows a command while the daemon is started anew is told the same, with the same exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxyroute.assembly import journal_folder
from proxyroute.caller import Caller
from proxyroute.errors import Aborted, ProxyRouteError, Refused, Unfinished
from proxyroute.history import result_from
from proxyroute.journal import Listener
from proxyroute.outcome import Evidence, Proof, Result, Verdict
from proxyroute.web.commands import Command, Ticket
from tests.support.wait import until
from tests.support.web import Web, listening, make_web
from tests.unit.cli.samples import GOING, RECORDS
from tests.web.test_command_line import Far, Performer

DIFFERS = Proof((Evidence("db3", "has the data of db1", Verdict.NOT_PROVEN, "1 row"),))


class Journaling(Performer):
    """Puts an operation on record, and says how it ended as the engine does."""

    web: Web
    kind = "switchover"
    outcome = "done"

    def __call__(self, command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        records: list[dict[str, Any]] = [dict(r) for r in RECORDS]
        records[0] |= {"operation": caller.operation, "operation_kind": self.kind}
        records[-1]["outcome"] = self.outcome
        folder = journal_folder(self.web.config.clusters["shop"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{caller.operation}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        for record in records:
            listener(record)
        return (result_from(records),)


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    """The command line at a daemon that has been started anew when it tells that something is over."""
    performer = Journaling()
    performer.web = web = make_web(tmp_path, performer)

    def told(id: str) -> Ticket | None:
        until(lambda: any(e.operation == id and e.what.endswith(".ended") for e in web.hub.audit.last()), "its end")
        return make_web(tmp_path).hub.ticket(id)

    with listening(web) as url:
        far = Far(web, url, performer)
        monkeypatch.setattr(web.hub, "ticket", told)
        yield far


def ends(how: Result | ProxyRouteError | None) -> Callable[..., tuple[Result, ...]]:
    """Does a command without a journal."""

    def perform(*_: Any) -> tuple[Result, ...]:
        if isinstance(how, ProxyRouteError):
            raise how
        return (how,) if how is not None else ()

    return perform


@pytest.mark.parametrize(
    ("words", "kind", "outcome", "code", "said"),
    [
        (("switchover", "--yes"), "switchover", "done", 7, "PROVEN  db2 is the primary now"),
        (("heal",), "switchover", "done", 7, "PROVEN  db2 is the primary now"),
        (("heal",), "switchover", "aborted", 0, "switchover aborted"),
        (("rejoin", "db3", "--yes"), "rejoin", "done", 7, "PROVEN"),
    ],
)
def test_how_it_ended_is_told_by_its_journal(
    far: Far, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], kind: str, outcome: str, code: int, said: str
) -> None:
    monkeypatch.setattr(far.web.hub, "plan_switchover", lambda *_: GOING)
    assert isinstance(far.performer, Journaling)
    far.performer.kind, far.performer.outcome = kind, outcome
    done = far.run(*words)
    assert done.exit_code == code, done.output
    assert said in done.output
    assert "left to do: follow db3" in done.output


@pytest.mark.parametrize(
    ("words", "how", "code", "said"),
    [
        (("heal",), Unfinished("db2 does not answer; type 'proxyroute heal'"), 5, "db2 does not answer"),
        (("heal",), Aborted("everything was undone"), 4, "everything was undone"),
        (("rejoin", "db3", "--yes"), Refused("db3 has transactions of its own"), 3, "transactions of its own"),
        (("heal",), None, 0, "nothing is open"),
        (("verify",), Result("", "verify", "done", proof=DIFFERS, text="there are differences"), 7, "there are differ"),
        (("publish",), Result("", "publish", "done", text="edge1: done"), 0, "edge1: done"),
    ],
)
def test_what_has_no_journal_has_its_words_and_its_exit_code(
    far: Far, words: tuple[str, ...], how: Result | ProxyRouteError | None, code: int, said: str
) -> None:
    far.web.hub._own_perform = ends(how)
    done = far.run(*words)
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.split())


def test_a_journal_that_is_gone_leaves_the_words(far: Far) -> None:
    far.run("heal")
    (asked,) = far.web.hub.tickets("shop")
    (journal_folder(far.web.config.clusters["shop"]) / f"{asked.id}.jsonl").unlink()
    told = far.web.hub.ticket(asked.id)
    assert told is not None
    assert (told.state, told.text, told.results) == ("done", asked.text, ())
