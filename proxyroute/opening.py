"""Opening is the one dangerous verb: what must be seen on every other server before one is opened for writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from proxyroute.errors import SplitBrain, Unfinished
from proxyroute.gtid import Containment, Position
from proxyroute.model import Deadline, WriteState
from proxyroute.operation import Operation, each
from proxyroute.parts import Parts

BOTH = frozenset({"engine", "guard"})


@dataclass(frozen=True)
class Standing:
    """One quick reading of every server, with the errors of those that did not answer."""

    states: dict[str, WriteState]
    silent: dict[str, str]

    def beyond(self, name: str, goal: Position | None) -> bool:
        """Tells whether server ``name`` has executed something that is provably not in ``goal``."""
        state = self.states.get(name)
        return state is not None and goal is not None and goal.contains(state.position) is Containment.NO


def read_standing(parts: Parts, op: Operation, deadline: Deadline) -> Standing:
    """Reads what stands between each server and a write, all at once."""
    outcomes = each(parts.site, lambda s: s.write_state(deadline, op.id), deadline)
    states = {name: found.value for name, found in outcomes.items() if found.value is not None}
    silent = {name: str(found.error) for name, found in outcomes.items() if found.value is None}
    return Standing(states, silent)


def refuse_unless_closed(
    standing: Standing,
    opening: str,
    goal: Position | None,
    *,
    holders: frozenset[str] = BOTH,
    excused: Collection[str] = (),
) -> None:
    """Raises unless every server but ``opening`` is closed and not beyond the frozen position.

    Closed is: refuses writes, or is locked by all of ``holders``. ``excused`` names servers that may be silent: those
    that are fenced or declared lost, and replicas that this very operation has seen closed.
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
        if state.writable and not holders <= state.holders:
            raise SplitBrain(f"{opening} is not opened: {name} takes writes, and nothing of ours holds it")
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
