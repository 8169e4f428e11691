"""The shape of the configuration file, checked by pydantic.

Nothing of pydantic leaves the configuration: what the rest of the program gets are the plain values of
``config_values``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from proxyroute.config_secrets import KINDS
from proxyroute.model import Address

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_LONGEST = 87_600 * 3600.0
"""Seconds, ten years: nobody means more, and threads cannot wait for much more."""
LONGEST_SCRIPT = 300.0
"""Seconds; servers end our connections after ten minutes in which nothing is asked."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

SECRET_HELP = "write {file: /path}, {env: NAME} or {credential: NAME}"
NAME_HELP = "a name starts with a letter or digit and goes on with letters, digits, _ . and -"
ADDRESS_HELP = "write host:port, e.g. 10.0.0.1:3306"

EXAMPLES = {
    "version": "version: 1",
    "state_dir": "state_dir: /var/lib/proxyroute",
    "clusters": "clusters: {NAME: {…}}",
    "account": "account: {user: proxyroute, password: {file: /etc/proxyroute/engine.password}}",
    "replication": "replication: {user: repl, password: {file: /etc/proxyroute/replication.password}}",
    "servers": "servers: {db1: 10.0.0.1:3306, db2: 10.0.0.2:3306}",
    "address": "address: 10.0.0.1:3306",
    "user": "user: NAME",
    "password": "password: {file: /path}, {env: NAME} or {credential: NAME}",
    "schema": "schema: proxyroute",
    "type": "type: haproxy",
    "name": "name: edge1",
    "addresses": "addresses: [10.0.0.100/24]",
    "hosts": "hosts: {edge1: 10.0.0.11, edge2: 10.0.0.12}",
    "interface": "interface: eth0",
    "router_id": "router_id: 51",
    "endpoints": "endpoints: ['https://10.0.0.1:2379', 'https://10.0.0.2:2379', 'https://10.0.0.3:2379']",
}
"""What to write for a field that is missing or of the wrong kind."""


def parse_duration(value: object) -> float:
    """Returns seconds for ``250ms``, ``3s``, ``2m``, ``1h`` or a number of seconds. Raises ValueError."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    number = float(match[1]) * _UNITS[match[2]] if match else value
    if isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= _LONGEST:
        return round(float(number), 9)
    raise ValueError(f"{value!r} is not a duration; write a number of seconds, or 250ms, 3s, 2m, 1h")


def parse_address(value: object) -> Address:
    """Returns the address in ``host:port``. Raises ValueError."""
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be an address; {ADDRESS_HELP}")
    return Address.parse(value)


def is_name(text: str) -> bool:
    """Tells whether ``text`` can name a cluster, a server or a proxy: it becomes part of file names."""
    return _NAME.fullmatch(text) is not None


def _say(text: str) -> PydanticCustomError:
    return PydanticCustomError("said", "{text}", {"text": text})


def _duration(value: object) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise _say(str(error)) from None


def _address(value: object) -> Address:
    try:
        return parse_address(value)
    except ValueError as error:
        raise _say(str(error)) from None


def _argv(value: object) -> object:
    if isinstance(value, str):
        raise _say(as_list(value))
    if isinstance(value, list):
        if not value:
            raise _say("is empty; write the program and its arguments, or leave the field out")
        return numbers_as_text(value)
    return value


def numbers_as_text(items: Iterable[object]) -> list[object]:
    """Returns ``items``, in which numbers are words like the others: as they are written."""
    return [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in items]


def as_list(text: str) -> str:
    """Returns what to say of ``text`` where a list belongs."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = [text]
    return f"must be a list; write [{', '.join(words)}]"


Duration = Annotated[float, BeforeValidator(_duration)]
Argv = Annotated[tuple[str, ...], BeforeValidator(_argv)]
Text = Annotated[str, BeforeValidator(lambda v: v.strip() if isinstance(v, str) else v)]


