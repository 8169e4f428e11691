"""Notices: something that has changed, for people, for a log, and for those who are to be told elsewhere. Pure."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxyroute import report as reports

_LONGEST_SUBJECT = 180


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Notice:
    """Something that has changed, for people and for a log."""

    cluster: str
    kind: str
    """From ``serve``: ``serving``, ``state``, ``diagnosis``, ``orders``, ``acted``, ``blocked``, ``healed``,
    ``corrected``, ``refused``, ``trouble``, ``unsent``, ``reload`` or ``ended``; from a command: ``operation`` or
    ``test``."""
    text: str
    level: str = ""
    """``good``, ``warn`` or ``bad``."""
    at: float = 0.0
    """Unix time."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values; ``report`` is that of an operation."""
    id: str = field(default_factory=_new_id)
    """By which a receiver knows a notice that reaches it twice: an answer may be lost after the notice arrived."""


def payload(notice: Notice) -> dict[str, Any]:
    """Returns the notice as JSON values, as receivers get it."""
    details = dict(notice.details)
    return {
        "id": notice.id,
        "cluster": notice.cluster,
        "kind": notice.kind,
        "level": notice.level,
        "text": notice.text,
        "at": notice.at,
        "report": details.pop("report", None),
        "details": details,
    }


def dumped(value: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    """Returns ``value`` as JSON, whatever text it has (see :func:`sendable`)."""
    return sendable(json.dumps(value, ensure_ascii=False, indent=indent)).encode()


def sendable(text: str) -> str:
    """Returns ``text`` with what no encoding can write, half a character out of the name of a file, as ``\\udcff``."""
    return text.encode(errors="backslashreplace").decode()


def subject(notice: Notice) -> str:
    """Returns the notice in one line that begins with the cluster's name."""
    text = " ".join(sendable(notice.text).removeprefix(f"{notice.cluster}: ").split())
    mark = "[BAD] " if notice.level == "bad" else ""
    line = f"{mark}{notice.cluster}: {text}"
    return line if len(line) <= _LONGEST_SUBJECT else f"{line[: _LONGEST_SUBJECT - 1]}…"


def body(notice: Notice) -> str:
    """Returns the notice for people to read: the report, or what else is known."""
    told = notice.details.get("report")
    if told:
        return sendable(reports.text(told))
    details = {key: value for key, value in notice.details.items() if value}
    more = f"\n{dumped(details, indent=2).decode()}\n" if details else ""
    return f"{subject(notice)}\n{more}\nLook at it: proxyroute status --cluster {notice.cluster}\n"
