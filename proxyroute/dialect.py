"""Statements and settings that findings name, in the words of the flavour that the servers are of. Pure.

The rules say what helps in MariaDB's words. For MySQL the same is said in its own, here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from proxyroute.model import Finding, Status

_CHANNEL = r"(?: '(?P<channel>[^']*)')?"
_VERB = re.compile(rf"\b(?P<verb>STOP|START|RESET|SHOW) SLAVE{_CHANNEL}(?P<rest> (?:IO_THREAD|SQL_THREAD|ALL|STATUS))?")
_SOURCE = re.compile(rf"\bCHANGE MASTER{_CHANNEL} TO (?P<options>[^;]*)")
_SEMI_SYNC = re.compile(r"\b(?<!PERSIST )rpl_semi_sync_(master|slave)_(\w+)")
"""But for what a server has persisted under the names of the older plugins."""
_SETTINGS = (
    ("slave_net_timeout", "replica_net_timeout"),
    ("log_slave_updates", "log_replica_updates"),
    ("SET GLOBAL read_only=1", "SET GLOBAL super_read_only=1"),
    ("and read_only=1 in its my.cnf", "and super_read_only=1 in its my.cnf"),
    ("INSTALL SONAME 'semisync_master'", "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'"),
    ("INSTALL SONAME 'semisync_slave'", "INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'"),
    ("; or extra_port in my.cnf", "; or admin_address in my.cnf"),
    ("so that errant transactions cannot be flashed back", "so that what an errant transaction did cannot be told"),
    ("mariadb-binlog", "mysqlbinlog"),
)  # fmt: skip


def of(servers: Iterable[Status]) -> str:
    """Returns the flavour of ``servers``, that of the first one; without any the one that the rules are told in."""
    return next((server.flavour for server in servers), "mariadb")


def said(flavour: str, text: str) -> str:
    """Returns ``text``, told in MariaDB's words, in those of ``flavour``."""
    if flavour != "mysql":
        return text
    for theirs, ours in _SETTINGS:
        text = text.replace(theirs, ours)
    text = _SOURCE.sub(_change_source, text)
    text = _VERB.sub(_about_channel, text)
    return _SEMI_SYNC.sub(lambda found: f"rpl_semi_sync_{_side(found[1])}_{_side_of(found[2])}", text)


def told(flavour: str, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Returns ``findings`` in the words of ``flavour``."""
    if flavour != "mysql":
        return tuple(findings)
    return tuple(replace(f, text=said(flavour, f.text), cure=said(flavour, f.cure)) for f in findings)


def _about_channel(found: re.Match[str]) -> str:
    rest = f"{found['rest'] or ''}{_for(found)}"
    return f"{found['verb']} REPLICA{rest}"


def _change_source(found: re.Match[str]) -> str:
    options = found["options"].replace("MASTER_USE_GTID=slave_pos", "MASTER_AUTO_POSITION=1")
    options = options.replace("MASTER_", "SOURCE_")
    return f"CHANGE REPLICATION SOURCE TO {options}{_for(found)}"


def _for(found: re.Match[str]) -> str:
    return f" FOR CHANNEL '{found['channel']}'" if found["channel"] else ""


def _side(side: str) -> str:
    return {"master": "source", "slave": "replica"}[side]


def _side_of(rest: str) -> str:
    return rest.replace("wait_no_slave", "wait_no_replica")
