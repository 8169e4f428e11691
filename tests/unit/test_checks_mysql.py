"""What only a MySQL server can be wrong in: roles that were persisted, half a closing, transactions without a GTID."""

from __future__ import annotations

from typing import Any

import pytest

from proxyroute.model import Finding, Status
from proxyroute.policy import Policy
from proxyroute.preflight import survey
from tests.support.builders import inspection, replica, server, view

NOW = {"rpl_semi_sync_source_enabled": "OFF", "rpl_semi_sync_replica_enabled": "OFF", "offline_mode": "OFF"}


def found(
    code: str, *, primary: Status | None = None, third: Status | None = None, policy: Policy | None = None, **more: Any
) -> list[Finding]:
    seen = view(primary or server(1), replica(2), third or replica(3), **more)
    return [f for f in survey(seen, policy or Policy()) if f.code == code]


@pytest.mark.parametrize("primary", [True, False])
@pytest.mark.parametrize(
    ("flag", "now", "of_a_primary", "of_a_replica"),
    [
        ("read_only=OFF", "ON", True, True),
        ("read_only=ON", "OFF", False, False),
        ("super_read_only=0", "ON", True, True),
        ("super_read_only=ON", "OFF", False, False),
        ("offline_mode=ON", "OFF", True, True),
        ("offline_mode=ON", "ON", False, False),
        ("offline_mode=OFF", "OFF", False, False),
        ("event_scheduler=OFF", "ON", True, False),
        ("event_scheduler=ON", "OFF", False, False),
        ("rpl_semi_sync_source_enabled=OFF", "ON", True, False),
        ("rpl_semi_sync_source_enabled=OFF", "OFF", False, False),
        ("rpl_semi_sync_source_enabled=ON", "OFF", False, True),
        ("rpl_semi_sync_master_enabled=OFF", "ON", True, False),
        ("rpl_semi_sync_replica_enabled=OFF", "ON", False, True),
        ("rpl_semi_sync_replica_enabled=ON", "OFF", False, False),
        ("rpl_semi_sync_slave_enabled=OFF", "ON", False, True),
    ],
)
def test_what_is_persisted_is_judged_by_the_role_of_the_server(
    flag: str, now: str, of_a_primary: bool, of_a_replica: bool, primary: bool
) -> None:
    name, make = flag.partition("=")[0], server if primary else replica
    changed = make(1 if primary else 3, settings={**NOW, name: now, "persisted": flag}, event_scheduler=now == "ON")
    told = found("server.persisted", **{"primary" if primary else "third": changed})
    assert len(told) == (of_a_primary if primary else of_a_replica)
    for finding in told:
        assert finding.subject == changed.name
        assert finding.text.startswith(f"has {flag} persisted: after a restart it ")
        assert finding.cure == f"on {changed.name}: RESET PERSIST {name};"


def test_all_that_a_server_has_persisted_wrongly_is_told_at_once() -> None:
    kept = "event_scheduler=OFF,offline_mode=ON,read_only=ON,super_read_only=OFF"
    (told,) = found("server.persisted", primary=server(1, event_scheduler=True, settings={**NOW, "persisted": kept}))
    assert told.cure == (
        "on db1: RESET PERSIST super_read_only; RESET PERSIST offline_mode; RESET PERSIST event_scheduler;"
    )
    assert "turns clients and replicas away and runs no events, whatever its role is then" in told.text


def test_the_older_names_of_semi_sync_are_kept_in_what_is_to_be_typed() -> None:
    settings = {"rpl_semi_sync_master_enabled": "ON", "persisted": "rpl_semi_sync_master_enabled=OFF"}
    seen = view(server(1, flavour="mysql", settings=settings))
    (told,) = (f for f in survey(seen, Policy()) if f.code == "server.persisted")
    assert told.cure == "on db1: RESET PERSIST rpl_semi_sync_master_enabled;"


def test_who_may_write_to_a_server_that_is_half_closed_is_named() -> None:
    half = replica(3, settings={"super_read_only": "OFF"})
    writer = (inspection("db3", privileged_writers=("batch@10.%",)),)
    (told,) = found("server.super_read_only", third=half, inspections=writer)
    assert "batch@10.%, connected now, may write there" in told.text
    assert told.cure == "on db3: SET GLOBAL super_read_only=1; and super_read_only=1 in its my.cnf"
    (told,) = found("server.super_read_only", third=half)
    assert "any account with CONNECTION_ADMIN or SUPER may write there" in told.text


def test_a_server_is_not_half_closed_that_takes_writes_or_refuses_all_or_is_set_aside() -> None:
    half = replica(3, settings={"super_read_only": "OFF"})
    assert found("server.super_read_only", primary=server(1, settings={"super_read_only": "OFF"})) == []
    assert found("server.super_read_only", third=replica(3, settings={"super_read_only": "ON"})) == []
    assert found("server.super_read_only", third=half, policy=Policy(aside=("db3",))) == []


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        ("OFF_PERMISSIVE", "SET GLOBAL gtid_mode=ON_PERMISSIVE; SET GLOBAL gtid_mode=ON;"),
        ("ON_PERMISSIVE", "SET GLOBAL gtid_mode=ON;"),
    ],
)
def test_a_primary_whose_transactions_need_no_gtid_is_told_how_to_get_to_the_next_mode(mode: str, steps: str) -> None:
    (told,) = found("primary.gtid_mode", primary=server(1, settings={"gtid_mode": mode}))
    assert told.text.startswith(f"has gtid_mode={mode}: it accepts transactions without a GTID")
    assert f"on db1: SET GLOBAL enforce_gtid_consistency=ON; {steps} each step" in told.cure
    assert found("primary.gtid_mode", primary=server(1, settings={"gtid_mode": "ON"})) == []
