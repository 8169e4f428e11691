"""Whoever speaks TLS without an authority of its own trusts those of the machine, not those that a library brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.assembly import build_lease
from proxyroute.config import load
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice
from proxyroute.notify_receivers import Webhook
from proxyroute.trust import authorities
from tests.contract.maxscales import MaxScaleSubject
from tests.contract.subjects import soon, table
from tests.support.maxscale.double import Tls
from tests.support.receivers import Certificate, WebService, certificate

CONFIG = """\
version: 1
lease: {{type: etcd, endpoints: ["{url}"]}}
clusters:
  shop:
    account: {{user: proxyroute, password: {{env: ENGINE_PASSWORD}}}}
    replication: {{user: repl, password: {{env: REPL_PASSWORD}}}}
    servers: {{db1: "10.0.0.1", db2: "10.0.0.2"}}
"""


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certified"))


@pytest.fixture
def trusted(certified: Certificate, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """A certificate by an authority that the machine trusts, and nobody else."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certified.ca))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return certified


def test_a_webhook(trusted: Certificate) -> None:
    with WebService(trusted) as service:
        Webhook("w", lambda: service.url).deliver(Notice("shop", "trouble", "x"), Deadline.after(10))
    assert len(service.requests) == 1


def test_a_webhook_by_the_name_that_the_environment_has_for_it(
    certified: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certified.ca))
    with WebService(certified) as service:
        Webhook("w", lambda: service.url).deliver(Notice("shop", "trouble", "x"), Deadline.after(10))
    assert len(service.requests) == 1


def test_a_maxscale(trusted: Certificate, tmp_path: Path) -> None:
    subject = MaxScaleSubject(tmp_path, "driving", tls=Tls(trusted.cert, trusted.key))
    with subject.double.start():
        assert subject.adapter().settle(table(subject.servers, (1, 1), "db1"), soon()).state == "done"


def test_an_etcd(trusted: Certificate, tmp_path: Path) -> None:
    with WebService(trusted) as service:
        path = tmp_path / "proxyroute.yml"
        path.write_text(CONFIG.format(url=service.url.removesuffix("/hook/t0ken")))
        told = [f.text for f in build_lease(load(path).cluster(None)).findings(soon())]
    assert told
    assert not any("TLS" in text for text in told), "it is no etcd, but it is trusted"


def test_one_that_is_named_counts_alone(trusted: Certificate, tmp_path: Path) -> None:
    assert authorities(tmp_path / "ca.pem") == str(tmp_path / "ca.pem")


def test_a_machine_has_them_in_a_file_or_a_folder_or_nowhere(
    trusted: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert authorities(None) == str(trusted.ca)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    for folder in (tmp_path / "none", tmp_path):
        monkeypatch.setenv("SSL_CERT_DIR", str(folder))
        assert authorities(None) is True, "those that come with the library: nobody is in the folder"
    (tmp_path / "5ed36f99.0").touch()
    assert authorities(None) == str(tmp_path)
