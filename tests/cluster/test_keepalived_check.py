"""What keepalived asks a proxy host: only HAProxy with the route that was accepted last may hold the address."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.support import netns
from tests.support.lab import Lab
from tests.support.load import ROOT_FOLDER
from tests.support.process import find_program
from tests.support.wait import until

CHECK = ROOT_FOLDER / "scripts" / "keepalived" / "check"


def asked(lab: Lab) -> tuple[int, str]:
    host = lab.hosts[0]
    argv = [CHECK, "--socket", host.haproxy.runtime_socket, "--state", host.state_dir]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout + done.stderr


def test_a_host_may_hold_the_address_only_with_the_route_that_was_accepted_last() -> None:
    with Lab.start(2, hosts=1, proof=False) as lab:
        host = lab.hosts[0]
        assert asked(lab) == (0, "")

        host.kill_agent()
        assert asked(lab) == (0, ""), "an agent that is dead takes no good route away"

        host.haproxy.kill9()
        status, why = asked(lab)
        assert status == 1
        assert "HAProxy does not answer" in why

        host.start_haproxy()
        status, why = asked(lab)
        assert status == 1, "nothing has confirmed its route since it started"
        assert "HAProxy routes to !closed/" in why

        host.start_agent()
        until(lambda: asked(lab) == (0, ""), "the agent to confirm the route", pause=0.1)
        assert lab.run("switchover", "--yes", "--to", "db2").returncode in (0, 7)
        assert asked(lab) == (0, "")

        host.haproxy.ask(f"set map {host.map_file} route db1/1.1")
        status, why = asked(lab)
        assert status == 1
        assert "HAProxy routes to db1/1.1, and db2/" in why


def test_a_host_that_has_accepted_nothing_may_not(tmp_path: Path) -> None:
    done = subprocess.run([CHECK, "--state", str(tmp_path)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "no agent has accepted a route" in done.stdout


def test_the_configuration_in_the_guide_is_one_that_keepalived_takes(tmp_path: Path) -> None:
    try:
        netns.require()
    except netns.Unavailable as reason:
        pytest.skip(str(reason))
    guide = (ROOT_FOLDER / "docs" / "guide" / "vrrp.md").read_text()
    text = textwrap.dedent(guide.partition("   ```\n")[2].partition("   ```\n")[0])
    script = "/usr/local/lib/proxyroute/check"
    assert script in text
    file = tmp_path / "keepalived.conf"
    file.write_text(text.replace(script, "/bin/true"))
    # eth0 of a namespace that goes with the command
    cable = "ip link add name eth0 type veth peer name e1 && ip addr add 10.0.0.11/24 dev eth0 && ip link set eth0 up"
    argv = [find_program("unshare"), "--net", "sh", "-ec", f'{cable} && exec "$0" -t -f "$1"']
    done = subprocess.run([*argv, find_program("keepalived"), file], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
