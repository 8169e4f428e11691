"""Real servers behind MaxScale: over HTTPS, with a wrong password, with a monitor in the way, with no replica left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.double import Tls
from tests.support.maxscale.site import MaxScaleLab
from tests.support.scene import assert_order, books, other, served_by, switched
from tests.support.serving import serving
from tests.support.wait import until

MODES = ["driving", "following"]
POLICY = {"freeze_budget": "3s", "lock_pause": "20ms", "lock_attempt": "100ms"}


@pytest.fixture
def begin() -> Iterator[Callable[..., MaxScaleLab]]:
    with contextlib.ExitStack() as ends:

        def made(mode: str, **settings: object) -> MaxScaleLab:
            return ends.enter_context(contextlib.closing(MaxScaleLab.begin(mode, policy=POLICY, **settings)))  # type: ignore[arg-type]

        yield made


def refused(site: MaxScaleLab, code: str, text: str) -> None:
    """Asserts that ``check`` finds ``code``, and that a switchover is refused with ``text`` and touches nothing."""
    status, value = site.json("check")
    assert status == 3
    assert code in {f["code"] for f in value["findings"]}, value
    old, before = site.cluster.primary.name, site.bits()
    with books(site):
        status, value = site.json("switchover", "--yes")
        assert status == 3, value
        assert text in value["error"]["text"], value
    assert site.cluster.primary.name == old
    assert site.bits() == before
    assert [o["outcome"] for o in site.json("history")[1]["operations"] if o["outcome"] == "open"] == []


@pytest.mark.parametrize("mode", ["driving", pytest.param("following", marks=pytest.mark.full)])
def test_over_https_there_and_back(begin: Callable[..., MaxScaleLab], tmp_path: Path, mode: str) -> None:
    certificate = make_certificate(tmp_path)
    site = begin(mode, tls=Tls(certificate.cert, certificate.key), proxy={"ca": str(certificate.ca)})
    old, new = site.cluster.primary.name, other(site)
    with books(site):
        assert switched(site, "--to", new)["verdict"] == "PROVEN"
        assert switched(site, "--to", old)["verdict"] == "PROVEN"
    assert_order(site, old)
    site.change_proxy(ca=None)  # whoever vouches for it is not trusted on this machine
    refused(site, "maxscale.certificate", "certificate verify failed")


def test_a_wrong_password_is_refused_before_anything_is_touched(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving")
    (site.folder / "maxscale.password").write_text("wrong")
    refused(site, "maxscale.password", "Access denied")
    (site.folder / "maxscale.password").write_text("mariadb")
    assert switched(site)["verdict"] == "PROVEN"
    assert_order(site)


def test_a_monitor_that_owns_the_servers_is_refused_and_stopped_only_if_told(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("following")
    site.change_proxy(mode="driving")
    refused(site, "maxscale.monitor", "monitor Mon runs and owns the servers")
    new = other(site)
    site.change_proxy(mode="driving", stop_monitor=True)
    with books(site):
        value = switched(site, "--to", new)
    assert value["verdict"] == "PROVEN", value
    told = {f["code"]: f["text"] for f in value["plan"]["findings"]}
    assert told["maxscale.monitor_stopped"] == "monitor Mon runs and will be stopped (stop_monitor)"
    assert {name for name, bits in site.bits().items() if Bit.MASTER in bits} == {new}
    assert_order(site, new)


@pytest.mark.parametrize("mode", MODES)
def test_with_no_replica_left_reads_go_to_the_primary_and_back(begin: Callable[..., MaxScaleLab], mode: str) -> None:
    site = begin(mode)
    primary = site.cluster.primary.name
    replicas = [node for node in site.cluster if node.name != primary]

    def reader() -> str:
        try:
            return served_by(site, site.read)
        except Exception:  # noqa: BLE001 - refused for the moment, by whatever error of the client library
            return ""

    with serving(site):
        until(lambda: reader() not in ("", primary), "a replica to serve reads")
        for node in replicas:
            node.kill9()
        until(lambda: reader() == primary, "the primary to serve reads", 30)
        for node in replicas:
            node.start()
        until(lambda: reader() not in ("", primary), "a replica to serve reads again", 30)
        until(lambda: all(node.replicates() for node in replicas), "the replicas to follow", 30)
    assert_order(site, primary)
