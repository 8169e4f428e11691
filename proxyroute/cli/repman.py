"""Turns the options of replication-manager into ours, and says of each what became of it. Asks nobody."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxyroute.cli import repman_mail
from proxyroute.cli.repman_options import BY_HAND, FAMILIES, NOT_NEEDED, SECRET_WORDS, SWITCHES
from proxyroute.cli.repman_proxies import (
    BY_HAND_WORD,
    CONVERTED,
    ENCRYPTED,
    NOT_NEEDED_WORD,
    haproxies,
    haproxy_here,
    is_true,
    maxscales,
    short_name,
)
from proxyroute.config_shape import NAME_HELP, is_name
from proxyroute.errors import ConfigError
from proxyroute.model import Address

LEFT_OUT = "left out"
VERDICTS = (BY_HAND_WORD, CONVERTED, NOT_NEEDED_WORD, LEFT_OUT)
"""What can become of an option, in the order in which it is told."""


@dataclass(frozen=True)
class Note:
    """What became of one option."""

    cluster: str
    option: str
    verdict: str
    text: str


@dataclass
class Moved:
    """A whole configuration, converted."""

    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What goes below ``clusters``, as YAML values."""
    secrets: dict[Path, str] = field(default_factory=dict)
    """Passwords, by the file that is to hold them."""
    notes: list[Note] = field(default_factory=list)


def convert(found: Mapping[str, Mapping[str, Any]], file: Path, folder: Path) -> Moved:
    """Returns what the clusters of ``found`` (see :func:`~proxyroute.cli.repman_read.read`) are in our words.

    Files that hold passwords are named below ``folder``. Raises ConfigError when a cluster has no servers, or an
    option of it cannot be understood.
    """
    moved = Moved()
    alone = sum(haproxy_here(options) for options in found.values()) < 2
    for name, options in found.items():
        cluster = _name(name)
        moved.clusters[cluster] = _Cluster(cluster, options, f"{file}: [{name}]", folder, moved, alone).convert()
    return moved


def _name(text: str) -> str:
    name = re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("-._")
    if not is_name(name):
        raise ConfigError(f"[{text}] is not a name for a cluster; {NAME_HELP}")
    return name


