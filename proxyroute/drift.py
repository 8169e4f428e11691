"""Where proxies are not as they are meant to be, and what they must be told then. Pure.

Three things are compared: the route that is intended, the one that was published to a proxy, and the one it has loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxyroute.model import Epoch, Observed, RouteTable


@dataclass(frozen=True)
class Correction:
    """What has to be published so that every proxy routes as intended."""

    wrong: Mapping[str, tuple[str, ...]]
    """Each proxy that is not as intended, with every difference in words."""
    epoch: Epoch | None
    """The epoch under which the intended route is published already; None when it needs a fresh one."""


def differences(primary: str, seen: Observed) -> tuple[str, ...]:
    """Returns, in words, where ``seen`` is not what it should be while ``primary`` takes the writes.

    Nothing for a proxy that cannot be read: what it does is unknown.
    """
    if not seen.reachable:
        return ()
    found = []
    if seen.published is not None and seen.published.primary != primary:
        found.append(f"writes should go to {primary}, published is {seen.published}")
    if seen.primary != primary:
        found.append(f"writes should go to {primary}, loaded is {seen.primary or 'nobody'}/{seen.epoch or '-'}")
    return (*found, *seen.drift)


def correction(table: RouteTable, observed: Sequence[Observed]) -> Correction | None:
    """Returns what to tell the proxies so that they route by ``table``, whose epoch does not count; None if they do.

    A route that is published already keeps its epoch. A fresh one is needed where a proxy follows nobody's epoch yet,
    or has seen a higher one, or means another server by it.
    """
    assert table.primary is not None, "a closed route is nobody's intention in quiet times"
    wrong = {}
    for seen in observed:
        found = differences(table.primary, seen)
        readers = {reader.name for reader in table.readers} - set(seen.aside)
        loaded = set(seen.readers) - set(seen.aside)
        # with every reader set aside, the primary serves reads
        if seen.reachable and seen.readers and loaded != (readers or {table.primary}):
            found = (*found, f"reads should go to {_names(readers)}, loaded is {_names(loaded)}")
        if found:
            wrong[seen.proxy] = found
    if not wrong:
        return None
    claims = [(o.epoch, o.primary) for o in observed if o.epoch is not None]
    claims += [(o.published.epoch, o.published.primary) for o in observed if o.published is not None]
    ours = max((epoch for epoch, primary in claims if primary == table.primary), default=None)
    stands_above = any(
        ours is None or epoch > ours or (epoch == ours and primary not in (None, table.primary))
        for epoch, primary in claims
    )
    return Correction(wrong, None if ours is None or stands_above else ours)


def _names(names: set[str]) -> str:
    return " and ".join(sorted(names)) or "nobody"
