"""MySQL can want more than one replica to acknowledge a commit."""

from __future__ import annotations

import pytest

from tests.support.death import semi_sync
from tests.support.lab import Lab
from tests.support.mysql import MySQLCluster
from tests.support.scene import assert_order, books, other, switched

pytestmark = pytest.mark.matrix

_OPTIONS = {"rpl_semi_sync_source_wait_for_replica_count": 2, "rpl_semi_sync_source_timeout": 60000}


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_switchover_keeps_as_many_acknowledgers_as_its_primary_wants(replicas: int) -> None:
    """With just as many replicas none may leave the old primary before the freeze: its commits would stand still."""
    with Lab.start(1 + replicas, provider=MySQLCluster, semi_sync=True, options=_OPTIONS) as lab:
        new = lab.cluster[other(lab)]
        with books(lab):
            told = lab.json("plan", "--to", new.name)[1]
            (found,) = [f for f in told["findings"] if f["code"] == "semi_sync.alone"]
            assert "2 replicas have to acknowledge: the first commits wait" in found["text"]
            switched(lab, "--to", new.name)
        assert_order(lab, new.name)
        now = semi_sync(new)
        assert (now["master_status"], int(now["master_clients"])) == ("ON", replicas), now
        assert int(now["master_no_tx"]) == 0, "a commit was acknowledged by too few"
