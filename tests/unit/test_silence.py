"""In which way a server is silent, as a session tells it from what the network does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from proxyroute.db.session import Login, Session
from proxyroute.errors import Silence, Unreachable
from proxyroute.model import Address, Deadline
from tests.support.process import free_port


def kind(address: Address) -> Silence:
    with pytest.raises(Unreachable) as raised:
        Session("db1", address, Login("u", "p")).open(Deadline.after(0.3))
    return raised.value.kind


@contextlib.contextmanager
def listening(backlog: int = 5) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        yield listener


def of(listener: socket.socket) -> Address:
    return Address(*listener.getsockname())


def test_nobody_listens() -> None:
    assert kind(Address("127.0.0.1", free_port())) is Silence.REFUSED


def test_it_accepts_and_says_nothing() -> None:
    with listening() as listener:
        assert kind(of(listener)) is Silence.HUNG


@pytest.mark.parametrize("close", [lambda s: s.close(), lambda s: (s.recv(1), s.close())], ids=["at once", "later"])
def test_it_accepts_and_hangs_up(close: Callable[[socket.socket], object]) -> None:
    with listening() as listener:

        def accept() -> None:
            peer, _ = listener.accept()
            peer.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                close(peer)
            peer.close()

        thread = threading.Thread(target=accept)
        thread.start()
        assert kind(of(listener)) is Silence.RESET
        thread.join()


def test_nothing_comes_back_at_all() -> None:
    assert kind(Address("no-such-host.invalid", 3306)) is Silence.UNREACHABLE
    with listening(backlog=0) as listener, contextlib.ExitStack() as ends:
        # a full queue drops what comes, as a host that is off does
        for _ in range(4):
            waiting = ends.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        assert kind(of(listener)) is Silence.UNREACHABLE


def test_what_proves_life_and_what_proves_a_way_to_the_host() -> None:
    lives = {k for k in Silence if k.lives}
    assert lives == {Silence.CROWDED, Silence.LOGIN, Silence.ANSWERED}
    assert {k for k in Silence if not k.host_answers} == {Silence.UNREACHABLE, Silence.OTHER}
