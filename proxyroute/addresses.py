"""Who has a virtual address, by what the proxy hosts say of themselves. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from proxyroute.model import Finding, Observed, Severity

_CURE = "there: ip addr; systemctl status keepalived; does anything between the hosts drop VRRP (protocol 112)?"
_READ = "there: proxyroute agent status says why; in the unit of the agent: RestrictAddressFamilies=… AF_NETLINK"


def holders(observed: Sequence[Observed]) -> dict[str, tuple[str, ...]]:
    """Returns who has each address that any host watches, by the address."""
    watched = dict.fromkeys(address for proxy in observed for address in proxy.addresses)
    return {address: tuple(proxy.proxy for proxy in observed if proxy.addresses.get(address)) for address in watched}


def address_findings(observed: Sequence[Observed], configured: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Returns what is wrong with virtual addresses: two have one, nobody has it, can tell it, or watches it.

    All are warnings: whoever has the address leads to the same primary. That nobody has it is not told while a proxy
    that may have it does not answer: then it is not known. ``configured`` are the addresses of ``vrrp``.
    """
    found = []
    quiet = _quiet(observed)
    there = holders(observed)
    for address, hosts in there.items():
        if len(hosts) > 1:
            text = f"{', '.join(hosts)} have it at once: all lead to one primary, but clients go here and there"
            found.append(Finding("vip.twice", Severity.WARNING, address, text, f"on each of them {_CURE}"))
        elif blind := [proxy.proxy for proxy in observed if proxy.addresses.get(address, False) is None]:
            text = f"{', '.join(blind)} cannot read the addresses there: nobody can tell whether two have it, or none"
            found.append(Finding("vip.unread", Severity.WARNING, address, text, _READ))
        elif not hosts and not quiet:
            watching = ", ".join(proxy.proxy for proxy in observed if address in proxy.addresses)
            text = f"no host has it ({watching} were asked): clients reach nobody"
            found.append(Finding("vip.nobody", Severity.WARNING, address, text, f"on one {_CURE}"))
    if observed and not quiet:
        for address in configured:
            if address not in there:
                text = "is in vrrp, and no agent watches it: nobody would tell that two hosts have it, or none"
                cure = f"virtual_addresses: [{address}] in agent.yml of each host"
                found.append(Finding("vip.unwatched", Severity.WARNING, address, text, cure))
    return tuple(found)


def settled(observed: Sequence[Observed]) -> bool:
    """Tells whether each address is known to be at one host."""
    return not _quiet(observed) and all(len(hosts) == 1 for hosts in holders(observed).values())


def _quiet(observed: Sequence[Observed]) -> bool:
    """Whether a host does not say what it has, and may have anything."""
    return any(None in p.addresses.values() or not (p.reachable or p.addresses) for p in observed)
