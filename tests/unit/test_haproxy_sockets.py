"""HAProxy's sockets where another user has started it: each is opened to us in a way of its own."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest

from proxyroute.errors import AdapterError
from proxyroute.haproxy.runtime import Master, Runtime
from proxyroute.model import Deadline


@pytest.fixture(autouse=True)
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for anybody but root at a socket of root's."""

    class Refusing(socket.socket):
        def connect(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)


def test_the_master_socket_gets_its_owner_from_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as told:
        Master("edge1", tmp_path / "m.sock").processes(Deadline.after(1))
    us = pwd.getpwuid(os.geteuid()).pw_name
    assert f"-S {tmp_path}/m.sock,user,{us},mode,600" in str(told.value)
    assert "socket_user" not in str(told.value)


def test_the_runtime_socket_gets_it_from_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=f"set socket_user: {pwd.getpwuid(os.geteuid()).pw_name}$"):
        Runtime("edge1", tmp_path / "admin.sock").ask("show info", Deadline.after(1))
