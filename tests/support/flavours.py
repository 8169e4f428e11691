"""Which scenarios run on which servers: ``python -m tests.support.flavours`` writes ``docs/reference/tests.md``.

It is read off the tests themselves: what a module says in ``FLAVOURS``, and the marks of its functions.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "tests.md"
FOLDERS = ("tests/cluster", "tests/chaos")
COLUMNS: Mapping[str, str] = {"mysql": "MySQL 9.7", "mariadb-11.8": "MariaDB 11.8, HAProxy 3.0"}
"""By name in ``MATRIX`` (tests/conftest.py), what stands at the head of its column."""

_HEAD = """# Which tests run on which servers

`scripts/test` runs everything on the packages of Debian 12, MariaDB 10.11 and HAProxy 2.6, but for the files
`test_mysql_*`; with `--full` also what takes long. `scripts/test --matrix` runs the tests of the files that are ticked
on other servers; where it says *full*, all of them take long, and run with `--full` only. Files without a mark do not
run there.

Written by `.venv/bin/python -m tests.support.flavours`; `tests/unit/test_flavours.py` holds it to the tests.
"""
_REASONS = """
## What there is not on MySQL

Scenarios of the files above that are skipped there, each with the reason that the test tells.
"""


@dataclass(frozen=True)
class Scenarios:
    """The tests of one file, and where they run."""

    file: str
    about: str
    where: Mapping[str, str]
    """By name of the servers: ``✓``, or ``full`` where all of them take long."""
    not_on_mysql: tuple[tuple[str, str], ...]
    """Tests that are skipped there, with the reason."""


def scenarios() -> Iterator[Scenarios]:
    """Yields every file of ``FOLDERS`` in order."""
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).glob("test_*.py")):
            name = file.relative_to(ROOT).with_suffix("")
            yield _read(str(name) + ".py", importlib.import_module(".".join(name.parts)))


def _read(file: str, module: ModuleType) -> Scenarios:
    tests = [f for n, f in inspect.getmembers(module, inspect.isfunction) if n.startswith("test_")]
    tests = sorted((t for t in tests if t.__module__ == module.__name__), key=lambda t: t.__code__.co_firstlineno)
    flavours = getattr(module, "FLAVOURS", ())
    if not flavours and any(mark.name == "matrix" for mark in _marks(module)):
        flavours = ("mysql",)
    quick = any(all(mark.name != "full" for mark in _marks(test)) for test in tests)
    about = (module.__doc__ or "").strip().splitlines()[0]
    reasons = [(test.__name__, why) for test in tests for why in _mariadb_only(test)] if "mysql" in flavours else []
    return Scenarios(file, about, dict.fromkeys(flavours, "✓" if quick else "full"), tuple(reasons))


def _marks(of: ModuleType | Callable[..., object]) -> list[pytest.Mark]:
    found = getattr(of, "pytestmark", [])
    told = found if isinstance(found, list) else [found]
    return [mark.mark if isinstance(mark, pytest.MarkDecorator) else mark for mark in told]


def _mariadb_only(test: Callable[..., object]) -> Iterator[str]:
    """Yields why a test, or those of its variations that are marked so, are not run on MySQL."""
    for mark in _marks(test):
        if mark.name == "mariadb_only":
            yield str(mark.args[0])
        elif mark.name == "parametrize":
            for value in mark.args[1]:
                for inner in getattr(value, "marks", ()):
                    if inner.name == "mariadb_only":
                        words = ", ".join(str(v) for v in value.values)
                        yield f"({words}) {inner.args[0]}"


def page() -> str:
    """Returns the page as the tests are now."""
    found = list(scenarios())
    rows = ["| file | " + " | ".join(COLUMNS.values()) + " | what it is about |", "|---" * (len(COLUMNS) + 2) + "|"]
    for each in found:
        where = " | ".join(each.where.get(name, "") for name in COLUMNS)
        rows.append(f"| `{each.file}` | {where} | {each.about} |")
    reasons = [f"- `{each.file}`, `{test}`: {why}" for each in found for test, why in each.not_on_mysql]
    return "\n".join([_HEAD, *rows, _REASONS, *reasons, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
