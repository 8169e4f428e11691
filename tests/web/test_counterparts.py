"""What can be typed can be asked of the daemon as well, by the same code; or it is said here why not."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

from proxyroute.cli import main
from proxyroute.web.commands import KINDS
from tests.support.web import Web

ASKED = "POST /v1/clusters/{cluster}/operations"
API: dict[str, tuple[str, ...]] = {
    "check": ("GET /v1/clusters/{cluster}/check",),
    "status": ("GET /v1/clusters/{cluster}",),
    "plan": ("GET /v1/clusters/{cluster}/plan/switchover", "GET /v1/clusters/{cluster}/plan/failover"),
    "switchover": (f"{ASKED} switchover",),
    "failover": (f"{ASKED} failover", f"{ASKED} acknowledge"),
    "call-off": ("POST /v1/operations/{operation}/call-off",),
    "heal": (f"{ASKED} heal",),
    "rejoin": (f"{ASKED} rejoin",),
    "verify": (f"{ASKED} verify",),
    "publish": (f"{ASKED} publish",),
    "maintenance": (f"{ASKED} maintenance",),
    "pause": (f"{ASKED} pause",),
    "resume": (f"{ASKED} resume",),
    "prefer": (f"{ASKED} rank",),
    "never": (f"{ASKED} rank",),
    "orders": ("GET /v1/clusters/{cluster}/orders", f"{ASKED} reset_orders"),
    "history": ("GET /v1/clusters/{cluster}/history",),
    "show": ("GET /v1/clusters/{cluster}/history/{operation}/records",),
}
"""Each command with the routes that do the same, and for one that asks for something its ``kind``."""
NOT: dict[str, str] = {
    "init": "makes the configuration that a daemon is started with",
    "grants": "prints what a person with all rights runs, before our accounts exist",
    "render": "prints files for a proxy's host, for setting up; where they differ from what is there is in the API",
    "notices": "shows a part of the settings, which the API has; its test sends to people, by whoever is on the host",
    "serve": "is the daemon",
    "token": "makes what opens the API: whoever was let in for a while must not let himself in for longer",
    "agent": "is another daemon, on the proxy's host; what it does is in the API: proxies",
}
"""Each command that has none, and why."""


def test_every_command_has_its_counterpart_or_a_reason() -> None:
    assert API.keys() | NOT.keys() == main.commands.keys()
    assert not API.keys() & NOT.keys()
    assert all(len(reason) > 10 for reason in NOT.values())


def test_every_counterpart_is_in_the_description_and_every_kind_is_one(web: Web) -> None:
    described = {
        f"{method.upper()} {path}" for path, methods in web.app.openapi()["paths"].items() for method in methods
    }
    named = [route for routes in API.values() for route in routes]
    assert {" ".join(route.split()[:2]) for route in named} <= described
    assert {route.split()[2] for route in named if route.startswith(ASKED)} == set(KINDS)


def _typed(name: str) -> Outcome:
    """Types a command with ``--url`` where nobody listens."""
    more = {"switchover": ["--yes"], "failover": ["--yes"], "agent": ["status"], "token": ["list"]}
    words = [name, *more.get(name, [])]  # the agent itself would take the place of this process
    words += ["x" for p in main.commands[name].params if isinstance(p, click.Argument) and p.required]
    environment = {"PROXYROUTE_TOKEN": "pr_x_y", "PROXYROUTE_CONFIG": "/nowhere"}
    return CliRunner().invoke(main, ["--url", "http://127.0.0.1:1", *words], env=environment)


@pytest.mark.parametrize("name", sorted(API))
def test_what_has_a_counterpart_asks_the_daemon(name: str) -> None:
    done = _typed(name)
    assert (done.exit_code, "does not answer" in done.output) == (1, True), done.output


@pytest.mark.parametrize("name", sorted(NOT))
def test_what_has_none_asks_nobody(name: str) -> None:
    done = _typed(name)
    assert done.exit_code != 0
    assert "does not answer" not in done.output
