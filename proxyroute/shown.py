"""How servers and proxies are told in a few words: the same words in a terminal and on a page. Pure.

Where a word is good or bad news it comes with its level: ``good``, ``warn``, ``bad``, ``quiet``, or nothing;
a record may be ``bold``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyroute import topology
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.jsonable import dump
from proxyroute.model import Holding, Observed, Receiver, Source, Status, View
from proxyroute.words import seconds

Told = tuple[str, str]
"""A text and its level."""

_SAID = ("v", "n", "t", "kind", "operation")
"""What of a record is no part of its words."""


def role(server: Status, view: View) -> str:
    """Returns ``primary``, ``replica`` or ``alone``."""
    return "primary" if server is view.primary else "replica" if server.sources else "alone"


def read_only(server: Status, view: View) -> Told:
    """Returns whether a server refuses writes; bad for one that should."""
    if server.writable:
        return "no", "" if server is view.primary else "bad"
    return "yes", "" if server.sources else "warn"


def lag(server: Status) -> str:
    """Returns how far a replica is behind, by its slowest channel that tells; nothing where nobody is followed."""
    lags = [s.lag_seconds for s in server.sources if s.lag_seconds is not None]
    return f"{max(lags):g} s" if lags else "-" if server.sources else ""


def replication(server: Status, view: View) -> Told:
    """Returns all channels in a few words."""
    if not server.sources:
        return "", ""
    text = ", ".join(channel(s, view) for s in server.sources)
    return text, "" if all(s.running for s in server.sources) else "bad"


def channel(source: Source, view: View) -> str:
    """Returns one channel in a few words: from whom, and which of its two threads does not run."""
    name = topology.source_of(view, source) or source.address
    trouble = []
    if source.receiver is not Receiver.RUNNING:
        trouble.append(f"receiver {source.receiver}")
    if not source.applier:
        trouble.append("applier stopped")
    return f"from {name}{': ' if trouble else ''}{', '.join(trouble)}"


def semi_sync(server: Status) -> Told:
    """Returns how semi-synchronous replication works on a server."""
    semi = server.semi_sync
    if not (semi.primary_enabled or semi.replica_enabled):
        return "off", "quiet"
    if server.sources:
        return ("on", "") if semi.replica_enabled else ("off", "quiet")
    return (f"{semi.clients} ack", "") if semi.primary_active else ("degraded", "warn")


def position_text(position: Position) -> str:
    """Returns a position in short: of a MariaDB one, only the latest transaction of every domain."""
    shown = position.latest() if isinstance(position, MariaDBPosition) else position
    return str(shown) or "-"


def route_of(proxy: Observed) -> str:
    """Returns the write route that a proxy has loaded, as ``server/epoch``."""
    return f"{proxy.primary or 'nobody'}/{proxy.epoch}" if proxy.epoch is not None else proxy.primary or "-"


def lease_text(lease: Holding) -> str:
    """Returns who holds the lease, in one line."""
    if lease.trouble:
        return f"nobody knows who holds it: {lease.trouble}"
    if not lease.holder:
        return "free"
    left = f", {lease.seconds_left:g} s left unless it is renewed" if lease.seconds_left is not None else ""
    return f"held by {lease.holder} for {lease.purpose or 'an operation'}{left}"


def ended_text(outcome: str, verdict: str | None, leftovers: int) -> str:
    """Returns how an operation ended, in some words."""
    left = f", {leftovers} left to do" if leftovers else ""
    return f"{outcome}{f', {verdict}' if verdict else ''}{left}"


def verdict_level(verdict: str | None) -> str:
    """Returns how good a verdict is; nothing for none."""
    return {"PROVEN": "good", "NOT PROVEN": "bad", "UNKNOWN": "warn"}.get(str(verdict), "")


def record_text(record: Mapping[str, Any]) -> Told:
    """Returns a record of a journal in words, without the evidence of a proof; what has no words as its fields."""
    kind = record["kind"]
    if kind == "begin":
        plan = record.get("plan", {})
        moved = f"{plan.get('primary')} → {plan.get('candidate')}"
        return f"{record.get('operation_kind')} of {record.get('cluster')}, {moved}, epoch {record.get('epoch')}", ""
    if kind == "step":
        return str(record["name"]), ""
    if kind == "stepped":
        text = f"{record['name']}: {seconds(record['seconds'])}  {record.get('error') or record.get('detail') or ''}"
        return text.rstrip(), "bad" if record.get("error") else ""
    if kind == "commit":
        return "from here on nothing is taken back", "bold"
    if kind == "proof":
        return str(record.get("verdict")), verdict_level(str(record.get("verdict")))
    if kind == "end":
        return f"{record.get('outcome')}{': ' if record.get('text') else ''}{record.get('text', '')}", ""
    rest = {key: value for key, value in record.items() if key not in _SAID}
    told = (f"{key}={value if isinstance(value, str) else dump(value, indent=None)}" for key, value in rest.items())
    return ", ".join(told), ""


def evidence_text(evidence: Mapping[str, Any]) -> str:
    """Returns one piece of evidence in a line."""
    return f"{evidence['verdict']}  {evidence['subject']}: {evidence['claim']}; {evidence['seen']}"
