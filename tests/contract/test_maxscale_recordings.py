"""Every recorded exchange with a real MaxScale, replayed against the double: status, errors and their place, shape.

``DEVIATIONS`` says what is not compared, and why; ``STARTS`` how the MaxScale was when each was recorded.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxyroute.model import Address
from tests.support.certificates import make_certificate
from tests.support.maxscale.backends import MadeUp
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.double import Double, Tls
from tests.support.wait import until

RECORDINGS = Path(__file__).parents[1] / "recordings" / "maxscale"
SERVERS = {f"server{n}": Address("127.0.0.1", 21000 + n) for n in (1, 2, 3)}
LOOK = 0.02
ADMIN = "Basic " + base64.b64encode(b"admin:mariadb").decode()

DEVIATIONS: dict[str, str] = {
    "users": "who may log in at a service is read from the databases; the double lists nobody",
    "server_query_statistics": "the double counts no statements",
    "client": "what a client has said about itself is not kept",
    "memory": "nor how much memory its session takes",
}
"""What is not compared below a key of that name, and why."""

ASIDE: dict[str, str] = {
    "22.08.14/fetch-cmd-result-none-yet": "recorded after a command had been run, whatever its name says",
}
"""Recordings that need another start than their name tells; the start is in ``STARTS``."""


@dataclass
class Recording:
    version: str
    name: str
    request: dict[str, Any]
    response: dict[str, Any]
    elapsed: float

    @property
    def id(self) -> str:
        return f"{self.version}/{self.name}"


def _recordings() -> list[Recording]:
    found = []
    for file in sorted(RECORDINGS.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            value = json.loads(line)
            found.append(
                Recording(file.stem, value["name"], value["request"], value["response"], value["elapsed_ms"] / 1000)
            )
    return found


ALL = _recordings()

# -- Starts: how the MaxScale was when it was recorded ---------------------------------------------------------


@dataclass
class Start:
    """``primary`` of the made-up cluster, settings of the double, and what is done before the request."""

    primary: str = "server1"
    settings: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Double], object] = lambda double: None


def made(double: Double) -> MadeUp:
    assert isinstance(double.backend, MadeUp)
    return double.backend


def look(double: Double) -> None:
    double.machine.tick(double.machine.monitors["Mon"])


def kill(name: str) -> Callable[[Double], None]:
    def do(double: Double) -> None:
        made(double).kill(SERVERS[name])
        look(double)

    return do


def killed_unseen(name: str) -> Callable[[Double], None]:
    return lambda double: made(double).kill(SERVERS[name])


def bits(**wanted: str) -> Callable[[Double], None]:
    def do(double: Double) -> None:
        for name, words in wanted.items():
            value = Bit.NONE
            for word in words.split():
                value |= Bit[word]
            double.machine.servers[name].bits = value

    return do


def monitored(verb: str, name: str, state: str) -> Callable[[Double], None]:
    return lambda double: double.machine.change(name, verb, state)


def connected(name: str, number: int) -> Callable[[Double], None]:
    def do(double: Double) -> None:
        double.machine.servers[name].connections = number

    return do


def told(method: str, path: str, query: str = "", body: Any = None) -> Callable[[Double], None]:
    def do(double: Double) -> None:
        status, _, _ = send(double, method, path, query, {"Authorization": ADMIN}, body)
        assert status in (200, 204), (method, path, status)

    return do


def scheduled(query: str) -> Callable[[Double], None]:
    return told("POST", "/v1/maxscale/modules/mariadbmon/async-switchover", query)


def running(query: str) -> Callable[[Double], None]:
    def do(double: Double) -> None:
        scheduled(query)(double)
        until(lambda: double.machine.monitors["Mon"].phase == "running", "the command to run")

    return do


def midway(query: str, old: str) -> Callable[[Double], None]:
    """The old primary is drained by now."""

    def do(double: Double) -> None:
        scheduled(query)(double)
        until(lambda: Bit.DRAIN in double.bits(old), "the old primary to drain")

    return do


def in_the_background(query: str) -> Callable[[Double], None]:
    def do(double: Double) -> None:
        command = told("POST", "/v1/maxscale/modules/mariadbmon/switchover", query)
        threading.Thread(target=command, args=(double,), daemon=True).start()
        until(lambda: double.machine.monitors["Mon"].phase == "running", "the command to run")

    return do


def finished(query: str) -> Callable[[Double], None]:
    def do(double: Double) -> None:
        scheduled(query)(double)
        until(lambda: not double.machine.monitors["Mon"].phase, "the command to end")

    return do


def together(*steps: Callable[[Double], object]) -> Callable[[Double], None]:
    def do(double: Double) -> None:
        for step in steps:
            step(double)

    return do


def read_only_user(double: Double) -> None:
    told(
        "POST",
        "/v1/users/inet",
        body={"data": {"id": "ro", "type": "inet", "attributes": {"password": "ropw", "account": "basic"}}},
    )(double)


def fourth(double: Double) -> None:
    parameters = {"address": "127.0.0.1", "port": 21004}
    told(
        "POST",
        "/v1/servers",
        body={"data": {"id": "server4", "type": "servers", "attributes": {"parameters": parameters}}},
    )(double)


NO_MONITOR: dict[str, Any] = {"monitor": False}
FROZEN: dict[str, Any] = {"running": False}
ROLES = bits(server1="RUNNING MASTER", server2="RUNNING SLAVE", server3="RUNNING SLAVE")
SECOND = bits(server1="RUNNING SLAVE", server2="RUNNING MASTER", server3="RUNNING SLAVE")
TWO = bits(server1="RUNNING MASTER", server2="RUNNING MASTER SLAVE", server3="RUNNING SLAVE")
DOWN = kill("server1")

STARTS: dict[str, Start] = {
    "nomon-": Start(settings=NO_MONITOR),
    "noauth-": Start(settings={**NO_MONITOR, "parameters": {"admin_auth": False}}),
    "rohosts-": Start(settings={**NO_MONITOR, "readwrite_hosts": False}),
    "secure-gui-": Start(settings=NO_MONITOR),
    "tls-": Start(settings={**NO_MONITOR, "tls": True}),
    "passive-": Start(settings={"parameters": {"passive": True}}),
    "stopped-": Start(settings=FROZEN, before=ROLES),
    "auth-": Start(settings={"parameters": {"admin_secure_gui": False}}, before=read_only_user),
    "patch-server-persisted": Start(settings=NO_MONITOR),
    "patch-": Start(settings={"parameters": {"load_persisted_configs": False}}),
    "method-override-patch": Start(settings={"parameters": {"load_persisted_configs": False}}),
    "get-server-persisted-after-restart": Start(
        settings=NO_MONITOR,
        before=together(
            told("PATCH", "/v1/servers/server3", body={"data": {"attributes": {"parameters": {"priority": 5}}}}),
            lambda double: double.restart(),
        ),
    ),
    "async-switchover-monitor-stopped": Start(settings=FROZEN),
    "failover-monitor-stopped": Start(settings=FROZEN),
    "rejoin-monitor-stopped": Start(settings=FROZEN),
    "switchover-monitor-stopped": Start(settings=FROZEN),
    "get-monitor-stopped": Start(settings=FROZEN),
    "monitor-start": Start(settings=FROZEN),
    "monitor-stop-again": Start(settings=FROZEN),
    "monitor-stop-during-async-switchover": Start(before=running("Mon&server2")),
    "async-failover": Start(before=killed_unseen("server1")),
    "failover-manual": Start(before=killed_unseen("server1")),
    "failover-primary-in-maintenance": Start(before=together(DOWN, monitored("set", "server1", "maintenance"))),
    "failover-primary-alive": Start(primary="server2"),
    "22.08.14/failover-primary-alive": Start(),
    "failover-safe-primary-alive": Start(primary="server2"),
    "async-switchover-to-fail": Start(),
    "async-switchover-while-pending": Start(primary="server1", before=scheduled("Mon&server2")),
    "async-switchover": Start(primary="server2"),
    "22.08.14/async-switchover": Start(),
    "fetch-cmd-result-after-async-failover": Start(
        before=together(
            killed_unseen("server1"),
            told("POST", "/v1/maxscale/modules/mariadbmon/async-failover", "Mon"),
            lambda double: until(lambda: not double.machine.monitors["Mon"].phase, "the command to end"),
        )
    ),
    "fetch-cmd-result-after-async-failure": Start(before=finished("Mon&server1&server3")),
    "fetch-cmd-result-after-async-success": Start(before=finished("Mon&server2")),
    "fetch-cmd-result-after-sync": Start(before=finished("Mon&server2")),
    "fetch-cmd-result-positional": Start(before=finished("Mon&server2")),
    "22.08.14/fetch-cmd-result-none-yet": Start(before=finished("Mon&server2")),
    "fetch-cmd-result-pending": Start(before=scheduled("Mon&server2"), settings={"look_seconds": 0.5}),
    "fetch-cmd-result-running": Start(before=running("Mon&server2")),
    "cancel-cmd-running": Start(before=running("Mon&server2")),
    "get-monitor-primary-down": Start(before=DOWN),
    "get-server-down": Start(primary="server2", before=kill("server2")),
    "get-servers-primary-down": Start(before=DOWN),
    "mon-set-maintenance-down-server": Start(before=DOWN),
    "switchover-primary-down": Start(before=DOWN),
    "switchover-force-primary-down": Start(before=DOWN),
    "rejoin-server-down": Start(before=kill("server2")),
    "rejoin-the-primary": Start(primary="server2"),
    "rejoin-manual": Start(primary="server2", before=lambda double: stray(double, "server1")),
    "get-server-old-primary-back-not-rejoined": Start(
        primary="server2", before=together(lambda double: stray(double, "server1"), look)
    ),
    "22.08.14/rejoin-already-replica": Start(),
    "rejoin-already-replica": Start(primary="server2"),
    "switchover-already-primary": Start(primary="server2"),
    "switchover-new-primary": Start(primary="server2"),
    "24.08.1/switchover-key-value": Start(primary="server2"),
    "24.08.1/switchover-key-value-async": Start(primary="server2"),
    "24.08.1/switchover-key-value-already-primary": Start(primary="server2"),
    "switchover-wrong-current-primary": Start(primary="server2"),
    "22.08.14/switchover-wrong-current-primary": Start(),
    "switchover-to-maintenance-server": Start(before=monitored("set", "server2", "maintenance")),
    "switchover-to-drained-server": Start(before=monitored("set", "server2", "drain")),
    "get-server-drained": Start(before=monitored("set", "server2", "drain")),
    "get-server-draining": Start(before=together(monitored("set", "server2", "drain"), connected("server2", 2))),
    "get-server-replica-maintenance": Start(before=monitored("set", "server2", "maintenance")),
    "get-server-created": Start(before=fourth),
    "post-server-exists": Start(before=fourth),
    "delete-server": Start(before=fourth),
    "delete-server-missing": Start(),
    "delete-server-in-use": Start(settings={"services": False}),
    "delete-user": Start(before=read_only_user),
    "get-server-removed-from-monitor": Start(
        before=lambda double: double.machine.monitors["Mon"].servers.remove("server3")
    ),
    "get-servers-during-async-switchover": Start(primary="server2", before=midway("Mon&server1", "server2")),
    "get-servers-during-sync-switchover": Start(
        settings={"look_seconds": 0.3}, before=in_the_background("Mon&server2")
    ),
    "get-servers-after-switchover": Start(primary="server2"),
    "24.08.1/get-servers-after-old-primary-maint": Start(before=monitored("set", "server2", "maintenance")),
    "get-servers-two-masters": Start(settings=FROZEN, before=TWO),
    "mon-set-maintenance-during-async-switchover": Start(before=running("Mon&server2")),
    "mon-clear-": Start(before=lambda double: None),
    "monitor-start-again": Start(),
    "nomon-get-servers-assigned": Start(
        settings=NO_MONITOR, before=bits(server1="MASTER", server2="SLAVE", server3="SLAVE")
    ),
    "nomon-get-servers-primary-dead": Start(settings=NO_MONITOR, before=together(SECOND, killed_unseen("server2"))),
    "nomon-get-servers-replica-dead": Start(settings=NO_MONITOR, before=together(SECOND, killed_unseen("server3"))),
    "22.08.14/page-size-2": Start(primary="server2"),
    "get-sessions-one": Start(before=lambda double: setattr(double, "_routers", [_OneSession()])),
    "get-maxscale": Start(settings={"parameters": {"admin_secure_gui": False}}),
    "22.08.14/auth-token": Start(settings={"parameters": {"admin_secure_gui": False}}),
}
"""By name, with or without version, else by the longest beginning that fits."""


def stray(double: Double, name: str) -> None:
    """A server that takes writes and follows nobody."""
    reading = made(double).servers[SERVERS[name]]
    made(double).servers[SERVERS[name]] = type(reading)(reading.server_id, read_only=False)


class _OneSession:
    def sessions(self) -> list[tuple[int, str]]:
        return [(1, "server2")]

    def stop(self) -> None: ...


def start_of(recording: Recording) -> Start:
    for name in (recording.id, recording.name):
        if name in STARTS:
            return STARTS[name]
    fitting = [name for name in STARTS if name.endswith("-") and recording.name.startswith(name)]
    return STARTS[max(fitting, key=len)] if fitting else Start()


# -- The comparison -------------------------------------------------------------------------------------------


def send(
    double: Double, method: str, path: str, query: str, headers: dict[str, str], body: Any = None
) -> tuple[int, dict[str, str], Any]:
    if double.settings.tls:
        context = ssl._create_unverified_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection("127.0.0.1", double.port, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", double.port, timeout=20)
    try:
        text = body if isinstance(body, str) else json.dumps(body) if body is not None else None
        target = path + (f"?{query}" if query else "")
        connection.putrequest(method, target.replace('"', "%22"), skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() != "host":
                connection.putheader(name, value)
        if text is not None:
            connection.putheader("Content-Length", str(len(text)))
        connection.endheaders(text.encode() if text is not None else None)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, dict(answer.getheaders()), json.loads(content) if content else None
    finally:
        connection.close()


def tokens(double: Double, recording: Recording) -> dict[str, str]:
    """The recorded request's headers, with a token of the double's own where a token was good when it was recorded."""
    headers = dict(recording.request["headers"])
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme == "Bearer" and credentials.count(".") == 2 and credentials != "abc.def.ghi":
        middle = credentials.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        login = {"admin": "admin:mariadb", "ro": "ro:ropw"}[claims["sub"]]
        basic = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
        age = 0 if "expired" in recording.name else 100
        _, _, body = send(double, "GET", "/v1/auth", f"max-age={age}", basic)
        headers["Authorization"] = f"Bearer {body['meta']['token']}"
        if "deleted" in recording.name:
            told("DELETE", "/v1/users/inet/ro")(double)
    for name in ("If-Match", "If-None-Match"):
        if "right" in recording.name or "same" in recording.name:
            path = recording.request["path"].removesuffix("/set")
            _, found, _ = send(double, "GET", path, "", {"Authorization": ADMIN})
            if name in headers:
                headers[name] = found["ETag"]
    if "If-Modified-Since" in headers and "now" in recording.name:
        _, found, _ = send(double, "GET", recording.request["path"], "", {"Authorization": ADMIN})
        headers["If-Modified-Since"] = found["Last-Modified"]
    return headers


def normal(value: Any, host: str) -> Any:
    """Links without the host."""
    return json.loads(json.dumps(value).replace(host, "HOST"))


def differences(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yields where the shapes differ; states, ids, errors and texts of results are compared to the letter."""
    key = where.rpartition("/")[2]
    if key in DEVIATIONS:
        return
    if key in (
        "errors",
        "state",
        "id",
        "type",
        "self",
        "related",
        "next",
        "first",
        "last",
        "account",
        "router",
    ):
        if wanted != found and not (key == "id" and "sessions" in where):
            yield f"{where}: {wanted!r}, the double says {found!r}"
    elif isinstance(wanted, dict) and isinstance(found, dict):
        for name in sorted({*wanted, *found} - set(DEVIATIONS)):
            if name not in found:
                yield f"{where}/{name}: the double lacks it"
            elif name not in wanted:
                yield f"{where}/{name}: only the double has it"
            else:
                yield from differences(wanted[name], found[name], f"{where}/{name}")
    elif isinstance(wanted, list) and isinstance(found, list):
        if key == "data" and len(wanted) != len(found):
            yield f"{where}: {len(wanted)} entries, the double has {len(found)}"
        for a, b in zip(wanted, found, strict=False):
            yield from differences(a, b, where + "/*")
    elif where in ("/meta", "/meta/total") and wanted != found:
        yield f"{where}: {wanted!r}, the double says {found!r}"
    elif None not in (wanted, found) and _kind(wanted) != _kind(found):
        yield f"{where}: {type(wanted).__name__}, the double has {type(found).__name__}"


