"""What is kept of a cluster in order, and who is meant to be its primary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute import known
from proxyroute.errors import JournalError, Refused
from proxyroute.history import Summary
from proxyroute.known import Known
from proxyroute.model import Epoch, Observed, Policy
from proxyroute.parts import Parts
from proxyroute.routes import Routes
from proxyroute.site import Site
from proxyroute.upkeep import Upkeep
from tests.support.fakeworld import FakeLease, NoHooks, make_world
from tests.unit.cli.samples import HEALTHY, server, view

KNOWN = Known("db1", Epoch(2, 3), {"db1": 1, "db2": 2}, ("db2",), 50.0)
MOVED = Summary("op", "switchover", "done", 100.0, 1.0, "db1", "db2", None, None, epoch="3.1")


def test_it_survives_the_disk(tmp_path: Path) -> None:
    known.remember(tmp_path / "shop" / "known.json", KNOWN)
    assert known.recall(tmp_path / "shop" / "known.json") == KNOWN


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "primary": "db1"}'])
def test_what_cannot_be_understood_is_no_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "known.json").write_text(text)
    assert known.recall(tmp_path / "known.json") is None


def test_a_disk_that_takes_nothing_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"known\.json"):
        known.remember(tmp_path / "file" / "known.json", KNOWN)


def test_only_a_view_with_one_primary_is_an_order() -> None:
    found = known.of(HEALTHY, Epoch(1, 1))
    assert found is not None
    assert (found.primary, found.replicas, found.server_ids) == ("db1", ("db2", "db3"), {"db1": 1, "db2": 2, "db3": 3})
    assert known.of(view(server(1), server(2)), Epoch(1, 1)) is None


def upkeep(file: Path, acted: Summary | None = None) -> Upkeep:
    world, proxy = make_world()
    parts = Parts(Site("shop", world.servers), Routes([proxy]), NoHooks())
    return Upkeep(parts, FakeLease([]), Policy(), file, lambda: acted)


def test_the_later_of_memory_and_operation_counts(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    assert upkeep(file).known() is None
    known.remember(file, KNOWN)
    assert upkeep(file).known() == KNOWN
    since = upkeep(file, MOVED).known()
    assert since is not None
    assert (since.primary, since.epoch) == ("db2", Epoch(3, 1))
    known.remember(file, replace(KNOWN, at=200.0))
    assert upkeep(file, MOVED).known() == replace(KNOWN, at=200.0)


def test_an_undone_operation_leaves_the_old_primary_meant(tmp_path: Path) -> None:
    found = upkeep(tmp_path / "known.json", replace(MOVED, outcome="aborted")).known()
    assert found is not None
    assert found.primary == "db1"


def test_a_primary_that_nobody_here_made_is_not_for_us_to_route_to(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    kept = upkeep(file)
    assert kept.intended(HEALTHY, ()) == "db1", "the first one is taken as it is"
    known.remember(file, replace(KNOWN, primary="db2"))
    with pytest.raises(Refused, match="proxyroute publish"):
        kept.intended(HEALTHY, ())
    seen = Observed("edge1", True, Epoch(2, 3), "db1")
    with pytest.raises(Refused):
        kept.intended(HEALTHY, [seen])
    assert kept.intended(HEALTHY, [replace(seen, epoch=Epoch(2, 4))]) == "db1", "another engine published it since"
    with pytest.raises(Refused, match="not exactly one"):
        kept.intended(view(server(1), server(2)), ())
