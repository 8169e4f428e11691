"""Whether a channel is one of somebody who is no member: only then is it left where it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxyroute.model import Receiver, Source
from proxyroute.rejoining import is_alone
from proxyroute.topology import stranger
from tests.support.builders import address, channel, replica, server, view

ELSEWHERE = channel(9, address=address(9))


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        (ELSEWHERE, True),
        (channel(1), False),
        (channel(1, address=address(9)), False),  # an alias of a member
        (replace(ELSEWHERE, receiver=Receiver.CONNECTING), False),  # perhaps an alias of one that is down
        (replace(ELSEWHERE, receiver=Receiver.CONNECTING, channel="erp"), True),
        (channel(1, channel="db1", receiver=Receiver.STOPPED), False),
    ],
)
def test_a_stranger_is_certain(source: Source, answer: bool) -> None:
    seen = view(server(1), replica(2), replica(3, source))
    assert stranger(seen, source) is answer
    assert is_alone(seen, "db3") is answer
    assert not is_alone(view(server(1), replica(2), replica(3, source, channel(1))), "db3"), "it follows a member too"


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"receiver": Receiver.STOPPED, "receiver_errno": 2003}, True),
        ({"receiver": Receiver.STOPPED, "receiver_errno": 2003, "applier": False}, False),  # by somebody, since
        ({"receiver": Receiver.STOPPED}, False),  # by somebody
        ({"receiver": Receiver.STOPPED, "receiver_errno": 1236}, False),  # what it needs is not there any more
        ({"receiver": Receiver.CONNECTING, "receiver_errno": 2003}, False),  # it tries on
    ],
)
def test_one_that_gave_its_primary_up_follows_nobody(changes: dict[str, Any], answer: bool) -> None:
    assert is_alone(view(server(1), replica(2), replica(3, channel(1, **changes))), "db3") is answer


def test_one_that_gave_up_somebody_else_is_not_asked_to_follow_him() -> None:
    gone = channel(2, receiver=Receiver.STOPPED, receiver_errno=2003)
    assert not is_alone(view(server(1), replica(2), replica(3, gone)), "db3")
