"""Reads the ``notices`` of a cluster, and writes them as they would stand in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from proxyroute.config_fill import fill
from proxyroute.config_receivers import RECEIVERS, NoticeConfig
from proxyroute.config_secrets import Secret
from proxyroute.config_yaml import Document, Where, suggest


def read_notices(values: Sequence[Any], document: Document, where: Where) -> tuple[NoticeConfig, ...]:
    """Returns the receivers that ``values`` describe; what is wrong with them is noted in ``document``."""
    found = []
    for number, value in enumerate(values):
        if not isinstance(value, Mapping):
            continue  # noted by the shape
        rest = dict(value)
        kind = rest.pop("type", None)
        if not isinstance(kind, str) or kind not in RECEIVERS:
            text = "is missing; write type: webhook" if kind is None else f"there is no type {kind!r}"
            document.report((*where, number, "type"), f"{text}; {suggest(str(kind), RECEIVERS)}")
            continue
        notice = fill(RECEIVERS[kind], rest, document, (*where, number))
        if notice is not None:
            found.append(notice)
    return tuple(found)


def settings_of(notice: NoticeConfig) -> dict[str, Any]:
    """Returns what :func:`read_notices` makes the same of: JSON values, absolute paths, never a secret."""
    plain: dict[str, Any] = TypeAdapter(type(notice)).dump_python(notice, mode="json")
    secrets = {f.name: v for f in dataclasses.fields(notice) if isinstance(v := getattr(notice, f.name), Secret)}
    return {"type": notice.type, **plain, **{name: secret.reference for name, secret in secrets.items()}}
