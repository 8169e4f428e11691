"""An ssh server of a test's own on this machine: its keys, its port, its known hosts; nobody else's are touched."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from tests.support.process import Daemon, find_program, free_port
from tests.support.wait import until

_PRIVILEGES = Path("/run/sshd")
"""Where sshd wants an empty folder when it is run by root; its service makes that."""


class Sshd:
    """A running sshd. ``shell`` is the argv that runs commands over it, as ``servers.NAME.host.shell`` has it.

    ``stuck_shell`` logs in with a key for which the server runs ``sleep`` instead of the command, ``wrong_shell`` with
    one that it does not know, and ``stranger_shell`` knows another key of the host's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o700)
        for name in ("host", "user", "stuck", "wrong", "stranger"):
            self._make_key(name)
        self.port = free_port()
        stuck = self._public("stuck")
        self._write("authorized", f'{self._public("user")}command="exec sleep 300" {stuck}')
        self._write("known", f"[127.0.0.1]:{self.port} {self._public('host')}")
        self._write("known-stranger", f"[127.0.0.1]:{self.port} {self._public('stranger')}")
        self._write("known-nobody", "")
        options = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "LogLevel": "VERBOSE",
        }
        self._write("sshd_config", "".join(f"{name} {value}\n" for name, value in options.items()))
        self._made = False
        if os.geteuid() == 0 and not _PRIVILEGES.exists():
            _PRIVILEGES.mkdir(mode=0o755)
            self._made = True
        argv = [find_program("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
        self.daemon = Daemon(argv, folder / "log")
        try:
            until(self._listens, "sshd to listen")
        except BaseException:
            self.close()
            raise
        self.shell = self.shell_with()
        self.stuck_shell = self.shell_with(key="stuck")
        self.wrong_shell = self.shell_with(key="wrong")
        self.stranger_shell = self.shell_with(known="known-stranger")
        self.unknown_shell = self.shell_with(known="known-nobody")

    def shell_with(self, key: str = "user", known: str = "known") -> list[str]:
        """Returns the argv that runs commands here, logging in with ``key`` and trusting the hosts in ``known``."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": 5,
            "Port": self.port,
            "IdentityFile": self.folder / key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / known,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "/dev/null", *words, f"{getpass.getuser()}@127.0.0.1"]

    def logins(self) -> int:
        """How often somebody has logged in."""
        return (self.folder / "log").read_text(errors="replace").count("Accepted publickey")

    def close(self) -> None:
        self.daemon.go_on()
        self.daemon.terminate()
        if self._made:
            with contextlib.suppress(OSError):
                _PRIVILEGES.rmdir()

    def __enter__(self) -> Sshd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_key(self, name: str) -> None:
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def _public(self, name: str) -> str:
        return (self.folder / f"{name}.pub").read_text()

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def _listens(self) -> bool:
        if not self.daemon.running:
            raise RuntimeError(f"sshd has ended: {(self.folder / 'log').read_text(errors='replace')}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False
