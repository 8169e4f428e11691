"""The process that reads and writes a disk in place of another one, which must not be kept by it. See ``worker``.

It has nothing open but a socket to the process it works for, and ends when that is closed. Each access has a thread:
one that hangs keeps no other from being made.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import proxyroute.haproxy.share  # noqa: F401 - what will be asked for, read before the first request
from proxyroute import faults
from proxyroute.haproxy import frames


def _reply(number: int, role: str, access: Callable[[], Any], channel: socket.socket, alone: threading.Lock) -> None:
    faults.role = role
    try:
        outcome = pickle.dumps((True, access()))
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits
        outcome = pickle.dumps((False, error))
    with alone:
        frames.put(channel, number, outcome)


def main() -> int:
    """Serves the socket that is our standard input until its other end is closed; returns the exit code."""
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # we end with whom we work for
        signal.signal(signal_number, signal.SIG_IGN)
    faults.owner = os.getppid()
    channel, alone = socket.socket(fileno=os.dup(0)), threading.Lock()
    while (request := frames.get(channel)) is not None:
        number, (role, access) = request[0], pickle.loads(request[1])
        threading.Thread(target=_reply, args=(number, role, access, channel, alone), daemon=True).start()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # an access that hangs is not waited for
