"""The receivers of notices: a web service, a mailbox, a script. Each delivers one notice, once, within a deadline.

Secrets are read at each delivery, so that a changed one counts at once and a missing one stops nothing else. They are
in no error text, and neither is the address of a webhook: it may be all that is needed to write there.

A script is an argv and runs without a shell, with a time-out; exit status 0 means that the notice is delivered. Nothing
of our own environment reaches it but what any program needs, and:

=========================== ==========================================================================
``PROXYROUTE_NOTICE``       path of a file with the whole notice as JSON; it is gone when the script ends
``PROXYROUTE_NOTICE_ID``    the same for each attempt to deliver this notice
``PROXYROUTE_CLUSTER``      name of the cluster
``PROXYROUTE_KIND``         ``operation`` or ``healed`` with a report, ``test``, or as ``serve`` tells it
``PROXYROUTE_LEVEL``        ``good``, ``warn`` or ``bad``
``PROXYROUTE_TEXT``         what happened, in one line
``PROXYROUTE_OPERATION``    id of the operation, as in ``proxyroute show``; empty when it is about none
=========================== ==========================================================================
"""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Protocol

from proxyroute.argv import run_argv
from proxyroute.errors import ConfigError, NotSent, ScriptFailed, TimedOut
from proxyroute.faults import act
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice, body, dumped, payload, sendable, subject
from proxyroute.trust import authorities

Reveal = Callable[[], str]
"""Returns a secret. Raises ConfigError."""

_LATER = frozenset({408, 425, 429})
"""Answers of a web service that are about now, and not about what it was sent."""


class Receiver(Protocol):
    """Somebody who is told. ``label`` is how messages name it, ``timeout`` the seconds for one attempt."""

    @property
    def label(self) -> str: ...
    @property
    def timeout(self) -> float: ...

    def deliver(self, notice: Notice, deadline: Deadline) -> None:
        """Delivers ``notice`` once. Raises NotSent."""


@dataclass(frozen=True)
class Webhook:
    """POST of the notice as JSON. Redirections are not followed: what was POSTed would arrive as a GET."""

    label: str
    url: Reveal
    header: str = ""
    value: Reveal | None = None
    ca: Path | None = None
    timeout: float = 10.0

    def deliver(self, notice: Notice, deadline: Deadline) -> None:
        import requests  # takes a while to import, and most runs send nothing

        url = _revealed(self.url)
        if not url.startswith(("https://", "http://")):
            raise NotSent("its url does not begin with https:// or http://", again=False)
        headers = {"Content-Type": "application/json", "User-Agent": "proxyroute"}
        if self.value is not None:
            headers[self.header] = _revealed(self.value)
        data = dumped(payload(notice))
        try:
            with act("notice.webhook"):
                answer = requests.post(
                    url,
                    data=data,
                    headers=headers,
                    timeout=deadline.require("the service"),
                    # by the name that requests knows it by, as it goes by HTTPS_PROXY here
                    verify=authorities(self.ca or _named_authorities()),
                    auth=lambda request: request,  # else a ~/.netrc would put its own password into the header
                    allow_redirects=False,
                    stream=True,  # the answer's body is nothing to wait for
                )
                answer.close()
        except TimedOut as error:
            raise NotSent(str(error)) from None
        except (requests.RequestException, ValueError, OSError) as error:
            raise NotSent(_why(error), again=not _distrusted(error)) from None
        if not 200 <= answer.status_code < 300:
            again = answer.status_code >= 500 or answer.status_code in _LATER
            moved = ", so it is elsewhere; correct its url" if 300 <= answer.status_code < 400 else ""
            raise NotSent(f"it answered {answer.status_code}{moved}", again=again)


