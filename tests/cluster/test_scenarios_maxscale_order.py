"""In which order a driven MaxScale, the old and the new primary are told, by the settings of its services."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxyroute.db.freeze import lock_name
from proxyroute.journal import read
from tests.chaos.world import await_closed
from tests.cluster.test_scenarios_maxscale import begin, roles
from tests.support.clients import Clients
from tests.support.maxscale.answers import Request
from tests.support.maxscale.site import MaxScaleLab
from tests.support.scene import assert_order, other, switched
from tests.support.wait import until

__all__ = ["begin"]
RETRY = {"delayed_retry": True, "transaction_replay": True}
LOCK_EARLY: dict[str, Any] = {"freeze_budget": "3s", "lock_pause": "20ms", "lock_attempt": "100ms"}
READ_ONLY_FIRST = {**LOCK_EARLY, "order": "read_only_first"}
BACKUP_STAGE = {**LOCK_EARLY, "freeze": "backup_stage"}


@dataclass(frozen=True)
class Moment:
    """One change of a bit, and what the servers were like when it arrived."""

    what: str
    """``set new master`` and the like."""
    new_open: bool
    old_refuses: bool
    session: bool
    """A client's session on the old primary was still there."""


@contextlib.contextmanager
def watched(site: MaxScaleLab, new: str) -> Iterator[list[Moment]]:
    """Yields the changes of bits of the old and the new primary, with an idle client on the old one."""
    old, seen = site.cluster.primary, list[Moment]()
    names = {f"mx-{old.name}": "old", f"mx-{new}": "new"}
    with contextlib.ExitStack() as ends:
        clients = Clients(old, ends)
        number = clients.idle("SELECT 1")

        def look(request: Request) -> float:
            if request.method == "PUT" and "state=" in request.query:
                *_, server, verb = request.path.split("/")
                if server in names:
                    refuses = int(old.value("@@global.read_only")) != 0
                    opened = int(site.cluster[new].value("@@global.read_only")) == 0
                    what = f"{verb} {names[server]} {request.query.partition('state=')[2]}"
                    seen.append(Moment(what, opened, refuses, clients.alive(number)))
            return 0.0

        site.double.interfere = look
        yield seen
        site.double.interfere = lambda request: 0.0


@pytest.mark.parametrize("service", [RETRY, {}, {"master_reconnection": False}], ids=["retry", "reconnect", "plain"])
def test_the_bits_move_when_the_new_primary_is_open_and_sessions_end_only_then(
    begin: Callable[..., MaxScaleLab], service: dict[str, Any]
) -> None:
    site = begin("driving", policy=LOCK_EARLY, service_parameters=service)
    new = other(site)
    _, plan = site.json("plan", "--to", new)
    (told,) = [f for f in plan["findings"] if f["code"] == "maxscale.order"]
    assert "lock early, kill late" in told["text"]
    with watched(site, new) as seen:
        switched(site, "--to", new)
    assert seen[:2] == [
        Moment("set new master", new_open=True, old_refuses=False, session=True),
        Moment("clear old master", new_open=True, old_refuses=False, session=True),
    ], "nobody is without a Master, and nobody is cut off before there is another"
    assert [m.what for m in seen[2:]] == ["clear new slave", "set old slave"], "reads move last"
    assert all(m.old_refuses and not m.session for m in seen[2:])
    assert site.bits() == roles(site, new)
    assert_order(site, new)


