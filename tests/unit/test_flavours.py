"""What the pages say about the servers that the tests run on is what the tests do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MATRIX
from tests.support.flavours import COLUMNS, FOLDERS, PAGE, ROOT, page

CONFTESTS = (ROOT / "tests/conftest.py", ROOT / "tests/cluster/conftest.py")


def _functions(file: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            yield node


def _asks_for(function: ast.FunctionDef) -> set[str]:
    named = [
        str(call.args[0].value)
        for call in function.decorator_list
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.usefixtures"
        if isinstance(call.args[0], ast.Constant)
    ]
    return {argument.arg for argument in function.args.args} | set(named)


def _with_flavours() -> list[Path]:
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).glob("test_*.py"))]
    return [file for file in files if "\nFLAVOURS = " in file.read_text(encoding="utf-8")]


def test_the_page_of_what_runs_where_is_what_the_tests_say() -> None:
    assert set(COLUMNS) == set(MATRIX)
    assert PAGE.read_text(encoding="utf-8") == page(), "run .venv/bin/python -m tests.support.flavours"


@pytest.mark.parametrize("file", _with_flavours(), ids=lambda file: file.stem)
def test_every_test_of_a_file_that_names_flavours_runs_on_them(file: Path) -> None:
    """One that starts servers by itself would run on this machine's own only, and look as if it ran on all."""
    asked = {f.name: _asks_for(f) for source in (*CONFTESTS, file) for f in _functions(source)}
    tests = [function for function in _functions(file) if function.name.startswith("test_")]
    here = [t for t in tests if "pytest.mark.whatever_servers" not in map(ast.unparse, t.decorator_list)]
    elsewhere = []
    for function in here:
        reached, todo = set[str](), _asks_for(function)
        while todo:
            reached |= todo
            todo = set().union(*(asked.get(name, set()) for name in todo)) - reached
        if "flavour" not in reached:
            elsewhere.append(function.name)
    assert here
    assert elsewhere == [], "start_lab and servers are the fixtures for that"
