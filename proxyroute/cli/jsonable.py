"""Our values as JSON, as every command writes them with ``--json``."""

from __future__ import annotations

from proxyroute.jsonable import dump, jsonable

__all__ = ["dump", "jsonable"]
