"""Who has a virtual address: what the kernel says, what is concluded from all hosts, and what is said of it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute import agent_addresses
from proxyroute.addresses import address_findings, holders, settled
from proxyroute.agent_addresses import Addresses, held
from proxyroute.haproxy.release import Answer
from proxyroute.model import Epoch, Observed, Severity

VIP = "10.0.0.100"


def host(name: str, has: bool | None, *, reachable: bool = True) -> Observed:
    return Observed(name, reachable, Epoch(1, 1), "db1", addresses={} if has is None else {VIP: has})


BLIND = replace(host("edge1", False), addresses={VIP: None})
"""It watches the address, and cannot read which it has."""


# -- On the host --------------------------------------------------------------------------------------------------


def test_the_kernel_tells_which_addresses_are_here() -> None:
    assert held(["127.0.0.1", "203.0.113.7", "2001:db8::7"]) == {
        "127.0.0.1": True,
        "203.0.113.7": False,
        "2001:db8::7": False,
    }
    assert held([]) == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes a network of its own")
def test_addresses_are_found_on_any_interface_and_in_any_number() -> None:
    code = (
        "from proxyroute.agent_addresses import held\n"
        "told = held(['10.9.0.1', '10.9.0.250', '10.9.1.1', 'fd00::5'])\n"
        "assert list(told.values()) == [True, True, False, True], told"
    )
    # more than one message of the kernel can hold, one on an interface that is down, one with a peer
    make = (
        "ip link add name v1 type veth peer name v2; ip link set v1 up; "
        "for n in $(seq 2 250); do echo addr add 10.9.0.$n/24 dev v1; done | ip -batch -; "
        "ip addr add 10.9.0.1 peer 10.9.9.9 dev v2; ip -6 addr add fd00::5/64 dev v2; "
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", f'{make} exec "$0" -c "$1"', sys.executable, code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if "not permitted" in done.stderr:
        pytest.skip(f"no interfaces to try it with: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_cannot_be_read_is_unknown_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Addresses(["127.0.0.1"])
    assert watched.lately() == {"127.0.0.1": True}

    def refuse(_: object) -> dict[str, bool]:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(agent_addresses, "held", refuse)
    assert watched.lately() == {"127.0.0.1": True}, "a moment ago"
    assert watched.look() == {"127.0.0.1": None}
    assert watched.trouble == "the addresses of this host cannot be read: Operation not permitted"


def test_the_receipt_carries_them_and_without_any_is_one_that_an_older_engine_reads() -> None:
    answer = Answer("edge1", "shop", observed=host("edge1", True))
    for said in (answer, replace(answer, observed=BLIND)):
        assert Answer.of(json.loads(json.dumps(said.values()))) == said
    plain = replace(answer, observed=host("edge1", None)).values()
    assert "addresses" not in plain["observed"]
    assert Answer.of(plain).observed == host("edge1", None)


# -- From all hosts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "configured", "codes", "known"),
    [
        ((host("edge1", True), host("edge2", False)), (VIP,), set(), True),
        ((host("edge1", True), host("edge2", True)), (), {"vip.twice"}, False),
        ((host("edge1", False), host("edge2", False)), (), {"vip.nobody"}, False),
        ((host("edge1", False), host("edge2", None, reachable=False)), (VIP,), set(), False),
        ((host("edge1", True), host("edge2", True), host("edge3", None, reachable=False)), (), {"vip.twice"}, False),
        ((host("edge1", False), host("edge2", False, reachable=False)), (), {"vip.nobody"}, False),
        ((host("edge1", None), host("edge2", None)), (VIP,), {"vip.unwatched"}, True),
        ((host("edge1", None), host("edge2", None)), (), set(), True),
        ((BLIND, replace(BLIND, proxy="edge2")), (VIP,), {"vip.unread"}, False),
        ((BLIND, host("edge2", False)), (), {"vip.unread"}, False),
        ((BLIND, host("edge2", True)), (VIP,), {"vip.unread"}, False),
        ((BLIND, host("edge2", True), host("edge3", True)), (), {"vip.twice"}, False),
        ((), (VIP,), set(), True),
    ],
)
def test_what_is_wrong_is_found_and_what_is_not_known_is_not(
    hosts: tuple[Observed, ...], configured: tuple[str, ...], codes: set[str], known: bool
) -> None:
    found = address_findings(hosts, configured)
    assert {f.code for f in found} == codes
    assert all(f.severity is Severity.WARNING and f.subject == VIP and f.cure for f in found)
    assert settled(hosts) is known


def test_who_has_it_is_named() -> None:
    hosts = (host("edge1", True), host("edge2", True), host("edge3", False))
    assert holders(hosts) == {VIP: ("edge1", "edge2")}
    (found,) = address_findings(hosts)
    assert found.text.startswith("edge1, edge2 have it at once")
