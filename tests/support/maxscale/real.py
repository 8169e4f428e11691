"""A MaxScale that runs and is not ours, named by a variable of the environment, or one in a container."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.support.containers import find_image
from tests.support.wait import until

URL_VARIABLE = "PROXYROUTE_MAXSCALE_URL"
IMAGES = ("mariadb/maxscale:24.02", "mariadb/maxscale:23.08", "mariadb/maxscale:latest")


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


@contextlib.contextmanager
def real_maxscale(*, shares_network: bool = False) -> Iterator[str]:
    """The URL, with user and password, of a running MaxScale: the one that is named, else one in a container.

    One that ``shares_network`` with this host reaches servers on its loopback, and clients here reach its listeners.
    Raises LookupError with the reason when there is neither. No image is ever pulled.
    """
    if url := os.environ.get(URL_VARIABLE):
        yield url
        return
    try:
        image = find_image(IMAGES)
    except LookupError as reason:
        raise LookupError(f"no MaxScale: {URL_VARIABLE} is not set, and {reason}") from None
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True
    made = DockerContainer(image)
    made = made.with_kwargs(network_mode="host") if shares_network else made.with_exposed_ports(8989)
    with made as container:
        place = "127.0.0.1:8989"
        if not shares_network:
            place = f"{container.get_container_host_ip()}:{container.get_exposed_port(8989)}"
        url = f"http://admin:mariadb@{place}"
        until(lambda: _answers(url), "MaxScale in its container to answer", 60)
        yield url


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        ask(url, "GET", "maxscale")
        return True
    return False
