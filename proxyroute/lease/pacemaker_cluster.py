"""What a cluster manager (Pacemaker) says of itself, asked through its own programs, each with a deadline.

Nothing here changes anything there. An answer that does not come, or makes no sense, is TimedOut: nobody knows.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from proxyroute.argv import Finished, run
from proxyroute.errors import ScriptFailed, TimedOut
from proxyroute.model import Deadline

_PLACES = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where its programs are besides PATH: that of an ordinary user does not name them all."""
_DENIED = 4


@dataclass(frozen=True)
class ClusterNode:
    """One node as the cluster sees it."""

    online: bool
    unclean: bool = False
    """It is to be fenced, and nobody has confirmed that yet."""
    pending: bool = False
    """It is about to join."""


@dataclass(frozen=True)
class Resource:
    """One resource as the cluster sees it."""

    role: str
    """``Started``, ``Starting``, ``Stopping``, ``Stopped`` …"""
    managed: bool = True
    nodes: tuple[str, ...] = ()
    """Where it is, or is on its way to, or from."""


@dataclass(frozen=True)
class ClusterSight:
    """What one look has shown."""

    here: str
    """The name of this node."""
    quorate: bool
    """This part of the cluster may decide: it has quorum, or is told to do without."""
    fences: bool
    """Nodes that are lost are fenced (``stonith-enabled``)."""
    maintenance: bool = False
    """The whole cluster is in maintenance mode."""
    nodes: Mapping[str, ClusterNode] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)


@dataclass(frozen=True)
class Fencing:
    """One fencing of a node that came to its end."""

    action: str
    """``off``, ``reboot``, ``on``."""
    succeeded: bool
    at: float
    """Unix time of its end, by the clock of a node."""
    by: str = ""
    """Who asked for it: a program and its node."""


class PacemakerCluster:
    """The cluster that this host is a node of. May be used by several threads."""

    def __init__(self, node: str = "") -> None:
        """``node`` is this host's name in the cluster; by default the cluster is asked for it, once."""
        self._node = node

    def sight(self, deadline: Deadline) -> ClusterSight:
        """Returns how things are. Raises TimedOut when the cluster does not say."""
        if not self._node:
            self._node = _said(["crm_node", "--name"], deadline).strip()
        root = _document(["crm_mon", "--one-shot", "--output-as=xml"], deadline)
        try:
            return _sight(root, self._node)
        except (LookupError, ValueError) as error:
            raise TimedOut(f"crm_mon answers what is not understood: {error}") from error

    def fencings(self, node: str, deadline: Deadline) -> tuple[Fencing, ...]:
        """Returns every fencing of ``node`` on record, the latest first. Raises TimedOut."""
        # without --verbose it leaves out what a person has confirmed while a device was still being asked
        root = _document(["stonith_admin", f"--history={node}", "--verbose", "--output-as=xml"], deadline)
        found = [event for event in root.iter("fence_event") if event.get("target") == node and event.get("completed")]
        told = [
            Fencing(
                event.get("action", ""),
                event.get("status") == "success",
                _moment(event.get("completed", "")),
                f"{event.get('client', '')} at {event.get('origin', '')}",
            )
            for event in found
        ]
        return tuple(sorted(told, key=lambda one: one.at, reverse=True))


def _moment(text: str) -> float:
    """Returns the Unix time of ``2026-11-28 20:07:36Z``, with or without parts of a second. Raises TimedOut."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise TimedOut(f"stonith_admin tells a time that is not understood: {error}") from None


def _said(argv: Sequence[str], deadline: Deadline) -> str:
    """Returns what one of the cluster's programs says. Raises TimedOut."""
    done = _run(argv, deadline)
    if done.status:
        raise TimedOut(_told(argv[0], done, done.stderr or done.stdout))
    return done.stdout


def _document(argv: Sequence[str], deadline: Deadline) -> ET.Element:
    """Returns what one of the cluster's programs says, as a document. Raises TimedOut."""
    done = _run(argv, deadline)
    try:
        root = ET.fromstring(done.stdout)
    except ET.ParseError:
        words = done.stderr or done.stdout or "it said nothing"
        raise TimedOut(_told(argv[0], done, words)) from None
    status = root.find("status")
    if done.status or status is None or status.get("code") != "0":
        errors = [error.text or "" for error in root.iter("error")]
        words = "; ".join(errors) or (status.get("message", "") if status is not None else "it said no status")
        raise TimedOut(_told(argv[0], done, words))
    return root


def _run(argv: Sequence[str], deadline: Deadline) -> Finished:
    program = shutil.which(argv[0]) or shutil.which(argv[0], path=_PLACES)
    if program is None:
        raise TimedOut(f"{argv[0]} is not installed: this host is no node of a cluster, or lacks its programs")
    try:
        return run([program, *argv[1:]], {}, deadline)
    except ScriptFailed as error:
        raise TimedOut(f"the cluster manager does not answer: {error}") from error


def _told(program: str, done: Finished, words: str) -> str:
    text = f"the cluster manager does not say: {program} ends with {done.status}: {' '.join(words.split())[:300]}"
    denied = done.status == _DENIED or "ermission denied" in words
    return f"{text}; whoever asks has to be in the group haclient" if denied else text


def _sight(root: ET.Element, here: str) -> ClusterSight:
    options, centre = _one(root, "cluster_options"), _one(root, "current_dc")
    if not _yes(centre.get("present")):
        raise TimedOut("the cluster manager has not found together yet: it has no designated controller")
    nodes = root.find("nodes")
    return ClusterSight(
        here,
        quorate=_yes(centre.get("with_quorum")) or options.get("no-quorum-policy") == "ignore",
        fences=_yes(options.get("stonith-enabled")),
        maintenance=_yes(options.get("maintenance-mode")),
        nodes={
            node.get("name", ""): ClusterNode(
                _yes(node.get("online")), _yes(node.get("unclean")), _yes(node.get("pending"))
            )
            for node in (nodes if nodes is not None else ())
        },
        resources={
            found.get("id", ""): Resource(
                found.get("role", ""),
                _yes(found.get("managed")),
                tuple(node.get("name", "") for node in found.findall("node")),
            )
            for found in root.iter("resource")
        },
    )


def _one(root: ET.Element, name: str) -> ET.Element:
    found = next(root.iter(name), None)
    if found is None:
        raise LookupError(f"there is no {name} in it")
    return found


def _yes(text: str | None) -> bool:
    return text == "true"
