"""What the pages say about the servers that the tests run on is what the tests do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.conftest import MATRIX
from tests.support.flavours import COLUMNS, ELSEWHERE, FOLDERS, PAGE, ROOT, page, scenarios, why_elsewhere

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
    here = [t for t in tests if not any("mark.whatever_servers" in ast.unparse(d) for d in t.decorator_list)]
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


@pytest.mark.parametrize("file", _with_flavours(), ids=lambda file: file.stem)
def test_no_site_of_such_a_file_is_started_with_other_servers(file: Path) -> None:
    """``Lab.start`` without a provider takes this machine's, whatever the test is called."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    started = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Lab.start"]
    elsewhere = [n.lineno for n in started if not {"provider", None} & {word.arg for word in n.keywords}]
    assert elsewhere == [], "start_lab, or provider="


def test_every_file_that_runs_on_this_machines_servers_only_says_why() -> None:
    alone = [found.file for found in scenarios() if not found.where]
    assert [file for file in alone if not why_elsewhere(file)] == [], "FLAVOURS in the file, or a reason in ELSEWHERE"
    idle = [pattern for pattern in ELSEWHERE if not any(fnmatch(file, pattern) for file in alone)]
    assert idle == [], "these files run on other servers, or are not there any more"


def test_the_readme_names_the_same_servers_as_the_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for heading in COLUMNS.values():
        assert f"\n| {heading}" in text, "the table of what the tests run on begins a row with each heading"
    for name, series in re.findall(r"(MySQL|MariaDB) ([\d.]+)", " ".join(COLUMNS.values())):
        (tested,) = re.findall(rf"{name} from [\d.]+ \(tested: ([^)]+)\)", text)
        assert series in tested.split(", "), f"what servers need, {name}"
