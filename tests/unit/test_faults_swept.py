"""Every fault point is died at in a sweep of tests/chaos, or is left out for a reason that is written down."""

from __future__ import annotations

import ast
from pathlib import Path

from proxyroute.faults import POINTS
from tests.chaos.swept import LEFT_OUT, SWEPT

CHAOS = Path(__file__).parents[1] / "chaos"


def _claimed() -> set[str]:
    """Returns the sweeps that hold to the list when they run: those that call ``swept``, by every name they may give.

    A name that is put together is matched with what is written out of it.
    """
    found: set[str] = set()
    for file in CHAOS.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "swept":
                given = node.args[0]
                if isinstance(given, ast.JoinedStr):
                    begin = given.values[0]
                    assert isinstance(begin, ast.Constant), ast.unparse(given)
                    found |= {name for name in SWEPT if name.startswith(begin.value)}
                else:
                    assert isinstance(given, ast.Constant), f"{file.name}: {ast.unparse(given)} cannot be read"
                    found.add(given.value)
    return found


def test_every_fault_point_is_in_a_sweep_or_left_out_for_a_reason() -> None:
    covered = {point for points in SWEPT.values() for point in points}
    assert set(POINTS) - covered - set(LEFT_OUT) == set(), "no sweep dies there"
    assert covered - set(POINTS) == set(), "there is no such fault point"
    assert set(LEFT_OUT) & covered == set(), "left out, and swept all the same"
    assert set(LEFT_OUT) - set(POINTS) == set(), "left out, and there is no such fault point"
    assert all(LEFT_OUT.values())


def test_every_sweep_of_the_list_holds_to_it_when_it_runs() -> None:
    assert _claimed() == set(SWEPT)


def test_what_a_reason_names_is_there() -> None:
    root = CHAOS.parents[1]
    named = [(point, word) for point, why in LEFT_OUT.items() for word in why.split() if word.startswith("tests/")]
    assert named
    for point, word in named:
        assert point in (root / word.rstrip(":;,")).read_text(encoding="utf-8"), f"{point} is not in {word}"
