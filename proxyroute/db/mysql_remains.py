"""What a MySQL server that does not answer has left on its host."""

from __future__ import annotations

from pathlib import Path

from proxyroute.db.mysql_programs import READ_LOG, require_own
from proxyroute.db.remains import HostRemains
from proxyroute.model import Deadline


class MySQLRemains(HostRemains):
    """One server's host; its files are read by MySQL's own program on this machine."""

    reader = READ_LOG

    def fetch_log(self, file: str, folder: Path, deadline: Deadline) -> Path:
        require_own(self.reader[0], deadline)  # before a file is copied that nobody could read here
        return super().fetch_log(file, folder, deadline)
