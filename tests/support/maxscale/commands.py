"""mariadbmon's commands: their arguments, when they are refused and where the errors stand, and what they do.

What they do is done to a cluster that is made up (:class:`~tests.support.maxscale.backends.MadeUp`): real servers are
moved by those who are tested, never by the double.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.support.maxscale.backends import MadeUp
from tests.support.maxscale.bits import ASIDE, ROLES, Bit
from tests.support.maxscale.command_lists import KEYED_SWITCHOVER, commands
from tests.support.maxscale.machine import Machine, Monitor, RefusedError, Server
from tests.support.maxscale.versions import at_least

_PHASES = 3
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass
class _Order:
    """A command that has been understood."""

    name: str
    monitor: Monitor
    servers: list[Server | None]
    wait: bool = True
    forced: bool = False
    maintenance: bool = False


class Commands:
    """The module commands of one MaxScale."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    def call(self, method: str, name: str, arguments: list[str]) -> str | list[str] | None:
        """Runs a command. Returns None where 204 is answered, else what ``meta`` says. Raises RefusedError."""
        listed = {c[0]: c for c in commands(self._m.version)}
        if name not in listed:
            raise RefusedError(404, f"Module 'mariadbmon' has no command named '{name}'.")
        if method not in ("GET", "POST"):
            raise RefusedError(404)
        if method != listed[name][1]:
            raise RefusedError(
                404, f"Module 'mariadbmon' has a command named '{name}', but it cannot be used with {method}."
            )
        order = self._understood(name, arguments)
        if name == "fetch-cmd-result":
            return self._result(order.monitor)
        if name == "cancel-cmd":
            if not order.monitor.phase:
                raise RefusedError(400, "No manual command is scheduled or running.", meta=True)
            return None
        if name.endswith("release-locks"):
            raise RefusedError(400, "Server locks are not in use, cannot release them.", meta=True)
        self._schedule(order)
        return None

    # -- arguments --

    def _understood(self, name: str, arguments: list[str]) -> _Order:
        _, _, least, most, _, kinds = next(c for c in commands(self._m.version) if c[0] == name)
        if name == "switchover" and at_least(self._m.version, 24, 8) and any("=" in a for a in arguments):
            return self._keyed(arguments)
        if not least <= len(arguments) <= most:
            text = f"between {least} and {most} arguments" if least != most else f"{least} arguments"
            raise RefusedError(400, f"Expected {text}, got {len(arguments)}.")
        monitor, servers = None, []
        for n, (argument, (_, kind)) in enumerate(zip(arguments, kinds, strict=False), 1):
            if "MONITOR" in kind:
                monitor = self._m.monitors.get(argument)
                if monitor is None:
                    raise RefusedError(400, f"Argument {n}, monitor not found: {argument}")
            elif "SERVER" in kind:
                if argument not in self._m.servers:
                    raise RefusedError(400, f"Argument {n}, server not found: {argument}")
                servers.append(self._m.servers[argument])
        assert monitor is not None, "every command of mariadbmon begins with it"
        plain = name.removeprefix("async-").removesuffix("-force").removesuffix("-safe")
        return _Order(plain, monitor, [*servers, None, None], not name.startswith("async-"), name.endswith("-force"))

    def _keyed(self, arguments: list[str]) -> _Order:
        given: dict[str, str] = {}
        for argument in arguments:
            key, equals, value = argument.partition("=")
            if not equals:
                raise RefusedError(
                    400,
                    f"Argument '{key}' does not have a corresponding value. "
                    "This command expects arguments as a list of key=value pairs.",
                )
            given[key] = value
        for key in given:
            if key not in [k for k, _, _ in KEYED_SWITCHOVER]:
                raise RefusedError(400, f"Argument '{key}' was unrecognized.")
        if "monitor" not in given:
            raise RefusedError(400, "Mandatory argument 'monitor' is not defined.")
        for key, _, kind in KEYED_SWITCHOVER:
            if key not in given:
                continue
            value = given[key]
            if "MONITOR" in kind and value not in self._m.monitors:
                raise RefusedError(400, f"Argument '{key}' value '{value}': monitor not found")
            if "SERVER" in kind and value not in self._m.servers:
                raise RefusedError(400, f"Argument '{key}' value '{value}': server not found")
            if "BOOLEAN" in kind and value.lower() not in _TRUE + _FALSE:
                raise RefusedError(400, f"Argument '{key}' value '{value}': not a boolean value")
        yes = {k for k, v in given.items() if v.lower() in _TRUE}
        servers = [self._m.servers[given[k]] if k in given else None for k in ("new_primary", "old_primary")]
        return _Order(
            "switchover", self._m.monitors[given["monitor"]], servers, "async" not in yes, "force" in yes,
            "old_primary_maint" in yes,
        )  # fmt: skip

    # -- whether and when --

    def _schedule(self, order: _Order) -> None:
        monitor, both = order.monitor, at_least(self._m.version, 23, 2)
        title = order.name.replace("-", " ").capitalize()
        if self._m.parameters["passive"]:
            raise RefusedError(400, f"{title} requested but not performed, as MaxScale is in passive mode.", both=True)
        if not monitor.running:
            text = "The monitor is not running, cannot execute manual command."
            raise RefusedError(400, text, both=both, meta=not both)
        if monitor.phase:
            text = f"Cannot run manual {order.name}, previous {monitor.command} is still {monitor.phase}."
            raise RefusedError(400, text, both=both, meta=not both)
        monitor.command, monitor.phase = order.name, "pending"
        if not order.wait:
            threading.Thread(target=self._run, args=(order,), daemon=True).start()
            return
        errors = self._run(order)
        if errors:
            raise RefusedError(400, *errors, meta=True)

    def _run(self, order: _Order) -> list[str]:
        monitor = order.monitor
        if not order.wait:
            time.sleep(self._m.look_seconds)  # until the monitor's loop comes round
        with self._m.no_tick():
            monitor.phase = "running"
            errors = list(_DO[order.name](self, order))
            monitor.result = errors or f"{order.name} completed successfully."
            monitor.phase = ""
        if not errors:
            threading.Timer(self._m.look_seconds, self._m.tick, (monitor,)).start()
        return errors

    def _result(self, monitor: Monitor) -> str | list[str]:
        if monitor.phase:
            return [f"No manual command results are available, {monitor.command} is still {monitor.phase}."]
        return monitor.result or ["No manual command results are available."]

    # -- what they do --

    @property
    def _cluster(self) -> MadeUp:
        assert isinstance(self._m.backend, MadeUp), "commands move clusters that are made up"
        return self._m.backend

    def _word(self) -> str:
        return "primary" if at_least(self._m.version, 23, 2) else "master"

    def _alive(self, server: Server) -> bool:
        return self._cluster.read(server.address) is not None

    def _present(self, monitor: Monitor) -> Server | None:
        """The command makes the monitor look at once; returns who is the primary now."""
        self._m.tick(monitor)
        name = monitor.primary
        return self._m.servers[name] if name is not None and Bit.MASTER in self._m.servers[name].bits else None

    def _switchover(self, order: _Order) -> list[str]:
        shown = self._present(order.monitor)
        new, old = order.servers[0], order.servers[1] or shown
        title = "Switchover cancelled."
        if old is None and order.forced:
            name = order.monitor.primary
            text = f"Can not autoselect '{name}' as a demotion target for switchover because it is"
            return [f"{text} not running or it is in maintenance.", title]
        if old is None:
            return [
                "Can not autoselect a demotion target for switchover: cluster does not have a "
                f"{self._word()}.", title,
            ]  # fmt: skip
        if new is not None and (why := self._unfit(new, old, shown)):
            return [f"'{new.name}' is not a valid promotion target for switchover because {why}.", title]
        if new is None:
            members = [self._m.servers[n] for n in order.monitor.servers]
            new = next(s for s in members if s is not old and not self._unfit(s, old, shown))
        bits = old.bits & ~ROLES
        self._m.put(old.name, bits | Bit.DRAIN)
        time.sleep(self._m.command_seconds * (_PHASES - 1) / _PHASES)
        self._m.put(old.name, bits & ~Bit.DRAIN)
        self._cluster.promote(new.address, but=(old.address,) if order.maintenance else ())
        if order.maintenance:
            reading = self._cluster.servers[old.address]
            self._cluster.servers[old.address] = replace(reading, read_only=True)
            self._m.put(old.name, bits & ~Bit.DRAIN | Bit.MAINTENANCE)
        time.sleep(self._m.command_seconds / _PHASES)
        return []

    def _unfit(self, new: Server, old: Server, shown: Server | None) -> str:
        reading = self._cluster.read(new.address)
        if reading is None or Bit.MAINTENANCE in new.bits:
            return "it is down or in maintenance"
        if new is shown and old is shown:
            return f"it is already the {self._word()}"
        if reading.source != old.address:
            if new is shown:
                return f"it is already the {self._word()}"
            return f"it is not replicating from '{old.name}'"
        return ""

    def _failover(self, order: _Order) -> list[str]:
        self._m.tick(order.monitor)
        old = self._m.servers[order.monitor.primary] if order.monitor.primary else None
        if old is None or self._alive(old):
            name = old.name if old is not None else ""
            return [
                f"Can not select '{name}' as a demotion target for failover because it is a running master.",
                "Failover cancelled.",
            ]
        members = [self._m.servers[n] for n in order.monitor.servers]
        new = next(s for s in members if self._alive(s) and not s.bits & ASIDE)
        time.sleep(self._m.command_seconds / _PHASES)
        self._cluster.promote(new.address)
        order.monitor.primary = new.name
        return []

    def _rejoin(self, order: _Order) -> list[str]:
        joining, primary = order.servers[0], self._present(order.monitor)
        assert joining is not None
        reading = self._cluster.read(joining.address)
        if reading is None or joining is primary:
            return [f"Server '{joining.name}' is {self._word()} or not running."]
        if primary is not None and reading.source == primary.address:
            text = f"Server '{joining.name}' is already connected or trying to connect to the correct"
            return [f"{text} {self._word()} server."]
        if primary is not None:
            self._cluster.servers[joining.address] = replace(reading, source=primary.address, read_only=True)
        return []

    def _reset_replication(self, order: _Order) -> list[str]:
        primary = order.servers[0] or self._present(order.monitor)
        assert primary is not None
        self._cluster.promote(primary.address)
        order.monitor.primary = primary.name
        return []


_DO: dict[str, Callable[[Commands, _Order], list[str]]] = {
    "switchover": Commands._switchover,
    "failover": Commands._failover,
    "rejoin": Commands._rejoin,
    "reset-replication": Commands._reset_replication,
}
