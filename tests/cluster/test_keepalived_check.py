"""What keepalived asks a proxy host: only HAProxy with the route that was accepted last may hold the address."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.support import netns
from tests.support.lab import PROGRAM, Lab, run_to_end
from tests.support.load import ROOT_FOLDER
from tests.support.process import find_program
from tests.support.wait import until

SITE = """\
version: 1
clusters:
  shop:
    account: {user: proxyroute, password: {env: ENGINE_PASSWORD}}
    replication: {user: repl, password: {env: REPL_PASSWORD}}
    servers: {db1: 10.0.0.1:3306, db2: 10.0.0.2:3306}
    proxies:
      - {type: haproxy-agents, name: edge1, folder: /mnt/routes, key_file: /etc/proxyroute/shared.key, write: "*:3306"}
      - {type: haproxy-agents, name: edge2, folder: /mnt/routes, key_file: /etc/proxyroute/shared.key, write: "*:3306"}
"""
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


@pytest.mark.parametrize("more", ["", "advertisement: 200ms", "track_process: haproxy"])
def test_what_the_guide_configures_is_rendered_to_what_keepalived_takes(tmp_path: Path, more: str) -> None:
    try:
        netns.require()
    except netns.Unavailable as reason:
        pytest.skip(str(reason))
    guide = (ROOT_FOLDER / "docs" / "guide" / "vrrp.md").read_text()
    part = textwrap.dedent(guide.partition("   ```\n")[2].partition("   ```\n")[0])
    assert part.startswith("vrrp:")
    config = tmp_path / "proxyroute.yml"
    text = SITE + textwrap.indent(part, "    ") + "      check: [/bin/true, --socket, /run/haproxy/admin.sock]\n"
    config.write_text(f"{text}      {more}\n")
    files = json.loads(run_to_end([str(PROGRAM), "--config", str(config), "render", "keepalived", "--json"]).stdout)
    assert set(files) == {"edge1", "edge2"}
    for number, host in enumerate(sorted(files), 1):
        file = tmp_path / f"{host}.conf"
        file.write_text(files[host]["/etc/keepalived/keepalived.conf"])
        # eth0 of a namespace that goes with the command
        address = f"ip addr add 10.0.0.1{number}/24 dev eth0"
        cable = f"ip link add name eth0 type veth peer name e1 && {address} && ip link set eth0 up"
        argv = [find_program("unshare"), "--net", "sh", "-ec", f'{cable} && exec "$0" -t -f "$1"']
        done = subprocess.run([*argv, find_program("keepalived"), file], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
