"""What each verb sends to a MySQL server, in words for a plan that people read before they say yes."""

from __future__ import annotations

from proxyroute.model import Peer
from proxyroute.policy import Policy


def statements(verb: str, policy: Policy, peer: Peer) -> tuple[str, ...]:
    """Returns the statements of ``verb``; ``peer`` is the new source for ``follow``. KeyError for another verb."""
    limit = (f"SET GLOBAL max_connections={policy.max_connections}",) if policy.max_connections else ()
    out, back = limit, ["SET GLOBAL max_connections=<as before>"]
    if policy.offline_mode:
        out = ("SET GLOBAL offline_mode=ON",)
        back.append("SET GLOBAL offline_mode=<as before>")
    table: dict[str, tuple[str, ...]] = {
        "block_writes": ("FLUSH TABLES WITH READ LOCK",),
        "keep_clients_out": out,
        "arm": (
            "FLUSH TABLES WITH READ LOCK",
            "SET GLOBAL super_read_only=1, when a wait of the freeze budget is over (ended when all is well)",
        ),
        "wait_for": ("SELECT WAIT_FOR_EXECUTED_GTID_SET(<frozen position>, …)",),
        "stop_receiver": ("STOP REPLICA IO_THREAD",),
        "detach": ("STOP REPLICA",),
        "accept_writes": ("SET GLOBAL read_only=0",),
        "semi_sync": ("SET GLOBAL rpl_semi_sync_source_enabled=1",),
        "kill_clients": ("KILL CONNECTION <each client session>",),
        "refuse_writes": ("SET GLOBAL super_read_only=1",),
        "unblock_writes": ("UNLOCK TABLES",),
        "forget_source": ("RESET REPLICA ALL",),
        "follow": (
            "STOP REPLICA",
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{peer.address.host}', SOURCE_PORT={peer.address.port}, "
            "SOURCE_AUTO_POSITION=1",
            "START REPLICA",
        ),
        "restore": tuple(back),
        "lock_account": ("ALTER USER … ACCOUNT LOCK (not written to the binary log)",),
        "stop_events": ("SET GLOBAL event_scheduler=OFF",),
    }
    return table[verb]
