"""A certificate authority of the tests' own, and a certificate for one address."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    ca: Path
    cert: Path
    key: Path


def make_certificate(folder: Path, address: str = "127.0.0.1") -> Certificate:
    """Makes an authority and a server certificate for ``address`` in ``folder``."""
    (folder / "san.cnf").write_text(f"subjectAltName=IP:{address}\n")
    for argv in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=proxyroute-test-ca",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=proxyroute-test",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile san.cnf",
    ):
        subprocess.run(["openssl", *argv.split()], cwd=folder, check=True, capture_output=True)
    return Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
