"""The few figures a bench prints. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest of ``values`` that ``share`` (0…1) of them do not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("no values, no percentile")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def figures(values: Sequence[float]) -> dict[str, float]:
    """Returns ``min``, ``median``, ``p95`` and ``max`` of ``values``, rounded to a hundredth."""
    return {
        "min": round(min(values), 2),
        "median": round(statistics.median(values), 2),
        "p95": round(percentile(values, 0.95), 2),
        "max": round(max(values), 2),
    }
