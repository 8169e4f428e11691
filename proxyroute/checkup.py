"""Would everything work if it had to? What ``proxyroute check`` looks at, also by the daemon."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from proxyroute.config_values import ClusterConfig
from proxyroute.engine import Engine
from proxyroute.errors import ConfigError
from proxyroute.model import Finding, Severity


@dataclass(frozen=True)
class Checkup:
    """Everything that would stand in the way."""

    cluster: str
    findings: tuple[Finding, ...]
    looked: bool
    """Servers and proxies were looked at; without its secrets an engine cannot do that."""

    @property
    def errors(self) -> int:
        return self._count(Severity.ERROR)

    @property
    def warnings(self) -> int:
        return self._count(Severity.WARNING)

    def _count(self, severity: Severity) -> int:
        return sum(1 for f in self.findings if f.severity is severity)

    def to_json(self) -> dict[str, Any]:
        """Returns it as the command line and the API tell it."""
        return {
            "cluster": self.cluster,
            "errors": self.errors,
            "warnings": self.warnings,
            "servers_looked_at": self.looked,
            "findings": list(self.findings),
        }


def checkup(config: ClusterConfig, engine: Callable[[], AbstractContextManager[Engine]]) -> Checkup:
    """Looks at configuration, secrets, servers, accounts and proxies; changes nothing. ``engine`` opens one.

    Raises ConfigError when no engine can be opened, and no finding says why.
    """
    try:
        with engine() as opened:
            return Checkup(config.name, opened.check(), looked=True)
    except ConfigError:  # without its secrets the engine cannot start; its findings say the same with their cures
        found = Checkup(config.name, tuple(config.findings()), looked=False)
        if not found.errors:
            raise
        return found
