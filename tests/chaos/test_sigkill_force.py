"""SIGKILL around the acts of ``--force`` beside a privileged writer, and of a hook that routes something else."""

from __future__ import annotations

from collections.abc import Iterator
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

ACTS = ("mariadb.lock_account", "mariadb.unlock_account", "hook.run")
WRITER = Account("billing", "lab-billing")
LOCKED = "SELECT User FROM mysql.global_priv WHERE User='billing' AND JSON_VALUE(Priv, '$.account_locked')"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A site with a hook beside HAProxy, and a privileged account at work whenever a switchover begins."""
    with Lab.start(3, policy=SETTINGS, force=True) as lab:
        primary = lab.cluster.primary
        create_table(primary)
        primary.sql(f"CREATE USER {WRITER.user}@'%' IDENTIFIED BY '{WRITER.password}'")
        primary.sql(f"GRANT READ_ONLY ADMIN ON *.* TO {WRITER.user}@'%'")
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
        run, sessions = lab.run, []

        def forced(*words: str, **options: Any) -> Any:
            if words[0] == "switchover":
                sessions.append(lab.cluster.primary.connect(WRITER))
                words = (*words, "--force")
            return run(*words, **options)

        monkeypatch.setattr(lab, "run", forced)
        yield lab
        for session in sessions:
            session.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", EACH)
def test_killed_around_acts_of_force_and_hooks(lab: Lab, tmp_path: Path, step: int) -> None:
    points = [p for p in _points(lab, tmp_path / "trace") if p.removeprefix("engine/").startswith(ACTS)]
    swept("switchover by force", points)
    _sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points[::step])])
    assert [node.name for node in lab.cluster if node.sql(LOCKED)] == [], "the account is left locked"
