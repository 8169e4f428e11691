"""A MaxScale that runs and is not ours, named by a variable of the environment."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from typing import Any
from urllib.parse import urlsplit

URL_VARIABLE = "PROXYROUTE_MAXSCALE_URL"


def ask(url: str, method: str, path: str, body: Any = None) -> Any:
    """Sends one request to the REST API at ``url``, which has user and password in it; returns the document."""
    parts = urlsplit(url)
    login = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    request = urllib.request.Request(
        f"{parts.scheme}://{parts.hostname}:{parts.port or 8989}/v1/{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10, context=ssl._create_unverified_context()) as answer:
        text = answer.read()
    return json.loads(text) if text else None
