"""A real etcd of one or more members on loopback, with TLS and accounts if asked for."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.support.process import Daemon, find_program, free_port
from tests.support.wait import until


class Member:
    """One member: it can be killed, stopped, and started again on the same data."""

    def __init__(self, argv: Sequence[str], endpoint: str, log: Path) -> None:
        self._argv = tuple(argv)
        self._log = log
        self.endpoint = endpoint
        self.daemon = Daemon(argv, log)

    def kill(self) -> None:
        self.daemon.kill()

    def stop(self) -> None:
        """SIGSTOP: it has its connections and answers nothing."""
        self.daemon.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.daemon.send(signal.SIGCONT)

    def restart(self) -> None:
        self.daemon.kill()
        self.daemon = Daemon(self._argv, self._log)


class Etcd:
    """A cluster of etcd members; ``endpoints`` is what the product is configured with."""

    def __init__(self, members: Sequence[Member], flags: Sequence[str]) -> None:
        self.members = tuple(members)
        self._flags = tuple(flags)

    @classmethod
    def start(cls, folder: Path, n: int = 1, *, tls: Tls | None = None) -> Etcd:
        """Starts ``n`` members with their data below ``folder``, and returns when they have a leader."""
        folder.mkdir(parents=True, exist_ok=True)
        scheme = "https" if tls else "http"
        clients = [f"{scheme}://127.0.0.1:{free_port()}" for _ in range(n)]
        peers = [f"http://127.0.0.1:{free_port()}" for _ in range(n)]
        together = ",".join(f"m{i}={peer}" for i, peer in enumerate(peers))
        secure = tls.server_flags if tls else ()
        members = []
        for i in range(n):
            argv = (
                find_program("etcd"),
                *("--name", f"m{i}", "--data-dir", str(folder / f"m{i}"), "--unsafe-no-fsync"),
                *("--listen-client-urls", clients[i], "--advertise-client-urls", clients[i]),
                *("--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i]),
                *("--initial-cluster", together, "--initial-cluster-state", "new", *secure),
                *("--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "error"),
            )
            members.append(Member(argv, clients[i], folder / f"m{i}.log"))
        etcd = cls(members, tls.client_flags if tls else ())
        try:
            until(lambda: etcd.ctl("get", "ready", check=False).returncode == 0, "etcd to have a leader")
        except BaseException:
            etcd.close()
            raise
        return etcd

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def ctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs etcdctl, as an operator would."""
        argv = [find_program("etcdctl"), "--endpoints", ",".join(self.endpoints), "--command-timeout=2s", *self._flags]
        return subprocess.run([*argv, *words], capture_output=True, text=True, check=check, timeout=30)

    def content(self, prefix: str = "/") -> dict[str, str]:
        """Returns every key below ``prefix`` with its value."""
        lines = self.ctl("get", "--prefix", prefix).stdout.splitlines()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def enable_accounts(self, user: str, password: str) -> None:
        """From now on nobody gets in without a password; ``user`` may use what lies below /proxyroute/."""
        for words in (
            ("user", "add", "root:root-password"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "engines"),
            ("role", "grant-permission", "--prefix=true", "engines", "readwrite", "/proxyroute/"),
            ("user", "add", f"{user}:{password}"),
            ("user", "grant-role", user, "engines"),
            ("auth", "enable"),
        ):
            self.ctl(*words)

    def close(self) -> None:
        for member in self.members:
            member.kill()

    def __enter__(self) -> Etcd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tls:
    """An authority of its own, with a certificate for the members and one for their clients.

    ``anonymous`` is another one for clients, without a common name: all that etcd takes where it has accounts as well.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self._ca_key = folder / "ca.pem", folder / "ca.key"
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._ca_key, "-out", self.ca, "-subj", "/CN=a test's authority")
        self._server = self._sign(folder, "server")
        self.cert, self.key = self._sign(folder, "client")
        self.anonymous = self._sign(folder, "anonymous", "/O=engines")

    def _sign(self, folder: Path, name: str, subject: str = "") -> tuple[Path, Path]:
        key, request, cert, names = (folder / f"{name}.{end}" for end in ("key", "csr", "pem", "ext"))
        names.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", subject or f"/CN={name}")
        ca = ("-CA", self.ca, "-CAkey", self._ca_key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *ca, "-out", cert, "-days", "2", "-extfile", names)
        return cert, key

    @property
    def server_flags(self) -> tuple[str, ...]:
        cert, key = map(str, self._server)
        return ("--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", str(self.ca))

    @property
    def client_flags(self) -> tuple[str, ...]:
        cert, key = map(str, self.anonymous)
        return ("--cacert", str(self.ca), "--cert", cert, "--key", key)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
