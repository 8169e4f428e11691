"""The reference of the API names every route with its scope, every kind of command, event, state and error."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from proxyroute.web import stream
from proxyroute.web.api import events as events_api
from proxyroute.web.api.common import _MEANING
from proxyroute.web.api.orders import Order
from proxyroute.web.api.shapes import OperationShape
from proxyroute.web.commands import KINDS
from tests.support.web import Web

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[tuple[str, ...]]:
    """Returns the cells of every row of every table, without the heads."""
    lines = text.splitlines()
    heads = {n - 1 for n, line in enumerate(lines) if line.startswith("|---")}
    cells = [line.strip("|").split("|") for n, line in enumerate(lines) if line.startswith("| `") and n not in heads]
    return [tuple(cell.strip() for cell in row) for row in cells]


def test_every_route_is_there_with_its_scope_and_what_it_is_for(web: Web) -> None:
    described = {
        (f"`{method.upper()} {path}`", about.get("x-scope", "–"), about["summary"])
        for path, methods in web.app.openapi()["paths"].items()
        for method, about in methods.items()
    }
    assert set(rows(section("Routes"))) == described


def test_every_kind_of_command_is_there_with_its_arguments() -> None:
    told = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1]))
        for row in rows(section("Asking for something"))
        if len(row) == 3
    }
    shapes: tuple[Any, ...] = get_args(get_args(Order)[0])
    fields = {get_args(s.model_fields["kind"].annotation)[0]: set(s.model_fields) - {"kind", "reason"} for s in shapes}
    assert told == fields
    assert set(told) == set(KINDS)


def test_every_state_is_there() -> None:
    told = {
        name
        for row in rows(section("Asking for something"))
        if len(row) == 2
        for name in re.findall(r"`(\w+)`", row[0])
    }
    described = set(re.findall(r"`(\w+)`", str(OperationShape.model_fields["state"].description)))
    assert told == described | {"waiting", "running"}


def test_every_event_is_there() -> None:
    told = {row[0].strip("`") for row in rows(section("Events"))}
    assert told == set(re.findall(r"\* `(\w+)`:", events_api.events.__doc__ or ""))
    sent = set(re.findall(r'block\("(\w+)"', inspect.getsource(stream)))
    assert sent <= told


@pytest.mark.parametrize("status", sorted({*_MEANING, 421}))
def test_every_error_is_there(status: int) -> None:
    assert re.search(rf"^\| (\d+, )?{status}\b", section("Errors"), re.MULTILINE), status
