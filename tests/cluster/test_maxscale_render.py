"""``proxyroute render`` for a MaxScale: a whole configuration that it would take, before it is there or after."""

from __future__ import annotations

import configparser
from collections.abc import Callable

import pytest

from tests.cluster.test_scenarios_maxscale import MODES, begin
from tests.support.maxscale.site import MaxScaleLab
from tests.support.maxscale.versions import VERSIONS, defaults

__all__ = ["begin"]
COMMENT = 0.25
"""At least this part of the lines explains the others."""
KINDS = {"readwritesplit": "readwritesplit", "readconnroute": "readconnroute", "mariadbmon": "monitor"}
NAMING = {"type", "module", "router", "servers", "cluster", "protocol", "service", "user", "password"}
"""What says what a section is or whom it belongs to; every kind that has it takes it."""


def parsed(text: str) -> configparser.ConfigParser:
    """Reads the text as MaxScale does: no interpolation, whole lines as comments, nothing said twice."""
    found = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    found.read_string(text)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_what_is_rendered_is_whole_explained_and_known_to_every_version(
    begin: Callable[..., MaxScaleLab], mode: str
) -> None:
    site = begin(mode)
    done = site.run("render", "--proxy", "mxs1", check=True)
    head, _, text = done.stdout.partition("\n")
    assert head == "# ---- mxs1: /etc/maxscale.cnf"
    found = parsed(text)
    for version in VERSIONS:
        for section in found.sections():
            values = dict(found[section])
            kind = values.get("router") or values.get("module") or values.get("type") or "maxscale"
            known = set(defaults(KINDS.get(kind, kind), version))
            unknown = set(values) - known - NAMING
            assert not unknown, f"{version} does not know {unknown} in [{section}]"
    lines = [line for line in text.splitlines() if line.strip()]
    assert sum(line.startswith("#") for line in lines) >= COMMENT * len(lines), "it is not explained"
    for node in site.cluster:
        assert (found[node.name]["address"], found[node.name]["port"]) == (node.address.host, str(node.address.port))
    split = next(found[s] for s in found.sections() if found[s].get("router") == "readwritesplit")
    for name in ("delayed_retry", "transaction_replay", "master_reconnection"):
        assert split[name] == "true", "what makes switchovers free of errors"
    assert split["master_failure_mode"] == "fail_on_write"
    ports = {found[s]["port"] for s in found.sections() if found[s].get("type") == "listener"}
    assert ports == {str(site.write.port), str(site.read.port)}, "clients find it where the proof looks"
    monitors = [found[s] for s in found.sections() if found[s].get("type") == "monitor"]
    assert len(monitors) == (mode == "following")
    for monitor in monitors:
        wills = ("auto_", "enforce_", "switchover_on")
        own = {name: value for name, value in monitor.items() if name.startswith(wills)}
        assert set(own.values()) == {"false"}
        assert {"auto_failover", "auto_rejoin", "switchover_on_low_disk_space"} <= set(own)
    assert "lab-" not in text, "no password is rendered"


def test_what_is_rendered_runs_the_double_and_passes_the_check(begin: Callable[..., MaxScaleLab]) -> None:
    """The double is given what was rendered for services and monitor; then nothing that can be set is warned of."""
    site = begin("following")
    found = parsed(site.run("render", "--proxy", "mxs1", check=True).stdout)
    machine = site.double.machine
    for section in found.sections():
        values = dict(found[section])
        if values.get("router") in KINDS:
            service = next(s for s in machine.services.values() if s.router == values["router"])
            service.parameters |= {k: v == "true" if v in ("true", "false") else v for k, v in values.items()}
        if values.get("module") == "mariadbmon":
            known = machine.monitors["Mon"].parameters
            known |= {name: value for name, value in values.items() if name in known}
    _, value = site.json("check")
    told = {f["code"]: f for f in value["findings"] if f["code"].startswith("maxscale.")}
    assert told.pop("maxscale.default_password")["severity"] == "warning"
    clients = told.pop("maxscale.clients")  # a monitor's own delay is all that is left: no setting takes it away
    assert ("1290" in clients["text"], clients["cure"]) == (True, "")
    assert {f["severity"] for f in told.values()} <= {"info"}, value["findings"]


def test_it_is_rendered_before_there_is_a_maxscale(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving")
    before = site.json("render")[1]
    site.double.stop()
    status, value = site.json("render")
    assert (status, list(value), list(value["mxs1"])) == (0, ["mxs1"], ["/etc/maxscale.cnf"])
    assert value == before


def test_mistakes_are_told_where_they_are(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving")
    wrong = site.run("render", "--proxy", "mxs2")
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
    assert "mxs1" in wrong.stderr, "the name that is meant"
    template = site.folder / "own.cnf.j2"
    for text, told in (
        ("[maxscale]\n{% if %}\n", f"{template}:2"),
        ("[maxscale]\nthreads={{ thread_count }}\n", "'thread_count' is undefined"),
    ):
        template.write_text(text)
        site.change_proxy(template=str(template))
        done = site.run("render")
        assert done.returncode == 2, done.stdout + done.stderr
        assert told in done.stderr
        assert str(template) in done.stderr
    for name in ("nowhere.j2", "maxscale.cnf.j2"):  # the second one is the name of ours, which must not stand in
        site.change_proxy(template=str(site.folder / name))
        done = site.run("render")
        assert done.returncode == 2, done.stdout
        assert f"{site.folder / name} does not exist" in done.stderr
    template.write_text("# {{ cluster }} at {{ url }}\n")
    site.change_proxy(template=str(template))
    assert site.double.url in site.run("render", check=True).stdout
