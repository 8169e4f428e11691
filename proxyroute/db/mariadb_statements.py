"""What each verb sends to a MariaDB server, in words for a plan that people read before they say yes."""

from __future__ import annotations

from proxyroute.model import Peer
from proxyroute.policy import Policy


def statements(verb: str, policy: Policy, peer: Peer) -> tuple[str, ...]:
    """Returns the statements of ``verb``; ``peer`` is the new source for ``follow``. KeyError for another verb."""
    lock = (
        ("BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT")
        if policy.freeze == "backup_stage"
        else ("FLUSH TABLES WITH READ LOCK",)
    )
    limit = (f"SET GLOBAL max_connections={policy.max_connections}",) if policy.max_connections else ()
    table: dict[str, tuple[str, ...]] = {
        "block_writes": lock,
        "keep_clients_out": limit,
        "arm": ("FLUSH TABLES WITH READ LOCK; SLEEP; SET GLOBAL read_only=1 (one statement, ended when all is well)",),
        "wait_for": ("SELECT MASTER_GTID_WAIT(<frozen position>, …)",),
        "stop_receiver": ("STOP SLAVE IO_THREAD",),
        "detach": ("STOP SLAVE",),
        "accept_writes": ("SET GLOBAL read_only=0",),
        "semi_sync": ("SET GLOBAL rpl_semi_sync_master_enabled=1",),
        "kill_clients": ("KILL HARD CONNECTION <each client session>",),
        "refuse_writes": ("SET GLOBAL read_only=1",),
        "unblock_writes": ("BACKUP STAGE END" if policy.freeze == "backup_stage" else "UNLOCK TABLES",),
        "forget_source": ("RESET SLAVE ALL",),
        "follow": (
            "STOP SLAVE",
            f"CHANGE MASTER TO MASTER_HOST='{peer.address.host}', MASTER_PORT={peer.address.port}, "
            "MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        ),
        "restore": ("SET GLOBAL max_connections=<as before>",),
        "lock_account": ("ALTER USER … ACCOUNT LOCK (not written to the binary log)",),
        "stop_events": ("SET GLOBAL event_scheduler=OFF",),
    }
    return table[verb]
