"""Which scenarios run on which servers: ``python -m tests.support.flavours`` writes ``docs/reference/tests.md``.

It is read off the tests themselves: what a module says in ``FLAVOURS`` and ``FULL``, and the marks of its functions.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "tests.md"
FOLDERS = ("tests/cluster", "tests/chaos")
"""Where every file runs on other servers, or has a reason in ``ELSEWHERE``."""
PROXIES = "tests/contract"
"""Whose files start no database server; those that name flavours run on the HAProxy that goes with these."""
COLUMNS: Mapping[str, str] = {"mysql": "MySQL 9.7", "mariadb-11.8": "MariaDB 11.8, HAProxy 3.0"}
"""By name in ``MATRIX`` (tests/conftest.py), what stands at the head of its column."""

ELSEWHERE: Mapping[str, str] = {
    "tests/*/test_*maxscale*.py": "MaxScale in front of MySQL is not tested",
    "tests/cluster/test_containers.py": "the images are MariaDB's",
    "tests/cluster/test_demo.py": "it shows a switchover, which `test_scenarios_plain.py` has",
    "tests/cluster/test_grants.py": "accounts differ by flavour: those of MySQL are in `test_mysql_grants.py`",
    "tests/cluster/test_health_keepalived.py": "keepalived asks `serve`, and no server",
    "tests/cluster/test_keepalived_check.py": "keepalived asks about HAProxy, and no server",
    "tests/cluster/test_lab.py": "about the tests' own ground",
    "tests/cluster/test_netlab*.py": "about the tests' own ground",
    "tests/cluster/test_ocf_agent.py": "Pacemaker asks the engine; which servers it keeps plays no part",
    "tests/cluster/test_scenarios_pacemaker.py": "Pacemaker asks the engine; which servers it keeps plays no part",
    "tests/cluster/test_scenarios_vrrp*.py": "the address moves between proxy hosts, whatever is behind them",
    "tests/cluster/test_vip_scripts.py": "scripts move it, which run on MySQL in `test_scenarios_scripts.py`",
}
"""By files, why they run on this machine's servers only."""

_HEAD = """# Which tests run on which servers

`scripts/test` runs everything on the packages of Debian 12, MariaDB 10.11 and HAProxy 2.6, but for the files
`test_mysql_*`; with `--full` also what takes long. `scripts/test --matrix` runs the tests of the files that are ticked
on other servers; where it says *full*, they run with `--full` only. On the newer MariaDB run those in which its version
may matter. Why files with no mark at all, and some tests of others, run on the packages of Debian 12 only is told
[below](#what-runs-on-this-machines-servers-only).

Written by `.venv/bin/python -m tests.support.flavours`; `tests/unit/test_flavours.py` holds it to the tests.
"""
_ELSEWHERE = """
## What runs on this machine's servers only

Files, and single tests of the files above, each with the reason.
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
    """By name of the servers: ``✓``, or ``full`` where they run with --full only."""
    here_only: tuple[tuple[str, str], ...]
    """Tests that run on no other servers although others of the file do, with the reason."""
    not_on_mysql: tuple[tuple[str, str], ...]
    """Tests that are skipped there, with the reason."""


def scenarios() -> Iterator[Scenarios]:
    """Yields every file of ``FOLDERS``, and those of ``PROXIES`` that name flavours, in order."""
    for folder in (*FOLDERS, PROXIES):
        for file in sorted((ROOT / folder).glob("test_*.py")):
            name = file.relative_to(ROOT).with_suffix("")
            found = _read(str(name) + ".py", importlib.import_module(".".join(name.parts)))
            if found.where or folder != PROXIES:
                yield found


def why_elsewhere(file: str) -> str:
    """Returns why a file of ``FOLDERS`` runs on this machine's servers only, or nothing when that is not told."""
    return next((why for pattern, why in ELSEWHERE.items() if fnmatch(file, pattern)), "")


def _read(file: str, module: ModuleType) -> Scenarios:
    tests = [f for n, f in inspect.getmembers(module, inspect.isfunction) if n.startswith("test_")]
    tests = sorted((t for t in tests if t.__module__ == module.__name__), key=lambda t: t.__code__.co_firstlineno)
    flavours = getattr(module, "FLAVOURS", ())
    if not flavours and any(mark.name == "matrix" for mark in _marks(module)):
        flavours = ("mysql",)
    quick = any(all(mark.name != "full" for mark in _marks(test)) for test in tests)
    about = (module.__doc__ or "").strip().splitlines()[0]
    reasons = [(test.__name__, why) for test in tests for why in _mariadb_only(test)] if "mysql" in flavours else []
    here = [(t.__name__, str(mark.args[0])) for t in tests for mark in _marks(t) if mark.name == "whatever_servers"]
    long = flavours if not quick else getattr(module, "FULL", ())
    where = {name: "full" if name in long else "✓" for name in flavours}
    return Scenarios(file, about, where, tuple(here), tuple(reasons))


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
    files = [f"- `{each.file}`: {why_elsewhere(each.file)}" for each in found if not each.where]
    here = [f"- `{each.file}`, `{test}`: {why}" for each in found for test, why in each.here_only]
    reasons = [f"- `{each.file}`, `{test}`: {why}" for each in found for test, why in each.not_on_mysql]
    return "\n".join([_HEAD, *rows, _ELSEWHERE, *files, *here, _REASONS, *reasons, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
