"""What ``scripts/lab`` shows of a laboratory: hosts, programs, who has the address, and what to type."""

from __future__ import annotations

from tests.support import labprograms
from tests.support.gluster import SERVER
from tests.support.network import Network, virtual_address

VIP = "vip"
"""What stands for the address that moves between the proxies, where a host's name is asked for."""


def moves(network: Network) -> bool:
    """Whether there is an address that moves between the proxies."""
    return any(network.folder.glob("edge*/keepalived.conf"))


def show_hosts(network: Network) -> None:
    """Prints each host with what runs there, and who has the address."""
    for name, address in network.hosts.items():
        programs = set(labprograms.running(network, name).values())
        shown = sorted("proxyroute agent" if program == labprograms.AGENT else program for program in programs)
        print(f"  {name:<9} {address:<12} {', '.join(shown) or '-'}")
    if moves(network):
        address = virtual_address()
        holders = [name for name in network.hosts if network.has_address(name, address)]
        print(f"  {VIP:<9} {address:<12} at {' and '.join(holders) or 'no host'}")


def show_help(network: Network) -> None:
    """Prints what to type."""
    moving = moves(network)
    way, what = (VIP, "the address that moves") if moving else ("edge1", "the first proxy")
    more = ""
    if moving:
        more = """
  scripts/lab stop edge1 haproxy     # SIGTERM; kill: SIGKILL; then: start. Also: agent, keepalived; mariadbd of db1
  scripts/lab cut edge1              # pull its cable"""
    if SERVER in network.hosts:
        more += f"""
  scripts/lab cut edge1 {SERVER}         # from the disk that all share, and from nothing else"""
    print(f"""
Type
  scripts/lab run engine1 proxyroute status
  scripts/lab run engine1 proxyroute switchover
  scripts/lab sql {way:<18} # a client of {what};  scripts/lab sql {way} 'SELECT @@server_id'
  scripts/lab sql db1                # root, by the server's socket: also while it is cut off
  scripts/lab cut db1                # pull its cable;  scripts/lab cut db1 engine1: from the engine only{more}
  scripts/lab slow db2 50            # 50 ms later, each way;  lossy, narrow: see scripts/lab --help
  scripts/lab mend                   # all cables are well again
  scripts/lab status
Its configuration, data and logs are in {network.folder}; scripts/lab down ends it.""")
