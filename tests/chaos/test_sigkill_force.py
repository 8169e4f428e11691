"""SIGKILL around the acts of ``--force`` beside a privileged writer, and of a hook that routes something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.swept import swept
from tests.chaos.test_sigkill import SETTINGS, _points, _sweep
from tests.chaos.world import EACH
from tests.support.accounts import Account
from tests.support.lab import Lab
from tests.support.load import create_table

FLAVOURS = ("mysql",)
WRITER = Account("billing", "lab-billing")
LOCKED = "SELECT User FROM mysql.global_priv WHERE User='billing' AND JSON_VALUE(Priv, '$.account_locked')"
NOBODY = "super_read_only stops every account: there is no privileged writer, and nobody is locked"


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """A site with a hook beside HAProxy."""
    with start_lab(3, policy=SETTINGS, force=True) as lab:
        primary = lab.cluster.primary
        create_table(primary)
        lab.cluster.await_synced()
        route = lab.folder / "hook.route"
        route.write_text(primary.name)
        values = yaml.safe_load(lab.config.read_text())
        values["clusters"]["demo"]["proxies"].append(
            {
                "type": "hook",
                "name": "other",
                "set": ["/bin/sh", "-c", f"echo $PROXYROUTE_PRIMARY_NAME > {route}"],
                "read": ["/bin/cat", str(route)],
            }
        )
        lab.config.write_text(yaml.safe_dump(values))
        lab.run("publish", check=True)
        yield lab


@pytest.fixture
def forced(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The same, with a privileged account at work whenever a switchover begins, which is forced."""
    primary, run, sessions = lab.cluster.primary, lab.run, []
    primary.sql(f"CREATE USER {WRITER.user}@'%' IDENTIFIED BY '{WRITER.password}'")
    primary.sql(f"GRANT READ_ONLY ADMIN ON *.* TO {WRITER.user}@'%'")
    lab.cluster.await_synced()

    def beside_it(*words: str, **options: Any) -> Any:
        if words[0] == "switchover":
            sessions.append(lab.cluster.primary.connect(WRITER))
            words = (*words, "--force")
        return run(*words, **options)

    monkeypatch.setattr(lab, "run", beside_it)
    yield lab
    for session in sessions:
        session.close()


def acts(lab: Lab, names: tuple[str, ...], trace: Path) -> list[str]:
    """Returns the points around the acts that begin so, as an undisturbed switchover passes them."""
    return [p for p in _points(lab, trace) if p.removeprefix("engine/").startswith(names)]


def in_turn(points: list[str], step: int) -> list[tuple[str, str]]:
    return [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points[::step])]


@pytest.mark.mariadb_only(NOBODY)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", EACH)
def test_killed_around_acts_of_force(forced: Lab, tmp_path: Path, step: int) -> None:
    points = acts(forced, ("mariadb.lock_account", "mariadb.unlock_account"), tmp_path / "trace")
    swept("switchover by force", points)
    _sweep(forced, in_turn(points, step))
    assert [node.name for node in forced.cluster if node.sql(LOCKED)] == [], "the account is left locked"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", EACH)
def test_killed_around_acts_of_hooks(lab: Lab, tmp_path: Path, step: int) -> None:
    points = acts(lab, ("hook.run",), tmp_path / "trace")
    swept("switchover with a hook", points)
    _sweep(lab, in_turn(points, step))