class Shape(BaseModel):
    """Base of all parts of the file: unknown fields are errors, an empty field counts as left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}


class SecretShape(Shape):
    file: str = ""
    env: str = ""
    credential: str = ""

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise _say(f"a secret is never written into this file; {SECRET_HELP}")
        given = [kind for kind in KINDS if data.get(kind)]
        if len(given) != 1 and set(data) <= set(KINDS):
            raise _say(f"names {len(given) or 'no'} places for one secret; {SECRET_HELP}")
        if "/" in str(data.get("credential", "")):
            raise _say("a credential is a name, not a path; for a path write {file: /path}")
        return data


class TlsShape(Shape):
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True

    @model_validator(mode="after")
    def _pair(self) -> TlsShape:
        if (self.cert is None) != (self.key is None):
            raise _say("cert and key come together; give both or none")
        return self


class AccountShape(Shape):
    user: Text
    password: SecretShape
    tls: TlsShape | None = None


class ReplicationShape(AccountShape):
    @model_validator(mode="after")
    def _paths_on_the_servers(self) -> ReplicationShape:
        relative = [p for p in (self.tls.ca, self.tls.cert, self.tls.key) if p] if self.tls else []
        if not all(path.is_absolute() for path in relative):
            raise _say("the tls files of replication lie on the database servers; write absolute paths")
        return self


class HostShape(Shape):
    user: Text = ""
    shell: Argv = ()
    data_dir: str = "auto"
    binlog_index: str = "auto"
    stop: Argv = ("systemctl", "stop", "mariadb")
    start: Argv = ("systemctl", "start", "mariadb")

    @model_validator(mode="after")
    def _some_way(self) -> HostShape:
        if bool(self.user) == bool(self.shell):
            raise _say("needs one way to run commands; write {user: root} for ssh, or {shell: [ssh, root@10.0.0.1]}")
        for name in ("data_dir", "binlog_index"):
            if getattr(self, name) != "auto" and not getattr(self, name).startswith("/"):
                raise _say(f"{name} lies on the database server; write an absolute path, or auto")
        return self


class ServerShape(Shape):
    address: Annotated[Address, BeforeValidator(_address)]
    replication: ReplicationShape | None = None
    host: HostShape | None = None
    node: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        if isinstance(data, dict):
            return data
        return {"address": data if data is not None else ""}


class ProofShape(Shape):
    schema_: Text
    account: AccountShape

    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_"))

    @model_validator(mode="after")
    def _plain_schema(self) -> ProofShape:
        if not re.fullmatch(r"[A-Za-z0-9_$]{1,64}", self.schema_):
            raise _say(f"schema {self.schema_!r} is not plain; use letters, digits and _, e.g. proxyroute")
        return self


class RejoinShape(Shape):
    account: AccountShape


class ScriptsShape(Shape):
    timeout: Duration = 10.0
    arguments: Literal["environment", "replication-manager"] = "environment"
    address_down: Argv = ()
    address_up: Argv = ()
    fence: Argv = ()

    @field_validator("timeout")
    @classmethod
    def _bounded(cls, seconds: float) -> float:
        if not 0 < seconds <= LONGEST_SCRIPT:
            raise _say("must be more than 0 seconds, and at most 5m")
        return seconds


class LeaseShape(Shape):
    type: Literal["local", "etcd", "database", "pacemaker"] = "local"
    time: Duration = 10.0
    resource: Text = "proxyroute"
    node: Text = ""
    endpoints: list[Text] = []
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: Text = ""
    password: SecretShape | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> LeaseShape:
        ours = {"resource", "node"}
        alien = self.model_fields_set & ours
        if alien and self.type != "pacemaker":
            raise _say(f"{', '.join(sorted(alien))} is for type: pacemaker only; this is type: {self.type}")
        if not is_name(self.resource):
            raise _say(f"resource: {self.resource!r} is no name of a resource; crm_resource --list names them")
        if self.type != "etcd":
            alien = self.model_fields_set - {"type", "time"} - ours
            if alien:
                raise _say(f"{', '.join(sorted(alien))} is for type: etcd only; this is type: {self.type}")
        elif not self.endpoints:
            raise _say(f"has no endpoints; write {EXAMPLES['endpoints']}")
        if self.time != int(self.time) or not 2 <= self.time <= 600:
            raise _say("time must be whole seconds, from 2s to 600s")
        for endpoint in self.endpoints:
            if not re.fullmatch(r"https?://[^/\s]+:\d+/?", endpoint):
                raise _say(f"{endpoint!r} is not an address of etcd; write {EXAMPLES['endpoints']}")
            if endpoint.startswith("http:") and (self.ca or self.cert):
                raise _say(f"{endpoint} does not use TLS, and ca or cert is given; write https:// or take them out")
        if (self.cert is None) != (self.key is None):
            raise _say("cert and key come together; give both or none")
        if bool(self.user) != (self.password is not None):
            raise _say("user and password come together; give both or none")
        return self


class ClusterShape(Shape):
    account: AccountShape
    replication: ReplicationShape
    servers: dict[str, ServerShape]
    switchover: dict[str, Any] = {}
    serve: dict[str, Any] = {}
    failover: dict[str, Any] = {}
    proof: ProofShape | None = None
    scripts: ScriptsShape = ScriptsShape()
    rejoin: RejoinShape | None = None
    proxies: list[dict[str, Any]] = []
    lease: LeaseShape | None = None
    notices: list[dict[str, Any]] = []
    vrrp: dict[str, Any] | None = None


class FileShape(Shape):
    version: Literal[1]
    state_dir: Path = Path("/var/lib/proxyroute")
    lease: LeaseShape = LeaseShape()
    web: dict[str, Any] | None = None
    log: Literal["console", "json"] | None = None
    clusters: dict[str, ClusterShape]
