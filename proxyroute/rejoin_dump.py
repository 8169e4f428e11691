"""What a dump brings too early or not at all: scheduled events, which would run at once, and accounts."""

from __future__ import annotations

from collections.abc import Sequence

from proxyroute.errors import GaveWay, ServerError, StatementError, TimedOut
from proxyroute.model import Deadline
from proxyroute.operation import Operation
from proxyroute.outcome import Evidence, Verdict
from proxyroute.ports import Server
from proxyroute.rejoin_look import Means

_TELL = 10
"""How many accounts are named that are unlike those of the primary."""


def stop_events(server: Server, op: Operation, deadline: Deadline) -> None:
    """What a dump brings would write here as soon as it is there: nothing starts until :func:`let_events`."""
    if op.kept("scheduler") is None:  # once: whoever goes on finds it off
        op.keep("scheduler", server.write_settings(deadline)["event_scheduler"], wait=True)
    if op.kept("scheduler") != "ON":
        return
    try:
        server.stop_events(deadline)
    except StatementError as error:  # the account has that privilege only where the scheduler is known to be used
        op.keep("scheduler", "", wait=True)
        op.note(f"scheduled events that come with the dump may run on {server.name} until all of it is there: {error}")


def rest_events(server: Server, op: Operation, deadline: Deadline) -> bool:
    """One that was the primary has them enabled, and they would write past read-only. Tells whether none does now."""
    events = [e for e in server.inspect(deadline, op.plan.policy).events if e.status == "enabled"]
    try:
        server.set_events(events, "replica side", deadline)
    except StatementError as error:
        op.note(f"scheduled events of {server.name} may still run there: {error}")
        return False
    return True


def let_events(server: Server, op: Operation, deadline: Deadline) -> None:
    """The scheduler runs again where :func:`stop_events` has stopped it; may be repeated."""
    if op.kept("scheduler") == "ON":
        server.start_events(deadline)


def accounts(means: Means, name: str, primary: str, deadline: Deadline) -> Evidence:
    """Those that were made, changed or dropped while ``name`` was away came with no data: they are looked at."""
    claim, server, source = f"has the accounts of {primary}", means.parts.site[name], means.parts.site[primary]
    unlike: Sequence[str] = ()
    try:
        for _ in range(2):  # what was on its way at the first look has come by the second
            server.wait_for(source.position(deadline), deadline)
            unlike = means.rebuild[name].unlike_accounts(means.rebuild[primary], deadline)
            if not unlike:
                return Evidence(name, claim, Verdict.PROVEN, "none is unlike")
    except GaveWay:
        raise
    except (ServerError, TimedOut) as error:
        return Evidence(name, claim, Verdict.UNKNOWN, str(error))
    told = "; ".join(unlike[:_TELL]) + (f"; and {len(unlike) - _TELL} more" if len(unlike) > _TELL else "")
    cure = (
        f"a dump brings none along: make them alike on {name}, after SET SESSION sql_log_bin=0 there, by what "
        f"SHOW CREATE USER and SHOW GRANTS FOR tell on {primary}"
    )
    return Evidence(name, claim, Verdict.NOT_PROVEN, f"{told} ({cure})")
