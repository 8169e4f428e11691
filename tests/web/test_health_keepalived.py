"""A real keepalived asks for a server's health as the guide says, and holds an address only where the primary is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxyroute.model import View
from proxyroute.sight import Sightings
from tests.support import netns
from tests.support.builders import channel, replica, server, view
from tests.support.load import ROOT_FOLDER
from tests.support.process import Daemon, find_program
from tests.support.wait import until
from tests.support.web import Web, listening

ADDRESS = "10.9.8.7"
PATIENCE = 60.0
"""Seconds for keepalived to act: on a busy machine its script may be late, and that counts as a no."""
PORT = 8480
"""Where the guide's script asks."""
INSTANCE = f"""
vrrp_instance writes {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority 100
    advert_int 0.2
    virtual_ipaddress {{ {ADDRESS}/32 }}
    track_script {{ primary }}
}}
"""
GOOD = view(server(1), replica(2), replica(3))
MOVED = view(replica(1, channel(2)), server(2), replica(3, channel(2)))


def of_the_guide() -> str:
    """Returns what the guide has for keepalived, to the letter."""
    guide = (ROOT_FOLDER / "docs" / "guide" / "monitoring.md").read_text()
    text = guide[guide.index("vrrp_script primary {") :].partition("```")[0]
    assert f"127.0.0.1:{PORT}/health/shop/db1/primary" in text
    return text


@pytest.fixture
def host(web: Web, tmp_path: Path) -> Iterator[str]:
    """A host with a network of its own, where the daemon answers at loopback; its name."""
    try:
        netns.require()
        keepalived = find_program("keepalived")
    except (netns.Unavailable, FileNotFoundError) as reason:
        pytest.skip(str(reason))
    mark = netns.mark()
    name = f"{mark}-host"
    config = tmp_path / "keepalived.conf"
    config.write_text("global_defs {\n    script_user root\n}\n" + of_the_guide() + INSTANCE)
    pids = (str(tmp_path / "keepalived.pid"), str(tmp_path / "vrrp.pid"))
    argv = [keepalived, "-n", "-l", "-D", "-P", "-f", str(config), "-p", pids[0], "-r", pids[1]]
    try:
        netns.command(["ip", "netns", "add", name])
        for words in (
            "link set lo up",
            "link add name eth0 type veth peer name e1",
            "addr add 10.9.8.1/24 dev eth0",
            "link set eth0 up",
            "link set e1 up",
        ):
            netns.command(["ip", *words.split()], namespace=name)
        with netns.inside(name), listening(web, PORT):
            daemon = Daemon(argv, tmp_path / "keepalived.log", launcher=netns.launcher(name))
            try:
                yield name
            finally:
                daemon.terminate()
    finally:
        netns.remove(mark)


def held(host: str) -> bool:
    shown = json.loads(netns.command(["ip", "-json", "addr", "show", "dev", "eth0"], namespace=host))
    return any(found["local"] == ADDRESS for link in shown for found in link["addr_info"])


def test_an_address_is_held_only_where_the_primary_is(web: Web, host: str, tmp_path: Path) -> None:
    log = tmp_path / "keepalived.log"

    def keep(seen: View, at: float) -> None:
        web.see(seen, live=lambda: Sightings.of(seen, at))

    def await_held(wanted: bool, when: str) -> None:
        until(lambda: held(host) is wanted, f"the address to be {'held' if wanted else 'let go'} {when}", PATIENCE)

    until(lambda: "(primary) failed" in log.read_text(), "the first answer to be no", PATIENCE)
    assert not held(host)
    for when, change, wanted in _changes(keep):
        change()
        await_held(wanted, when)


def _changes(keep: Callable[[View, float], None]) -> Iterator[tuple[str, Callable[[], None], bool]]:
    yield "where the primary is", lambda: keep(GOOD, time.monotonic() + 3600), True
    yield "when it has moved", lambda: keep(MOVED, time.monotonic() + 3600), False
    yield "when it is back", lambda: keep(GOOD, time.monotonic() + 3600), True
    yield "when nobody looks any more", lambda: keep(GOOD, time.monotonic() - 60), False
