"""What is configured about those who are told of operations and of trouble: plain values, one kind for each type."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from proxyroute.config_secrets import Secret
from proxyroute.model import Finding, Severity
from proxyroute.notify_choice import TOPICS

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_MAILBOX = re.compile(r"[^\s@<>,]+@[^\s@<>,]+")
_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def is_mailbox(text: str) -> bool:
    """Tells whether ``text`` is a plain e-mail address, without a name."""
    return _MAILBOX.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class NoticeConfig:
    """What every receiver has. ``on`` says what it is told, by the topics of ``notify_choice``."""

    type: ClassVar[str]

    on: tuple[str, ...] = tuple(TOPICS)
    timeout: float = 10.0
    """Seconds for one attempt."""

    def __post_init__(self) -> None:
        unknown = [topic for topic in self.on if topic not in TOPICS]
        if unknown or not self.on:
            raise ValueError(f"on: must be a list of {' and '.join(TOPICS)}, or of one of them")
        if self.timeout <= 0:
            raise ValueError("timeout: must be more than 0 seconds")

    @property
    def secrets(self) -> dict[str, Secret]:
        """The secrets it needs, by field."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Secret)}

    def findings(self, subject: str) -> Iterator[Finding]:
        """Yields what is wrong with the files and programs it refers to; no operation is refused for that."""
        for name, secret in self.secrets.items():
            finding = secret.finding(f"{subject}.{name}")
            if finding is not None:
                yield replace(finding, severity=Severity.WARNING)
        authority: Path | None = getattr(self, "ca", None)
        if authority is not None:
            try:
                ssl.create_default_context(cafile=str(authority))
            except (ssl.SSLError, OSError) as error:
                text = f"the TLS file {authority} cannot be used: {error}"
                yield Finding("config.notice", Severity.WARNING, f"{subject}.ca", text, "check its path and its owner")


@dataclass(frozen=True, kw_only=True)
class WebhookNotices(NoticeConfig):
    """A POST of JSON to a web service."""

    type = "webhook"

    url: Secret
    header: str = ""
    header_value: Secret | None = None
    ca: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.header) != (self.header_value is not None):
            raise ValueError("header and header_value come together; give both or none")
        if self.header and not _TOKEN.fullmatch(self.header):
            raise ValueError("header: is not the name of an HTTP header; write e.g. header: Authorization")

    def findings(self, subject: str) -> Iterator[Finding]:
        found = list(super().findings(subject))
        yield from found
        if not any(f.subject == f"{subject}.url" and f.code == "config.secret" for f in found):
            url = self.url.reveal()
            if not url.startswith(("https://", "http://")):
                text = f"what {self.url} holds does not begin with https:// or http://"
                yield Finding("config.notice", Severity.WARNING, f"{subject}.url", text, "write the whole address")


@dataclass(frozen=True, kw_only=True)
class EmailNotices(NoticeConfig):
    """An e-mail, handed to a mail server."""

    type = "email"

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 0
    tls: str = "starttls"
    user: str = ""
    password: Secret | None = None
    ca: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.to:
            raise ValueError("to: must not be empty")
        for name, addresses in (("sender", (self.sender,)), ("to", self.to)):
            if not all(map(is_mailbox, addresses)):
                raise ValueError(f"{name}: must be an e-mail address as in ops@example.net, without a name")
        if self.tls not in _PORTS:
            raise ValueError(f"tls: must be {', '.join(_PORTS)}")
        if not 0 <= self.port < 65536:
            raise ValueError("port: must be between 1 and 65535")
        if not self.host or any(c.isspace() or c == "/" for c in self.host):
            raise ValueError("host: must be the name or the address of a mail server")
        if bool(self.user) != (self.password is not None):
            raise ValueError("user and password come together; give both or none")
        if self.user and self.tls == "none":
            raise ValueError("tls: with none anybody in between could read the password; write starttls or tls")

    @property
    def port_used(self) -> int:
        return self.port or _PORTS[self.tls]


@dataclass(frozen=True, kw_only=True)
class ScriptNotices(NoticeConfig):
    """A script of the site's owner."""

    type = "script"

    run: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.run:
            raise ValueError("run: is empty; write the program and its arguments")

    def findings(self, subject: str) -> Iterator[Finding]:
        yield from super().findings(subject)
        if not any(os.access(Path(folder, self.run[0]), os.X_OK) for folder in os.get_exec_path()):
            text = f"the program {self.run[0]} does not exist or is not executable"
            cure = f"correct {subject}.run, or chmod +x {self.run[0]}"
            yield Finding("config.notice", Severity.WARNING, subject, text, cure)


RECEIVERS: dict[str, type[NoticeConfig]] = {c.type: c for c in (WebhookNotices, EmailNotices, ScriptNotices)}
