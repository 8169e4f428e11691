"""The backends alone, for people who own the rest of their configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from proxyroute.haproxy.render import backends, render
from proxyroute.haproxy.settings import Settings
from proxyroute.model import Address, Endpoint
from tests.contract.subjects import table
from tests.support.process import find_program

FLAVOURS = ("mariadb-11.8",)

SERVERS = (Endpoint("db1", Address("10.0.0.1", 3306)), Endpoint("db2", Address("10.0.0.2", 3307)))
OWN = """\
defaults
    mode tcp
    timeout connect 3s
    timeout client 1m
    timeout server 1m

frontend mine
    bind 127.0.0.1:9
    default_backend shop_write_db1
"""


@pytest.mark.usefixtures("flavour")
def test_haproxy_takes_the_backends_beside_a_configuration_of_ones_own(tmp_path: Path) -> None:
    made = Settings(config_file=tmp_path / "haproxy.cfg", write="*:3306", read="*:3307", stats="*:8404")
    text = backends(render(table(SERVERS, (1, 1), "db1"), made).config)
    sections = [line for line in text.splitlines() if line and not line[0].isspace() and not line.startswith("#")]
    assert sections == ["backend shop_write_db1", "backend shop_write_db2", "backend shop_read"]
    (tmp_path / "own.cfg").write_text(OWN)
    (tmp_path / "backends.cfg").write_text(text)
    argv = [find_program("haproxy"), "-c", "-f", str(tmp_path / "own.cfg"), "-f", str(tmp_path / "backends.cfg")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "server db2 10.0.0.2:3307 check weight 100" in text
    assert "bind" not in text