@dataclass(frozen=True)
class Mail:
    """An e-mail: the report to read, the notice as JSON attached. ``tls`` is ``starttls``, ``tls`` or ``none``."""

    label: str
    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    tls: str = "starttls"
    user: str = ""
    password: Reveal | None = None
    ca: Path | None = None
    timeout: float = 10.0

    def deliver(self, notice: Notice, deadline: Deadline) -> None:
        password = _revealed(self.password) if self.password is not None else ""
        try:
            self._send(self._message(notice), password, deadline)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            text = f"the mail server refuses {', '.join(error.recipients)}: {_answer(*_first(error.recipients))}"
            raise NotSent(text, again=any(code < 500 for code in codes)) from None
        except smtplib.SMTPResponseException as error:
            text = f"the mail server answered {_answer(error.smtp_code, error.smtp_error)}"
            raise NotSent(text, again=error.smtp_code < 500) from None
        except smtplib.SMTPNotSupportedError as error:
            raise NotSent(f"the mail server cannot do what is configured: {error}", again=False) from None
        except TimedOut as error:
            raise NotSent(str(error)) from None
        except smtplib.SMTPException as error:
            late = isinstance(_cause(error), TimeoutError)
            raise NotSent(_why(error) if late else f"the mail server ended the connection: {error}") from None
        except (OSError, ValueError) as error:
            raise NotSent(_why(error), again=not _distrusted(error)) from None

    def _send(self, message: EmailMessage, password: str, deadline: Deadline) -> None:
        # what only a connection by TLS needs takes a while to load
        authority = str(self.ca) if self.ca else None
        context = None if self.tls == "none" else ssl.create_default_context(cafile=authority)
        name, left = socket.gethostname(), deadline.require("the mail server")  # its full name may take a slow look-up
        with act("notice.email"), contextlib.ExitStack() as ends:
            if self.tls == "tls":
                server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, name, timeout=left, context=context)
            else:
                server = smtplib.SMTP(self.host, self.port, name, timeout=left)
            ends.callback(server.close)
            if self.tls == "starttls":
                server.starttls(context=context)
            if self.user:
                server.login(self.user, password)
            refused = server.send_message(message)
            with contextlib.suppress(smtplib.SMTPException, OSError):  # it has the mail; a lost goodbye changes nothing
                server.quit()
        if refused:
            text = f"sent, but the mail server refuses {', '.join(refused)}: {_answer(*_first(refused))}"
            raise NotSent(text, again=False)  # once more, and the others would get it twice

    def _message(self, notice: Notice) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = subject(notice)
        message["From"] = self.sender
        message["To"] = ", ".join(self.to)
        message["Date"] = formatdate(notice.at, localtime=True)
        message["Message-ID"] = f"<{notice.id}@{self.sender.rpartition('@')[2].strip('> ') or 'proxyroute'}>"
        message["Auto-Submitted"] = "auto-generated"  # nobody's absence needs to be told to us
        message.set_content(body(notice))
        data = dumped(payload(notice), indent=2)
        message.add_attachment(data, maintype="application", subtype="json", filename=f"{notice.id}.json")
        return message


@dataclass(frozen=True)
class Script:
    """A script of the site's owner."""

    label: str
    argv: tuple[str, ...]
    timeout: float = 10.0

    def deliver(self, notice: Notice, deadline: Deadline) -> None:
        report = notice.details.get("report") or {}
        told = {
            "PROXYROUTE_NOTICE_ID": notice.id,
            "PROXYROUTE_CLUSTER": notice.cluster,
            "PROXYROUTE_KIND": notice.kind,
            "PROXYROUTE_LEVEL": notice.level,
            "PROXYROUTE_TEXT": " ".join(sendable(notice.text).replace("\0", "").split()),
            "PROXYROUTE_OPERATION": str(report.get("operation", "")),
        }
        try:
            with act("notice.script"), tempfile.TemporaryDirectory(prefix="proxyroute-notice-") as folder:
                file = Path(folder, "notice.json")
                file.write_bytes(dumped(payload(notice), indent=2))
                run_argv(self.argv, {**told, "PROXYROUTE_NOTICE": str(file)}, deadline)
        except (ScriptFailed, OSError) as error:
            raise NotSent(str(error)) from None


def _named_authorities() -> Path | None:
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return Path(named) if named else None


def _revealed(secret: Reveal) -> str:
    try:
        return secret()
    except ConfigError as error:
        raise NotSent(str(error)) from None


def _first(refused: dict[str, tuple[int, bytes]]) -> tuple[int, bytes]:
    return next(iter(refused.values()))


def _answer(code: int, text: bytes | str) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.split())[:200]}"


def _cause(error: BaseException) -> BaseException:
    """Returns the innermost error that says what happened. The outer ones name the address that was asked for."""
    seen: set[int] = set()
    found: BaseException = error
    while id(error) not in seen:
        seen.add(id(error))
        inside = [getattr(error, "reason", None), *error.args[:2], error.__cause__, error.__context__]
        deeper = next((e for e in inside if isinstance(e, BaseException)), None)
        if deeper is None:
            break
        error = found = deeper
    return found


def _why(error: BaseException) -> str:
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {cause.verify_message}; name the authority with ca"
    if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__


def _distrusted(error: BaseException) -> bool:
    return isinstance(_cause(error), ssl.SSLCertVerificationError)
