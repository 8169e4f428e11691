"""The writers that read back what they wrote see it when a value is not what it should be, and only then."""

from __future__ import annotations

import contextlib

from tests.support.load import Load, create_table, create_values, wrong_values
from tests.support.mariadb import LocalCluster
from tests.support.wait import until

FLAVOURS = ("mysql",)
VALUES = "app.load_rows_values"


def test_a_value_that_somebody_else_changes_is_seen(cluster: LocalCluster) -> None:
    primary = cluster.primary
    create_table(primary)
    create_values(primary)
    with Load.start(primary.address, writers=2, rate=40, mode="values") as load:
        load.await_more(20)
        before = load.count()
        assert before["failed"] == 0

        def noticed() -> int:
            # as if its last write had been lost; one that comes in the midst of the next write is overwritten by that
            primary.sql(f"UPDATE {VALUES} SET n=n-1 WHERE writer=1")
            return load.count()["failed"]

        until(noticed, "a writer to notice", pause=0.1)
        load.await_more(5)
        records = load.stop()
    assert any("writer 1, " in text and ": read " in text for text in records.misread), records.misread
    assert all(text.startswith("writer 1, ") for text in records.misread), records.misread
    cluster.await_synced()
    for node in cluster:
        assert wrong_values(records, node) == []
    primary.sql(f"UPDATE {VALUES} SET n=n-1 WHERE writer=0")
    (wrong,) = wrong_values(records, primary)
    assert wrong.startswith("the value of writer 0 is ")


def test_a_session_that_is_cut_in_a_write_is_no_wrong_value(cluster: LocalCluster) -> None:
    primary = cluster.primary
    create_table(primary)
    create_values(primary)
    mine = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER='app'"
    with Load.start(primary.address, writers=4, rate=100, mode="values") as load:
        for _ in range(20):
            load.await_more(10)
            for row in primary.sql(mine):
                with contextlib.suppress(Exception):
                    primary.sql(f"KILL HARD CONNECTION {row['ID']}")
        records = load.stop()
    assert records.failed, "nobody was cut"
    assert records.misread == ()
    assert wrong_values(records, primary) == []
