"""The site's own scripts and hooks: what they are told, in which moment, and what becomes of it when they fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import APPLICATION
from tests.support.lab import Lab
from tests.support.scene import assert_order, books, configured, other, standing, switched

FLAVOURS = ("mysql",)
SITE = {"n": 3, "policy": {"prove": "1s"}}

RECORD = """
import json, os, pathlib, sys
told = {k: v for k, v in os.environ.items() if k.startswith("PROXYROUTE_")}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(told) + "\\n")
failing = pathlib.Path(sys.argv[1] + "." + told["PROXYROUTE_MOMENT"] + ".fails")
sys.exit(3 if failing.exists() else 0)
"""
WRITE = """
import pymysql, sys
host, port, user, password = sys.argv[1:]
session = pymysql.connect(host=host, port=int(port), user=user, password=password, ssl_disabled=True, autocommit=True)
session.cursor().execute("REPLACE INTO app.first VALUES (1, @@server_id)")
"""


class Scripts:
    """Scripts that write down what they are told, and fail when they shall."""

    def __init__(self, site: Lab) -> None:
        self._site = site
        self.file = site.folder / "told"
        self.file.unlink(missing_ok=True)

    def argv(self) -> list[str]:
        return [sys.executable, "-c", RECORD, str(self.file)]

    @property
    def told(self) -> list[dict[str, str]]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [json.loads(line) for line in lines]

    @contextmanager
    def failing(self, moment: str) -> Iterator[None]:
        file = Path(f"{self.file}.{moment}.fails")
        file.touch()
        try:
            yield
        finally:
            file.unlink()


@pytest.fixture
def scripts(site: Lab) -> Iterator[Scripts]:
    """The site has both scripts for the time of the test."""
    found = Scripts(site)
    with configured(site, scripts={"address_down": found.argv(), "address_up": found.argv()}):
        yield found


def expected(site: Lab, moment: str, old: str, new: str, operation: str) -> dict[str, str]:
    told = {"KIND": "switchover", "MOMENT": moment, "OPERATION": operation, "CLUSTER": "demo"}
    for side, name in (("OLD", old), ("NEW", new)):
        address = site.cluster[name].address
        told |= {
            f"{side}_PRIMARY": name,
            f"{side}_PRIMARY_HOST": address.host,
            f"{side}_PRIMARY_PORT": str(address.port),
        }
    return {f"PROXYROUTE_{key}": value for key, value in told.items()}


def test_both_scripts_are_called_in_their_moments_with_the_documented_environment(site: Lab, scripts: Scripts) -> None:
    old, new = site.cluster.primary.name, other(site)
    with books(site):
        operation = switched(site, "--to", new)["result"]["operation"]
    assert_order(site, new)
    assert scripts.told == [expected(site, m, old, new, operation) for m in ("address_down", "address_up")]
    steps = [r["name"] for r in site.json("show", operation)[1]["records"] if r["kind"] == "step"]
    assert steps.index("address down") < steps.index("freeze")
    assert steps.index("open") < steps.index("route") < steps.index("address up") < steps.index("repoint")


def test_a_failing_address_down_aborts_and_is_undone(site: Lab, scripts: Scripts) -> None:
    before, old = standing(site), site.cluster.primary.name
    with books(site), scripts.failing("address_down"):
        value = switched(site, code=4)
    assert "exited with status 3" in value["error"]["text"]
    assert standing(site) == before
    assert_order(site, old)
    down, up = scripts.told
    assert (down["PROXYROUTE_MOMENT"], up["PROXYROUTE_MOMENT"]) == ("address_down", "address_up")
    assert (up["PROXYROUTE_OLD_PRIMARY"], up["PROXYROUTE_NEW_PRIMARY"]) == (old, old), "it stays what it was"


def test_a_failing_address_up_is_seen_to_have_failed_and_heal_runs_it_again(site: Lab, scripts: Scripts) -> None:
    new = other(site)
    with books(site), scripts.failing("address_up"):
        value = switched(site, "--to", new, code=7)
        assert [left.split(":")[0] for left in value["result"]["leftovers"]] == [f"address_up {new}"], value["result"]
        assert site.cluster.writable == (new,), "what is open stays open"
    assert "address_up" in site.run("status").stdout + site.run("history").stdout
    assert site.run("heal").returncode == 0
    assert [t["PROXYROUTE_MOMENT"] for t in scripts.told] == ["address_down", "address_up", "address_up"]
    assert site.json("heal")[1] == {"results": [], "unread": []}
    assert_order(site, new)


def test_a_script_that_does_not_end_in_time_is_ended_and_counts_as_failed(site: Lab) -> None:
    old = site.cluster.primary.name
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    with configured(site, scripts={"timeout": "200ms", "address_down": sleeping}):
        value = switched(site, code=4)
    assert "did not end" in value["error"]["text"], value
    assert_order(site, old)


def test_the_new_primary_accepts_writes_before_anything_is_done_that_can_wait(site: Lab) -> None:
    """The script itself writes through the proxy: were the route not open by then, it would fail."""
    site.cluster.primary.make_table("app.first", "id INT PRIMARY KEY, server INT")
    new = site.cluster[other(site)]
    argv = [sys.executable, "-c", WRITE, site.write.host, str(site.write.port), APPLICATION.user, APPLICATION.password]
    with configured(site, scripts={"address_up": argv}):
        switched(site, "--to", new.name)
    assert new.sql("SELECT server FROM app.first") == [{"server": new.server_id}]


# -- Hooks that route -----------------------------------------------------------------------------------------

ROUTE = """
import os, pathlib, sys
file = pathlib.Path(sys.argv[1])
if os.environ["PROXYROUTE_PHASE"] == "read":
    print(file.read_text())
elif not file.with_suffix(".fails").exists():
    file.write_text(f"{os.environ['PROXYROUTE_PRIMARY_NAME']} {os.environ['PROXYROUTE_EPOCH']}")
elif sys.argv[2:] != ["lies"]:
    sys.exit("the load balancer does not answer")
"""


@pytest.mark.parametrize("how", [[], ["lies"]], ids=["says so", "says it has worked"])
def test_a_hook_that_should_flip_a_route_and_fails_is_seen_to_have_failed(site: Lab, how: list[str]) -> None:
    file = site.folder / f"route{len(how)}"
    file.write_text(site.cluster.primary.name)
    argv = [sys.executable, "-c", ROUTE, str(file)]
    hook: dict[str, Any] = {"type": "hook", "name": "f5", "set": [*argv, *how], "read": argv}
    old, new = site.cluster.primary.name, other(site)
    with configured(site, proxies=[*proxies(site), hook]):
        site.run("publish", check=True)
        file.with_suffix(".fails").touch()
        value = switched(site, "--to", new, code=7)
        assert value["verdict"] == "NOT PROVEN"
        wrong = {(e["subject"], e["verdict"]) for e in value["result"]["proof"]["evidence"] if e["verdict"] != "PROVEN"}
        assert wrong == {("f5", "NOT PROVEN")}
        assert any(left.startswith("route f5") for left in value["result"]["leftovers"])
        assert (site.cluster.writable, file.read_text().split()[0]) == ((new,), old)
        file.with_suffix(".fails").unlink()
        assert site.run("heal").returncode == 0
        assert file.read_text().split()[0] == new
    assert_order(site, new)


def proxies(site: Lab) -> list[Any]:
    import yaml

    values = yaml.safe_load(site.config.read_text())
    found: list[Any] = values["clusters"]["demo"]["proxies"]
    return found
