"""The lease in etcd, with real members: one holder, terms that grow, members and quorum lost, TLS, accounts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.errors import Busy, ConfigError, LeaseLost, Refused, TimedOut
from proxyroute.lease import etcd as module
from proxyroute.lease.etcd import EtcdLease
from proxyroute.lease.etcd_client import EtcdClient
from proxyroute.model import NO_EPOCH, Deadline, Epoch
from tests.support.etcd import Etcd, Tls
from tests.support.process import workspace
from tests.support.wait import until

SECONDS = 3.0


@pytest.fixture(scope="module")
def folder() -> Path:
    return workspace()


@pytest.fixture(scope="module")
def one(folder: Path) -> Iterator[Etcd]:
    with Etcd.start(folder / "one") as etcd:
        yield etcd


@pytest.fixture
def three(folder: Path, request: pytest.FixtureRequest) -> Iterator[Etcd]:
    with Etcd.start(folder / request.node.name[:20], 3) as etcd:
        yield etcd


@pytest.fixture
def leases() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as ends:
        yield ends


def lease(etcd: Etcd, ends: contextlib.ExitStack, cluster: str = "shop", seconds: float = SECONDS) -> EtcdLease:
    made = EtcdLease(EtcdClient(etcd.endpoints, attempt=0.5), cluster, seconds)
    ends.callback(made.release)
    return made


def soon() -> Deadline:
    return Deadline.after(0.1)


def test_one_holds_it_and_the_other_is_refused_by_name(one: Etcd, leases: contextlib.ExitStack) -> None:
    first, second = lease(one, leases), lease(one, leases)
    term = first.acquire("switchover 4711", soon())
    with pytest.raises(Busy, match=rf"switchover 4711 by .*:{os.getpid()}"):
        second.acquire("mine", soon())
    held = second.holding(Deadline.after(2))
    assert held.purpose == "switchover 4711"
    assert held.seconds_left is not None
    assert 0 < held.seconds_left <= SECONDS
    first.release()
    assert second.acquire("mine", soon()) > term
    with pytest.raises(LeaseLost):
        first.check()
    second.release()
    assert second.holding(Deadline.after(2)).holder == ""


def test_each_cluster_has_its_own(one: Etcd, leases: contextlib.ExitStack) -> None:
    for number in range(5):
        lease(one, leases, f"c{number}").acquire("work", soon())


def test_it_is_kept_alive_for_longer_than_its_time(one: Etcd, leases: contextlib.ExitStack) -> None:
    mine, other = lease(one, leases, seconds=2.0), lease(one, leases)
    mine.acquire("long work", soon())
    with pytest.raises(Busy):
        other.acquire("impatient", Deadline.after(2 * 2.0 + 1.0))
    mine.check()
    mine.commit("op", Deadline.after(2))
    assert "/proxyroute/shop/commits/op" in one.content()


def test_terms_and_epochs_only_grow_whoever_asks_and_are_above_what_a_proxy_has_seen(
    one: Etcd, leases: contextlib.ExitStack
) -> None:
    seen = [NO_EPOCH]
    for number in range(4):
        engine = lease(one, leases, "grow")
        engine.acquire("work", soon())
        seen += [engine.claim(NO_EPOCH, f"op{number}") for _ in range(3)]
        engine.release()
    assert seen == sorted(set(seen))
    last = lease(one, leases, "grow")
    last.acquire("work", soon())
    assert last.claim(Epoch(4000, 7), "op9") > Epoch(4000, 7)
    assert last.highest(besides="op9") == seen[-1]
    last.release()
    again = lease(one, leases, "grow")
    assert again.acquire("work", soon()) > 4000
    assert again.highest().term == 4001


def test_old_claims_and_commits_are_forgotten(one: Etcd, leases: contextlib.ExitStack) -> None:
    engine = lease(one, leases, "old")
    engine.acquire("work", soon())
    for number in range(60):
        last = engine.claim(NO_EPOCH, "op")
        engine.commit(f"{number:03}", Deadline.after(2))
    engine.release()
    engine.acquire("work", soon())
    keys = [key for key in one.content("/proxyroute/old/") if "/lease" not in key and "/term" not in key]
    assert len(keys) == 100
    assert engine.highest() == last
    assert "/proxyroute/old/commits/059" in keys


def test_two_claims_of_one_epoch_are_two_epochs(one: Etcd, leases: contextlib.ExitStack) -> None:
    """Somebody else's key is in the way, as after a restore of etcd from an old copy."""
    engine = lease(one, leases, "clash")
    term = engine.acquire("work", soon())
    one.ctl("put", f"/proxyroute/clash/epochs/{term}.1", '{"operation": "theirs"}')
    assert engine.claim(NO_EPOCH, "mine") == Epoch(term, 2)


