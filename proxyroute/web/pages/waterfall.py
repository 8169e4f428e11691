"""The steps of an operation as bars beside each other in time, from the records of its journal. Pure.

What counts is short: writes stand still for some milliseconds of an operation of seconds. So the time in which they do
is drawn as wide as the rest, and the drawing says so. Between a crash and whoever takes the operation up nothing
happens; that time is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxyroute.words import other_line, seconds

FULL = 1000
"""Width of the drawing in its own units."""
_LEAST = 3
_STRETCHED = (260, 740)
"""Where the time in which writes stand still begins and ends, when it is stretched."""
_SHORT = 0.35
"""It is stretched when it is a smaller part of the whole than this."""
_FROZEN_IN = {"switchover": "freeze", "failover": "last look"}
"""The step with which writes stand still, at the latest."""


@dataclass(frozen=True)
class Bar:
    """A step, or something that happened between two steps."""

    name: str
    kind: str
    """``step``, ``running``, ``failed``, ``commit``, ``note``, ``left`` or ``resumed``."""
    detail: str = ""
    took: str = ""
    start: int = 0
    width: int = 0
    """Both in units of FULL."""


@dataclass(frozen=True)
class Waterfall:
    """All of it."""

    bars: tuple[Bar, ...]
    total: str
    """How long it took without what is left out."""
    frozen: tuple[int, int] | None = None
    """Where writes stood still, in units of FULL."""
    blackout: str = ""
    stretched: bool = False
    """That part is drawn wider than it is."""


@dataclass(frozen=True)
class _Span:
    start: float
    end: float


def waterfall(records: Sequence[Mapping[str, Any]], now: float | None = None) -> Waterfall:
    """Returns the drawing; ``now`` (Unix time) when the operation is still going on."""
    clock = _clock(records)
    begun = [(r, *_place(records, n, clock, now)) for n, r in enumerate(records) if r["kind"] == "step"]
    total = max([clock(r["t"]) for r in records] + [span.end for _, span, _ in begun], default=0.0)
    frozen, blackout = _frozen(records, begun)
    scale, band, stretched = _scale(total, frozen)
    bars = tuple(_bars(records, {r["n"]: (span, ended) for r, span, ended in begun}, scale))
    told = seconds(blackout) if blackout is not None else ""
    return Waterfall(bars, seconds(total), band, told, stretched)


def _clock(records: Sequence[Mapping[str, Any]]) -> Callable[[float], float]:
    """Returns what makes seconds since the beginning of a moment, without the time before each resumption."""
    gaps: list[tuple[float, float]] = []
    for before, record in itertools.pairwise(records):
        if record["kind"] == "resumed":
            gaps.append((before["t"], record["t"]))
    first = records[0]["t"] if records else 0.0

    def clock(at: float) -> float:
        left_out = sum(min(end, at) - start for start, end in gaps if at > start)
        return float(max(0.0, at - first - left_out))

    return clock


def _place(
    records: Sequence[Mapping[str, Any]], number: int, clock: Callable[[float], float], now: float | None
) -> tuple[_Span, Mapping[str, Any] | None]:
    """Returns when a step was done, and the record of its end."""
    name, start = records[number]["name"], clock(records[number]["t"])
    for record in records[number + 1 :]:
        if record["kind"] == "stepped" and record["name"] == name:
            return _Span(start, start + record["seconds"]), record
        if record["kind"] in ("resumed", "end"):
            return _Span(start, clock(record["t"])), None
    last = clock(records[-1]["t"])
    return _Span(start, max(last, clock(now)) if now is not None else last), None


def _frozen(
    records: Sequence[Mapping[str, Any]], begun: Sequence[tuple[Mapping[str, Any], _Span, Any]]
) -> tuple[_Span | None, float | None]:
    blackout = next((r["blackout_seconds"] for r in records if r.get("blackout_seconds")), None)
    kind = records[0].get("operation_kind", "") if records else ""
    start = next((span.start for r, span, _ in begun if r["name"] == _FROZEN_IN.get(kind)), None)
    if blackout is None or start is None:
        return None, blackout
    kept = [r["value"] for r in records if r["kind"] == "keep" and r["name"] == "blackout_lead"]
    # what a failover's blackout had before its first step is not in the drawing
    return _Span(start, start + max(0.0, blackout - (kept[0] if kept else 0.0))), blackout


def _scale(total: float, frozen: _Span | None) -> tuple[Callable[[float], int], tuple[int, int] | None, bool]:
    """Returns what makes units of seconds, where writes stood still, and whether that is stretched."""
    whole = max(total, 1e-6)
    if frozen is None or (frozen.end - frozen.start) / whole >= _SHORT:
        band = (round(FULL * frozen.start / whole), round(FULL * min(frozen.end, whole) / whole)) if frozen else None
        return lambda at: round(FULL * min(at, whole) / whole), band, False
    left, right = _STRETCHED
    marks = [(0.0, 0), (frozen.start, left), (frozen.end, right), (max(whole, frozen.end), FULL)]

    def scale(at: float) -> int:
        for (t0, x0), (t1, x1) in itertools.pairwise(marks):
            if at <= t1:
                return round(x0 + (x1 - x0) * (at - t0) / (t1 - t0)) if t1 > t0 else x0
        return FULL

    return scale, (left, right), True


def _bars(
    records: Sequence[Mapping[str, Any]],
    steps: Mapping[int, tuple[_Span, Mapping[str, Any] | None]],
    scale: Callable[[float], int],
) -> Iterator[Bar]:
    before = None
    for record in records:
        kind = record["kind"]
        if kind == "step":
            span, ended = steps[record["n"]]
            start = min(scale(span.start), FULL - _LEAST)
            width = max(_LEAST, scale(span.end) - start)
            error = str(ended.get("error") or "") if ended is not None else ""
            yield Bar(
                record["name"],
                "running" if ended is None else "failed" if error else "step",
                error or (str(ended.get("detail") or "") if ended is not None else ""),
                seconds(ended["seconds"] if ended is not None else span.end - span.start),
                start,
                width,
            )
        elif kind == "commit":
            yield Bar("committed: from here on nothing is taken back", "commit")
        elif kind == "resumed" and before is not None:
            pause = seconds(record["t"] - before["t"])
            yield Bar(f"taken up again by {record.get('by') or 'somebody'}, {pause} later", "resumed")
        elif kind in ("note", "leftover"):
            yield Bar(other_line(record).strip(), "note" if kind == "note" else "left")
        before = record
