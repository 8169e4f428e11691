"""The site's own scripts: taking an address down before writes are refused, and up once they are taken again; and
the fence, which makes sure that a primary that is gone takes no write when it comes back.

Each script is an argv and runs without a shell, with a time-out; its exit status is honoured. It is told what
happens by environment variables, and nothing else of the engine's own environment reaches it:

=============================== ====================================================================
``PROXYROUTE_KIND``             ``switchover`` or ``failover``
``PROXYROUTE_MOMENT``           ``address_down``, ``address_up`` or ``fence``
``PROXYROUTE_OPERATION``        id of the operation, as in ``proxyroute show``
``PROXYROUTE_CLUSTER``          name of the cluster
``PROXYROUTE_OLD_PRIMARY``      name of the primary that gives up its role
``PROXYROUTE_OLD_PRIMARY_HOST`` its host
``PROXYROUTE_OLD_PRIMARY_PORT`` its port
``PROXYROUTE_NEW_PRIMARY``      name of the server that takes over
``PROXYROUTE_NEW_PRIMARY_HOST`` its host
``PROXYROUTE_NEW_PRIMARY_PORT`` its port
=============================== ====================================================================

``address_down`` runs in a switchover only. When that is undone after the address went down, ``address_up`` runs with
the old primary in both places: it stays what it was. The "new" primary is always the server that gets the address.

The ``fence`` runs in a failover, before anything is opened. Exit status 0 says that the old primary takes no writes
any more, whoever asks it, and will take none when it starts again; with any other it counts as not fenced.

With ``arguments: replication-manager`` the seven positional arguments of that tool's ``failover-pre-script`` and
``failover-post-script`` are appended, so that scripts written for it can be kept. They are, by its documentation
(docs.signal18.io/provisioning/orchestrators/scripts, 10.2.5.7): old host, new host, old port, new port, the old and
the new server's name in MaxScale, and ``failover`` or ``switchover``. The names given are those of our
configuration; call the servers there as MaxScale does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxyroute.argv import run_argv
from proxyroute.faults import act
from proxyroute.model import Deadline

REPLICATION_MANAGER = "replication-manager"

_SEVEN = (
    "PROXYROUTE_OLD_PRIMARY_HOST",
    "PROXYROUTE_NEW_PRIMARY_HOST",
    "PROXYROUTE_OLD_PRIMARY_PORT",
    "PROXYROUTE_NEW_PRIMARY_PORT",
    "PROXYROUTE_OLD_PRIMARY",
    "PROXYROUTE_NEW_PRIMARY",
    "PROXYROUTE_KIND",
)


class Scripts:
    """The scripts of one cluster, by moment; implements :class:`proxyroute.ports.Hooks`.

    ``timeout`` is in seconds. ``arguments`` is ``environment`` or ``replication-manager``.
    """

    def __init__(self, moments: Mapping[str, Sequence[str]], timeout: float, arguments: str = "environment") -> None:
        self._moments = {moment: tuple(argv) for moment, argv in moments.items()}
        self._timeout = timeout
        self._seven = arguments == REPLICATION_MANAGER

    def configured(self, moment: str) -> tuple[str, ...]:
        """Returns the argv of ``moment``, without what ``arguments`` appends, or nothing."""
        return self._moments.get(moment, ())

    def seconds(self, moment: str) -> float:
        """Returns the seconds that ``run`` may take for ``moment``; 0 where there is no script."""
        return self._timeout if self.configured(moment) else 0.0

    def run(self, moment: str, environment: Mapping[str, str]) -> None:
        """Runs the script of ``moment``, if there is one, for as long as :meth:`seconds` says.

        Raises ScriptFailed when it cannot be started, exits non-zero or does not end in time.
        """
        argv = self.configured(moment)
        if not argv:
            return
        told = {**environment, "PROXYROUTE_MOMENT": moment}
        appended = tuple(environment[name] for name in _SEVEN) if self._seven else ()
        with act("script.run"):
            run_argv((*argv, *appended), told, Deadline.after(self._timeout))
