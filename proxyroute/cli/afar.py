"""The commands by the API of a running daemon: what they ask for, and what they show, is the same as on its host."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from types import SimpleNamespace
from typing import Any

import click

from proxyroute.cli.context import Context, on_terminal
from proxyroute.cli.output import Output, styled
from proxyroute.cli.progress import Progress
from proxyroute.cli.remote import NoAnswer, Remote, error_of, finding_of
from proxyroute.errors import Refused
from proxyroute.history import Summary
from proxyroute.outcome import Evidence, Proof, Result, Verdict

_EVERY = 0.25
_MOST = 1000
"""Operations of the history that are asked for at once."""
_SILENCE = 60.0
"""Seconds for which a daemon that does not answer is asked again how far a command is."""
_LOST = "it is not known what became of it"


@contextmanager
def daemon(ctx: Context) -> Iterator[tuple[Remote, str]]:
    """The daemon that ``--url`` names, and the path of the cluster that is meant; for a ``with`` block."""
    remote = Remote(ctx.url, ctx.token_file, ctx.ca_file)
    try:
        yield remote, f"/v1/clusters/{remote.cluster(ctx.cluster_option)}"
    finally:
        remote.close()


# -- Reading --------------------------------------------------------------------------------------------------


def status(ctx: Context) -> None:
    """Shows what the daemon sees; it does not look again for this."""
    with daemon(ctx) as (remote, path):
        told = remote.get(path)
    if ctx.as_json:
        ctx.out.json(told)
        return
    _show_status(ctx.out, told, ctx.url)


def plan(ctx: Context, target: str | None, *, force: bool, gone: bool) -> None:
    """Shows what a switchover or failover would do; ends with 3 when it would be refused."""
    with daemon(ctx) as (remote, path):
        told = _plan(remote, path, "failover" if gone else "switchover", target, force=force)
    if ctx.as_json:
        ctx.out.json(told)
    else:
        _show_plan(ctx.out, told)
    if not told["go"] and not told.get("unchanged"):
        raise SystemExit(Refused.exit_code)


def check(ctx: Context) -> dict[str, Any]:
    """Returns what would stand in the way, as the daemon finds it: from its host, with its secrets."""
    with daemon(ctx) as (remote, path):
        told: dict[str, Any] = remote.get(f"{path}/check")
    told["findings"] = [finding_of(f) for f in told["findings"]]
    return told


def orders(ctx: Context) -> dict[str, Any]:
    """Returns the standing orders, and the last changes."""
    with daemon(ctx) as (remote, path):
        told: dict[str, Any] = remote.get(f"{path}/orders")
        return told


def history(ctx: Context, limit: int) -> list[Summary]:
    """Returns the operations of the cluster, the latest first; a thousand at the most."""
    with daemon(ctx) as (remote, path):
        found = remote.get(f"{path}/history", limit=limit or _MOST)
    lasting = {f.name for f in fields(Summary)}
    return [
        Summary(**{k: v for k, v in told.items() if k in lasting}
                | {"leftovers": tuple(told["leftovers"]), "left_at": frozenset(told["left_at"])})
        for told in found
    ]  # fmt: skip


def records(ctx: Context, operation: str) -> list[dict[str, Any]]:
    """Returns the journal of an operation; the unambiguous beginning of its id will do. Raises Refused."""
    with daemon(ctx) as (remote, path):
        known = [past["operation"] for past in remote.get(f"{path}/history", limit=_MOST)]
        found = [id for id in known if id.startswith(operation)]
        if len(found) != 1:
            text = "several operations begin" if found else "no operation begins"
            raise Refused(f"{text} with {operation!r}; 'proxyroute history' lists them")
        told: list[dict[str, Any]] = remote.get(f"{path}/history/{found[0]}/records")["records"]
        return told


# -- Acting ---------------------------------------------------------------------------------------------------


def move(ctx: Context, kind: str, question: str, *, yes: bool, target: str | None, **arguments: Any) -> None:
    """A switchover or failover: shows the plan, asks ``question``, and follows it to its end."""
    with daemon(ctx) as (remote, path):
        told = _plan(remote, path, kind, target, force=bool(arguments.get("force")))
        if not ctx.as_json:
            _show_plan(ctx.out, told)
            ctx.out.line()
        if told.get("unchanged"):
            result = Result("", kind, "unchanged", told["primary"], text=f"{target} is the primary already")
        else:
            if not yes:
                _confirm(told, kind, question)
                target = told["plan"]["candidate"]
            about = told["plan"]["primary"] if told["plan"] else None
            ended = _done(ctx, remote, path, {"kind": kind, "target": target, "primary": about, **arguments})
            result = _results(ended)[-1]
    _tell(ctx, result, plan=told)


def _confirm(told: Mapping[str, Any], kind: str, question: str) -> None:
    """Asks about a plan. Raises Refused when there is none, or the answer is no.

    Also about one that would be refused: it was made without what is said of a fence, and may go a moment later.
    """
    if told["plan"] is None:
        raise Refused(f"{told['cluster']}: a {kind} is refused, for what is told above; nothing was touched")
    seen = "" if told["go"] else "By what was seen it would be refused. All the same: "
    if not click.confirm(seen + question.format(**told["plan"])):
        raise Refused("not confirmed; nothing was touched")


def call_off(ctx: Context, operation: str | None, why: str) -> None:
    """Calls off what goes on; waits until it has ended, and says how. Raises Refused when it was too late."""
    with daemon(ctx) as (remote, path):
        if operation is None:
            cluster = path.rpartition("/")[2]
            going = [told for told in remote.get("/v1/operations", cluster=cluster) if not told["over"]]
            if len(going) != 1:
                names = "; name one of: " + ", ".join(f"{o['id']} ({o['kind']})" for o in going) if going else ""
                raise Refused(f"{len(going) or 'no'} commands go on{names}")
            operation = going[0]["id"]
        place = f"/v1/operations/{operation}"
        told: dict[str, Any] = remote.post(f"{place}/call-off", {}, "", reason=why)
        while not told["over"]:
            time.sleep(_EVERY)
            told = _patiently(lambda: remote.get(place))
    if ctx.as_json:
        ctx.out.json(told)
    if told["state"] in ("done", "unchanged"):
        raise Refused(f"it was too late: {told['text']}")
    if not ctx.as_json:
        ctx.out.line(f"{told['kind']} {told['state']}: {told['text']}")


def heal(ctx: Context, lost: Sequence[str]) -> None:
    with daemon(ctx) as (remote, path):
        ended = _done(ctx, remote, path, {"kind": "heal", "declare_lost": list(lost)})
    results = _results(ended)
    if ctx.as_json:
        verdicts = [str(r.proof.verdict) if r.proof else None for r in results]
        ctx.out.json({"results": [{"result": r, "verdict": v} for r, v in zip(results, verdicts, strict=True)]})
        raise SystemExit(max(map(_code, results), default=0))
    if not results:
        ctx.out.line("nothing is open", "good")
    _show(ctx, results)


def rejoin(ctx: Context, server: str, method: str | None) -> None:
    with daemon(ctx) as (remote, path):
        ended = _done(ctx, remote, path, {"kind": "rejoin", "server": server, "method": method})
    _tell(ctx, _results(ended)[-1])


def verify(ctx: Context, server: str | None, tables: Sequence[str], seconds: float) -> None:
    """Compares data there; the evidence says what differs."""
    wanted = {"kind": "verify", "server": server, "tables": list(tables), "seconds": seconds}
    with daemon(ctx) as (remote, path):
        ended = _done(ctx, remote, path, wanted)
    _tell(ctx, _results(ended)[-1])


def publish(ctx: Context) -> None:
    with daemon(ctx) as (remote, path):
        ended = _done(ctx, remote, path, {"kind": "publish"})
        proxies = remote.get(f"{path}/proxies")
    if ctx.as_json:
        ctx.out.json({"text": ended["text"], "proxies": proxies})
    else:
        ctx.out.line(ended["text"] or "this cluster has no proxies")
    states = {part.rpartition(": ")[2] for part in ended["text"].split("; ") if part}
    if "failed" in states:
        raise SystemExit(1)
    if states - {"done"}:
        raise SystemExit(7)


def order(ctx: Context, kind: str, why: str, **arguments: Any) -> None:
    """A standing order, or an acknowledgement: done at once."""
    with daemon(ctx) as (remote, path):
        ended = _done(ctx, remote, path, {"kind": kind, "reason": why, **arguments})
    if ctx.as_json:
        ctx.out.json({"text": ended["text"]})
    else:
        ctx.out.line(ended["text"])


def somebody_to_ask(ctx: Context, yes: bool, words: Sequence[str]) -> None:
    """Raises Refused when nobody is there to be asked, with what to type instead."""
    if not yes and (ctx.as_json or not on_terminal()):
        raise Refused(f"nobody is here to be asked; to go ahead without asking type\n  {ctx.command_line(*words)}")


def _done(ctx: Context, remote: Remote, path: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """Asks for something and follows it to its end; returns that. Raises what the local engine would."""
    body = {name: value for name, value in order.items() if value not in (None, "", [], ())}
    key = secrets.token_hex(16)
    asked = _patiently(lambda: remote.post(f"{path}/operations", body, key))
    place, seen = f"/v1/operations/{asked['id']}", 0
    with Progress(quiet=ctx.as_json) as progress:
        while True:
            told: dict[str, Any] = _patiently(lambda: remote.get(place))
            if told["journals"]:
                written = _patiently(partial(remote.get, f"{place}/records", after=seen))
                seen = written["last"]
                for record in written["records"]:
                    progress(record)
            if told["over"]:
                break
            time.sleep(_EVERY)
    if told["state"] in ("done", "unchanged") or told["results"]:
        return told
    findings = tuple(finding_of(f) for f in told["findings"])
    raise error_of(told["exit_code"] or 1, told["text"] or f"{told['kind']} {told['state']}", findings)


def _patiently(ask: Callable[[], Any]) -> Any:
    """A daemon that is away for a moment is asked again: what it was told has one key, and is done once."""
    ends = time.monotonic() + _SILENCE
    while True:
        try:
            return ask()
        except NoAnswer as error:
            if time.monotonic() > ends:
                raise NoAnswer(f"{error}; {_LOST}: look again with 'proxyroute history'") from None
            time.sleep(1.0)


# -- Showing --------------------------------------------------------------------------------------------------


def result_of(told: Mapping[str, Any]) -> Result:
    """Returns how an operation ended, from its JSON values."""
    proof = told.get("proof")
    evidence = [
        Evidence(e["subject"], e["claim"], Verdict(e["verdict"]), e["seen"]) for e in (proof or {}).get("evidence", ())
    ]
    return Result(
        told["operation"], told["kind"], told["outcome"], told["primary"],
        Proof(tuple(evidence), proof["blackout_seconds"], proof.get("blackout_from", "")) if proof else None,
        tuple(told["leftovers"]), tuple(finding_of(f) for f in told["findings"]), told["text"],
    )  # fmt: skip


def _results(ended: Mapping[str, Any]) -> list[Result]:
    """Returns how what was asked for ended; nothing when there was nothing to heal.

    A daemon that was started anew may have no more of it than its words.
    """
    if ended["results"] or (ended["kind"] == "heal" and not ended["text"]):
        return [result_of(told) for told in ended["results"]]
    return [Result("", ended["kind"], ended["state"], text=ended["text"])]


def _code(result: Result) -> int:
    from proxyroute.cli.switchover import result_code

    return result_code(result)


def _tell(ctx: Context, result: Result, **more: Any) -> None:
    if ctx.as_json:
        ctx.out.json({**more, "result": result, "verdict": str(result.proof.verdict) if result.proof else None})
        raise SystemExit(_code(result))
    _show(ctx, [result])


def _show(ctx: Context, results: Sequence[Result]) -> None:
    from proxyroute.cli.switchover import show_result

    with ctx.out.ended(max(map(_code, results), default=0)):
        for result in results:
            show_result(ctx.out, result)


def _plan(remote: Remote, path: str, kind: str, target: str | None, *, force: bool) -> dict[str, Any]:
    wanted = {"force": force} | ({"to": target} if target else {})
    told: dict[str, Any] = remote.get(f"{path}/plan/{kind}", **wanted)
    return told


def _show_plan(out: Output, told: Mapping[str, Any]) -> None:
    """As the local command does, by the same functions."""
    from proxyroute.cli.failover import show_contingency
    from proxyroute.cli.plan import show_prospect

    seen: Any = _values(told)
    seen.findings = tuple(finding_of(f) for f in told["findings"])
    primary = told.get("primary")
    seen.view = SimpleNamespace(cluster=told["cluster"], primary=SimpleNamespace(name=primary) if primary else None)
    if "diagnosis" in told:
        seen.limits = tuple(finding_of(f) for f in told["blocks_automatic"])
        seen.dead_binlog = told["dead_binlog"]["told"]
        show_contingency(out, seen)
        return
    for transaction in seen.offenders:
        if transaction.statement is None:  # that of an idle one is empty
            transaction.statement = "(for the scope operate)"
    seen.view.inspections = {primary: SimpleNamespace(transactions=seen.offenders)}
    show_prospect(out, seen)


def _values(told: Any) -> Any:
    """Returns JSON values with their names as attributes."""
    if isinstance(told, Mapping):
        return SimpleNamespace(**{str(name): _values(value) for name, value in told.items()})
    return tuple(_values(value) for value in told) if isinstance(told, list) else told


def _show_status(out: Output, told: Mapping[str, Any], url: str) -> None:
    out.line(told["truth"], told["level"])
    if told["astray"] and told["primary"]:
        out.line(told["astray"], "bad")
    out.line()
    out.table(
        ("Server", "Role", "Read-only", "Replication", "Lag>", "Position"),
        [_server_row(server) for server in told["servers"]],
    )
    for server in told["servers"]:
        if server["role"] == "silent":
            out.line(f"{server['name']} at {server['address']}: {server['reason']}", "bad")
    if told["proxies"]:
        out.line()
        out.table(("Proxy", "Writes to", "Epoch", "State"), [_proxy_row(proxy) for proxy in told["proxies"]])
    if told.get("orders"):
        out.heading("Standing orders")
        for line in told["orders"]:
            out.line(line, "warn")
    for heading, findings in (
        ("Left to do by proxyroute heal", [{"text": id, "cure": ""} for id in told["unfinished"]]),
        ("Would block a switchover now", told["findings_switchover"]),
        ("Would block an automatic failover now", told["findings_failover"]),
    ):
        if findings:
            out.heading(heading)
        for finding in findings:
            subject = f"{finding['subject']}: " if "subject" in finding else ""
            out.line(f"{subject}{finding['text']}", "quiet")
            if finding["cure"]:
                out.raw(f"    → {finding['cure']}")
    out.line()
    seen = f" {time.time() - told['seen_at']:.0f} s ago" if told["seen_at"] else ""
    out.line(f"as proxyroute serve at {url} has seen it{seen}", "quiet")


def _server_row(server: Mapping[str, Any]) -> tuple[object, ...]:
    if server["role"] == "silent":
        return (server["name"], styled("silent", "bad"), *[""] * 4)
    channels = server["channels"]
    lag = server["lag_seconds"]
    return (
        server["name"],
        server["role"],
        styled("no", "bad" if server["astray"] else "") if server["writable"] else "yes",
        ", ".join(f"from {c['source'] or c['address']}" for c in channels),
        f"{lag:g} s" if lag is not None else "",
        server["position"],
    )


def _proxy_row(proxy: Mapping[str, Any]) -> tuple[object, ...]:
    name = proxy["proxy"]
    if not proxy["reachable"]:
        return name, "?", "", styled(f"not reachable: {proxy['detail']}", "bad")
    state = "drifted" if proxy["drift"] else "holds newcomers" if proxy["held"] else "ok"
    return name, proxy["primary"] or "nobody", proxy["epoch"] or "-", styled(state, "" if state == "ok" else "warn")
