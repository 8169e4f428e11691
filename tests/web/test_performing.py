"""What is done of an order: with an engine of its own, and about the primary that whoever asked has seen."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute.assembly import journal_folder
from proxyroute.caller import Caller
from proxyroute.contingency import Contingency
from proxyroute.decided import Action, Diagnosis
from proxyroute.engine import Engine
from proxyroute.errors import Refused
from proxyroute.failover import Orders
from proxyroute.web import performing
from proxyroute.web.audit import Actor
from proxyroute.web.commands import Command
from tests.support.web import make_web
from tests.unit.cli.samples import GOING

GONE = Diagnosis("DeadPrimary", "db1 is gone", Action.FAILOVER, "db1")


class ActedError(Exception):
    """The engine would act now."""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has db1 as the primary, or as the one that is gone, and takes orders until something would be touched."""
    config = make_web(tmp_path).config.clusters["shop"]
    dead = Contingency(GOING.view, GONE, None, GOING.plan, Orders(), (), go=True)
    monkeypatch.setattr(performing, "Sentry", contextlib.nullcontext)
    monkeypatch.setattr(performing, "foreseer", lambda *_, **__: lambda more: dead)
    monkeypatch.setattr(Engine, "plan", lambda *_: replace(GOING, findings=()))

    def act(*_: Any, **__: Any) -> Any:
        raise ActedError

    monkeypatch.setattr(Engine, "_operation", act)

    def ask(kind: str, **arguments: Any) -> None:
        command = Command(kind, "shop", Actor("ann", "10.0.0.9"), "", arguments)
        try:
            performing.perform(config, command, Caller("ann"), lambda _: None)
        finally:
            assert not journal_folder(config).exists(), "nothing is on record yet"

    return ask


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("switchover", "db2 is not the primary any more; look again: proxyroute plan"),
        ("failover", "db2 is not the one that is gone any more; look again: proxyroute plan --failover"),
    ],
)
def test_an_order_that_was_about_another_primary_is_refused_before_anything_is_on_record(
    ask: Any, kind: str, said: str
) -> None:
    with pytest.raises(Refused) as refused:
        ask(kind, target="db3", primary="db2", fenced_by="ann, who has cut off db2")
    assert str(refused.value) == said
    for primary in ({"primary": "db1"}, {}):
        with pytest.raises(ActedError):
            ask(kind, target="db3", **primary)
