"""Keeps the epoch of a settled route in a MaxScale, also where several of them share their objects.

With ``config_sync_cluster`` they do, by way of the cluster's Master. One that has not taken over yet what another has
changed refuses to change anything itself; without a Master all of them refuse. See
docs/decisions/0136-maxscales-that-share-their-objects.md.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from proxyroute.errors import AdapterError
from proxyroute.maxscale.look import states
from proxyroute.maxscale.marker import PARAMETERS, markers, name_of
from proxyroute.maxscale.rest import Answered, Rest
from proxyroute.model import Deadline, Endpoint, RouteTable

_TAKES_OVER = 7.0
"""Seconds for it to take over what another has changed; it looks every 5 (``config_sync_interval``)."""
_AGAIN = 0.5


def keep(
    rest: Rest, proxy: str, cluster: str, servers: Sequence[Endpoint], table: RouteTable, deadline: Deadline
) -> str:
    """Keeps the epoch of ``table`` there, and forgets the older ones; returns why a closed route's is not kept.

    Raises AdapterError when that of an open route cannot be kept, and TimedOut when that is unknown.
    """
    wanted, until = name_of(cluster, table), deadline.within(_TAKES_OVER)
    while wanted not in (there := {m.name for m in markers(cluster, servers, states(rest, deadline))}):
        try:
            rest.create("servers", wanted, PARAMETERS, deadline)
            break
        except Answered as error:
            if table.primary is None:
                return str(error)  # it is closed, and will be told once more, with a primary
            if not error.out_of_sync or until.left < _AGAIN:
                raise AdapterError(proxy, f"the route is set, but its epoch could not be kept: {error}") from None
            time.sleep(_AGAIN)
    for old in there - {wanted}:
        with contextlib.suppress(Answered):  # the highest counts, and the next route removes it
            rest.delete("servers", old, deadline)
    return ""
