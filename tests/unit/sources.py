"""The package's own sources as syntax trees, for tests that hold its shape."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import proxyroute

FOLDER = Path(proxyroute.__file__).parent


@dataclass(frozen=True)
class Source:
    """One module: its dotted name below ``proxyroute`` (``db.session``), its path and its tree."""

    module: str
    path: Path
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        """Returns file and line of ``node``, as an editor wants them."""
        return f"{self.path.relative_to(FOLDER.parent)}:{getattr(node, 'lineno', 1)}"


@cache
def sources() -> tuple[Source, ...]:
    """Returns every module of the package."""
    found = []
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Source(module, path, ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """Returns the string nodes that are documentation: statements that are nothing but a string."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