def _kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@pytest.mark.parametrize("recording", ALL, ids=lambda r: r.id)
def test_the_double_answers_as_maxscale_did(recording: Recording, tmp_path: Path) -> None:
    start = start_of(recording)
    settings = {"look_seconds": LOOK, "command_seconds": 0.15, **start.settings}
    settings["monitor_parameters"] = {"monitor_interval": "60000ms", **settings.get("monitor_parameters", {})}
    if settings.get("tls"):
        certificate = make_certificate(tmp_path)
        settings["tls"] = Tls(certificate.cert, certificate.key)
    backend = MadeUp.with_primary(SERVERS, start.primary)
    with Double(SERVERS, backend, version=recording.version, **settings).start() as double:
        start.before(double)
        headers = tokens(double, recording)
        began = time.monotonic()
        request = recording.request
        status, answered, body = send(
            double, request["method"], request["path"], request["query"], headers, request["body"]
        )
        took = time.monotonic() - began
    assert status == recording.response["status"], body
    wanted = normal(recording.response["body"], recording.request["headers"]["Host"])
    found = normal(body, f"127.0.0.1:{double.port}")
    assert (wanted is None) == (found is None)
    if isinstance(wanted, dict):
        assert list(differences(wanted, found)) == []
        assert ("errors" in wanted, "meta" in wanted) == ("errors" in found, "meta" in found)
    recorded = dict(recording.response["headers"])
    for name in ("Connection", "Content-Type", "WWW-Authenticate", "Accept", "Mxs-Warning"):
        assert answered.get(name) == recorded.get(name), name
    for name in ("ETag", "Last-Modified", "Set-Cookie"):
        assert (name in answered) == (name in recorded), name
    if request["method"] == "PUT" and recording.elapsed > 0.09:
        assert took >= LOOK, "a set or clear waits for the monitor"


def test_every_start_is_of_a_recording() -> None:
    names = {r.name for r in ALL} | {r.id for r in ALL}
    unused = [s for s in STARTS if s not in names and not any(r.name.startswith(s) for r in ALL)]
    assert unused == []
    assert set(ASIDE) <= {r.id for r in ALL}
    assert len(ALL) > 300
