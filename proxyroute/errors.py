"""Everything ProxyRoute raises on purpose.

::

    ProxyRouteError
    ├── ConfigError        the configuration is wrong; names file, line and field
    ├── Refused            nothing was touched; carries the findings that say why
    │   └── Busy           another operation holds the cluster's lease
    ├── Aborted            everything was undone; the old primary takes writes, unless it has died meanwhile
    ├── Unfinished         committed; ``proxyroute heal`` will finish it
    ├── Superseded         a higher epoch was seen; we closed our record and touched nothing
    ├── SplitBrain         two servers take writes; nothing is opened or closed until a person decides
    ├── LeaseLost          somebody else may act now
    ├── JournalError       the journal cannot be written or read
    ├── TimedOut           a deadline passed: the outcome is *unknown*, look again
    │   └── GaveWay        a chore ended early, because something is more urgent; it is taken up later
    ├── ServerError        a database server
    │   ├── Unreachable    no connection; nothing was sent
    │   ├── LostReply      sent, but no answer came: the outcome is *unknown*, look again
    │   ├── StatementError the server answered with an error
    │   │   └── PutOff     one that may be over soon: somebody else is at work there
    │   ├── OtherFlavour   it is a server of another flavour than it was
    │   ├── Diverged       it has executed events that its source does not have
    │   └── Unserved       its source has purged what it would need next
    ├── AdapterError       a proxy could not be asked or told
    ├── ShareError         what lies in the shared folder cannot be used, or it cannot be written
    │   ├── DiskFailed     its disk failed in the midst: the outcome is *unknown*, look again
    │   ├── Torn           a file there is cut off, or is not what its name says
    │   ├── Tampered       a file there is not signed with our key
    │   ├── OtherFormat    a file there was written by another version
    │   ├── Outdated       a higher epoch is known already
    │   └── Conflict       an epoch is to mean two different primaries
    ├── NoRoom             a disk has no room for what must be kept; nothing was changed for it
    ├── ScriptFailed       a script of the site's owner failed or did not end in time
    └── NotSent            a notice did not reach a receiver; no operation ever waits for one or fails by it

An operation ends in one of three ways, and the first of ``Refused``, ``Aborted`` and ``Unfinished`` that fits
says which. ``TimedOut``, ``LostReply`` and ``DiskFailed`` are none of them: they mean *unknown*, and unknown is
answered by looking again, never by rolling back blind.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxyroute.model import Finding


class Silence(StrEnum):
    """In which way a server gave no reading. Some of them prove that it lives, or that its host can be reached."""

    REFUSED = "refused"
    """Its host answers, and nobody listens at the port."""
    RESET = "reset"
    """A connection that stood was broken off."""
    HUNG = "hung"
    """It accepts a connection, or holds one, and answers nothing in time."""
    UNREACHABLE = "unreachable"
    """No connection in time, no route, no such name: nothing at all came back."""
    ENDING = "ending"
    """It answered that it is shutting down."""
    CROWDED = "too many connections"
    LOGIN = "login refused"
    ANSWERED = "answered with an error"
    """It answered, but not what was asked."""
    OTHER = "silent"
    """Nobody can tell; counts as nothing."""

    @property
    def lives(self) -> bool:
        """The database server itself has answered."""
        return self in (Silence.CROWDED, Silence.LOGIN, Silence.ANSWERED)

    @property
    def host_answers(self) -> bool:
        """Something came back from its host: what separates us from the server is not the network."""
        return self.lives or self in (Silence.REFUSED, Silence.RESET, Silence.HUNG, Silence.ENDING)


class ProxyRouteError(Exception):
    """Base of the tree. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigError(ProxyRouteError):
    """The configuration is wrong. The text names file, line, field, what is wrong and what would be right."""

    exit_code = 2


class Refused(ProxyRouteError):
    """Nothing was touched. ``findings`` holds what stands in the way, each with its cure."""

    exit_code = 3

    def __init__(self, text: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(text)
        self.findings = tuple(findings)


class Busy(Refused):
    """Another operation holds the cluster's lease; the text names it."""

    exit_code = 6


class Aborted(ProxyRouteError):
    """Everything was undone; the old primary takes writes, unless it has died meanwhile."""

    exit_code = 4


class Unfinished(ProxyRouteError):
    """The operation is on record but the world has not converged yet; ``proxyroute heal`` goes on."""

    exit_code = 5


class Superseded(ProxyRouteError):
    """Somebody with a higher epoch acted meanwhile. The record is closed and nothing was touched."""

    exit_code = 6


class SplitBrain(ProxyRouteError):
    """More than one server takes writes. Nothing is opened or closed until a person decides."""

    exit_code = 5


class LeaseLost(ProxyRouteError):
    """The lease is no longer ours: no new action may start."""


class JournalError(ProxyRouteError):
    """The journal cannot be written or read."""


class TimedOut(ProxyRouteError):
    """A deadline passed while waiting. The outcome is unknown: look again."""


class GaveWay(TimedOut):
    """A chore ended early because something more urgent has come up, which the text tells; it is taken up later."""


class ServerError(ProxyRouteError):
    """Something about a database server. ``server`` is its name in the configuration."""

    def __init__(self, server: str, text: str) -> None:
        super().__init__(f"{server}: {text}")
        self.server = server


class Unreachable(ServerError):
    """No connection to the server; nothing was sent. ``kind`` says in which way it is silent."""

    def __init__(self, server: str, text: str, kind: Silence = Silence.OTHER) -> None:
        super().__init__(server, text)
        self.kind = kind


class LostReply(ServerError):
    """A statement was sent and no answer came. The outcome is unknown: look again."""


class StatementError(ServerError):
    """The server answered with an error. ``errno`` is the server's error number."""

    def __init__(self, server: str, errno: int, text: str) -> None:
        super().__init__(server, f"error {errno}: {text}")
        self.errno = errno
        self.text = text


class PutOff(StatementError):
    """The server answered with an error that may be over soon: another one is being served, or the network broke."""


class OtherFlavour(ServerError):
    """Where a server of one flavour was there is one of another now."""


class Diverged(ServerError):
    """The server has executed what its new source does not have, or may not have; or it would never get all back."""


class Unserved(ServerError):
    """Its new source has purged what the server would need next."""


class AdapterError(ProxyRouteError):
    """A proxy could not be asked or told."""

    def __init__(self, proxy: str, text: str) -> None:
        super().__init__(f"{proxy}: {text}")
        self.proxy = proxy


class ShareError(ProxyRouteError):
    """Something about the folder that engines and proxy hosts share."""


class DiskFailed(ShareError):
    """The disk of the shared folder failed in the midst. The outcome is unknown: look again."""


class Torn(ShareError):
    """A file in the shared folder is cut off, or is not what its name or digest says."""


class Tampered(ShareError):
    """A file in the shared folder is not signed with our key."""


class OtherFormat(ShareError):
    """A file in the shared folder was written by another version of ProxyRoute."""


class Outdated(ShareError):
    """A higher epoch is known already: whoever published this acted too late."""


class Conflict(ShareError):
    """The same epoch is to mean two different primaries."""


class NoRoom(ProxyRouteError):
    """A disk has no room for what must be kept before something is changed."""


class ScriptFailed(ProxyRouteError):
    """A script of the site's owner exited non-zero or did not end in time."""


class NotSent(ProxyRouteError):
    """A notice did not reach a receiver. ``again`` tells whether trying once more may help."""

    def __init__(self, text: str, *, again: bool = True) -> None:
        super().__init__(text)
        self.again = again
