"""Imports run one way, and third-party packages stay where they are let in."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from tests.unit.sources import Source, sources

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "faults", "atomic", "words", "caller", "sdnotify", "moment", "trust"),
    ("deadline", "sign", "room"),
    ("report",),
    ("gtid", "policy"),
    ("inspection", "logged"),
    ("model", "binlog_events"),
    ("binlog_mariadb", "binlog_mysql"),
    ("binlog",),
    ("decided", "outcome"),
    ("topology", "jsonable", "planned", "standing"),
    ("drift", "addresses", "dialect"),
    ("conditions", "truth", "sight", "shown"),
    ("known", "holdings"),
    ("election", "routing"),
    ("failover_election", "failover_limits"),
    ("diagnosis_case",),
    ("outlook",),
    ("diagnosis_alive", "diagnosis_silent"),
    ("diagnosis",),
    ("checks",),
    ("checks_inspection", "checks_mysql", "checks_semi_sync"),
    ("preflight",),
    ("ports", "ports_data"),
    ("probing", "archive"),
    ("remains", "journal"),
    ("operation",),
    ("history", "intent"),
    ("site", "routes"),
    ("parts",),
    ("proof", "opening", "prospect", "upkeep"),
    ("salvage", "latecomers"),
    ("finish", "failover_stock"),
    ("undoing",),
    ("recovery",),
    ("switchover", "failover"),
    ("contingency",),
    ("argv",),
    ("host", "config_secrets.*"),
    ("verify",),
    ("rejoin_look",),
    ("rejoin_dump",),
    ("rejoin_data",),
    ("rejoin_proof",),
    ("rejoin",),
    ("db.*", "haproxy.*", "maxscale.*", "lease.*"),
    ("adapters.*", "hooks", "notify*"),
    ("config*",),
    ("agent*", "vrrp"),
    ("assembly",),
    ("guard", "outlet", "rejoining", "salvage_check", "foretold", "fenced", "logs"),
    ("orders",),
    ("engine_looks",),
    ("engine", "sentry"),
    ("glance", "lookout", "checkup"),
    ("retry", "serve_lock", "telling"),
    ("keeper",),
    ("charge",),
    ("daemon",),
    ("web.*",),
    ("service",),
    ("cli.*",),
)
"""Low to high: a module imports from lower lines, and from its own package. What stands side by side is apart."""

_ENGINE = ("journal", "operation", "site", "routes", "parts", "proof", "opening", "latecomers", "prospect", "finish")
_ENGINE += (
    "undoing",
    "recovery",
    "switchover",
    "failover",
    "archive",
    "remains",
    "salvage",
    "rejoin_look",
    "rejoin_dump",
    "rejoin_data",
    "rejoin_proof",
    "rejoin",
)

BARRED: dict[str, tuple[str, ...]] = {
    "db.*": _ENGINE,
    "lease.*": _ENGINE,
    "hooks": _ENGINE,
    "notify*": (*_ENGINE, "db.*", "haproxy.*", "lease.*"),
    "haproxy.*": (*_ENGINE, "db.*"),
    "maxscale.*": (*_ENGINE, "db.*"),
    "adapters.*": (*_ENGINE, "db.*", "lease.*"),
    "agent*": (*_ENGINE, "db.*", "lease.*"),
}
"""What a driver does not import although it is lower: it is given values and calls nobody back."""

THIRD_PARTY: dict[str, tuple[str, ...]] = {
    "pymysql": ("db.*",),
    "pydantic": ("config*", "web.*"),
    "pydantic_core": ("config*",),
    "yaml": ("config*", "cli.*"),
    "jinja2": ("haproxy.*", "maxscale.*", "web.*"),
    "click": ("cli.*",),
    "rich": ("cli.*",),
    "watchdog": ("agent*",),
    "requests": ("lease.*", "maxscale.*", "notify*", "cli.*"),
    "fastapi": ("web.*",),
    "starlette": ("web.*",),
    "uvicorn": ("web.*",),
    "h11": ("web.connections",),
    "prometheus_client": ("web.*",),
    "structlog": ("logs",),
}
"""Which package may be imported where; everything else does with the standard library."""


def _matches(module: str, pattern: str) -> bool:
    package = pattern.removesuffix(".*")
    return fnmatchcase(module, pattern) or (package != pattern and module == package)


def _layer(module: str) -> tuple[int, str]:
    for height, patterns in enumerate(LAYERS):
        for pattern in patterns:
            if _matches(module, pattern):
                return height, pattern
    raise LookupError(f"proxyroute.{module} has no place in LAYERS; say in tests/unit/test_layers.py where it is")


def _has_place(module: str) -> bool:
    return any(_matches(module, pattern) for patterns in LAYERS for pattern in patterns)


def _imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Yields every import, also those inside functions; not those only a type checker sees."""
    unseen: set[ast.AST] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            unseen.update(inner for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(source.tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node, name.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.at(node)}: imports are absolute here"
            module = node.module or ""
            for name in node.names:
                yield node, f"{module}.{name.name}"


def _own(imported: str) -> str | None:
    """Returns the module of ours that is meant by an import, or None when it is not ours."""
    if imported.partition(".")[0] != "proxyroute":
        return None
    name = imported.removeprefix("proxyroute").lstrip(".")
    while name and not _has_place(name):
        name = name.rpartition(".")[0]
    return name


def complaints(source: Source) -> list[str]:
    """Returns what is wrong with the imports of one module, in words."""
    height, pattern = _layer(source.module)
    barred = BARRED.get(pattern, ())
    found = []
    for node, imported in _imports(source):
        own = _own(imported)
        if own is None:
            package = imported.partition(".")[0]
            allowed = package in sys.stdlib_module_names or any(
                _matches(source.module, where) for where in THIRD_PARTY.get(package, ())
            )
            if not allowed:
                found.append(f"{source.at(node)}: {package} is not let in here")
        elif own:
            other_height, other_pattern = _layer(own)
            if other_pattern != pattern and other_height >= height:
                found.append(f"{source.at(node)}: {source.module} may not import {own}, which is above or beside it")
            if any(_matches(own, bar) for bar in barred):
                found.append(f"{source.at(node)}: {source.module} is a driver and may not import {own}")
    return found


@pytest.mark.parametrize("source", [s for s in sources() if s.module], ids=lambda s: s.module)
def test_imports_run_one_way(source: Source) -> None:
    assert complaints(source) == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("model", "from proxyroute.ports import Server"),
        ("election", "from proxyroute.preflight import judge"),
        ("operation", "import pymysql"),
        ("operation", "def f():\n    import proxyroute.switchover"),
        ("adapters.haproxy", "from proxyroute.operation import Operation"),
        ("adapters.haproxy", "from proxyroute.db.session import Session"),
        ("haproxy.render", "from proxyroute.adapters import haproxy"),
        ("db.session", "import pydantic"),
        ("lease.local", "from proxyroute.recovery import heal"),
        ("agent_memory", "from proxyroute.journal import Journal"),
    ],
)
def test_a_forbidden_import_is_found(module: str, code: str) -> None:
    path = sources()[0].path
    assert complaints(Source(module, path, ast.parse(code)))


def test_an_agent_gets_along_without_a_database_driver_and_without_the_engine() -> None:
    code = "import sys, proxyroute.agent; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "proxyroute.agent" in loaded
    assert not {m for m in loaded if m.partition(".")[0] in ("pymysql", "click")}
    assert not {m for m in loaded if m.startswith("proxyroute.db")}
    assert not {f"proxyroute.{m}" for m in (*_ENGINE, "engine", "engine_looks", "assembly", "guard")} & loaded


def test_a_module_without_a_place_is_found() -> None:
    with pytest.raises(LookupError, match="newcomer"):
        complaints(Source("newcomer", sources()[0].path, ast.parse("")))
