"""Mistakes in the section ``web`` of the configuration are told where they are, before anybody is kept out by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.config import InvalidConfig, load

FILE = """\
version: 1
web: {mistake}
clusters:
  shop:
    account: {{user: u, password: {{env: P}}}}
    replication: {{user: u, password: {{env: P}}}}
    servers: {{db1: 10.0.0.1}}
"""


@pytest.mark.parametrize(
    ("mistake", "field", "told"),
    [
        ("{origins: ['https://x.example.org/']}", "origins", "write https://x.example.org"),
        ("{origins: ['http://[']}", "origins", "not what a browser sends"),
        ("{hosts: ['x.example.org:443']}", "hosts", "without scheme and port"),
        ("{hosts: 3}", "hosts", "must be a list; write hosts: [NAME]"),
        ("{listen: 0.0.0.0:8480}", "listen", "in the clear"),
    ],
)
def test_a_mistake_is_told_where_it_is(tmp_path: Path, mistake: str, field: str, told: str) -> None:
    file = tmp_path / "proxyroute.yml"
    file.write_text(FILE.format(mistake=mistake))
    with pytest.raises(InvalidConfig) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (2, f"web.{field}")
    assert told in problem.text
