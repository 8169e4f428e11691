"""The daemon with its API on real servers: it tells what it sees to those with a token, and comes to a clean end."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.support.lab import Lab
from tests.support.serving import serving
from tests.support.wait import until


def test_what_the_daemon_sees_is_told_to_those_with_a_token(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Lab.start(2) as lab:
        values = yaml.safe_load(lab.config.read_text())
        lab.config.write_text(yaml.safe_dump(values | {"web": {"listen": f"127.0.0.1:{port}"}}))
        make = lab.command("token", "create", "ann", "--scope", "operate")
        made = subprocess.run(make, capture_output=True, text=True, check=True).stdout.strip()
        url = f"http://127.0.0.1:{port}/v1/clusters"
        with serving(lab) as served:
            assert requests.get(url, timeout=10).status_code == 401

            def seen() -> dict[str, Any] | None:
                told = requests.get(url, headers={"Authorization": f"Bearer {made}"}, timeout=10).json()[0]
                return told if told["primary"] else None

            told = until(seen, "the primary to be told", 20)
            assert told["primary"] == "db1"
            assert told["blocks_switchover"] == []
            assert made not in served.log.read_text()
