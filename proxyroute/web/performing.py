"""Does what was asked for over HTTP, with an engine of its own, as the command line does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxyroute.binlog import Table
from proxyroute.caller import Caller
from proxyroute.config_values import ClusterConfig
from proxyroute.contingency import Contingency
from proxyroute.deadline import Urgent, giving_way
from proxyroute.engine import Engine, open_engine
from proxyroute.errors import Refused, Unfinished
from proxyroute.journal import Listener
from proxyroute.lookout import foreseer
from proxyroute.model import Deadline
from proxyroute.orders import Orders
from proxyroute.outcome import Evidence, Proof, Result, Verdict
from proxyroute.prospect import Prospect
from proxyroute.sentry import Sentry
from proxyroute.telling import listed
from proxyroute.verify import Comparison
from proxyroute.web.commands import ORDERS, Command

_VERIFY = 86400.0
"""Seconds for a comparison of data, as on the command line."""
_DIFFERENCES = 20
"""So many of a replica are told."""


def perform(
    config: ClusterConfig, command: Command, caller: Caller, listener: Listener, ending: Urgent = lambda: ""
) -> tuple[Result, ...]:
    """Does a command with an engine of its own, as the command line does. Raises ProxyRouteError.

    What can be taken up later (a rejoin, leftovers) ends once ``ending`` says something, or it was called off.
    """
    arguments = dict(command.arguments)

    def urgent() -> str:
        return caller.called_off() or ending()

    engine = open_engine(config, listener, caller)
    try:
        if command.kind == "switchover":
            return (engine.switchover(
                arguments.get("target"), force=bool(arguments.get("force")),
                kill_long=bool(arguments.get("kill_long")), confirm=_about(arguments.get("primary")),
            ),)  # fmt: skip
        if command.kind == "failover":
            force = bool(arguments.get("force"))
            with Sentry(config) as sentry:
                look = foreseer(
                    config, sentry, arguments.get("target"), force=force,
                    fenced_by=arguments.get("fenced_by", ""), fenced_proxies=arguments.get("fenced_proxies", ()),
                    apply_dead_binlog=bool(arguments.get("apply_dead_binlog")),
                )  # fmt: skip
                return (engine.failover(look, force=force, automatic=False, confirm=_about(arguments.get("primary"))),)
        if command.kind == "heal":
            healed = engine.heal(tuple(arguments.get("declare_lost", ())), urgent=urgent)
            if unread := engine.damaged():
                raise Unfinished(f"what cannot be read may be open: {listed(unread)}")
            return healed
        if command.kind == "rejoin":
            with giving_way(urgent):
                return (engine.rejoin(arguments["server"], arguments.get("method")),)
        if command.kind == "publish":
            receipts = engine.publish()
            return (Result("", "publish", "done", text="; ".join(f"{r.proxy}: {r.state}" for r in receipts)),)
        if command.kind == "acknowledge":
            engine.acknowledge_failovers()
            return (Result("", "acknowledge", "done", text="no failover so far counts for the limits any more"),)
        if command.kind in ORDERS:
            return (Result("", command.kind, "done", text=_order(engine.orders, command.kind, arguments)),)
        if command.kind == "verify":
            return (_verify(engine, arguments, urgent),)
    finally:
        engine.close()
    raise Refused(f"there is no command {command.kind!r}")


def _about(primary: str | None) -> Callable[[Prospect | Contingency], bool]:
    """Says yes to any plan, but where a ``primary`` was named only to one that is about it; raises Refused.

    Whoever asked has seen a plan some time ago, and what he says of a fence is of that server.
    """
    return lambda prospect: primary is None or prospect.plan_of(primary).primary == primary


def _verify(engine: Engine, arguments: Mapping[str, Any], urgent: Urgent) -> Result:
    """Compares data; each replica's comparison is a piece of evidence. Raises ProxyRouteError."""
    tables = [Table(*text.split(".", 1)) for text in arguments.get("tables", ())]
    with giving_way(urgent):
        deadline = Deadline.after(arguments.get("seconds") or _VERIFY)
        compared = engine.verify(arguments.get("server"), tables or None, deadline)
    proof = Proof(tuple(Evidence(c.replica, f"has the data of {c.primary}", c.verdict, _compared(c)) for c in compared))
    told = {Verdict.PROVEN: "everything is equal", Verdict.NOT_PROVEN: "there are differences"}
    text = told.get(proof.verdict, "something could not be compared")
    return Result("", "verify", "done", compared[0].primary, proof, text=text)


def _compared(comparison: Comparison) -> str:
    found = [
        f"{d.table} from {d.after or 'its begin'} to {d.upto or 'its end'}: {d.what}" for d in comparison.differences
    ]
    more = [f"and {len(found) - _DIFFERENCES} more"] if len(found) > _DIFFERENCES else []
    skipped = [f"not compared: {text}" for text in comparison.skipped] if found else []
    return "; ".join([str(comparison), *found[:_DIFFERENCES], *more, *skipped])


def _order(orders: Orders, kind: str, arguments: Mapping[str, Any]) -> str:
    seconds = arguments.get("seconds")
    if kind == "maintenance":
        return orders.maintenance(arguments["server"], bool(arguments.get("on", True)), seconds=seconds)
    if kind == "reset_orders":
        return orders.reset_in_words()
    if kind == "rank":
        return orders.rank(arguments["server"], arguments.get("rank", ""), seconds=seconds)
    return orders.pause(seconds=seconds) if kind == "pause" else orders.resume()
