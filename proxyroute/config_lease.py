"""What a configuration says about the lease: who may act, when several engines run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyroute.config_secrets import Secret
from proxyroute.model import Finding, Severity


@dataclass(frozen=True)
class LeaseConfig:
    """Where the lease is kept. ``resource`` and ``node`` are for Pacemaker, ``endpoints`` and below for etcd."""

    type: str = "local"
    time: float = 10.0
    """Seconds after which a holder that is not heard of has lost it."""
    endpoints: tuple[str, ...] = ()
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password: Secret | None = None
    resource: str = "proxyroute"
    """The resource of the cluster manager that is started where we may act."""
    node: str = ""
    """The name of this host in the cluster manager; empty: it is asked."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as it is written in the file, with absolute paths and without any secret."""
        if self.type == "local":
            return {"type": self.type}
        value: dict[str, Any] = {"type": self.type, "time": self.time}
        if self.type == "etcd":
            value["endpoints"] = list(self.endpoints)
        if self.type == "pacemaker":
            value |= {"resource": self.resource, "node": self.node}
        value |= {name: str(path) for name in ("ca", "cert", "key") if (path := getattr(self, name)) is not None}
        if self.password is not None:
            value |= {"user": self.user, "password": self.password.reference}
        return value

    def findings(self) -> Iterator[Finding]:
        """Yields what is wrong with the files and variables it refers to."""
        if self.password is not None:
            found = self.password.finding("lease")
            if found is not None:
                yield found
            if any(endpoint.startswith("http:") for endpoint in self.endpoints):
                text = "the password goes to etcd unencrypted: anybody in between can read it"
                yield Finding("lease.plain", Severity.WARNING, "lease", text, "use https endpoints and name the ca")
        for path in (self.ca, self.cert, self.key):
            if path is not None and not os.access(path, os.R_OK):
                text = f"the TLS file {path} cannot be read"
                yield Finding("config.tls", Severity.ERROR, "lease", text, "check its path and its owner")
