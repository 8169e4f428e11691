"""What the configuration says about a MaxScale, what its settings mean to clients, and which bits move. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxyroute.config import InvalidConfig, Secret, from_snapshot, load, snapshot
from proxyroute.maxscale.services import Service, outlook
from proxyroute.maxscale.settings import Settings
from proxyroute.maxscale.states import Known, Move, Shown, lasting, match, unmet, urgent
from proxyroute.model import Address, Endpoint, Epoch, Reader, RouteTable
from tests.support.load import ROOT_FOLDER

GOOD = {
    "type": "maxscale",
    "name": "mxs1",
    "url": "https://10.0.0.9:8989",
    "mode": "driving",
    "user": "proxyroute",
    "password": {"file": "secrets/maxscale"},
}


def written(folder: Path, **changes: Any) -> Path:
    proxy = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    account = {"user": "u", "password": {"env": "P"}}
    shop = {"account": account, "replication": account, "servers": {"db1": "10.0.0.1"}, "proxies": [proxy]}
    file = folder / "proxyroute.yml"
    file.write_text(yaml.safe_dump({"version": 1, "clusters": {"shop": shop}}, sort_keys=False))
    return file


def test_the_password_is_named_and_survives_a_snapshot_without_being_in_it(tmp_path: Path) -> None:
    shop = load(written(tmp_path)).cluster(None)
    settings = shop.proxies[0].settings
    assert settings.password == Secret("file", str(tmp_path / "secrets" / "maxscale"))
    assert from_snapshot(json.loads(json.dumps(snapshot(shop)))) == shop


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"password": "mariadb"}, "password", "never written into this file"),
        ({"password": {"file": "a", "env": "B"}}, "password", "names 2 places"),
        ({"password": {"fiel": "a"}}, "password.fiel", "did you mean file?"),
        ({"password": None}, "password", "is missing"),
        ({"user": None}, "user", "is missing"),
        ({"user": ""}, "user", "is empty"),
        ({"url": None}, "url", "is missing"),
        ({"mode": None}, "mode", "is missing"),
        ({"mode": "auto"}, "mode", "driving: no monitor owns the servers"),
        ({"url": "10.0.0.9:8989"}, "url", "https://maxscale1:8989"),
        ({"url": "https://admin:mariadb@10.0.0.9"}, "url", "a secret is never written"),
        ({"url": "https://10.0.0.9/v1"}, "url", "goes on after"),
        ({"auth": "jwt"}, "auth", "basic or token"),
        ({"mode": "following", "stop_monitor": True}, "stop_monitor", "has no sense"),
        ({"write_address": "nowhere:port"}, "write_address", "host:port"),
        ({"timeout": 0}, "timeout", "more than 0"),
    ],
)
def test_a_mistake_is_told_where_it_is(tmp_path: Path, changes: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(written(tmp_path, **changes))
    (problem,) = caught.value.problems
    assert problem.field == f"clusters.shop.proxies[0].{field}"
    assert told in problem.text
    assert "mariadb" not in str(caught.value)


def test_there_are_no_default_credentials() -> None:
    """Whoever writes none has none, and what MaxScale is delivered with stands nowhere in the product."""
    required = {f.name for f in fields(Settings) if f.default is MISSING and f.default_factory is MISSING}
    assert {"user", "password"} <= required
    account = re.compile(r"""["':]admin["':@]|admin:mariadb""")
    parts = ("proxyroute/maxscale", "proxyroute/adapters", "templates/maxscale")
    files = [f for part in parts for f in (ROOT_FOLDER / part).rglob("*") if f.suffix in (".py", ".j2")]
    assert len(files) > 10
    assert [str(f) for f in files if account.search(f.read_text())] == []


# -- Bits -------------------------------------------------------------------------------------------------------

SERVERS = tuple(Endpoint(f"db{n}", Address(f"10.0.0.{n}", 3306)) for n in (1, 2, 3))
TABLE = RouteTable("shop", Epoch(1, 2), SERVERS, "db2", (Reader("db1", 100),))


def known(**states: str) -> Known:
    return Known({name: Shown(f"mx-{name}", SERVERS[int(name[-1]) - 1].address, text) for name, text in states.items()})


def test_servers_are_matched_by_address_and_port_and_never_by_name() -> None:
    def item(name: str, host: str, port: int = 3306) -> dict[str, Any]:
        return {"id": name, "attributes": {"state": "Down", "parameters": {"address": host, "port": port}}}

    found = match(
        SERVERS, [item("db3", "10.0.0.1"), item("a", "10.0.0.2"), item("b", "10.0.0.2"), item("c", "10.0.0.3", 1)]
    )
    assert {name: shown.name for name, shown in found.by_name.items()} == {"db1": "db3"}
    assert [s.name for s in found.twice["db2"]] == ["a", "b"]
    assert [e.name for e in found.missing] == ["db3"]


def test_the_new_master_is_set_before_the_old_one_is_cleared_and_reads_come_last() -> None:
    seen = known(db1="Master, Running", db2="Slave, Running", db3="Slave, Running")
    assert urgent(TABLE, seen) == [Move("mx-db2", "set", "master"), Move("mx-db1", "clear", "master")]
    assert lasting(TABLE, seen) == [
        Move("mx-db2", "clear", "slave"), Move("mx-db1", "set", "slave"), Move("mx-db3", "clear", "slave"),
    ]  # fmt: skip


def test_nothing_is_told_to_a_server_that_shows_what_it_should() -> None:
    seen = known(db1="Slave, Running", db2="Master, Running", db3="Running")
    assert urgent(TABLE, seen) == []
    assert lasting(TABLE, seen) == [Move("mx-db2", "clear", "slave")], "Master hides it"
    assert unmet(TABLE, seen) == []


def test_a_closed_route_takes_every_master_away_and_leaves_reads() -> None:
    closed = RouteTable("shop", Epoch(1, 2), SERVERS, None)
    seen = known(db1="Master, Running", db2="Slave, Running", db3="Maintenance, Running")
    assert urgent(closed, seen) == [Move("mx-db1", "clear", "master"), Move("mx-db3", "clear", "master")]
    assert unmet(closed, seen, reads=False) == ["writes go to db1, not to nobody"]


@pytest.mark.parametrize("text", ["Draining, Master, Running", "Maintenance, Running", "Master, Down", "Running"])
def test_who_is_set_aside_or_down_takes_no_writes(text: str) -> None:
    assert known(db2=text).masters == ()


# -- Clients -----------------------------------------------------------------------------------------------------


def test_a_service_for_reads_sees_nothing() -> None:
    assert outlook(Service("RO", "readconnroute", {"router_options": "slave"}, frozenset())) is None


def test_sessions_of_a_readconnroute_to_the_master_end() -> None:
    found = outlook(Service("M", "readconnroute", {"router_options": "master"}, frozenset()))
    assert found is not None
    assert found.errors
    assert "2013" in found.text
