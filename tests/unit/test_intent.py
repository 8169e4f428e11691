"""Who is meant to be primary."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute import intent
from proxyroute.errors import JournalError, Refused
from proxyroute.gtid import MySQLPosition
from proxyroute.history import Summary
from proxyroute.intent import Intent
from proxyroute.model import NO_EPOCH, Deadline, Epoch, Observed
from proxyroute.parts import Parts
from proxyroute.policy import Policy
from proxyroute.routes import Routes
from proxyroute.sight import Sightings
from proxyroute.site import Site
from proxyroute.upkeep import Upkeep
from tests.support.builders import position
from tests.support.fakeworld import FakeLease, NoHooks, World, make_world
from tests.unit.cli.samples import HEALTHY, server, view

MEANT = Intent("db1", Epoch(2, 3), 50.0)
MOVED = Summary("op", "switchover", "done", 100.0, 1.0, "db1", "db2", None, None, epoch="3.1")


def test_it_survives_the_disk(tmp_path: Path) -> None:
    intent.remember(tmp_path / "shop" / "intent.json", MEANT)
    assert intent.recall(tmp_path / "shop" / "intent.json") == MEANT


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "primary": "db1"}'])
def test_what_cannot_be_understood_is_no_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "intent.json").write_text(text)
    assert intent.recall(tmp_path / "intent.json") is None


def test_a_disk_that_takes_nothing_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"intent\.json"):
        intent.remember(tmp_path / "file" / "intent.json", MEANT)


def upkeep(file: Path, acted: Summary | None = None) -> Upkeep:
    world, proxy = make_world()
    parts = Parts(Site("shop", world.servers), Routes([proxy]), NoHooks())
    return Upkeep(parts, FakeLease([]), Policy, file, lambda: acted)


def restarted(
    aside: tuple[str, ...] = (), route: tuple[str | None, Epoch] = ("db1", Epoch(2, 3)), file: Path | None = None
) -> tuple[World, Upkeep]:
    """db1 has restarted and refuses writes; everybody has what it has. The proxy was told ``route`` last."""
    world, proxy = make_world()
    world.servers["db1"].writable, world.servers["db1"].uptime = False, 3.0
    proxy.primary, proxy.epoch = route
    parts = Parts(Site("shop", world.servers), Routes([proxy]), NoHooks())
    file = file or Path("/nowhere/intent.json")
    return world, Upkeep(parts, FakeLease([]), lambda: Policy(aside=aside), file, lambda: None)


def test_a_primary_that_has_restarted_is_opened_when_everybody_answers() -> None:
    world, upkeep = restarted()
    assert "db1 takes writes again" in upkeep.reopen("db1", semi_sync=False)
    assert [s.name for s in world.servers.values() if s.writable] == ["db1"]


def test_nobody_is_opened_while_a_server_is_silent_unless_that_is_in_maintenance() -> None:
    """It may take writes where we cannot see it, or have received what a crash has taken from the primary."""
    world, upkeep = restarted()
    world.servers["db3"].alive = False
    with pytest.raises(Refused, match=r"db3 does not answer.*proxyroute maintenance db3 on"):
        upkeep.reopen("db1", semi_sync=False)
    assert not world.servers["db1"].writable
    world, upkeep = restarted(aside=("db3",))
    world.servers["db3"].alive = False
    upkeep.reopen("db1", semi_sync=False)
    assert world.servers["db1"].writable


def seen_last(upkeep: Upkeep, ago: float = 1.0, **changes: Any) -> Sightings:
    """What was seen of everybody so many seconds ago, db3 being different by ``changes``."""
    seen = upkeep._parts.site.look(Deadline.after(5))
    db3 = replace(seen.servers["db3"], **changes)
    return Sightings.of(replace(seen, servers={**seen.servers, "db3": db3}), time.monotonic() - ago)


def test_who_has_fallen_silent_is_judged_by_what_was_seen_of_him_last() -> None:
    world, upkeep = restarted()
    last = seen_last(upkeep)
    opened = seen_last(upkeep, writable=True)
    ahead = seen_last(upkeep, executed=position("0-1-999999"))
    other = seen_last(upkeep, flavour="mysql", executed=MySQLPosition())
    world.servers["db3"].alive = False
    unlike = (opened, "db3 takes writes"), (ahead, "db3 has received what it lacks"), (other, "db3 is mysql")
    for wrong, told in unlike:
        with pytest.raises(Refused, match=told):
            upkeep.reopen("db1", semi_sync=False, last=wrong)
    assert not world.servers["db1"].writable
    upkeep.reopen("db1", semi_sync=False, last=last)
    assert world.servers["db1"].writable


def test_but_not_by_what_was_seen_before_the_primary_came_back() -> None:
    """Silent to us alone it went on receiving until the crash, which took from the primary what it has."""
    world, upkeep = restarted()
    last = seen_last(upkeep, ago=60.0)
    world.servers["db3"].alive = False
    with pytest.raises(Refused, match=r"db3 does not answer.*proxyroute maintenance db3 on"):
        upkeep.reopen("db1", semi_sync=False, last=last)
    assert not world.servers["db1"].writable


def test_who_answers_is_asked_in_maintenance_as_well() -> None:
    world, upkeep = restarted(aside=("db3",))
    world.servers["db3"].writable = True
    with pytest.raises(Refused, match="db3 takes writes"):
        upkeep.reopen("db1", semi_sync=False)
    world.servers["db3"].writable = False
    world.servers["db3"].write()
    with pytest.raises(Refused, match="db3 has received what it lacks"):
        upkeep.reopen("db1", semi_sync=False)
    assert not world.servers["db1"].writable


@pytest.mark.parametrize("route", [("db2", Epoch(2, 4)), (None, Epoch(3, 1))])
def test_what_another_engine_has_done_since_is_asked_of_the_proxies(
    tmp_path: Path, route: tuple[str | None, Epoch]
) -> None:
    """It has records of its own: ours still say db1. db2 is silent to us, and was closed when we saw it last."""
    intent.remember(tmp_path / "intent.json", MEANT)
    world, kept = restarted(route=route, file=tmp_path / "intent.json")
    last = seen_last(kept)
    world.servers["db2"].alive = False
    with pytest.raises(Refused, match=rf"db1 is not opened: edge1 was told since, under epoch {route[1]}"):
        kept.reopen("db1", semi_sync=False, last=last)
    assert not world.servers["db1"].writable

    world.servers["db2"].alive = world.servers["db2"].writable = world.servers["db1"].writable = True
    with pytest.raises(Refused, match="db2 is left alone: edge1 was told since"):
        kept.close_strays(["db2"])
    assert world.servers["db2"].writable


@pytest.mark.parametrize("route", [("db2", Epoch(2, 2)), ("db1", Epoch(9, 9)), (None, Epoch(2, 3))])
def test_what_was_told_before_or_means_the_same_hinders_nobody(tmp_path: Path, route: tuple[str | None, Epoch]) -> None:
    intent.remember(tmp_path / "intent.json", MEANT)
    world, kept = restarted(route=route, file=tmp_path / "intent.json")
    kept.reopen("db1", semi_sync=False)
    world.servers["db2"].writable = True
    assert "db2 was closed" in kept.close_strays(["db2"])


def test_the_higher_epoch_of_memory_and_operation_counts_whatever_the_clock_says(tmp_path: Path) -> None:
    file = tmp_path / "intent.json"
    assert upkeep(file).intent() is None
    intent.remember(file, MEANT)
    assert upkeep(file).intent() == MEANT
    since = upkeep(file, MOVED).intent()
    assert since is not None
    assert (since.primary, since.epoch) == ("db2", Epoch(3, 1))
    intent.remember(file, replace(MEANT, at=200.0))
    assert upkeep(file, MOVED).intent() == since
    published = replace(MEANT, epoch=Epoch(3, 2))
    intent.remember(file, published)
    assert upkeep(file, MOVED).intent() == published


def test_an_undone_operation_leaves_the_old_primary_meant(tmp_path: Path) -> None:
    found = upkeep(tmp_path / "intent.json", replace(MOVED, outcome="aborted")).intent()
    assert found is not None
    assert found.primary == "db1"


def test_a_primary_that_nobody_here_made_is_not_for_us_to_route_to(tmp_path: Path) -> None:
    file = tmp_path / "intent.json"
    kept = upkeep(file)
    assert kept.intended(HEALTHY, ()) == "db1", "the first one is taken as it is"
    intent.remember(file, replace(MEANT, primary="db2"))
    with pytest.raises(Refused, match="proxyroute publish"):
        kept.intended(HEALTHY, ())
    seen = Observed("edge1", True, Epoch(2, 3), "db1")
    with pytest.raises(Refused):
        kept.intended(HEALTHY, [seen])
    assert kept.intended(HEALTHY, [replace(seen, epoch=Epoch(2, 4))]) == "db1", "another engine published it since"
    with pytest.raises(Refused, match="not exactly one"):
        kept.intended(view(server(1), server(2)), ())


def test_what_was_published_is_meant_while_no_proxy_shows_an_epoch(tmp_path: Path) -> None:
    """Somebody has moved the primary by hand and typed publish; proxies that are away show nothing of it."""
    file = tmp_path / "intent.json"
    kept = upkeep(file, MOVED)
    intent.remember(file, replace(MEANT, epoch=Epoch(4, 1)))
    for _ in range(2):
        kept.remember(HEALTHY, ())
        assert (found := kept.intent())
        assert (found.primary, found.epoch) == ("db1", Epoch(4, 1))


def test_what_was_only_seen_gives_way_to_an_operation_since_and_not_to_one_before(tmp_path: Path) -> None:
    file = tmp_path / "intent.json"
    for at, primary in ((50.0, "db2"), (200.0, "db1")):
        intent.remember(file, replace(MEANT, epoch=NO_EPOCH, at=at))
        assert (found := upkeep(file, MOVED).intent())
        assert found.primary == primary


def test_a_publish_is_above_all_that_was_done_under_another_kind_of_lease(tmp_path: Path) -> None:
    kept = upkeep(tmp_path / "intent.json", replace(MOVED, epoch="4500.1"))
    kept.publish(HEALTHY, "db1", ())
    assert (found := kept.intent())
    assert (found.primary, found.epoch > Epoch(4500, 1)) == ("db1", True)
