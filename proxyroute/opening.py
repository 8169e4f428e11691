"""Opening is the one dangerous verb: what must be seen on every other server before one is opened for writes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass

from proxyroute.errors import ProxyRouteError, SplitBrain, Unfinished
from proxyroute.gtid import Containment, Position
from proxyroute.model import Deadline, WriteState
from proxyroute.operation import Operation, each
from proxyroute.parts import Parts

ARMED = "armed"
_HURRY = 0.1
"""Seconds for a replica that may be silent, while writes wait for its answer."""
APART = "apart"
"""Under this name the operation keeps the servers that ``Standing.apart`` means."""


@dataclass(frozen=True)
class Standing:
    """One quick reading of every server, with the errors of those that did not answer."""

    states: dict[str, WriteState]
    silent: dict[str, str]
    apart: frozenset[str] = frozenset()
    """Servers that had transactions of their own before we began (errant ones, another source's): what they have
    executed is no sign that somebody has opened them."""

    def beyond(self, name: str, goal: Position | None) -> bool:
        """Tells whether server ``name`` has executed something that is provably not in ``goal``."""
        state = self.states.get(name)
        if state is None or goal is None or name in self.apart:
            return False
        return goal.contains(state.position) is Containment.NO


def read_standing(parts: Parts, op: Operation, deadline: Deadline, *, hurry: Collection[str] = ()) -> Standing:
    """Reads what stands between each server and a write, all at once; those in ``hurry`` get little time."""
    patience = dict.fromkeys(parts.site.names, deadline)
    patience |= {name: deadline.within(_HURRY) for name in hurry}
    outcomes = each(parts.site, lambda s: s.write_state(patience[s.name], op.id), deadline)
    states = {name: found.value for name, found in outcomes.items() if found.value is not None}
    for name in [n for n, state in states.items() if state.writable and not state.holders]:
        # a replica that was read a moment later has more: it must not look as if somebody had opened it
        with contextlib.suppress(ProxyRouteError):
            states[name] = parts.site[name].write_state(deadline, op.id)
    silent = {name: str(found.error) for name, found in outcomes.items() if found.value is None}
    return Standing(states, silent, frozenset(op.kept(APART, ())))


def refuse_unless_closed(
    standing: Standing,
    opening: str,
    goal: Position | None,
    *,
    excused: Collection[str] = (),
) -> None:
    """Raises unless every server but ``opening`` is closed and not beyond the frozen position.

    Closed is: refuses writes, or is armed, which ends in that whoever dies. ``excused`` names servers that may be
    silent: those that are fenced or declared lost, and replicas that this very operation has seen closed.
    Raises SplitBrain for a server that takes writes, and Unfinished for one that is silent or beyond.
    """
    for name, reason in standing.silent.items():
        if name != opening and name not in excused:
            raise Unfinished(
                f"{opening} is not opened: nobody knows whether {name} takes writes ({reason}); when it is back type "
                f"'proxyroute heal', or, when it is gone for good, 'proxyroute heal --declare-lost {name}'"
            )
    for name, state in standing.states.items():
        if name == opening:
            continue
        if state.writable and ARMED not in state.holders:
            raise SplitBrain(f"{opening} is not opened: {name} takes writes, and nothing holds it for good")
        if standing.beyond(name, goal):
            raise Unfinished(
                f"{opening} is not opened: {name} has executed {state.position}, which is beyond the frozen "
                f"position {goal}; look at 'proxyroute status'"
            )


def must_answer(standing: Standing, name: str) -> WriteState:
    """Returns the state of server ``name``. Raises Unfinished when it did not answer."""
    if name not in standing.states:
        raise Unfinished(f"{name} does not answer: {standing.silent.get(name, 'no reading')}")
    return standing.states[name]
