"""What only one server had, and was kept: the archives of a cluster, readable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MOST = 100
_LONGEST = 4_000_000
_SHOWN = 200
"""So many transactions of an archive are told; its folder has all of them."""


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # somebody has removed it just now
        return 0.0


def archives_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the last archives in ``folder``, the latest first, as JSON values; one that cannot be read says why."""
    return list(_archives(folder))


def _archives(folder: Path) -> Iterator[dict[str, Any]]:
    found = [f for f in folder.glob("*/summary.json") if not f.parent.name.startswith(".")]
    for file in sorted(found, key=_written, reverse=True)[:_MOST]:
        try:
            if file.stat().st_size > _LONGEST:
                raise ValueError("it is too long to be told here")
            kept = json.loads(file.read_bytes())
            transactions = list(kept["transactions"])
            yield {
                "name": file.parent.name, "folder": str(file.parent), "server": kept["server"], "told": kept["told"],
                "executed": kept["executed"], "missing": kept["missing"], "rows": kept["rows"],
                "count": len(transactions), "transactions": transactions[:_SHOWN], "trouble": "",
            }  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield {
                "name": file.parent.name, "folder": str(file.parent), "server": "", "told": "", "executed": "",
                "missing": "", "rows": {}, "count": 0, "transactions": [], "trouble": f"it cannot be read: {error}",
            }  # fmt: skip