class _Cluster:
    """One cluster on its way."""

    def __init__(
        self, name: str, options: Mapping[str, Any], where: str, folder: Path, moved: Moved, alone: bool
    ) -> None:
        """``alone``: no other cluster has an HAProxy on this host."""
        self.name, self.options, self.where, self.folder, self.moved = name, options, where, folder, moved
        self.alone = alone
        self.out: dict[str, Any] = {}
        self.servers: dict[str, Address] = {}

    def convert(self) -> dict[str, Any]:
        self._servers()
        self.out["account"] = self._account("db-servers-credential", "engine.password")
        self.out["replication"] = self._account("replication-credential", "replication.password")
        self.out["servers"] = {name: str(address) for name, address in self.servers.items()}
        told = {"db-servers-hosts", "db-servers-credential", "replication-credential"}
        self.note("db-servers-hosts", CONVERTED, "servers")
        for option, handle in HANDLERS.items():
            if option in self.options:
                handle(self, option, self.options[option])
                told.add(option)
                if not any(note.option == option and note.cluster == self.name for note in self.moved.notes):
                    self.note(option, NOT_NEEDED_WORD, "it is empty")
        told |= set(self._proxies())
        for option in self.options:
            if option not in told:
                self._rest(option)
        return self.out

    # -- the parts --

    def _servers(self) -> None:
        hosts = self.list_of("db-servers-hosts")
        if not hosts:
            raise ConfigError(f"{self.where}: db-servers-hosts is missing: which servers are in this cluster?")
        addresses = [self._address("db-servers-hosts", host) for host in hosts]
        names = [short_name(a.host) for a in addresses]
        if len(set(names)) < len(names) or not all(is_name(n) for n in names):
            names = [f"db{number}" for number in range(1, len(addresses) + 1)]
        self.servers = dict(zip(names, addresses, strict=True))

    def _account(self, option: str, file: str) -> dict[str, Any]:
        value = str(self.options.get(option, ""))
        user, colon, password = value.partition(":")
        path = self.folder / f"{self.name}.{file}"
        account = {"user": user or "proxyroute", "password": {"file": str(path)}}
        if not value:
            self.note(option, BY_HAND_WORD, f"it is missing; write the user, and the password into {path} (mode 600)")
        elif not colon or not password or password.startswith(ENCRYPTED):
            why = "its password is encrypted with replication-manager's key" if password else "it has no password"
            self.note(option, BY_HAND_WORD, f"{why}; write the password into {path} (mode 600)")
        else:
            self.moved.secrets[path] = password
            self.note(option, CONVERTED, f"its password is in {path}, mode 600")
        return account

    def _proxies(self) -> Iterator[str]:
        proxies: list[dict[str, Any]] = []
        if self.true("haproxy"):
            yield from (option for option in OTHERS if option.startswith("haproxy"))
            proxies += haproxies(self)
        if self.true("maxscale"):
            yield from (option for option in OTHERS if option.startswith("maxscale"))
            proxies += maxscales(self)
        if proxies:
            self.out["proxies"] = proxies

    def _rest(self, option: str) -> None:
        value = self.options[option]
        if option in BY_HAND:
            idle = value in (False, "", 0)
            self.note(option, NOT_NEEDED_WORD if idle else BY_HAND_WORD, "it is off" if idle else BY_HAND[option])
        elif option in NOT_NEEDED:
            self.note(option, NOT_NEEDED_WORD, NOT_NEEDED[option])
        else:
            switch = next((name for begins, name in SWITCHES.items() if option.startswith(begins)), None)
            if switch is not None and not self.true(switch):
                self.note(option, NOT_NEEDED_WORD, f"{switch} is off")
                return
            off = value in (False, "")
            family = next((f for f in FAMILIES if option.startswith(f[0])), None)
            _, verdict, text = family or ("", BY_HAND_WORD, "it is not known here")
            if off and verdict == BY_HAND_WORD:
                verdict, text = LEFT_OUT, "it is off"
            self.note(option, verdict, text)

    # -- helpers --

    @property
    def routed(self) -> bool:
        """Whether a proxy is configured that a failover can close."""
        return self.true("maxscale") or haproxy_here(self.options)

    def put(self, section: str, key: str, value: Any) -> None:
        self.out.setdefault(section, {})[key] = value

    def number(self, option: str, value: Any) -> float:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                return number
        raise ConfigError(f"{self.where}: {option}: {_shown(option, value)} is not a number")

    def names(self, option: str) -> list[str]:
        """Returns our names of the servers that an option lists; those of no server of the cluster are told."""
        wanted = [self._address(option, host) for host in self.list_of(option)]
        by_address = {address: name for name, address in self.servers.items()}
        strangers = [str(a) for a in wanted if a not in by_address]
        if strangers:
            self.note(option, BY_HAND_WORD, f"{', '.join(strangers)}: no such server in db-servers-hosts")
        return [by_address[a] for a in wanted if a in by_address]

    def note(self, option: str, verdict: str, text: str) -> None:
        self.moved.notes.append(Note(self.name, option, verdict, text))

    def secret(self, option: str, file: str) -> dict[str, str]:
        """Returns where the password of ``option`` is kept from now on, and says what became of it."""
        path = self.folder / f"{self.name}.{file}"
        password = str(self.options.get(option, ""))
        if password and not password.startswith(ENCRYPTED):
            self.moved.secrets[path] = password
            self.note(option, CONVERTED, f"it is in {path}, mode 600")
        else:
            self.note(option, BY_HAND_WORD, f"write the password into {path} (mode 600)")
        return {"file": str(path)}

    def true(self, option: str) -> bool:
        return is_true(self.options.get(option, False))

    def list_of(self, option: str) -> list[str]:
        return [part.strip() for part in str(self.options.get(option, "")).split(",") if part.strip()]

    def _address(self, option: str, text: str) -> Address:
        try:
            return Address.parse(text)
        except ValueError as error:
            raise ConfigError(f"{self.where}: {option}: {error}") from None


_Handler = Callable[[_Cluster, str, Any], None]


def _tls(part: str, partner: str = "") -> _Handler:
    """``partner`` is the option without which this one is worth nothing."""

    def handle(cluster: _Cluster, option: str, value: Any) -> None:
        if value and partner and not cluster.options.get(partner):
            cluster.note(option, BY_HAND_WORD, f"{partner} is missing: write cert and key, both, into account.tls")
        elif value:
            cluster.out["account"].setdefault("tls", {})[part] = str(value)
            cluster.note(option, CONVERTED, f"account.tls.{part}")

    return handle


def _preferred(cluster: _Cluster, option: str, value: Any) -> None:
    if names := cluster.names(option):
        cluster.put("switchover", "prefer", names)
        cluster.note(option, CONVERTED, "switchover.prefer")


def _ignored(cluster: _Cluster, option: str, value: Any) -> None:
    """Comes after those that are preferred: who is ignored never becomes primary, preferred or not."""
    if names := cluster.names(option):
        prefer = cluster.out.get("switchover", {}).get("prefer", [])
        both = [name for name in prefer if name in names]
        for name in both:
            prefer.remove(name)
        cluster.put("switchover", "never", names)
        text = "switchover.never"
        if both:
            text += f"; {', '.join(both)} was preferred as well: if it may be primary, write it there instead"
        cluster.note(option, BY_HAND_WORD if both else CONVERTED, text)


def _seconds(section: str, key: str, zero: str) -> _Handler:
    """``zero`` says what 0 means there, for which we have no value."""

    def handle(cluster: _Cluster, option: str, value: Any) -> None:
        number = cluster.number(option, value)
        if number <= 0:
            cluster.note(option, NOT_NEEDED_WORD, zero)
            return
        cluster.put(section, key, f"{number:.3f}".rstrip("0").rstrip(".") + "s")
        cluster.note(option, CONVERTED, f"{section}.{key}")

    return handle


