"""Whose work the data on a server's host are, and the server's service there.

Beside the data a file names whose work this is. Every script that changes something looks at it first, over there: a
process that was asleep while another one took the server over changes nothing more when it wakes up.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from proxyroute.faults import act
from proxyroute.host import Host, Program, stream
from proxyroute.model import Deadline

_TAKE = """
set -e
umask 077
echo "$2" >"$1.proxyroute-owner.$2"
mv -f -- "$1.proxyroute-owner.$2" "$1.proxyroute-owner"
"""
OURS = """
set -e
ours() {
    [ "$(cat -- "$1.proxyroute-owner" 2>/dev/null)" = "$2" ] ||
        { echo "another rejoin has taken this server over" >&2; exit 1; }
}
ours "$1" "$2"
"""
"""What every script begins with that changes something."""
SERVICE = (
    OURS
    + """
shift 2
exec "$@"
"""
)
_GIVE_UP = OURS + 'rm -f -- "$1.proxyroute-owner"\n'


class Ownership:
    """That the work on the data of one host is ours; ``claim`` raises LeaseLost when it cannot be any more."""

    def __init__(self, claim: Callable[[], None]) -> None:
        self._claim = claim
        self._token = ""

    def take(self, host: Host, data_dir: str, deadline: Deadline) -> None:
        """Says over there that it is ours, once; whatever another process goes on with fails from now on."""
        if not self._token:
            token = secrets.token_hex(8)
            with act("rejoin.own_host"):
                stream(host.script(_TAKE, data_dir, token), lambda _: None, deadline)
            self._token = token
        self._claim()  # only now: who gets the claim later puts another name there

    def script(self, host: Host, text: str, data_dir: str, *arguments: str, deadline: Deadline) -> Program:
        """Returns a script that fails over there unless it is still ours; ``$1`` is the folder, ``$3`` the first more.

        Raises LeaseLost.
        """
        self.take(host, data_dir, deadline)
        return self.begun(host, text, data_dir, *arguments)

    def begun(self, host: Host, text: str, data_dir: str, *arguments: str) -> Program:
        """The same for what must not end midway, once it was ours: only over there it is asked whose work it is.

        A server that we have stopped may have been one of those that the claim was held on.
        """
        return host.script(text, data_dir, self._token, *arguments)

    def give_up(self, host: Host, data_dir: str, deadline: Deadline) -> None:
        """Removes what says so, if it is ours; nobody is to go on with anything over there. Raises ScriptFailed."""
        if self._token:
            with act("rejoin.discard"):
                stream(self.begun(host, _GIVE_UP, data_dir), lambda _: None, deadline)

    def still_ours(self, host: Host, data_dir: str, deadline: Deadline) -> None:
        """Raises ScriptFailed when another owner has been there since ``take``, or nobody can tell."""
        with act("rejoin.own_host"):
            stream(self.begun(host, OURS, data_dir), lambda _: None, deadline)


def start_server(target: Host, target_dir: str, ownership: Ownership, deadline: Deadline) -> None:
    """Starts the service of the server, whose data were ours when its stop was ordered. Raises ScriptFailed."""
    start = ownership.begun(target, SERVICE, target_dir, *target.start)
    with act("rejoin.start_server"):
        stream(start, lambda _: None, deadline)
