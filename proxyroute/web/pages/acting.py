"""What people ask for: the plan first, then a form that is sent once they have typed whom it is about.

Forms work without a script. What is asked for goes the way of every command: into the audit, and to the engine, which
judges everything anew.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from proxyroute import dialect
from proxyroute.decided import Plan
from proxyroute.planned import offenders
from proxyroute.standing import RANKS
from proxyroute.web.auth import Principal, require
from proxyroute.web.hub import Command, Hub
from proxyroute.web.limits import Rate
from proxyroute.web.pages.access import Form, TheForm
from proxyroute.web.pages.overview import TheHub, named
from proxyroute.web.pages.records import story_of
from proxyroute.web.pages.shell import page, see, segment
from proxyroute.web.problems import Problem, too_many
from proxyroute.web.tokens import Scope
from proxyroute.web.turns import turn

router = APIRouter(include_in_schema=False)

Operator = Annotated[Principal, Depends(require(Scope.OPERATE))]

_METHODS = ("", "flashback", "reseed", "empty")
_UNDOING = {"mariadb": ("flashback",), "mysql": ("empty",)}
"""What a page offers by the flavour of the servers, besides to follow and new data; all of it where nobody knows."""
_SHORT = 200
"""Characters of a field at most, as the API takes them."""


def _ask(
    request: Request, hub: Hub, principal: Principal, cluster: str, kind: str, form: Form, **arguments: Any
) -> Response:
    """Asks for a command, and shows how it goes on. The key makes a form that is sent twice ask once."""
    why = form.get("why", "")[:500]
    rate: Rate = request.app.state.command_rate
    if wait := rate.take(principal.name):
        raise too_many("too many commands", wait)
    ticket = hub.ask(Command(kind, cluster, principal.actor, why, arguments, form.get("key", "")[:_SHORT]))
    return see(f"/clusters/{segment(cluster)}/operations/{segment(ticket.id)}")


def _typed(form: Form, wanted: str | None) -> str:
    """Returns what is wrong with the name that was typed; nothing when it is the one. Raises Problem without one."""
    given = form.get("typed", "")
    if not wanted:
        raise Problem(422, "it is not said which server is meant", cure="go back and choose one")
    if given == wanted:
        return ""
    return f"to go ahead, type {wanted}" + (f"; you typed {given!r}" if given else "; you typed nothing")


def _kept(form: Form | None, plan: Plan | None) -> Form:
    """Returns what was filled in, for a page that is shown again; nothing when its plan has another primary now."""
    return form if form is not None and plan is not None and plan.primary == form.get("primary") else {}


def _key(kept: Form) -> str:
    """Returns the key of a form, the same one when it is shown again."""
    return kept.get("key") or secrets.token_urlsafe(16)


def _server(hub: Hub, cluster: str, name: str) -> str | None:
    if name and name not in hub.config(cluster).servers:
        raise Problem(404, f"{cluster} has no server {name!r}", cure="choose one of those that are shown")
    return name or None


def _primary(hub: Hub, cluster: str, form: Form) -> str:
    """Returns the primary that was seen when the form was made. Raises Problem when it is not said."""
    if found := _server(hub, cluster, form.get("primary", "")):
        return found
    raise Problem(422, "it is not said which primary is meant", cure="load the page again and send it once more")


# -- switchover ------------------------------------------------------------------------------------------------


@router.get("/clusters/{cluster}/switchover")
def switchover_page(
    request: Request, hub: TheHub, principal: Operator, cluster: str, to: str = "", force: bool = False
) -> Response:
    """Who could take over, and the plan for one of them."""
    return _switchover(request, hub, principal, cluster, to, force)


def _switchover(
    request: Request, hub: Hub, principal: Principal, cluster: str, to: str, force: bool, wrong: str = "",
    form: Form | None = None,
) -> Response:  # fmt: skip
    named(hub, cluster)
    target = _server(hub, cluster, to)
    with turn(principal):
        prospect = hub.plan_switchover(cluster, target, force)
    kept = _kept(form, prospect.plan)
    return page(
        request, "switchover.html", 422 if wrong else 200, principal=principal, cluster=cluster, prospect=prospect,
        to=to, force=force, wrong=wrong, offenders=offenders(prospect), kept=kept, key=_key(kept),
    )  # fmt: skip


@router.post("/clusters/{cluster}/switchover")
def switchover(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Asks for a switchover to the server that was planned with, once its name was typed."""
    named(hub, cluster)
    target = _server(hub, cluster, form.get("target", ""))
    primary = _primary(hub, cluster, form)
    force, kill_long = bool(form.get("force")), bool(form.get("kill_long"))
    if wrong := _typed(form, target):
        return _switchover(request, hub, principal, cluster, target or "", force, wrong, form)
    return _ask(
        request, hub, principal, cluster, "switchover", form,
        target=target, primary=primary, force=force, kill_long=kill_long,
    )  # fmt: skip


