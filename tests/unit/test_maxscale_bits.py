"""The states of the MaxScale double are bits: random sequences of operations, checked against a model of bits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyroute.model import Address
from tests.support.maxscale.backends import MadeUp
from tests.support.maxscale.bits import ASIDE, ROLES, WORDS, Bit, render, usable
from tests.support.maxscale.machine import Machine, RefusedError

SERVERS = {f"server{n}": Address("127.0.0.1", 3300 + n) for n in (1, 2, 3)}
VERBS = st.sampled_from(["set", "clear"])
NAMES = st.sampled_from(sorted(SERVERS))
STATES = st.sampled_from([*WORDS, *(word.upper() for word in WORDS)])
OPERATIONS = st.lists(st.tuples(VERBS, NAMES, STATES), max_size=30)
EVENTS = st.lists(
    st.one_of(
        st.tuples(VERBS, NAMES, STATES),
        st.tuples(st.just("stop"), NAMES, STATES),
        st.tuples(st.just("start"), NAMES, STATES),
        st.tuples(st.just("kill"), NAMES, STATES),
        st.tuples(st.just("revive"), NAMES, STATES),
        st.tuples(st.just("promote"), NAMES, STATES),
        st.tuples(st.just("tick"), NAMES, STATES),
    ),
    max_size=30,
)


def machine(*, monitor: bool) -> Machine:
    made = Machine("24.02.3", MadeUp.with_primary(SERVERS, "server1"), look_seconds=0.0)
    for name, address in SERVERS.items():
        made.add_server(name, address)
    if monitor:
        made.tick(made.add_monitor("Mon"))
    return made


@given(OPERATIONS)
def test_without_a_monitor_set_adds_clear_removes_and_nothing_else_moves(
    operations: list[tuple[str, str, str]],
) -> None:
    made = machine(monitor=False)
    model: dict[str, set[str]] = {name: set() for name in SERVERS}
    plain = {"maint": "maintenance", "binlogrouter": "blr"}
    for verb, name, word in operations:
        made.change(name, verb, word)
        bit = plain.get(word.lower(), word.lower())
        (model[name].add if verb == "set" else model[name].discard)(bit)
        for server in SERVERS:
            held = made.servers[server].bits
            assert {w for w, b in WORDS.items() if b in held and w not in plain} == model[server]


@given(OPERATIONS)
def test_what_is_shown_is_what_the_bits_say(operations: list[tuple[str, str, str]]) -> None:
    made = machine(monitor=False)
    for verb, name, word in operations:
        made.change(name, verb, word)
        bits, shown = made.servers[name].bits, made.servers[name].state.split(", ")
        assert (shown[-1] == "Running") == (Bit.RUNNING in bits)
        assert (shown[-1] == "Down") == (Bit.RUNNING not in bits)
        assert ("Maintenance" in shown) == (Bit.MAINTENANCE in bits)
        assert ("Master" in shown) == ({Bit.MASTER, Bit.RUNNING} <= set(bits) and Bit.MAINTENANCE not in bits)
        if "Master" in shown:
            assert "Slave" not in shown, "Master hides it"


@settings(deadline=None)
@given(EVENTS)
def test_a_running_monitor_owns_the_roles_and_never_the_operators_bits(events: list[tuple[str, str, str]]) -> None:
    made = machine(monitor=True)
    monitor = made.monitors["Mon"]
    cluster = made.backend
    assert isinstance(cluster, MadeUp)
    aside = dict.fromkeys(SERVERS, Bit.NONE)
    for event, name, word in events:
        before = {n: s.bits for n, s in made.servers.items()}
        if event in ("set", "clear"):
            bit = WORDS[word.lower()]
            try:
                made.change(name, event, word)
            except RefusedError:
                assert monitor.running
                assert bit not in ASIDE or (event == "set" and Bit.MASTER in before[name])
                assert {n: s.bits for n, s in made.servers.items()} == before, "what is refused changes nothing"
            else:
                assert not monitor.running or bit in ASIDE
                if bit in ASIDE:
                    aside[name] = aside[name] | bit if event == "set" else aside[name] & ~bit
        elif event in ("stop", "start"):
            monitor.running = event == "start"
            if monitor.running:
                made.tick(monitor)
        elif event == "tick":
            if monitor.running:
                made.tick(monitor)
        elif event == "promote":
            cluster.promote(SERVERS[name])
        else:
            (cluster.kill if event == "kill" else cluster.revive)(SERVERS[name])
        assert {n: s.bits & ASIDE for n, s in made.servers.items()} == aside
        if event == "tick" and monitor.running:
            masters = [n for n, s in made.servers.items() if Bit.MASTER in s.bits]
            assert len(masters) <= 1
            for n, s in made.servers.items():
                assert (Bit.RUNNING in s.bits) == (cluster.read(SERVERS[n]) is not None)
                assert not (Bit.RUNNING not in s.bits and s.bits & ROLES)


@pytest.mark.parametrize(
    ("bits", "connections", "shown"),
    [
        (Bit.NONE, 0, "Down"),
        (Bit.MASTER | Bit.SLAVE, 0, "Down"),
        (Bit.RUNNING | Bit.MASTER | Bit.SLAVE, 0, "Master, Running"),
        (Bit.RUNNING | Bit.SLAVE | Bit.DRAIN, 2, "Draining, Slave, Running"),
        (Bit.RUNNING | Bit.SLAVE | Bit.DRAIN, 0, "Drained, Slave, Running"),
        (Bit.RUNNING | Bit.DRAIN, 1, "Draining, Running"),
        (Bit.RUNNING | Bit.MASTER | Bit.MAINTENANCE | Bit.DRAIN, 1, "Maintenance, Running"),
        (Bit.MASTER | Bit.MAINTENANCE, 0, "Maintenance, Down"),
    ],
)
def test_renderings_that_were_recorded(bits: Bit, connections: int, shown: str) -> None:
    assert render(bits, connections) == shown


def test_a_hidden_slave_bit_of_a_master_still_gets_reads() -> None:
    bits = Bit.RUNNING | Bit.MASTER | Bit.SLAVE
    assert "Slave" not in render(bits)
    assert usable(bits, Bit.SLAVE)
