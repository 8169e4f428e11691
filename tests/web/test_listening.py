"""Where nobody can listen, the reason is told: not every port that cannot be had is taken."""

from __future__ import annotations

import socket

import pytest
from fastapi import FastAPI

from proxyroute.config_web import WebConfig
from proxyroute.errors import ConfigError
from proxyroute.model import Address
from proxyroute.web.server import served


def refused(address: Address) -> str:
    with pytest.raises(ConfigError) as raised, served(FastAPI(), WebConfig(listen=address, plain=True)):
        pytest.fail("it listens")
    return str(raised.value)


def test_a_port_that_is_taken_and_an_address_of_another_host_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address(*other.getsockname()[:2])
        assert refused(taken) == f"cannot listen at {taken}: Address already in use; change web.listen"
    away = refused(Address("192.0.2.1", 8480))
    assert away == "cannot listen at 192.0.2.1:8480: Cannot assign requested address; change web.listen"