# -- failover --------------------------------------------------------------------------------------------------


@router.get("/clusters/{cluster}/failover")
def failover_page(
    request: Request, hub: TheHub, principal: Operator, cluster: str, to: str = "", force: bool = False
) -> Response:
    """What is the matter with the primary, and who could be put in its place."""
    return _failover(request, hub, principal, cluster, to, force)


def _failover(
    request: Request, hub: Hub, principal: Principal, cluster: str, to: str, force: bool, wrong: str = "",
    form: Form | None = None,
) -> Response:  # fmt: skip
    state = named(hub, cluster)
    target = _server(hub, cluster, to)
    with turn(principal):
        prospect = hub.plan_failover(cluster, target, force)
    kept = _kept(form, prospect.plan)
    return page(
        request, "failover.html", 422 if wrong else 200, principal=principal, cluster=cluster, prospect=prospect,
        to=to, force=force, wrong=wrong, kept=kept, key=_key(kept),
        proxies=[p.name for p in state.config.proxies],
        may_salvage=prospect.plan is not None and prospect.plan.primary in state.config.with_hosts,
    )  # fmt: skip


@router.post("/clusters/{cluster}/failover")
def failover(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Asks for a failover to the server that was planned with, once its name was typed."""
    state = named(hub, cluster)
    target, force = _server(hub, cluster, form.get("target", "")), bool(form.get("force"))
    primary = _primary(hub, cluster, form)
    if wrong := _typed(form, target):
        return _failover(request, hub, principal, cluster, target or "", force, wrong, form)
    fenced = [p.name for p in state.config.proxies if form.get(f"fenced-{p.name}")]
    return _ask(
        request, hub, principal, cluster, "failover", form,
        target=target, primary=primary, force=force,
        fenced_by=form.get("fenced_by", "")[:_SHORT], fenced_proxies=fenced,
        **({"apply_dead_binlog": True} if form.get("apply_dead_binlog") else {}),
    )  # fmt: skip


# -- rejoin ----------------------------------------------------------------------------------------------------


@router.get("/clusters/{cluster}/rejoin")
def rejoin_page(request: Request, hub: TheHub, principal: Operator, cluster: str, server: str = "") -> Response:
    """What is known of a server that is to follow again, and how that can be done."""
    return _rejoin(request, hub, principal, cluster, server)


def _rejoin(
    request: Request, hub: Hub, principal: Principal, cluster: str, server: str, wrong: str = "",
    form: Form | None = None,
) -> Response:  # fmt: skip
    state, kept = named(hub, cluster), form or {}
    chosen = _server(hub, cluster, server)
    last = next((s for s in reversed(state.history) if s.kind == "rejoin" and s.candidate == chosen), None)
    primary = state.primary.name if state.primary is not None else None
    return page(
        request, "rejoin.html", 422 if wrong else 200, principal=principal, cluster=cluster, state=state,
        server=chosen or "", last=last, story=story_of(hub, cluster, last.operation) if last is not None else None,
        others=[name for name in state.config.servers if name != primary], wrong=wrong, kept=kept,
        undoing=_UNDOING[dialect.of(state.view.seen)] if state.view is not None and state.view.seen else _METHODS,
        key=_key(kept),
    )  # fmt: skip


@router.post("/clusters/{cluster}/rejoin")
def rejoin(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Asks that a server follows again, by the method that was chosen."""
    named(hub, cluster)
    server, method = _server(hub, cluster, form.get("server", "")), form.get("method", "")
    if server is None or method not in _METHODS:
        raise Problem(422, "a server and a method are needed", cure="go back and choose them")
    if wrong := _typed(form, server) if method else "":
        return _rejoin(request, hub, principal, cluster, server, wrong, form)
    return _ask(request, hub, principal, cluster, "rejoin", form, server=server, method=method or None)


# -- calling off ----------------------------------------------------------------------------------------------


@router.post("/clusters/{cluster}/operations/{operation}/call-off")
def call_off(
    request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str, operation: str
) -> Response:
    """Asks that what goes on ends early, as far as it can."""
    named(hub, cluster)
    ticket = hub.ticket(operation)
    if ticket is None or ticket.command.cluster != cluster:
        raise Problem(404, f"{cluster} has no command {operation!r}", cure="the list of operations shows all")
    hub.call_off(operation, principal.actor, form.get("why", "")[:500])
    return see(f"/clusters/{segment(cluster)}/operations/{segment(operation)}")


# -- heal, and the rest ----------------------------------------------------------------------------------------


@router.get("/clusters/{cluster}/heal")
def heal_page(request: Request, hub: TheHub, principal: Operator, cluster: str) -> Response:
    """What is open, and what heal will do about it."""
    state = named(hub, cluster)
    silent = [s.name for s in state.view.silent] if state.view is not None else []
    return page(
        request, "heal.html", principal=principal, cluster=cluster, state=state, silent=silent,
        key=secrets.token_urlsafe(16),
    )  # fmt: skip


@router.post("/clusters/{cluster}/heal")
def heal(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Asks that everything open is finished or undone."""
    state = named(hub, cluster)
    lost = [name for name in state.config.servers if form.get(f"lost-{name}")]
    if lost and not principal.may(Scope.ADMIN):
        raise Problem(403, "to declare a server lost the scope admin is needed")
    return _ask(request, hub, principal, cluster, "heal", form, declare_lost=lost)


@router.get("/clusters/{cluster}/more")
def more_page(request: Request, hub: TheHub, principal: Operator, cluster: str) -> Response:
    """Everything else that can be asked for."""
    state = named(hub, cluster)
    return page(request, "more.html", principal=principal, cluster=cluster, state=state, key=secrets.token_urlsafe(16))


@router.post("/clusters/{cluster}/publish")
def publish(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Asks that every proxy is told to follow the present primary."""
    named(hub, cluster)
    return _ask(request, hub, principal, cluster, "publish", form)


@router.post("/clusters/{cluster}/acknowledge")
def acknowledge(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Says that a person has seen every failover so far."""
    named(hub, cluster)
    return _ask(request, hub, principal, cluster, "acknowledge", form)


# -- standing orders -------------------------------------------------------------------------------------------

_TIMES = {"": None, "1h": 3600.0, "8h": 8 * 3600.0, "1d": 86400.0, "7d": 7 * 86400.0}
"""For how long an order may be given on a page."""


def _seconds(form: Form) -> dict[str, float]:
    if form.get("for", "") not in _TIMES:
        raise Problem(422, f"{form['for']!r} is none of the times that can be chosen", cure="go back and choose one")
    seconds = _TIMES[form.get("for", "")]
    return {} if seconds is None else {"seconds": seconds}


@router.post("/clusters/{cluster}/maintenance")
def maintenance(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Puts a server into maintenance, or ends that."""
    named(hub, cluster)
    server, on = _server(hub, cluster, form.get("server", "")), form.get("on") == "1"
    if server is None:
        raise Problem(422, "it is not said which server is meant", cure="go back and choose one")
    more = _seconds(form) if on else {}
    return _ask(request, hub, principal, cluster, "maintenance", form, server=server, on=on, **more)


@router.post("/clusters/{cluster}/rank")
def rank(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Says whether a server is to become primary first, or never."""
    named(hub, cluster)
    server, said = _server(hub, cluster, form.get("server", "")), form.get("rank", "")
    if server is None or said not in ("", *RANKS):
        raise Problem(422, "a server and what it is to be are needed", cure="go back and choose them")
    return _ask(request, hub, principal, cluster, "rank", form, server=server, rank=said, **_seconds(form))


@router.post("/clusters/{cluster}/pause")
def pause(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Lets the daemon do nothing by itself, or act again."""
    named(hub, cluster)
    if form.get("on") == "1":
        return _ask(request, hub, principal, cluster, "pause", form, **_seconds(form))
    return _ask(request, hub, principal, cluster, "resume", form)


@router.post("/clusters/{cluster}/reset-orders")
def reset_orders(request: Request, hub: TheHub, principal: Operator, form: TheForm, cluster: str) -> Response:
    """Drops all orders: the one cure where they cannot be read."""
    named(hub, cluster)
    return _ask(request, hub, principal, cluster, "reset_orders", form)
