"""The processes of HAProxy: its binary, a trial of a configuration, reloads with proof, sessions that must end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass

from proxyroute.argv import run
from proxyroute.errors import AdapterError, ScriptFailed, TimedOut
from proxyroute.faults import act
from proxyroute.haproxy.files import remove_leftovers
from proxyroute.haproxy.loaded import old_sessions, read_pid, write_sessions
from proxyroute.haproxy.render import render
from proxyroute.haproxy.runtime import Master, Runtime
from proxyroute.haproxy.settings import Names, Settings
from proxyroute.model import Deadline, RouteTable

_PAUSE = 0.005
_SESSION = re.compile(r"(0x[0-9a-f]+): .*? fe=(\S+) be=(\S+) ")


@dataclass(frozen=True)
class Binary:
    """What ``haproxy -vv`` says about itself."""

    version: tuple[int, int]
    lua: bool


def inspect(proxy: str, binary: str, deadline: Deadline) -> Binary:
    """Asks the binary. Raises AdapterError when it cannot be run."""
    try:
        done = run([binary, "-vv"], {}, deadline)
    except ScriptFailed as error:
        raise AdapterError(proxy, str(error)) from None
    version = re.search(r"version (\d+)\.(\d+)", done.stdout)
    if done.status or version is None:
        raise AdapterError(proxy, f"{binary} is not haproxy: {(done.stderr or done.stdout).strip()[:80]}")
    return Binary((int(version[1]), int(version[2])), "+LUA" in done.stdout)


def try_out(proxy: str, table: RouteTable, settings: Settings, deadline: Deadline) -> None:
    """Has HAProxy check the rendered configuration in a folder of its own, before anything is written into place.

    Raises AdapterError with HAProxy's words when it rejects it, ConfigError when a template is wrong.
    """
    folder = settings.config_file.with_name(f".{settings.config_file.name}.{os.getpid()}.trial")
    rendered = render(table, settings, folder)
    files = {
        folder / settings.config_file.name: rendered.config,
        folder / settings.map_file.name: rendered.map,
        folder / settings.lua_file.name: rendered.lua,
    }
    try:
        with act("haproxy.write_file"):
            remove_leftovers(settings.config_file)
            folder.mkdir(exist_ok=True)
            for file, text in files.items():
                file.write_text(text, encoding="utf-8")
        done = run([settings.binary, "-c", "-f", str(folder / settings.config_file.name)], {}, deadline)
    except OSError as error:
        raise AdapterError(proxy, f"cannot try the configuration out in {folder}: {error.strerror or error}") from None
    except ScriptFailed as error:
        raise AdapterError(proxy, str(error)) from None
    finally:
        with act("haproxy.write_file"):
            shutil.rmtree(folder, ignore_errors=True)
    if done.status:
        words = _words(done.stderr).replace(str(folder), str(settings.config_file.parent))
        raise AdapterError(proxy, f"haproxy rejects the configuration: {words}")


def _words(stderr: str) -> str:
    """Returns what HAProxy complains of, without the lines that only say that it complained."""
    alerts = [line.partition(" : ")[2] for line in stderr.splitlines() if line.startswith("[ALERT]")]
    return "; ".join(a for a in alerts if "rror(s) found" not in a and "Fatal errors" not in a) or stderr.strip()


def reload(proxy: str, master: Master, runtime: Runtime, deadline: Deadline) -> int:
    """Reloads and returns the pid of the process that serves now, as the master *and* the runtime socket tell it.

    Raises AdapterError when the new configuration was not taken (the old process goes on serving), TimedOut when
    neither can be seen in time.
    """
    before = master.processes(deadline)
    known = {w.pid for w in before.workers}
    said = ""
    with contextlib.suppress(TimedOut):  # it starts itself anew while it answers: look, do not listen
        said = master.reload(deadline)
    if "Success=0" in said:
        raise AdapterError(proxy, f"haproxy did not take the configuration: {_words(said)}")
    while True:
        now = master.processes(deadline, patience=deadline.left)  # some seconds when it cannot bind a port
        fresh = [pid for pid in now.current if pid not in known]
        if fresh and read_pid(runtime, deadline) in fresh:
            return read_pid(runtime, deadline)
        if now.failed and now.reloads > before.reloads:
            raise AdapterError(proxy, "haproxy did not take the configuration; its log says why")
        deadline.require(f"{proxy} to reload")
        time.sleep(_PAUSE)


def end_sessions(
    runtime: Runtime, master: Master, names: Names, keep: str | None, deadline: Deadline
) -> dict[str, int]:
    """Ends the sessions of the write backends of all servers but ``keep``, in replaced processes too.

    Those of the process that serves go first, so that a master that does not answer does not spare them.

    Returns when none is left, or at the deadline: how many there were, by server. Raises AdapterError when a process
    does not answer.
    """
    ended: dict[str, int] = {}
    gently = True
    while True:
        left = elsewhere(write_sessions(runtime.ask("show stat", deadline), names), keep)
        for server in left if gently else ():
            runtime.tell(f"shutdown sessions server {names.write_backend(server)}/{server}", deadline)
        if left and not gently:  # those between two attempts to connect belong to no server
            for session in _sessions(runtime.ask("show sess", deadline), names, keep):
                runtime.tell(f"shutdown session {session}", deadline)
        left_old = elsewhere(old_sessions(master, names, deadline), keep)
        for pid in master.processes(deadline).old if left_old else ():
            for session in _sessions(master.ask(pid, "show sess", deadline), names, keep):
                # a replaced process refuses "shutdown sessions server": its proxies are disabled
                master.tell(pid, f"shutdown session {session}", deadline)
        for server in {*left, *left_old}:
            ended[server] = max(ended.get(server, 0), left.get(server, 0) + left_old.get(server, 0))
        if not (left or left_old) or deadline.left <= _PAUSE:
            return ended
        time.sleep(_PAUSE)
        gently = False


def elsewhere(sessions: Mapping[str, int], keep: str | None) -> dict[str, int]:
    """Returns the servers, other than ``keep``, that have sessions."""
    return {server: count for server, count in sessions.items() if count and server != keep}


def _sessions(answer: str, names: Names, keep: str | None) -> list[str]:
    """Returns the ids of the sessions in write backends other than that of ``keep``."""
    kept = names.write_backend(keep) if keep is not None else ""
    prefix = names.write_backend("")
    return [
        found[1]
        for found in map(_SESSION.match, answer.splitlines())
        if found and found[3].startswith(prefix) and found[3] != kept
    ]
