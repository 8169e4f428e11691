"""Who listens on a port of this host. HAProxy shares its ports: one that was forgotten takes clients unseen."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from proxyroute.model import Address

_LISTENING = "0A"


def strangers(address: Address, ours: Collection[int]) -> tuple[int, ...]:
    """Returns the pids of other processes than ``ours`` that listen where we listen at ``address``.

    Sees those of other users only as root; without it, fewer are found.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(address)}
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) not in ours and _holds(process / "fd", sockets):
            found.append(int(process.name))
    return tuple(sorted(found))


def _listening(address: Address) -> set[str]:
    """Returns the inodes of the sockets that listen on the port, but for those at other addresses than this one."""
    apart = _specific(address.host)
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                host, _, port = fields[1].rpartition(":")
                if fields[3] != _LISTENING or int(port, 16) != address.port:
                    continue
                if apart is None or _specific(_decoded(host)) in (None, apart):
                    inodes.add(fields[9])
    return inodes


def _specific(host: str) -> IPv4Address | IPv6Address | None:
    """Returns the one address that ``host`` stands for, None when it is any address, or a name."""
    try:
        found = ip_address(host)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return None if found.is_unspecified else found


def _decoded(host: str) -> str:
    """Returns an address of /proc/net/tcp in the usual notation: there it is words in the machine's byte order."""
    words = struct.unpack(f">{len(host) // 8}I", bytes.fromhex(host))
    return str(ip_address(struct.pack(f"={len(words)}I", *words)))


def _holds(folder: Path, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
        for descriptor in folder.iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) in sockets:
                    return True
    return False
