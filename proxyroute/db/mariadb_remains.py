"""What a MariaDB server that does not answer has left on its host."""

from __future__ import annotations

from proxyroute.db.remains import HostRemains

READ_LOG = ("mariadb-binlog", "--no-defaults", "--skip-gtid-strict-mode")
"""Out of order is just what may have happened here."""


class MariaDBRemains(HostRemains):
    """One server's host; its files are read by MariaDB's own program on this machine."""

    reader = READ_LOG
