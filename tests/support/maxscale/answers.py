"""What is done to every answer: sparse fields, filters, pages, conditional requests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from tests.support.maxscale.machine import RefusedError


@dataclass
class Request:
    """What a client has sent; ``query`` as it was written, without a leading question mark."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | None
    base: str
    encrypted: bool = False

    @property
    def words(self) -> list[str]:
        """The query as positional arguments."""
        return [word for word in self.query.split("&") if word]

    @property
    def options(self) -> dict[str, str]:
        """The query as ``key=value``."""
        return {k: v for k, equals, v in (w.partition("=") for w in self.words) if equals}


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    tagged: bool = False
    """Has an ETag and Last-Modified."""
    typed: bool = True
    """Says that it is JSON; a few do not."""

    def text(self, *, pretty: bool) -> bytes:
        if self.body is None:
            return b""
        return json.dumps(self.body, indent=4 if pretty else None).encode()


def shaped(document: dict[str, Any], request: Request, version_has_filters: bool) -> dict[str, Any]:
    """Returns ``document`` filtered, paged and with the fields that were asked for."""
    options = request.options
    found = dict(document)
    data = found.get("data")
    if isinstance(data, list):
        for key, value in options.items():
            if key == "filter":
                data = [d for d in data if _matches_pointer(d, value)]
            elif key.startswith("filter[") and version_has_filters:
                data = [d for d in data if _matches_path(d, key[7:-1], value)]
        found["data"] = data
        _page(found, options)
    for key, value in options.items():
        if key.startswith("fields["):
            kind, names = key[7:-1], value.split(",")
            data = found.get("data")
            if isinstance(data, list):
                found["data"] = [_sparse(d, kind, names) for d in data]
            elif isinstance(data, dict):
                found["data"] = _sparse(data, kind, names)
    return found


def _sparse(resource: dict[str, Any], kind: str, names: list[str]) -> dict[str, Any]:
    if resource.get("type") != kind:
        return resource
    attributes: dict[str, Any] = {}
    for name in names:
        here, there = resource["attributes"], attributes
        *way, last = name.split("/")
        for step in way:
            here = here.get(step)
            if not isinstance(here, dict):
                break
            there = there.setdefault(step, {})
        if isinstance(here, dict) and last in here:
            there[last] = here[last]
    found = {"attributes": attributes, "id": resource["id"], "type": resource["type"]}
    if "links" in resource:
        found["links"] = resource["links"]
    return found


def _value_at(resource: Any, way: list[str]) -> Any:
    for step in way:
        resource = resource.get(step) if isinstance(resource, dict) else None
    return resource


def _plain(text: str) -> str:
    return text.replace("%20", " ").replace("%22", '"')


def _matches_pointer(resource: dict[str, Any], text: str) -> bool:
    pointer, _, value = _plain(text).partition("=")
    return bool(_value_at(resource, pointer.strip("/").split("/")) == json.loads(value))


def _matches_path(resource: dict[str, Any], path: str, text: str) -> bool:
    match = re.fullmatch(r"eq\((.*)\)", _plain(text))
    if match is None:
        raise RefusedError(400, f"Not a valid filter expression: {_plain(text)}")
    return bool(_value_at(resource, path.split(".")) == json.loads(match[1]))


def _page(found: dict[str, Any], options: dict[str, str]) -> None:
    size = options.get("page[size]", "")
    if not size.isdigit() or not int(size):
        return
    number = int(options["page[number]"]) if options.get("page[number]", "").isdigit() else 0
    data, length = found["data"], int(size)
    last = max(0, (len(data) - 1) // length)
    address = found["links"]["self"]

    def link(n: int) -> str:
        return f"{address}?{quote('page[size]')}={size}&{quote('page[number]')}={n}"

    links = {"first": link(0), "last": link(last), "self": link(number)}
    if number < last:
        links["next"] = link(number + 1)
    if 0 < number <= last:
        links["prev"] = link(number - 1)
    found |= {"data": data[number * length : (number + 1) * length], "links": links, "meta": {"total": len(data)}}


def conditional(request: Request, answer: Answer, content: bytes, changed_at: float) -> Answer:
    """Applies ``If-…`` to an answer. On changing requests the handler has run before: 412, and the change is made."""
    tag = f'"{hashlib.sha1(content).hexdigest()}"'
    when = {k.lower(): v for k, v in request.headers.items()}
    if answer.tagged:
        answer.headers |= {"ETag": tag, "Last-Modified": formatdate(changed_at, usegmt=True)}
    if answer.status not in (200, 204):
        return answer
    failed = [
        "if-match" in when and when["if-match"] != tag,
        _date(when, "if-unmodified-since", lambda at: int(changed_at) > at),
    ]
    if any(failed):
        return Answer(412)
    if request.method == "GET":
        same = [when.get("if-none-match") == tag, _date(when, "if-modified-since", lambda at: int(changed_at) <= at)]
        if any(same):
            return Answer(304)
    return answer


def _date(headers: dict[str, str], name: str, holds: Callable[[float], bool]) -> bool:
    return name in headers and holds(parsedate_to_datetime(headers[name]).timestamp())
