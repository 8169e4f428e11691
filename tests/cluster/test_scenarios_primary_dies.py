"""The old primary dies under the freeze of a switchover: another one takes over, as if there had been no switchover."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from tests.support.death import LOSSLESS, await_back, comes_back, seen_in_sync, waits_for_acknowledgements
from tests.support.engines import await_stopped, go_on
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.scene import assert_order, await_settled, beat
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
POINT = "mariadb.block_writes:after"
MORE = {
    "serve": {"period": "200ms", "proxies_period": "400ms"},
    "failover": {"mode": "automatic", "single_engine": True, "policy": "lossless"},
}
POLICY = {"undo": "3s", "prove": "3s", "settle": "10s"}


def test_a_primary_that_is_killed_under_the_freeze_is_replaced_by_serve(start_lab: Callable[..., Lab]) -> None:
    with start_lab(3, semi_sync=True, options=LOSSLESS, more=MORE, policy=POLICY) as lab:
        old = lab.cluster.primary
        create_table(old)
        lab.cluster.await_synced()
        until(lambda: waits_for_acknowledgements(lab.cluster), "somebody to acknowledge")
        with serving(lab) as served:
            seen_in_sync(lab)
            environment = {**os.environ, "PROXYROUTE_FAULT": f"engine/{POINT}@STOP"}
            argv = lab.command("switchover", "--yes")
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as engine:
                await_stopped(engine, POINT)
                old.kill9()
                go_on(engine)
                said = engine.communicate(timeout=60)[0]
            assert engine.returncode == 4, said
            served.await_told("acted", "failover", 60)
            new = beat(lab)
            assert new != old.name
            history = [(s["kind"], s["outcome"]) for s in lab.json("history")[1]["operations"]]
            assert sorted(history) == [("failover", "done"), ("switchover", "aborted")]
            comes_back(lab, served, old)
            await_back(lab, old)
            await_settled(lab)
        assert_order(lab, new)
