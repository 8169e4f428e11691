"""What the pages say of a cluster, in words and levels, from what was seen and what is on record. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proxyroute import shown, topology
from proxyroute.addresses import address_findings, holders
from proxyroute.drift import differences
from proxyroute.model import Finding, Observed, Severity, Silent, Source, Status, View
from proxyroute.web.shown import lag_of
from proxyroute.web.state import ClusterState

LEVELS = ("bad", "warn", "good")
"""The worst first."""
IN_MAINTENANCE = "in maintenance"
WORDS = {"good": "OK", "warn": "Look", "bad": "Problem"}


@dataclass(frozen=True)
class Line:
    """One cluster in one line of truth."""

    name: str
    level: str
    word: str
    sentence: str
    failover: str
    """Whether a failover would be possible now, in words."""
    failover_level: str
    unfinished: bool


@dataclass(frozen=True)
class ServerFacts:
    """One server as the pages show it."""

    name: str
    address: str
    role: str
    """``primary``, ``replica``, ``alone`` or ``silent``."""
    level: str
    state: str
    """What it does, in two or three words."""
    trouble: str = ""
    """What is wrong with it, in a sentence."""
    source: str | None = None
    """The member it follows."""
    receiver: str = ""
    applier: str = ""
    lag: str = ""
    behind: str = ""
    """How many transactions it lacks that the primary has."""
    semi_sync: str = ""
    read_only: str = ""
    read_only_level: str = ""
    position: str = ""
    version: str = ""
    connections: str = ""
    notes: tuple[str, ...] = ()
    """What people have said about it: maintenance, preferred, never to be promoted."""


@dataclass(frozen=True)
class ProxyFacts:
    """One proxy as the pages show it."""

    name: str
    level: str
    state: str
    target: str | None
    intended: str
    published: str
    loaded: str
    epoch: str
    readers: str
    sessions: tuple[tuple[str, int], ...]
    differences: tuple[str, ...]


def line(state: ClusterState) -> Line:
    """Returns the line of truth for an overview."""
    possible, level = failover_possible(state)
    return Line(
        name=state.name,
        level=state.level,
        word=WORDS[state.level],
        sentence=_sentence(state),
        failover=possible,
        failover_level=level,
        unfinished=bool(state.unfinished),
    )


def _sentence(state: ClusterState) -> str:
    view, primary = state.view, state.primary
    if state.level != "good" or view is None or primary is None:
        return state.truth.removeprefix(f"{state.name}: ").removeprefix(f"{state.name} ")
    replicas = [s for s in view.seen if s is not primary]
    parts = [f"{primary.name} takes writes"]
    if replicas:
        known = [lag for s in replicas if (lag := lag_of(s)) is not None]
        behind = f", {span(max(known))} behind" if known else ""
        parts.append(f"{len(replicas)} replica{'' if len(replicas) == 1 else 's'}{behind}")
    else:
        parts.append("no replica")
    if state.observed:
        parts.append(f"{len(state.observed)} of {len(state.observed)} proxies agree")
    return "; ".join(parts)


def failover_possible(state: ClusterState) -> tuple[str, str]:
    """Returns whether the primary could be replaced if it died now, in words, and how good that is."""
    guarantee = state.guarantee
    if guarantee is None or state.old:
        return f"not known {'now' if state.old else 'yet'}", "warn"
    if guarantee.winner is None:
        return "no", "bad"
    if state.config.failover.mode == "automatic":
        return ("no", "bad") if state.blocks_failover else ("yes", "good")
    return ("by hand, in spite of doubts", "warn") if guarantee.obstacles else ("yes, by hand", "good")


def worst_first(lines: Sequence[Line]) -> list[Line]:
    """Returns the lines with the problems first, else by name."""
    return sorted(lines, key=lambda x: (LEVELS.index(x.level), not x.unfinished, x.name))


# -- servers ---------------------------------------------------------------------------------------------------


def servers(state: ClusterState) -> list[ServerFacts]:
    """Returns every server of the cluster, in the order of the configuration."""
    view = state.view
    if view is None:
        return [
            ServerFacts(s.name, str(s.address), "silent", "warn", "not looked at yet")
            for s in state.config.servers.values()
        ]
    notes = _notes(state)
    found = []
    for name, seen in view.servers.items():
        if isinstance(seen, Silent):
            level = "warn" if IN_MAINTENANCE in notes.get(name, ()) else "bad"
            facts = ServerFacts(
                name, str(seen.address), "silent", level, "does not answer", seen.reason, notes=notes.get(name, ())
            )
        else:
            facts = _server(state, view, seen, notes.get(name, ()))
        found.append(facts)
    return found


def _server(state: ClusterState, view: View, server: Status, notes: tuple[str, ...]) -> ServerFacts:
    role = shown.role(server, view)
    source = server.source
    read_only, read_only_level = shown.read_only(server, view)
    semi, _ = shown.semi_sync(server)
    level, word = _judged(state, view, server, role)
    lag = lag_of(server)
    trouble = "; ".join(s.error for s in server.sources if s.error)
    return ServerFacts(
        name=server.name,
        address=str(server.address),
        role=role,
        level=level,
        state=word,
        trouble=trouble,
        source=topology.source_of(view, source) if source is not None else None,
        receiver=str(source.receiver) if source is not None else "",
        applier=_applier(source),
        lag=span(lag) if lag is not None else shown.lag(server) and "?",
        behind=behind(view, server),
        semi_sync=semi,
        read_only=read_only,
        read_only_level=read_only_level,
        position=shown.position_text(server.executed),
        version=".".join(map(str, server.version)),
        connections=f"{server.connections} of {server.connections_limit}" if server.connections_limit else "",
        notes=notes,
    )


def _applier(source: Source | None) -> str:
    return "" if source is None else "running" if source.applier else "stopped"


def _judged(state: ClusterState, view: View, server: Status, role: str) -> tuple[str, str]:
    """Returns how good a server is, and what it does."""
    if role == "primary":
        return "good", "takes writes"
    if server.writable:
        return "bad", "takes writes, too" if view.primary else "takes writes"
    if not server.sources:
        return "warn", "refuses writes, follows nobody"
    if not all(s.running for s in server.sources):
        return "bad", "replication stopped"
    lag = lag_of(server)
    if lag is not None and lag > state.config.policy.max_lag:
        return "warn", "is far behind"
    above = topology.source_of(view, server.sources[0])
    top = topology.path(view, server.name)[-1]
    if view.status(top) is None:
        return "warn", f"waits for {top}"
    if view.primary is None or top != view.primary.name:
        return "warn", f"follows {above or 'a stranger'}"
    return "good", f"follows {above}"


def span(value: float) -> str:
    """Returns seconds with the digits that count."""
    return f"{value:.0f} s" if value >= 10 or value == int(value) else f"{value:.1f} s"


def behind(view: View, server: Status) -> str:
    """Returns how many transactions a replica lacks that the primary has; ``?`` where nobody can tell."""
    primary = view.primary
    if server is primary or not server.sources:
        return ""
    if primary is None:
        return "?"
    distance = server.behind(primary)
    return "?" if distance is None else str(distance)


def _notes(state: ClusterState) -> Mapping[str, tuple[str, ...]]:
    standing = state.glance.standing if state.glance is not None else None
    policy = standing.policy(state.config.policy) if standing is not None else state.config.policy
    notes: dict[str, list[str]] = {name: [IN_MAINTENANCE] for name in policy.aside}
    for number, name in enumerate(policy.prefer, 1):
        notes.setdefault(name, []).append("preferred" if len(policy.prefer) == 1 else f"preferred, number {number}")
    for name in policy.never:
        notes.setdefault(name, []).append("never promoted")
    for summary in state.aside:
        notes.setdefault(summary.candidate, []).append("not in the cluster")
    return {name: tuple(told) for name, told in notes.items()}


# -- proxies ---------------------------------------------------------------------------------------------------


def proxies(state: ClusterState) -> list[ProxyFacts]:
    """Returns every proxy that was asked."""
    intended = state.glance.intended if state.glance else None
    return [_proxy(proxy, intended) for proxy in state.observed]


def _proxy(proxy: Observed, intended: str | None) -> ProxyFacts:
    found = differences(intended, proxy) if intended is not None else proxy.drift
    if not proxy.reachable:
        level, word, found = "bad", "does not answer", (proxy.detail,) if proxy.detail else ()
    elif intended is not None and proxy.primary != intended:
        level, word = "bad", "sends writes elsewhere"
    elif found:
        level, word = "warn", "has drifted"
    elif proxy.held:
        level, word = "warn", "holds newcomers"
    else:
        level, word = "good", "agrees"
    return ProxyFacts(
        name=proxy.proxy,
        level=level,
        state=word,
        target=proxy.primary if proxy.reachable else None,
        intended=intended or "?",
        published=str(proxy.published) if proxy.published is not None else "-",
        loaded=shown.route_of(proxy) if proxy.reachable else "?",
        epoch=str(proxy.epoch) if proxy.epoch is not None else "-",
        readers=" ".join(proxy.readers) or "-",
        sessions=tuple((name, count) for name, count in proxy.sessions.items() if count),
        differences=tuple(found),
    )


# -- virtual addresses -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AddressFacts:
    """A virtual address as the pages show it."""

    address: str
    level: str
    text: str
    cure: str = ""


def addresses(state: ClusterState) -> list[AddressFacts]:
    """Returns who has each virtual address that is watched on a proxy's host, or should be; what is wrong first."""
    vrrp = state.config.vrrp
    wrong = {f.subject: f for f in address_findings(state.observed, vrrp.plain if vrrp is not None else ())}
    found = [AddressFacts(address, "warn", f.text, f.cure) for address, f in wrong.items()]
    for address, hosts in holders(state.observed).items():
        if address not in wrong:
            told = f"is at {hosts[0]}" if hosts else "nobody knows where it is: a host that may have it does not answer"
            found.append(AddressFacts(address, "good" if hosts else "warn", told))
    return found


# -- what stands in the way -------------------------------------------------------------------------------------


def grouped(findings: Sequence[Finding]) -> Iterator[tuple[str, str, list[Finding]]]:
    """Yields heading, level and findings, the worst first."""
    for severity, heading, level in (
        (Severity.ERROR, "Errors", "bad"),
        (Severity.WARNING, "Warnings", "warn"),
        (Severity.INFO, "Notes", "quiet"),
    ):
        if found := [f for f in findings if f.severity is severity]:
            yield heading, level, found
