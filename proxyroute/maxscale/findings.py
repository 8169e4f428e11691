"""What would keep a MaxScale from following, each with its cure; and what its clients will see."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from proxyroute.errors import AdapterError, ConfigError, TimedOut
from proxyroute.maxscale import services
from proxyroute.maxscale.look import Look, look, obstacle
from proxyroute.maxscale.rest import Answered, Rest, Unconnected
from proxyroute.maxscale.settings import Settings
from proxyroute.model import Deadline, Endpoint, Finding, Severity

_OLDEST = (2, 5)
"""Sparse fields, tokens and the JSON of services came by then."""
_TRIED = (22, 8)
"""What follows was recorded; older ones answer alike by their sources, and nobody has tried."""
_SHIPPED = "mariadb"
"""The password MaxScale is delivered with."""
_HANDSHAKE = 1.0


class Examination:
    """Looks at one MaxScale; changes nothing."""

    def __init__(self, proxy: str, cluster: str, servers: tuple[Endpoint, ...], settings: Settings, rest: Rest) -> None:
        self._proxy = proxy
        self._cluster = cluster
        self._servers = servers
        self._settings = settings
        self._rest = rest

    def findings(self, deadline: Deadline) -> Iterator[Finding]:
        """Yields the findings; what keeps everything else from being found out comes first, and alone."""
        yield from self._configured()
        try:
            version = self._version(deadline)
            if version < _OLDEST:
                text = f"MaxScale {'.'.join(map(str, version))} is too old: it has neither sparse fields nor tokens"
                yield self._error("maxscale.version", text, "install MaxScale 22.08 or newer")
                return
            if version < _TRIED:
                text = f"MaxScale {'.'.join(map(str, version))} was never tried; what was begins with 22.08"
                cure = "rehearse a switchover, or install MaxScale 22.08 or newer"
                yield Finding("maxscale.untried", Severity.WARNING, self._proxy, text, cure)
            seen = look(self._rest, self._settings, self._cluster, self._servers, deadline)
            yield from self._servers_known(seen, deadline)
            yield from self._may_change(seen, deadline)
            yield from self._monitors(seen)
            yield from self._states(seen)
            yield from self._service_findings(seen, deadline)
        except ConfigError as error:
            what, _, cure = str(error).partition("; ")
            yield self._error("maxscale.secret", what, cure or "correct password:")
        except (AdapterError, TimedOut) as error:
            yield self._unanswered(error, deadline)

    def outlook(self, deadline: Deadline, *, armed: bool) -> Iterator[Finding]:
        """Yields whether a monitor is stopped for it, the order that its services ask for, and what clients will see.

        ``armed`` as in :func:`proxyroute.maxscale.services.order`. Raises AdapterError, ConfigError and TimedOut.
        """
        seen = look(self._rest, self._settings, self._cluster, self._servers, deadline)
        yield from (f for f in self._monitors(seen) if f.severity is Severity.WARNING)
        found_services = tuple(self._services(seen, deadline))
        order = services.order(found_services, driving=self._settings.driving, armed=armed)
        if found_services:
            text, cure = services.told(order, found_services)
            severity = Severity.WARNING if order is services.Order.OVERLAP else Severity.INFO
            yield Finding("maxscale.order", severity, self._proxy, text, cure)
        for service in found_services:
            found = services.outlook(service, order)
            if found is not None:
                text = f"service {found.service}: {found.text}"
                severity = Severity.WARNING if found.errors else Severity.INFO
                yield Finding("maxscale.clients", severity, self._proxy, text, found.cure)

    def serving(self, deadline: Deadline) -> tuple[services.Service, ...]:
        """Returns the services of this cluster. Raises AdapterError, ConfigError and TimedOut."""
        seen = look(self._rest, self._settings, self._cluster, self._servers, deadline)
        return tuple(self._services(seen, deadline))

    # -- before anything is asked --

    def _configured(self) -> Iterator[Finding]:
        s = self._settings
        if not s.encrypted and not s.local:
            text = f"{s.url} is plain HTTP: anybody in between can read the password"
            cure = "set admin_ssl_cert and admin_ssl_key in MaxScale, and url: https://…"
            yield Finding("maxscale.clear", Severity.WARNING, self._proxy, text, cure)
        if s.encrypted and not s.verify:
            text = "its certificate is not verified: anybody in between can read the password"
            yield Finding("maxscale.unverified", Severity.WARNING, self._proxy, text, "verify: true, and name the ca:")
        try:
            shipped = s.password.reveal() == _SHIPPED
        except ConfigError:
            return  # told when it is needed
        if shipped:
            text = "its password is the one MaxScale is delivered with, which everybody knows"
            cure = f"maxctrl alter user {s.user} NEW-PASSWORD, and the same here"
            yield Finding("maxscale.default_password", Severity.WARNING, self._proxy, text, cure)

    # -- what was answered, or not --

    def _version(self, deadline: Deadline) -> tuple[int, ...]:
        data = self._rest.data("maxscale", deadline, fields__maxscale="version", pretty="false")
        text = str(data["attributes"].get("version", "0"))
        return tuple(int(part) for part in text.split(".") if part.isdigit())

    def _unanswered(self, error: Exception, deadline: Deadline) -> Finding:
        s = self._settings
        text = str(error)
        if isinstance(error, Answered) and error.status == 401:
            if "not encrypted" in text:
                cure = "auth: basic; or admin_ssl_cert and admin_ssl_key in MaxScale, and url: https://…"
                return self._error("maxscale.token", f"it gives tokens only over HTTPS ({error.details[0]})", cure)
            cure = f"maxctrl list users; maxctrl alter user {s.user} PASSWORD, and the same in {s.password}"
            return self._error("maxscale.password", f"it refuses user {s.user} with this password", cure)
        if isinstance(error, Answered) and error.status == 403:
            return self._no_permission(error)
        if isinstance(error, Unconnected) and error.kind == "certificate":
            return self._error("maxscale.certificate", text, "ca: the authority that has signed it, as a PEM file")
        if isinstance(error, Unconnected) and error.kind == "plain":
            cure = f"url: http://{s.address}; better: admin_ssl_cert and admin_ssl_key in MaxScale"
            return self._error("maxscale.tls", f"{s.address} speaks plain HTTP, not HTTPS", cure)
        if not s.encrypted and self._speaks_tls(deadline):
            return self._error("maxscale.tls", f"{s.address} speaks HTTPS only", f"url: https://{s.address}")
        cure = "systemctl status maxscale; admin_host and admin_port in its configuration say where it listens"
        return self._error("maxscale.silent", text, cure)

    def _speaks_tls(self, deadline: Deadline) -> bool:
        """Plain HTTP is dropped by a MaxScale that has a certificate; a handshake tells."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address = self._settings.address
        try:
            with (
                socket.create_connection(
                    (address.host, address.port), max(0.01, deadline.within(_HANDSHAKE).left)
                ) as raw,
                context.wrap_socket(raw),
            ):
                return True
        except OSError:
            return False

    def _may_change(self, seen: Look, deadline: Deadline) -> Iterator[Finding]:
        if not seen.known.by_name:
            return
        try:
            self._rest.may_change(next(iter(seen.known.by_name.values())).name, deadline)
        except Answered as error:
            yield self._no_permission(error)

    def _no_permission(self, error: Answered) -> Finding:
        user = self._settings.user
        told = "; ".join(error.details)
        return self._error(
            "maxscale.permission",
            f"user {user} may read but not change anything ({told})",
            f"maxctrl destroy user {user}; maxctrl create user {user} PASSWORD --type=admin; or this host is not in "
            "admin_readwrite_hosts",
        )

    # -- servers, monitors, states --

    def _servers_known(self, seen: Look, deadline: Deadline) -> Iterator[Finding]:
        monitor = seen.monitors[0].name if seen.monitors else ""
        for endpoint in seen.known.missing:
            host, port = endpoint.address.host, endpoint.address.port
            into = f"maxctrl link monitor {monitor} {endpoint.name}" if monitor else ""
            into = into or f"maxctrl link service SERVICE {endpoint.name}"
            yield self._error(
                "maxscale.unknown_server",
                f"it does not know {endpoint.name} ({endpoint.address})",
                f"maxctrl create server {endpoint.name} {host} {port} && {into}",
            )
        used = self._used(seen, deadline) if seen.known.twice else frozenset()
        for name, same in seen.known.twice.items():
            names = " and ".join(shown.name for shown in same)
            spare = next((s.name for s in reversed(same) if s.name not in used), same[-1].name)
            yield self._error(
                "maxscale.twice",
                f"it knows {name} several times, as {names}",
                f"take the one out that nobody needs: maxctrl destroy server {spare} --force",
            )

    def _monitors(self, seen: Look) -> Iterator[Finding]:
        if trouble := obstacle(seen, self._settings):
            yield self._error("maxscale.monitor", *trouble)
        elif self._settings.driving:
            for monitor in seen.monitors:
                if monitor.running:
                    text = f"monitor {monitor.name} runs and will be stopped (stop_monitor)"
                else:
                    text = f"monitor {monitor.name} is stopped, and runs again when MaxScale is restarted"
                cure = f"take [{monitor.name}] out of the configuration: maxctrl destroy monitor {monitor.name} --force"
                yield Finding("maxscale.monitor_stopped", Severity.WARNING, self._proxy, text, cure)
                for would, cure in monitor.own_will:  # until somebody has stopped it
                    yield Finding("maxscale.own_will", Severity.WARNING, self._proxy, would, cure)

    def _states(self, seen: Look) -> Iterator[Finding]:
        if self._settings.driving and seen.known.lost:
            text = "no server runs, by its states: it was restarted, or never told"
            yield Finding("maxscale.lost", Severity.WARNING, self._proxy, text, "proxyroute publish")
        for name, shown in seen.known.by_name.items():
            if shown.aside:
                what = "maintenance" if shown.maintenance else "drain"
                yield Finding(
                    "maxscale.aside",
                    Severity.WARNING if shown.master else Severity.INFO,
                    self._proxy,
                    f"{name} is set aside there ({shown.name} is {shown.text}); it stays so",
                    f"when it is meant to serve again: maxctrl clear server {shown.name} {what}",
                )
        if len(seen.known.masters) > 1:
            text = f"writes may go to {' and '.join(seen.known.masters)}"
            yield Finding("maxscale.drift", Severity.WARNING, self._proxy, text, "proxyroute publish")

    # -- services --

    def _service_findings(self, seen: Look, deadline: Deadline) -> Iterator[Finding]:
        found = list(self._services(seen, deadline))
        for name in self._settings.services:
            if name not in {s.name for s in found}:
                yield self._error("maxscale.service", f"there is no service {name}", "maxctrl list services")
        ours = {shown.name for shown in seen.known.by_name.values()}
        for service in found:
            lacks = sorted(ours - service.servers)
            if lacks and service.router in ("readwritesplit", "readconnroute"):
                names = " ".join(lacks)
                cure = f"maxctrl link service {service.name} {names}"
                if service.cluster:
                    cure = f"maxctrl link monitor {service.cluster} {names}"
                text = f"service {service.name} does not have {names}: its clients would not get there"
                yield Finding("maxscale.service", Severity.ERROR, self._proxy, text, cure)
        if not found:
            text = "no service has a server of this cluster: no client gets there"
            yield Finding(
                "maxscale.service", Severity.WARNING, self._proxy, text, "proxyroute render shows a whole set-up"
            )

    def _used(self, seen: Look, deadline: Deadline) -> frozenset[str]:
        """Returns the server objects that any service or any monitor of ours has."""
        found = [m.servers for m in seen.monitors]
        return frozenset().union(*found, *(service.servers for service in self._all_services(seen, deadline)))

    def _all_services(self, seen: Look, deadline: Deadline) -> Iterator[services.Service]:
        of_monitor = {m.name: m.servers for m in seen.monitors}
        return services.read(self._rest.data("services", deadline, pretty="false"), of_monitor)

    def _services(self, seen: Look, deadline: Deadline) -> Iterator[services.Service]:
        """Yields the services of this cluster: those that are named, or have a server of it."""
        ours = {shown.name for shown in seen.known.by_name.values()}
        for service in self._all_services(seen, deadline):
            named = self._settings.services
            if service.name in named or (not named and service.servers & ours):
                yield service

    def _error(self, code: str, text: str, cure: str) -> Finding:
        return Finding(code, Severity.ERROR, self._proxy, text.removeprefix(f"{self._proxy}: "), cure)
