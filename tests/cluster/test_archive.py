"""What a dead primary had and nobody received: kept from its host, and applied to the server that takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from proxyroute.archive import save
from proxyroute.assembly import archive_folder, build_heir, build_parts, build_rebuilders
from proxyroute.config import load
from proxyroute.db import heir
from proxyroute.db.heir import OWNER
from proxyroute.errors import Refused, ScriptFailed
from proxyroute.host import Program, pump
from proxyroute.model import Deadline
from proxyroute.remains import replay
from tests.support.broken import ERRANT, ready, rows, run
from tests.support.lab import Lab
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with start_lab(2) as started:
        ready(started, hosts=True)
        yield started


def test_what_nobody_received_is_kept_and_applied(lab: Lab) -> None:
    dead, target = lab.cluster["db1"], lab.cluster["db2"]
    target.sql("STOP SLAVE")
    before = [target.value(f"@@global.{name}") for name in target.settings]
    run(dead, [*ERRANT[:2], "FLUSH BINARY LOGS", *ERRANT[2:], "ALTER TABLE app.t ADD COLUMN w INT DEFAULT 7"])
    wanted = (dead.gtid(), rows(dead, "app.t"), rows(dead, "app.u"))
    dead.kill9()
    config = load(lab.config).cluster(None)
    parts, rebuilders = build_parts(config), build_rebuilders(config, lab.cluster.flavour)
    server, deadline = parts.site[target.name], Deadline.after(60)
    known = server.position(deadline)
    archive = save(rebuilders[dead.name], known.minus(known), known, archive_folder(config), deadline)
    assert len(archive.transactions) == 5
    assert archive.missing.empty
    applying = build_heir(config, target.name, lab.cluster.flavour)
    assert replay(archive, applying, lambda: server.position(deadline), deadline) == 5
    assert (target.gtid(), rows(target, "app.t"), rows(target, "app.u")) == wanted
    assert replay(archive, applying, lambda: server.position(deadline), deadline) == 0
    applying.settle_replay(deadline)
    assert [target.value(f"@@global.{name}") for name in target.settings] == before, "what gave way is back"
    parts.site.close()


def test_a_program_that_comes_after_the_end_of_whoever_began_it_applies_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, target = lab.cluster["db1"], lab.cluster["db2"]
    target.sql("STOP SLAVE")
    run(dead, ERRANT[:1])
    dead.kill9()
    config = load(lab.config).cluster(None)
    parts, rebuilders = build_parts(config), build_rebuilders(config, lab.cluster.flavour)
    server, deadline, at = parts.site[target.name], Deadline.after(60), target.gtid()
    known = server.position(deadline)
    archive = save(rebuilders[dead.name], known.minus(known), known, archive_folder(config), deadline)

    def too_late(source: Program, client: Program, deadline: Deadline) -> None:
        target.sql("KILL " + str(target.value(f"IS_USED_LOCK('{OWNER}')")))
        until(lambda: target.value(f"IS_USED_LOCK('{OWNER}')") is None, "the session that owns it to end")
        pump(source, client, deadline)

    monkeypatch.setattr(heir, "pump", too_late)
    applying = build_heir(config, target.name, lab.cluster.flavour)
    with pytest.raises(ScriptFailed, match="whoever began this is gone"):
        replay(archive, applying, lambda: server.position(deadline), deadline)
    applying.settle_replay(deadline)
    assert target.gtid() == at
    parts.site.close()


def test_it_is_not_applied_on_top_of_anything_else(lab: Lab) -> None:
    dead, target = lab.cluster["db1"], lab.cluster["db2"]
    target.sql("STOP SLAVE")
    run(dead, ERRANT)
    dead.kill9()
    config = load(lab.config).cluster(None)
    parts, rebuilders = build_parts(config), build_rebuilders(config, lab.cluster.flavour)
    server, deadline = parts.site[target.name], Deadline.after(60)
    known = server.position(deadline)
    archive = save(rebuilders[dead.name], known.minus(known), known, archive_folder(config), deadline)
    target.sql("INSERT INTO app.t VALUES (7000, 'its own')")
    before = target.gtid()
    applying = build_heir(config, target.name, lab.cluster.flavour)
    with pytest.raises(Refused, match=r"begins (at|before)"):
        replay(archive, applying, lambda: server.position(deadline), deadline)
    assert target.gtid() == before
    parts.site.close()
