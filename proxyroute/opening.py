"""Opening is the one dangerous verb: what must be seen on every other server before one is opened for writes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from proxyroute.errors import ProxyRouteError, SplitBrain, Unfinished
from proxyroute.gtid import Containment, Position
from proxyroute.inspection import WriteState
from proxyroute.model import Deadline
from proxyroute.operation import Operation, each
from proxyroute.parts import Parts

ARMED = "armed"
_HURRY = 0.1
"""Seconds for a replica that may be silent, while writes wait for its answer."""
_LOSS = "loss"
"""Under this name a failover keeps why something that was acknowledged may be lost."""
APART = "apart"
"""Under this name the operation keeps the servers that ``Standing.apart`` means."""
FEEDER = "feeder"
"""Under this name a failover keeps what ``Standing.feeder`` means, where that is no server id."""


@dataclass(frozen=True)
class Standing:
    """One quick reading of every server, with the errors of those that did not answer."""

    states: dict[str, WriteState]
    silent: dict[str, str]
    apart: frozenset[str] = frozenset()
    """Servers that had transactions of their own before we began (errant ones, another source's), or that are of
    another flavour now: what they have executed is no sign that somebody has opened them."""
    feeder: int | str | None = None
    """Of a failover: by what positions name the old primary (``Status.identity``), if it is known. One that wakes up
    goes on feeding a replica whose receiver could not be stopped: what that one has from there is no sign that somebody
    has opened it."""

    def beyond(self, name: str, goal: Position | None) -> bool:
        """Tells whether server ``name`` has executed something that is provably not in ``goal``."""
        state = self.states.get(name)
        if state is None or goal is None or name in self.apart:
            return False
        position = state.position
        if self.feeder is not None:
            position = position.minus(position.by(self.feeder))
        return goal.contains(position) is Containment.NO

    def fed(self, goal: Position | None) -> dict[str, Position]:
        """Returns what the old primary of a failover still gave to others beyond ``goal``, by their names."""
        if goal is None or self.feeder is None:
            return {}
        more = {n: s.position.by(self.feeder) for n, s in self.states.items() if n not in self.apart}
        return {n: position.minus(goal) for n, position in more.items() if goal.contains(position) is Containment.NO}

    def without(self, name: str) -> Standing:
        """Returns the reading as if server ``name`` had not been asked."""
        return replace(
            self,
            states={n: s for n, s in self.states.items() if n != name},
            silent={n: s for n, s in self.silent.items() if n != name},
        )


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
    known = op.kept(FEEDER) or op.kept("server_ids", {}).get(op.plan.primary)
    feeder = known if op.gone else None
    return Standing(states, silent, frozenset(op.kept(APART, ())) | _foreign(states, op), feeder)


def _foreign(states: Mapping[str, WriteState], op: Operation) -> set[str]:
    """Returns the servers that run where one of another flavour ran: whoever was silent before may have become that."""
    if op.goal is None and op.plan.candidate not in states:
        return set()
    flavour = (op.goal or states[op.plan.candidate].position).flavour
    return {name for name, state in states.items() if state.position.flavour != flavour}


def refuse_unless_closed(
    standing: Standing,
    opening: str,
    goal: Position | None,
    *,
    excused: Collection[str] = (),
    lost: Collection[str] = (),
) -> None:
    """Raises unless every server but ``opening`` is closed and not beyond the frozen position.

    Closed is: refuses writes, or is armed, which ends in that whoever dies. ``excused`` names servers that may be
    silent: those that are fenced or declared lost, and replicas that this very operation has seen closed. Those that
    are ``lost`` may be beyond it as well: somebody has said that what only they have is given up. Nobody may be open.
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
        if name not in lost and standing.beyond(name, goal):
            raise Unfinished(
                f"{opening} is not opened: {name} has executed {state.position}, which is beyond the frozen "
                f"position {goal}; look at 'proxyroute status'; 'proxyroute heal --declare-lost {name}' opens "
                f"{opening} all the same, and gives up what only {name} has"
            )


def must_answer(standing: Standing, name: str) -> WriteState:
    """Returns the state of server ``name``. Raises Unfinished when it did not answer."""
    if name not in standing.states:
        raise Unfinished(f"{name} does not answer: {standing.silent.get(name, 'no reading')}")
    return standing.states[name]


def add_doubt(op: Operation, text: str) -> None:
    """Keeps one more reason why something that the old primary had acknowledged may be lost, unless it is there."""
    kept = op.kept(_LOSS, [])
    if text not in kept:
        op.note(text)
        op.keep(_LOSS, [*kept, text], wait=True)