def _script(key: str, by_hand: str = "") -> _Handler:
    """``by_hand`` says what else is to be done by somebody."""

    def handle(cluster: _Cluster, option: str, value: Any) -> None:
        if not value:
            return
        try:
            argv = shlex.split(str(value))
        except ValueError:  # a quote that does not end
            argv = str(value).split()
        cluster.put("scripts", key, argv)
        cluster.put("scripts", "arguments", "replication-manager")
        text = f"scripts.{key}, with the seven arguments that it is used to; it runs without a shell{by_hand}"
        cluster.note(option, BY_HAND_WORD if by_hand else CONVERTED, text)

    return handle


def _mode(cluster: _Cluster, option: str, value: Any) -> None:
    """``interactive = true`` of 1.x means manual."""
    if str(value).lower() in ("manual", "") or value is True:
        cluster.put("failover", "mode", "manual")
        cluster.note(option, CONVERTED, "failover.mode: manual")
        return
    shared = is_true(cluster.options.get("arbitration-external", False))
    waits = "the engines share a lease" if shared else "" if cluster.routed else "the proxies are configured"
    if waits:
        cluster.put("failover", "mode", "manual")
        cluster.note(option, BY_HAND_WORD, f"failover.mode is manual until {waits}; then write automatic")
        return
    cluster.put("failover", "mode", "automatic")
    cluster.put("failover", "single_engine", True)
    text = "failover.mode: automatic, with single_engine: true, for no arbitration was configured"
    cluster.note(option, CONVERTED, text)


def _at_sync(cluster: _Cluster, option: str, value: Any) -> None:
    policy = "lossless" if is_true(value) else "most_advanced"
    cluster.put("failover", "policy", policy)
    cluster.note(option, CONVERTED, f"failover.policy: {policy}")


def _limit(cluster: _Cluster, option: str, value: Any) -> None:
    number = int(cluster.number(option, value))
    if number <= 0:
        cluster.note(option, BY_HAND_WORD, "failover.per_day: there is always a limit; it stays at its default")
        return
    cluster.put("failover", "per_day", number)
    cluster.note(option, CONVERTED, "failover.per_day: so many within 24 hours, not in all")


def _connections(cluster: _Cluster, option: str, value: Any) -> None:
    number = int(cluster.number(option, value))
    off = not is_true(cluster.options.get("switchover-decrease-max-conn", True))
    cluster.put("switchover", "max_connections", 0 if off else number)
    cluster.note(option, CONVERTED, "switchover.max_connections")


HANDLERS: Mapping[str, _Handler] = {
    "db-servers-tls-ca-cert": _tls("ca"),
    "db-servers-tls-client-cert": _tls("cert", "db-servers-tls-client-key"),
    "db-servers-tls-client-key": _tls("key", "db-servers-tls-client-cert"),
    "db-servers-prefered-master": _preferred,
    "db-servers-ignored-hosts": _ignored,
    "switchover-wait-trx": _seconds("switchover", "long_wait", "it does not wait for the lock: one bounded attempt"),
    "switchover-wait-write-query": _seconds("switchover", "long_transaction", "every transaction would be long"),
    "switchover-max-slave-delay": _seconds("switchover", "max_lag", "the default: a replica may lag a little"),
    "switchover-decrease-max-conn-value": _connections,
    "failover-mode": _mode,
    "failover-at-sync": _at_sync,
    "failover-limit": _limit,
    "failover-time-limit": _seconds("failover", "quiet_period", "there is always a quiet period: its default"),
    "failover-pre-script": _script(
        "address_down", ", and in a switchover only: what it does to a primary that is gone belongs into scripts.fence"
    ),
    "failover-post-script": _script("address_up"),
    "mail-to": repman_mail.to,
    "mail-from": repman_mail.sender,
    "mail-smtp-addr": repman_mail.server,
    "mail-smtp-user": repman_mail.server,
    "mail-smtp-password": repman_mail.password,
}


OTHERS = (
    "db-servers-hosts", "db-servers-credential", "replication-credential", "haproxy", "haproxy-servers",
    "haproxy-write-port", "haproxy-read-port", "haproxy-ip-write-bind", "haproxy-ip-read-bind", "maxscale",
    "maxscale-servers", "maxscale-user", "maxscale-pass", "maxscale-port", "maxscale-monitor",
    "maxscale-disable-monitor",
)  # fmt: skip
"""Options that are converted together with others."""


def _shown(option: str, value: Any) -> str:
    return "its value" if any(word in option for word in SECRET_WORDS) else repr(value)


def summary(notes: Sequence[Note]) -> str:
    """Returns how many options became what, e.g. ``2 by hand, 14 converted``."""
    counts = ((verdict, sum(note.verdict == verdict for note in notes)) for verdict in VERDICTS)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
