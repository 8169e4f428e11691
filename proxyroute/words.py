"""How durations and what an operation records are said: the same words on a terminal and in a message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, clears it, or turns the direction of what is read; line ends and tabs are none."""


def legible(text: str, indent: str = "") -> str:
    """Returns ``text`` with what would act on a terminal written out (``\\x1b``), and further lines behind ``indent``.

    What others have said is shown to people in texts of ours: a reason, the statement of a client, an error.
    """
    shown = _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)
    return shown.replace("\n", f"\n{indent}") if indent else shown


def seconds(value: float | None) -> str:
    """Returns a duration as people say it: ``0.4 ms``, ``12 ms``, ``3.2 s``, ``2 min 5 s``; ``-`` for None."""
    if value is None:
        return "-"
    if value < 0.00095:
        return f"{value * 1000:.1f} ms"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def roughly(value: float) -> str:
    """Returns a duration by what counts in it, so that it seldom changes: ``25 s``, ``3 minutes``, ``1 hour``."""
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if value >= size:
            count = int(value // size)
            return f"{count} {word}{'' if count == 1 else 's'}"
    return f"{value // 5 * 5:.0f} s"


def stood_still(value: float, since: str, old: str = "the old primary") -> str:
    """Returns for how long writes stood still; ``since`` as in ``Proof.blackout_from``: what that is measured from."""
    bound, measured = {
        "seen": ("at most ", f", counted from the last sight of {old} taking writes"),
        "begun": ("at least ", f", counted from the first step; nobody knows when {old} took its last write"),
    }.get(since, ("", ""))
    return f"writes stood still for {bound}{seconds(value)}{measured}"


def step_line(event: Mapping[str, Any]) -> str:
    """Returns the line for a step that is over: name, duration, what it says of itself."""
    text = event.get("error") or event.get("detail") or ""
    failed = "FAILED: " if event.get("error") else ""
    return f"  {event['name']:<24} {seconds(event['seconds']):>8}  {failed}{text}".rstrip()


def other_line(event: Mapping[str, Any]) -> str:
    """Returns the line for a record that is no step, or an empty string for one that people need not see."""
    if event["kind"] == "commit":
        return "  -- committed: from here on nothing is taken back --"
    if event["kind"] == "note":
        return f"  note: {event.get('text', '')}"
    where = f" at {event['server']}" if event.get("server") else ""
    if not event.get("reason"):
        return f"  done after all: {event.get('verb')}{where}"
    return f"  left to do: {event.get('verb')}{where}: {event['reason']}"
