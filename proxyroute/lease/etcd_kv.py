"""Keys, values, conditions and acts as etcd's JSON gateway writes them."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any


def encode(text: str) -> str:
    """Returns ``text`` as the gateway wants keys and values."""
    return base64.b64encode(text.encode()).decode()


def decode(text: str) -> str:
    """Returns what :func:`encode` was given."""
    return base64.b64decode(text).decode()


def compare(key: str, target: str, name: str, value: str) -> dict[str, Any]:
    return {"key": encode(key), "target": target, "result": "EQUAL", name: value}


def read(key: str) -> dict[str, Any]:
    return {"request_range": {"key": encode(key)}}


def read_all(folder: str) -> dict[str, Any]:
    """Everything below ``folder``, which ends in a slash."""
    end = folder[:-1] + chr(ord("/") + 1)
    return {"request_range": {"key": encode(folder), "range_end": encode(end)}}


def put(key: str, value: str, lease: str = "0") -> dict[str, Any]:
    return {"request_put": {"key": encode(key), "value": encode(value), "lease": lease}}


def delete(encoded: str) -> dict[str, Any]:
    return {"request_delete_range": {"key": encoded}}


def found_in(response: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = response.get("response_range", response).get("kvs", [])
    return found


def value_of(kv: dict[str, Any]) -> str:
    return decode(kv.get("value", ""))


def name_of(kv: dict[str, Any]) -> str:
    """Returns the last part of a key."""
    return decode(kv["key"]).rpartition("/")[2]


def text_of(kv: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(value_of(kv))
        if isinstance(found, dict):
            return found
    return {}
