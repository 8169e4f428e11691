"""SIGKILL around what stands beside an operation: those who are told of it, and the guard that ends its engine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill import GUARD_DIES, SETTINGS
from tests.chaos.world import assert_legal, await_closed, limits_of
from tests.support.lab import Lab, processes_of
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster
from tests.support.process import free_port
from tests.support.scene import configured
from tests.support.wait import until

FLAVOURS = ("mysql",)


@pytest.fixture(scope="module")
def lab(servers: type[LocalCluster]) -> Iterator[Lab]:
    with Lab.start(3, policy={**SETTINGS, "freeze_budget": "1s"}, provider=servers) as lab:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab


def receivers(lab: Lab) -> list[dict[str, object]]:
    """One of each kind; nobody listens, so that what was not sent is written down as well."""
    url = lab.folder / "webhook.url"
    url.touch(mode=0o600)
    url.write_text(f"http://127.0.0.1:{free_port()}/\n")
    post = {"type": "email", "host": "127.0.0.1", "port": free_port(), "tls": "none"}
    return [
        {"type": "webhook", "url": {"file": str(url)}},
        {**post, "sender": "proxyroute@example.net", "to": ["dba@example.net"]},
        {"type": "script", "run": ["true"]},
    ]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_killed_while_it_tells_how_it_ended(lab: Lab, tmp_path: Path) -> None:
    """The operation is over, whoever has heard of it: there is nothing to heal."""
    limits = limits_of(lab)
    with configured(lab, notices=receivers(lab)):
        traced = {"PROXYROUTE_FAULT_TRACE": str(tmp_path / "trace")}
        lab.run("switchover", "--yes", check=True, environment=traced)
        lines = (tmp_path / "trace").read_text().splitlines()
        points = [p for p in lines if p.startswith("engine/notice.") and p.endswith(":1")]
        swept("notices", points)
        for point in points:
            done = lab.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": point})
            assert done.returncode == -signal.SIGKILL, f"{point}: {done.stdout}{done.stderr}"
            await_closed(lab)
            healed = lab.run("heal")
            assert (healed.returncode, healed.stdout) == (0, "nothing is open\n"), point
            assert_legal(lab, limits)


SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"


def guards(lab: Lab) -> list[int]:
    """The processes of guards on the site."""
    found = [pid for pid in processes_of(lab.folder) if Path(f"/proc/{pid}/cmdline").exists()]
    return [pid for pid in found if b"proxyroute.guard" in Path(f"/proc/{pid}/cmdline").read_bytes()]


ENDING = ("guard/guard.end_engine:before", "guard/guard.end_engine:after", GUARD_DIES, "guard/guard.take_over:after")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "fault", [ENDING[1], *(pytest.param(f, marks=pytest.mark.full) for f in ENDING if f != ENDING[1])]
)
@pytest.mark.parametrize(
    "point", ["mariadb.block_writes:after", pytest.param("mariadb.accept_writes:after", marks=pytest.mark.full)]
)
def test_the_guard_is_killed_while_it_ends_an_engine_that_hangs_or_goes_on_in_its_place(
    lab: Lab, point: str, fault: str
) -> None:
    """What holds writes back ends by itself, or with its session; heal does the rest.

    An engine whose guard died before it could end it hangs on, and only a person ends it.
    """
    swept("a guard", ENDING)
    limits = limits_of(lab)
    faults = {**os.environ, "PROXYROUTE_FAULT": f"engine/{point}@STOP,{fault}"}
    with subprocess.Popen(lab.command("switchover", "--yes"), env=faults, **SILENT) as engine:
        try:
            until(lambda: stopped(engine.pid) or engine.poll() is not None, "the engine to hang", 60)
            if fault == ENDING[0]:
                until(lambda: not guards(lab), "the guard to die", 60)
                assert lab.run("heal").returncode == 6, "a living engine is left alone"
                engine.kill()
            assert engine.wait(60) == -signal.SIGKILL
        finally:
            engine.kill()
    await_closed(lab)
    healed = lab.run("heal")
    assert healed.returncode in (0, 7), healed.stdout + healed.stderr
    assert_legal(lab, limits)
