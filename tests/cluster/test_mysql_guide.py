"""Servers with exactly the option file of the guide: nothing is found wanting, and the primary moves."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.mysql import MySQLCluster
from tests.support.scene import assert_order, switched

pytestmark = pytest.mark.matrix
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "mysql.md"
OF_EACH = {"server_id", "report_host"}


def option_file() -> dict[str, str]:
    """The option file of the guide, without what differs from server to server."""
    parser = ConfigParser(inline_comment_prefixes=("#",))
    parser.read_string(GUIDE.read_text().partition("```ini\n")[2].partition("```")[0])
    assert set(parser["mysqld"]) > OF_EACH
    return {name: value for name, value in parser["mysqld"].items() if name not in OF_EACH}


def test_nothing_is_found_wanting_and_the_primary_moves() -> None:
    with Lab.start(3, provider=MySQLCluster, options=option_file()) as lab:
        _, value = lab.json("check")
        assert [f for f in value["findings"] if f["severity"] != "info"] == []
        assert switched(lab)["verdict"] == "PROVEN"
        assert_order(lab)
