"""Small curves without axes: their shape, and the highest value in words. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from proxyroute.web.samples import KEPT, Curve

WIDTH, HEIGHT = 150, 28


@dataclass(frozen=True)
class Spark:
    """A curve as paths of an SVG of WIDTH × HEIGHT."""

    line: str
    area: str
    top: str
    last: str
    width: int = WIDTH
    height: int = HEIGHT


def spark(curve: Curve, unit: str, least: float = 1.0) -> Spark:
    """Returns how ``curve`` is drawn; its full height is ``least`` or its highest value, whichever is more."""
    full = max(least, curve.top)
    step = WIDTH / (KEPT - 1)
    start = WIDTH - (len(curve.values) - 1) * step
    runs: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(curve.values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((round(start + number * step, 1), round(HEIGHT - 2 - (HEIGHT - 4) * value / full, 1)))
    lines, areas = [], []
    for run in filter(None, runs):
        path = " L".join(f"{x:g} {y:g}" for x, y in run)
        lines.append(f"M{path}" if len(run) > 1 else f"M{path} h0.1")
        areas.append(f"M{run[0][0]:g} {HEIGHT} L{path} L{run[-1][0]:g} {HEIGHT}Z")
    return Spark(" ".join(lines), " ".join(areas), number_text(curve.top, unit), number_text(curve.last, unit))


def number_text(value: float | None, unit: str) -> str:
    """Returns a number with about two digits that count; ``-`` for None."""
    if value is None:
        return "-"
    digits = 0 if value >= 10 or value == 0 else min(2, 1 - math.floor(math.log10(value)))
    return f"{value:.{max(0, digits)}f}\u202f{unit}" if unit else f"{value:.{max(0, digits)}f}"
