"""Who writes where and who follows whom, as a drawing: places of boxes and the lines between them. Pure.

Two drawings of the same: a wide one from left to right, and a narrow one for phones, indented like an outline. Both
are drawn at the size they are shown at, so that text keeps its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxyroute.web.pages.facts import ProxyFacts, ServerFacts

_NARROW = 344
_BOX, _HEIGHT = 252, 122
_PROXY, _PROXY_HEIGHT = 184, 64
_GAP, _STEP, _INDENT = 18, 96, 22


@dataclass(frozen=True)
class Box:
    """A server or a proxy, and where it is drawn."""

    x: int
    y: int
    width: int
    height: int
    server: ServerFacts | None = None
    proxy: ProxyFacts | None = None


@dataclass(frozen=True)
class Link:
    """A line with an arrow; ``kind`` is ``writes`` or ``follows``."""

    path: str
    level: str
    kind: str


@dataclass(frozen=True)
class Drawing:
    """A drawing of a cluster."""

    name: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]


def wide(servers: Sequence[ServerFacts], proxies: Sequence[ProxyFacts]) -> Drawing:
    """Returns the drawing from left to right: proxies, who takes writes, who follows, who follows those."""
    columns = _columns(servers)
    left = _PROXY + _STEP if proxies else 0
    tallest = max([len(c) * (_HEIGHT + _GAP) for c in columns] + [len(proxies) * (_PROXY_HEIGHT + _GAP)]) - _GAP
    boxes = [
        Box(0, y, _PROXY, _PROXY_HEIGHT, proxy=proxy)
        for proxy, y in zip(proxies, _spread(len(proxies), _PROXY_HEIGHT, tallest), strict=True)
    ]
    for depth, column in enumerate(columns):
        x = left + depth * (_BOX + _STEP)
        for server, y in zip(column, _spread(len(column), _HEIGHT, tallest), strict=True):
            boxes.append(Box(x, y, _BOX, _HEIGHT, server=server))
    width = left + len(columns) * (_BOX + _STEP) - _STEP
    places = {box.server.name: box for box in boxes if box.server is not None}
    links = []
    for box in boxes:
        if box.proxy is not None and box.proxy.target in places:
            links.append(Link(_curve(box, places[box.proxy.target]), box.proxy.level, "writes"))
        if box.server is not None and box.server.source in places:
            above = places[box.server.source]
            links.append(Link(_curve(above, box), _flow(box.server), "follows"))
    return Drawing("wide", width, tallest, tuple(boxes), tuple(links))


def narrow(servers: Sequence[ServerFacts]) -> Drawing:
    """Returns the drawing for a phone: one below the other, followers indented below those they follow."""
    boxes: list[Box] = []
    links: list[Link] = []
    y = 0
    places: dict[str, Box] = {}
    for depth, server in _outline(servers):
        indent = min(depth, 3) * _INDENT
        box = Box(indent, y, _NARROW - indent, _HEIGHT, server=server)
        boxes.append(box)
        if server.source in places and depth:
            above = places[server.source]
            x, middle = above.x + _INDENT // 2, y + _HEIGHT // 2
            links.append(Link(f"M{x} {above.y + _HEIGHT} V{middle} H{box.x}", _flow(server), "follows"))
        places[server.name] = box
        y += _HEIGHT + _GAP
    return Drawing("narrow", _NARROW, max(y - _GAP, 0), tuple(boxes), tuple(links))


def _flow(server: ServerFacts) -> str:
    return "good" if server.receiver == "running" and server.applier == "running" else "bad"


def _curve(start: Box, end: Box) -> str:
    x, y = start.x + start.width, start.y + start.height // 2
    to_x, to_y = end.x, end.y + end.height // 2
    if to_x <= x:  # two that follow each other, or stand side by side
        return f"M{start.x + start.width // 2} {start.y} L{end.x + end.width // 2} {end.y + end.height}"
    middle = (x + to_x) // 2
    return f"M{x} {y} C{middle} {y} {middle} {to_y} {to_x - 2} {to_y}"


def _spread(count: int, height: int, total: int) -> list[int]:
    """Returns the upper edges of ``count`` boxes, in the middle of ``total``."""
    used = count * (height + _GAP) - _GAP
    return [max(0, (total - used) // 2) + n * (height + _GAP) for n in range(count)]


def _columns(servers: Sequence[ServerFacts]) -> list[list[ServerFacts]]:
    columns: list[list[ServerFacts]] = []
    for depth, server in _outline(servers):
        while len(columns) <= depth:
            columns.append([])
        columns[depth].append(server)
    return [column for column in columns if column] or [[]]


def _outline(servers: Sequence[ServerFacts]) -> list[tuple[int, ServerFacts]]:
    """Returns every server once, with how deep it stands: those on top first, the primary before all, followers below
    whom they follow."""
    names = {s.name: s for s in servers}
    below: Mapping[str, list[ServerFacts]] = {name: [s for s in servers if s.source == name] for name in names}
    found: list[tuple[int, ServerFacts]] = []
    met: set[str] = set()

    def walk(server: ServerFacts, depth: int) -> None:
        if server.name in met:
            return
        met.add(server.name)
        found.append((depth, server))
        for follower in below[server.name]:
            walk(follower, depth + 1)

    tops = [s for s in servers if s.source not in names]
    for server in sorted(tops, key=lambda s: (s.role != "primary", not below[s.name], s.role == "silent")):
        walk(server, 0)
    for server in servers:  # a ring has no top
        walk(server, 0)
    return found