@contextlib.contextmanager
def another_engine(etcd: Etcd, clusters: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the leases of ``clusters``."""
    code = f"""
import sys
from proxyroute.lease.etcd import EtcdLease
from proxyroute.lease.etcd_client import EtcdClient
from proxyroute.model import Deadline
client = EtcdClient({etcd.endpoints!r}, attempt=0.5)
held = [EtcdLease(client, name, {SECONDS}) for name in {clusters!r}]
for lease in held:
    lease.acquire("work of a test", Deadline.after(1))
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            yield holder
        finally:
            holder.kill()


def test_a_holder_that_is_dead_blocks_nobody_for_longer_than_twice_its_time(
    one: Etcd, leases: contextlib.ExitStack
) -> None:
    with another_engine(one, ["dead"]) as holder:
        with pytest.raises(Busy, match=f"work of a test by .*:{holder.pid}"):
            lease(one, leases, "dead").acquire("mine", soon())
        holder.send_signal(signal.SIGKILL)
    assert lease(one, leases, "dead").acquire("mine", Deadline.after(2 * SECONDS)) > 1


def test_two_engines_share_twenty_clusters_and_one_dies(one: Etcd, leases: contextlib.ExitStack) -> None:
    names = [f"many{number:02}" for number in range(20)]
    mine = {name: lease(one, leases, name) for name in names}
    for name in names[::2]:
        mine[name].acquire("work", soon())
    with another_engine(one, names[1::2]) as holder:
        for name in names[1::2]:
            with pytest.raises(Busy, match=f":{holder.pid}"):
                mine[name].acquire("work", Deadline.after(0))
        holder.send_signal(signal.SIGKILL)
    ends = Deadline.after(2 * SECONDS)
    for name in names[1::2]:
        mine[name].acquire("work", ends)
    for held in mine.values():
        held.check()


def test_a_holder_that_slept_for_too_long_knows_it_and_cannot_commit(
    one: Etcd, leases: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SIGSTOP and a suspended host come to: no renewal, and time has passed."""
    sleeper, other = lease(one, leases, "sleep", 2.0), lease(one, leases, "sleep")
    monkeypatch.setattr(sleeper, "_keep_alive", lambda *_: None)
    sleeper.acquire("asleep", soon())
    sleeper.check()
    other.acquire("awake", Deadline.after(2 * SECONDS))
    with pytest.raises(LeaseLost, match="could not be kept alive"):
        sleeper.check()
    monkeypatch.setattr(module, "now", lambda: 0.0)  # even if its clock stood still
    sleeper.check()
    with pytest.raises(LeaseLost, match="awake by"):
        sleeper.commit("op", Deadline.after(2))
    with pytest.raises(LeaseLost, match="awake by"):
        sleeper.claim(NO_EPOCH, "op")
    assert "/proxyroute/sleep/commits/op" not in one.content()


def test_a_key_that_a_person_removes_is_a_lost_lease(one: Etcd, leases: contextlib.ExitStack) -> None:
    mine = lease(one, leases, "removed", 2.0)
    mine.acquire("work", soon())
    one.ctl("del", "/proxyroute/removed/lease")
    with pytest.raises(LeaseLost):
        mine.commit("op", Deadline.after(2))
    mine.acquire("work", soon())
    one.ctl("del", "/proxyroute/removed/lease")

    def lost() -> bool:
        with contextlib.suppress(LeaseLost):
            mine.check()
            return False
        return True

    until(lost, "the keeper to notice")


def test_the_process_that_goes_on_adopts_it_at_once(one: Etcd, leases: contextlib.ExitStack) -> None:
    engine, guard = lease(one, leases, "handed"), lease(one, leases, "handed")
    engine.acquire("switchover", soon())
    epoch = engine.claim(NO_EPOCH, "op")
    ticket = engine.ticket()
    assert "\n" not in ticket
    assert guard.adopt(ticket)
    guard.check()
    assert (guard.term, guard.highest()) == (engine.term, epoch)
    guard.commit("op", Deadline.after(2))
    assert guard.claim(NO_EPOCH, "op") > epoch
    guard.release()
    assert not lease(one, leases, "handed").adopt(ticket), "it was given back"


def test_one_of_three_members_is_lost(three: Etcd, leases: contextlib.ExitStack) -> None:
    mine = lease(three, leases)
    mine.acquire("work", soon())
    for member in three.members[:2]:
        member.stop()  # connections stay, answers do not come
        mine.commit("op", Deadline.after(5))
        mine.claim(NO_EPOCH, "op")
        (found,) = mine.findings(Deadline.after(5))
        assert (found.code, member.endpoint in found.text) == ("lease.member", True)
        member.go_on()
        until(lambda: not mine.findings(Deadline.after(5)), "the member to be back")
    three.members[2].kill()
    mine.commit("op", Deadline.after(5))


def test_quorum_is_lost_and_comes_back(three: Etcd, leases: contextlib.ExitStack) -> None:
    mine, other = lease(three, leases), lease(three, leases)
    mine.acquire("work", soon())
    claimed = mine.claim(NO_EPOCH, "op")
    ticket = mine.ticket()
    for member in three.members[:2]:
        member.kill()
    mine.check()
    assert mine.highest() == claimed
    with pytest.raises(TimedOut, match="nobody knows whether op is committed"):
        mine.commit("op", Deadline.after(1))
    assert other.adopt(ticket), "nobody else can have it before its time is over"
    with pytest.raises(Refused, match="nothing was touched"):
        lease(three, leases).acquire("new", soon())
    (found,) = mine.findings(Deadline.after(5))
    assert found.code == "lease.unreachable"
    assert other.holding(Deadline.after(2)).trouble

    def said() -> str:
        try:
            mine.check()
        except LeaseLost as error:
            return str(error)
        return "ours"

    until(lambda: "could not be kept alive" in said(), "the lease to end by our own clock")
    assert not mine.lost(Deadline.after(1)), "nobody can say"
    for member in three.members[:2]:
        member.restart()
    until(lambda: said() == "ours", "quorum; nobody else can have had it in between")
    mine.release()
    assert other.lost(Deadline.after(5))
    assert lease(three, leases).acquire("new", Deadline.after(2 * SECONDS)) > 1


def test_tls_with_an_authority_of_its_own_and_a_client_certificate(folder: Path, leases: contextlib.ExitStack) -> None:
    tls = Tls(folder / "tls")
    with Etcd.start(folder / "secure", tls=tls) as etcd:
        cert = (str(tls.cert), str(tls.key))
        mine = EtcdLease(EtcdClient(etcd.endpoints, attempt=1, verify=str(tls.ca), cert=cert), "shop", SECONDS)
        mine.acquire("work", soon())
        mine.commit("op", Deadline.after(2))
        mine.release()
        for client in (
            EtcdClient(etcd.endpoints, attempt=1, cert=cert),
            EtcdClient(etcd.endpoints, attempt=1, verify=str(tls.ca)),
        ):
            with pytest.raises(Refused, match="TLS"):
                EtcdLease(client, "shop", SECONDS).acquire("work", soon())


def test_accounts_and_a_token_that_dies(folder: Path) -> None:
    with Etcd.start(folder / "accounts") as etcd:
        etcd.enable_accounts("engine", "secret")

        def client(user: str = "engine", password: str = "secret") -> EtcdClient:
            return EtcdClient(etcd.endpoints, attempt=2, user=user, password=password)

        mine = EtcdLease(client(), "shop", SECONDS)
        mine.acquire("work", soon())
        etcd.members[0].restart()  # simple tokens live in the memory of the members
        until(lambda: not mine.findings(Deadline.after(2)), "etcd to be back")
        mine.commit("op", Deadline.after(3))
        assert not mine.findings(Deadline.after(2))
        mine.release()
        for wrong in (client(password="wrong"), client(user="nobody"), client(user="", password="")):
            with pytest.raises(ConfigError) as caught:
                EtcdLease(wrong, "shop", SECONDS).acquire("work", soon())
            assert "secret" not in str(caught.value)
            assert [f.code for f in EtcdLease(wrong, "shop", SECONDS).findings(Deadline.after(2))] == ["lease.denied"]


def test_what_is_no_etcd_is_told(leases: contextlib.ExitStack) -> None:
    mine = EtcdLease(EtcdClient(["http://127.0.0.1:1"], attempt=1), "shop", SECONDS)
    with pytest.raises(Refused, match="Connection refused"):
        mine.acquire("work", soon())