@pytest.mark.parametrize("policy", [READ_ONLY_FIRST, BACKUP_STAGE], ids=["read_only_first", "backup_stage"])
def test_not_armed_the_master_is_cleared_first_where_every_service_makes_writes_wait(
    begin: Callable[..., MaxScaleLab], policy: dict[str, Any]
) -> None:
    site = begin("driving", policy=policy, service_parameters=RETRY)
    new = other(site)
    _, plan = site.json("plan", "--to", new)
    (told,) = [f for f in plan["findings"] if f["code"] == "maxscale.order"]
    assert "Master cleared first" in told["text"]
    (opening,) = [step for step in plan["steps"] if step["name"] == "open"]
    assert opening["what"].startswith("writes wait at mxs1")
    with watched(site, new) as seen:
        switched(site, "--to", new)
    assert seen[:2] == [
        Moment("clear old master", new_open=False, old_refuses=False, session=True),
        Moment("set new master", new_open=True, old_refuses=True, session=False),
    ]
    assert [m.what for m in seen[2:]] == ["clear new slave", "set old slave"]
    assert site.bits() == roles(site, new)
    assert_order(site, new)


@pytest.mark.parametrize("service", [{}, {"delayed_retry": True}], ids=["none", "without-replay"])
def test_not_armed_the_masters_overlap_where_a_service_would_let_writes_fail(
    begin: Callable[..., MaxScaleLab], service: dict[str, Any]
) -> None:
    site = begin("driving", policy=READ_ONLY_FIRST, service_parameters=service)
    new = other(site)
    _, plan = site.json("plan", "--to", new)
    (told,) = [f for f in plan["findings"] if f["code"] == "maxscale.order"]
    assert told["text"].startswith("overlap")
    assert "maxctrl alter service RW" in told["cure"]
    assert "order: lock_early" in told["cure"]
    with watched(site, new) as seen:
        switched(site, "--to", new)
    assert seen[:2] == [
        Moment("set new master", new_open=True, old_refuses=True, session=False),
        Moment("clear old master", new_open=True, old_refuses=True, session=False),
    ], "the new Master is set before the old one is cleared"
    assert_order(site, new)


@pytest.mark.parametrize("service", [RETRY, {}], ids=["retry", "none"])
def test_where_arming_fails_the_order_is_that_of_a_primary_that_is_not_armed(
    begin: Callable[..., MaxScaleLab], service: dict[str, Any]
) -> None:
    """It was planned to lock early. The session that arms the old primary is ended before its statement arrives."""
    site = begin("driving", policy=LOCK_EARLY, service_parameters=service)
    old, new = site.cluster.primary, other(site)
    environment = {**os.environ, "PROXYROUTE_FAULT": "engine/mariadb.arm:before@STOP"}
    argv = site.command("switchover", "--yes", "--to", new)
    with (
        watched(site, new) as seen,
        subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as engine,
    ):
        try:
            until(lambda: Path(f"/proc/{engine.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the stop")
            (file,) = (site.folder / "state").rglob("journal/*.jsonl")
            arming = old.value(f"IS_USED_LOCK('{lock_name(file.stem, 'switch')}')")
            old.sql(f"KILL {arming}")
        finally:
            engine.send_signal(signal.SIGCONT)
        output, _ = engine.communicate(timeout=60)
    assert engine.returncode == 0, output
    assert "not armed" in {r["name"]: r["detail"] for r in read(file) if r["kind"] == "stepped"}["arm"]
    first, then = seen[:2]
    if service:  # writes wait in MaxScale meanwhile
        assert first == Moment("clear old master", new_open=False, old_refuses=False, session=True)
        assert then == Moment("set new master", new_open=True, old_refuses=True, session=False)
    else:
        assert first == Moment("set new master", new_open=True, old_refuses=True, session=False)
        assert then == Moment("clear old master", new_open=True, old_refuses=True, session=False)
    assert site.bits() == roles(site, new)
    assert_order(site, new)


def test_killed_when_the_master_is_cleared_first_the_bits_are_as_they_were(begin: Callable[..., MaxScaleLab]) -> None:
    """The lock dies with the engine and nothing was opened: the guard goes back, and gives the old Master its bit."""
    site = begin("driving", policy=READ_ONLY_FIRST, service_parameters=RETRY)
    old, before = site.cluster.primary.name, site.bits()
    done = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": "engine/maxscale.state:after:1"})
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    await_closed(site)
    assert site.bits() == before, "the candidate gets its reads back as well"
    assert_order(site, old)
