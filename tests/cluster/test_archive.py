"""What a dead primary had and nobody received: kept from its host, and applied to the server that takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from proxyroute.archive import save
from proxyroute.assembly import archive_folder, build_heir, build_parts, build_rebuilders
from proxyroute.config import load
from proxyroute.errors import Refused
from proxyroute.model import Deadline
from proxyroute.remains import replay
from tests.support.broken import ERRANT, ready, rows, run
from tests.support.lab import Lab

FLAVOURS = ("mysql",)
pytestmark = pytest.mark.usefixtures("client_programs")


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with start_lab(2) as started:
        ready(started, hosts=True)
        yield started


def test_what_nobody_received_is_kept_and_applied(lab: Lab) -> None:
    dead, heir = lab.cluster["db1"], lab.cluster["db2"]
    heir.sql("STOP SLAVE")
    before = [heir.value(f"@@global.{name}") for name in heir.settings]
    run(dead, [*ERRANT[:2], "FLUSH BINARY LOGS", *ERRANT[2:], "ALTER TABLE app.t ADD COLUMN w INT DEFAULT 7"])
    wanted = (dead.gtid(), rows(dead, "app.t"), rows(dead, "app.u"))
    dead.kill9()
    config = load(lab.config).cluster(None)
    parts, rebuilders = build_parts(config), build_rebuilders(config, lab.cluster.flavour)
    server, deadline = parts.site[heir.name], Deadline.after(60)
    known = server.position(deadline)
    archive = save(rebuilders[dead.name], known.minus(known), known, archive_folder(config), deadline)
    assert len(archive.transactions) == 5
    assert archive.missing.empty
    target = build_heir(config, heir.name, lab.cluster.flavour)
    assert replay(archive, target, lambda: server.position(deadline), deadline) == 5
    assert (heir.gtid(), rows(heir, "app.t"), rows(heir, "app.u")) == wanted
    assert replay(archive, target, lambda: server.position(deadline), deadline) == 0
    target.settle_replay(deadline)
    assert [heir.value(f"@@global.{name}") for name in heir.settings] == before, "what gave way is back"
    parts.site.close()


def test_it_is_not_applied_on_top_of_anything_else(lab: Lab) -> None:
    dead, heir = lab.cluster["db1"], lab.cluster["db2"]
    heir.sql("STOP SLAVE")
    run(dead, ERRANT)
    dead.kill9()
    config = load(lab.config).cluster(None)
    parts, rebuilders = build_parts(config), build_rebuilders(config, lab.cluster.flavour)
    server, deadline = parts.site[heir.name], Deadline.after(60)
    known = server.position(deadline)
    archive = save(rebuilders[dead.name], known.minus(known), known, archive_folder(config), deadline)
    heir.sql("INSERT INTO app.t VALUES (7000, 'its own')")
    before = heir.gtid()
    with pytest.raises(Refused, match=r"begins (at|before)"):
        replay(archive, build_heir(config, heir.name, lab.cluster.flavour), lambda: server.position(deadline), deadline)
    assert heir.gtid() == before
    parts.site.close()
