"""Who is let in where, one row for each route; and what stands before all of them."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi import Request, Response

from proxyroute.config_web import WebConfig
from proxyroute.errors import ConfigError, Refused
from proxyroute.model import Address
from proxyroute.web import server as web_server
from proxyroute.web.auth import COOKIE
from proxyroute.web.describe import routes_of, scope_of
from proxyroute.web.guarding import LONGEST_BODY
from proxyroute.web.limits import Rate
from proxyroute.web.server import check_files, served
from proxyroute.web.tokens import Scope
from tests.support.builders import replica, server, view
from tests.support.certificates import make_certificate
from tests.support.process import free_port
from tests.support.wait import until
from tests.support.web import PASSWORD, Web, listening, make_web, secret_of

OPEN = None
CLUSTER, HISTORY = "/v1/clusters/{cluster}", "/v1/clusters/{cluster}/history"
ROUTES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/v1/openapi.json"): Scope.READ,
    ("GET", "/v1/clusters"): Scope.READ,
    ("GET", CLUSTER): Scope.READ,
    ("GET", f"{CLUSTER}/servers"): Scope.READ,
    ("GET", f"{CLUSTER}/servers/{{server}}"): Scope.READ,
    ("GET", f"{CLUSTER}/topology"): Scope.READ,
    ("GET", f"{CLUSTER}/proxies"): Scope.READ,
    ("GET", f"{CLUSTER}/receipts"): Scope.READ,
    ("GET", f"{CLUSTER}/aside"): Scope.READ,
    ("GET", f"{CLUSTER}/archives"): Scope.OPERATE,
    ("GET", f"{CLUSTER}/plan/switchover"): Scope.READ,
    ("GET", f"{CLUSTER}/plan/failover"): Scope.READ,
    ("GET", f"{CLUSTER}/check"): Scope.READ,
    ("GET", f"{CLUSTER}/orders"): Scope.READ,
    ("POST", f"{CLUSTER}/operations"): Scope.OPERATE,
    ("GET", "/v1/operations"): Scope.READ,
    ("GET", "/v1/operations/{operation}"): Scope.READ,
    ("GET", "/v1/operations/{operation}/records"): Scope.READ,
    ("POST", "/v1/operations/{operation}/call-off"): Scope.OPERATE,
    ("GET", HISTORY): Scope.READ,
    ("GET", f"{HISTORY}/{{operation}}"): Scope.READ,
    ("GET", f"{HISTORY}/{{operation}}/records"): Scope.READ,
    ("GET", "/v1/events"): Scope.READ,
    ("GET", f"{CLUSTER}/settings"): Scope.READ,
    ("GET", "/v1/settings"): Scope.READ,
    ("GET", "/v1/audit"): Scope.ADMIN,
    ("GET", "/metrics"): Scope.READ,
    ("GET", "/liveness"): OPEN,
    ("GET", "/readiness"): OPEN,
    ("GET", "/health"): OPEN,
    **{
        (method, f"{prefix}/health/{{cluster}}/{what}"): OPEN
        for method in ("GET", "OPTIONS")
        for prefix in ("", "/v1")
        for what in ("{question}", "{server}/{question}")
    },
    **{("OPTIONS", path): OPEN for path in ("/liveness", "/readiness", "/health")},
    # the pages; a browser is sent to /login instead of being told 401
    ("GET", "/"): Scope.READ,
    ("GET", "/live/overview"): Scope.READ,
    ("GET", "/clusters/{cluster}"): Scope.READ,
    ("GET", "/live/clusters/{cluster}"): Scope.READ,
    ("GET", "/operations"): Scope.READ,
    ("GET", "/clusters/{cluster}/operations"): Scope.READ,
    ("GET", "/clusters/{cluster}/operations/{operation}"): Scope.READ,
    ("GET", "/live/clusters/{cluster}/operations/{operation}"): Scope.READ,
    ("GET", "/audit"): Scope.ADMIN,
    ("GET", "/settings"): Scope.READ,
    ("GET", "/clusters/{cluster}/settings"): Scope.READ,
    ("POST", "/logout"): Scope.READ,
    ("GET", "/static/{name}"): OPEN,
    ("GET", "/login"): OPEN,
    ("POST", "/login"): OPEN,
    **{
        ("GET", f"/clusters/{{cluster}}/{what}"): Scope.OPERATE
        for what in ("switchover", "failover", "rejoin", "heal", "more", "archives")
    },
    **{
        ("POST", f"/clusters/{{cluster}}/{what}"): Scope.OPERATE
        for what in (
            "switchover",
            "failover",
            "rejoin",
            "heal",
            "publish",
            "acknowledge",
            "maintenance",
            "rank",
            "pause",
            "reset-orders",
            "operations/{operation}/call-off",
        )
    },
}
"""What each route needs. A new one needs a row here."""
_LOGIN = ("POST", "/login")
SESSION = f"{COOKIE}_8480"
"""Lets in by what is sent with it; see test_pages.py."""
_NAMES = {
    "cluster": "shop",
    "server": "db1",
    "operation": "20261101T000000-abcdef",
    "question": "health",
    "name": "pages.css",
}
_WHO = ("nobody", "nonsense", "revoked", "read", "operate", "admin", "session", "session without csrf", "other site")


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    made = make_web(tmp_path)

    def nothing(*_: Any, **__: Any) -> Any:
        raise Refused("no server is asked here; look elsewhere")

    monkeypatch.setattr(made.hub, "plan_switchover", nothing)
    monkeypatch.setattr(made.hub, "plan_failover", nothing)
    monkeypatch.setattr(made.hub, "check", nothing)
    made.app.state.streams.most = 0  # a stream would not end
    return made


def test_every_route_has_a_row_and_every_row_a_route(web: Web) -> None:
    there = {(method, path) for path, route in routes_of(web.app) for method in set(route.methods or ()) - {"HEAD"}}
    assert there == set(ROUTES)


def test_the_description_tells_which_scope_a_route_needs(web: Web) -> None:
    for path, route in routes_of(web.app):
        for method in set(route.methods or ()) - {"HEAD"}:
            assert scope_of(route) == ROUTES[method, path], path


def session_of(web: Web, scope: Scope, name: str = "somebody") -> tuple[str, str]:
    """Returns the cookie and the CSRF token of a new session, made from a token called ``name``."""
    scope_ = {
        "type": "http", "method": "POST", "path": "/login", "query_string": b"", "scheme": "http", "app": web.app,
        "headers": [(b"host", b"127.0.0.1:8480")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8480),
    }  # fmt: skip
    response = Response()
    principal = web.app.state.auth.login(Request(scope_), response, web.token(scope, name))
    return response.headers["set-cookie"].partition(";")[0].partition("=")[2], principal.csrf


def headers_of(web: Web, who: str, scope: Scope) -> dict[str, str]:
    if who == "nobody":
        return {}
    if who in ("read", "operate", "admin"):
        return {"Authorization": f"Bearer {web.token(Scope.parse(who))}"}
    if who in ("nonsense", "revoked"):
        token = web.token(Scope.ADMIN, "gone")
        web.tokens.revoke("gone")
        return {"Authorization": f"Bearer {token if who == 'revoked' else 'pr_abc_def'}"}
    cookie, csrf = session_of(web, scope, who)
    headers = {"Cookie": f"{SESSION}={cookie}"}
    if who != "session without csrf":
        headers["X-CSRF-Token"] = csrf
    return headers | ({"Origin": "https://evil.example"} if who == "other site" else {})


def expected(who: str, needed: Scope | None, changing: bool) -> int | None:
    """Returns with which status somebody is kept out; None when he is let in."""
    if needed is None:
        return None
    if who in ("nobody", "nonsense", "revoked"):
        return 401
    if who in ("read", "operate", "admin"):
        return None if Scope.parse(who) >= needed else 403
    return 403 if changing and who != "session" else None


@pytest.mark.parametrize(("method", "path"), sorted(set(ROUTES) - {_LOGIN}))
def test_each_route_lets_in_who_may_and_nobody_else(web: Web, method: str, path: str) -> None:
    needed = ROUTES[method, path]
    for who in _WHO:
        headers = headers_of(web, who, needed or Scope.READ)
        before = web.hub.audit.last(), web.hub.tickets("shop")
        answer = web.client(headers=headers).request(
            method, path.format(**_NAMES), json={"kind": "acknowledge"} if method == "POST" else None,
            follow_redirects=False,
        )  # fmt: skip
        status = expected(who, needed, method not in ("GET", "OPTIONS"))
        if status is None:
            assert answer.status_code not in (401, 403), (who, answer.text)
            continue
        assert answer.status_code == status, (who, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", who
        assert answer.json()["detail"], who
        assert web.hub.tickets("shop") == before[1], f"{who} has changed something"
        new = [e.what for e in web.hub.audit.last() if e not in before[0]]
        assert new == (["token.failed"] if who in ("nonsense", "revoked") else []), who


def test_a_form_of_another_site_changes_nothing(web: Web) -> None:
    """As a browser sends it: with the cookie of a session of ours, if SameSite had not kept it back."""
    cookie, _ = session_of(web, Scope.ADMIN)
    client = web.client(headers={"Cookie": f"{SESSION}={cookie}", "Origin": "https://evil.example"})
    answer = client.post("/v1/clusters/shop/operations", data={"kind": "switchover"})
    assert answer.status_code == 403
    assert "another site" in answer.json()["detail"]
    assert web.hub.tickets("shop") == ()


@pytest.mark.parametrize("path", ["/v1/clusters", "/v1/nope", "/health/shop/db1/primary", "/v1/clusters/shop"])
def test_every_answer_has_the_headers_that_browsers_heed(web: Web, path: str) -> None:
    for client in (web.client(), web.client(Scope.READ)):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
        assert "strict-transport-security" not in headers
        web.tokens.revoke("read") if "authorization" in client.headers else None


def test_a_mistake_of_ours_tells_no_secret_and_is_no_page_of_its_own(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise KeyError(PASSWORD)

    monkeypatch.setattr(web.hub, "states", broken)
    with listening(web) as url:
        answer = requests.get(
            f"{url}/v1/clusters", headers={"Authorization": f"Bearer {web.token()}"}, timeout=10
        )  # fmt: skip
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert PASSWORD not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8480", 200), ("localhost:8480", 200), ("[::1]:8480", 200), ("10.9.8.7", 200),
        (socket.gethostname(), 200), ("proxies.example.org", 200), ("PROXIES.example.org:443", 200),
        ("rebound.evil.example", 421), ("", 200), ("[nonsense", 421),
    ],
)  # fmt: skip
def test_only_names_of_ours_are_answered_for(tmp_path: Path, host: str, status: int) -> None:
    web = make_web(tmp_path, settings=WebConfig(hosts=("proxies.example.org",)))
    web.app.state.streams.most = 0
    answer = web.client(Scope.READ, {"Host": host}).get("/v1/clusters")
    assert answer.status_code == status
    web.see(view(server(1), replica(2), replica(3)))
    assert web.client(headers={"Host": host}).get("/health/shop/db1/primary").status_code == 200


def test_a_body_has_its_limit_whether_it_says_its_length_or_not(web: Web) -> None:
    client, path = web.client(Scope.OPERATE), "/v1/clusters/shop/operations"
    whole = json.dumps({"kind": "heal", "reason": "x" * LONGEST_BODY}).encode()
    assert client.post(path, content=whole).status_code == 413

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(whole), 1000):
            yield whole[start : start + 1000]

    answer = client.post(path, content=pieces(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["title"]) == (413, "Too large")
    assert web.hub.tickets("shop") == ()


def test_who_sends_nonsense_again_and_again_is_slowed_down_and_nobody_else(web: Web) -> None:
    client = web.client(headers={"Authorization": "Bearer pr_00000000_nonsense"})
    answers = [client.get("/v1/clusters") for _ in range(12)]
    assert [a.status_code for a in answers] == [401] * 10 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert web.client(Scope.READ).get("/v1/clusters").status_code == 200  # from the same address
    assert {e.what for e in web.hub.audit.last()} == {"token.failed"}
    assert {e.address for e in web.hub.audit.last()} == {"testclient"}


def test_a_rate_comes_back_and_remembers_only_so_many() -> None:
    now = [0.0]
    rate = Rate(2, 60, most=3, clock=lambda: now[0])
    assert [rate.take("a"), rate.take("a"), rate.take("a")] == [0.0, 0.0, 1.0]
    assert rate.take("b") == 0.0
    now[0] = 1.0
    assert (rate.take("a"), rate.take("a")) == (0.0, 1.0)
    for n in range(100):
        rate.take(str(n))
    assert len(rate) == 3


def test_login_and_logout_are_in_the_audit_and_a_session_ends(web: Web) -> None:
    cookie, _ = session_of(web, Scope.READ)
    client = web.client(headers={"Cookie": f"{SESSION}={cookie}"})
    assert client.get("/v1/clusters").status_code == 200
    scope = {"type": "http", "method": "POST", "path": "/logout", "query_string": b"", "scheme": "http", "app": web.app,
             "headers": [(b"cookie", f"{SESSION}={cookie}".encode()), (b"host", b"127.0.0.1:8480")],
             "client": ("10.1.2.3", 1), "server": ("127.0.0.1", 8480)}  # fmt: skip
    web.app.state.auth.logout(Request(scope), Response())
    assert client.get("/v1/clusters").status_code == 401
    out, in_ = web.hub.audit.last()
    assert (in_.what, in_.who, out.what, out.address) == ("login", "somebody", "logout", "10.1.2.3")


def test_with_a_full_disk_one_logs_in_and_looks_and_cannot_act(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    web.see(view(server(1), replica(2), replica(3)))
    token = web.token(Scope.OPERATE, "ann")

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client = web.client(headers={"Accept": "text/html"})
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert client.post("/login", data={"token": token}).status_code == 200
        page = client.get("/clusters/shop").text
        assert "db1 takes writes" in page
        csrf = re.search(r'name="csrf" value="([^"]+)"', page)
        assert csrf is not None
        answer = client.post("/clusters/shop/publish", data={"csrf": csrf[1]})
        assert answer.status_code == 503
        assert "No space left on device" in answer.text
        assert client.post("/login", data={"token": "pr_0_nonsense"}).status_code == 401
    assert web.hub.tickets("shop") == ()
    assert "ann from testclient logged in, and it is not in the audit" in caplog.text
    assert token not in caplog.text


def test_no_secret_is_in_any_answer_event_or_file(web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    web.see(view(server(1), replica(2), replica(3)))
    token = web.token(Scope.ADMIN)
    cookie, csrf = session_of(web, Scope.ADMIN)
    client = web.client(headers={"Authorization": f"Bearer {token}"})
    client.post("/v1/clusters/shop/operations", json={"kind": "heal", "reason": "why not"})
    until(lambda: all(t.over for t in web.hub.tickets("shop")), "the command to end")
    paths = [p.format(**_NAMES) for (method, p) in ROUTES if method == "GET"]
    said = [client.get(path).text for path in paths]
    said += [json.dumps(e.data) for e in web.hub.events.after("", 5000)[0]]
    said += [f.read_text() for f in (tmp_path / "state").rglob("*") if f.is_file()]
    said += [caplog.text]
    for secret in (PASSWORD, secret_of(token), cookie, csrf):
        assert not [text for text in said if secret in text]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listen": Address("0.0.0.0", 8480)}, "in the clear"),
        ({"listen": Address("10.0.0.1", 8480)}, "in the clear"),
        ({"cert": Path("x.pem")}, "cert and key come together"),
        ({"health": "perhaps"}, "open or token"),
        ({"trusted_proxies": ("proxy.example",)}, "not an address"),
        ({"origins": ("https://x.example.org/",)}, r"write https://x\.example\.org$"),
        ({"origins": ("https://X.example.org:443",)}, r"write https://x\.example\.org$"),
        ({"origins": ("http://[::1]:80/a?b",)}, r"write http://\[::1\]$"),
        ({"origins": ("x.example.org",)}, "not what a browser sends"),
        ({"origins": ("http://[",)}, "not what a browser sends"),
        ({"origins": ("null",)}, "not what a browser sends"),
        ({"hosts": ("x.example.org:443",)}, "without scheme and port"),
        ({"hosts": ("https://x.example.org",)}, "without scheme and port"),
    ],
)
def test_settings_that_would_give_tokens_away_or_never_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WebConfig(**settings)


@pytest.mark.parametrize("origin", ["https://x.example.org", "http://10.0.0.1:8000", "https://[2001:db8::1]:8443"])
def test_an_origin_as_a_browser_sends_it_is_one_of_ours(tmp_path: Path, origin: str) -> None:
    web = make_web(tmp_path, settings=WebConfig(origins=(origin,)))
    cookie, csrf = session_of(web, Scope.ADMIN)
    headers = {"Cookie": f"{SESSION}={cookie}", "X-CSRF-Token": csrf, "Origin": origin}
    answer = web.client(headers=headers).post("/v1/clusters/shop/operations", json={"kind": "publish"})
    assert answer.status_code == 202, answer.text


def test_who_asks_is_told_by_a_proxy_only_if_it_is_trusted(tmp_path: Path) -> None:
    web = make_web(tmp_path)
    forged = {"Authorization": "Bearer nonsense", "X-Forwarded-For": "192.0.2.7"}
    for trusted, address in (((), "127.0.0.1"), (("127.0.0.1",), "192.0.2.7")):
        settings = WebConfig(listen=Address("127.0.0.1", free_port()), trusted_proxies=trusted)
        web.app.state.streams.__init__()  # type: ignore[misc]
        with served(web.app, settings):
            assert requests.get(f"http://{settings.listen}/v1/clusters", headers=forged, timeout=10).status_code == 401
        assert web.hub.audit.last()[0].address == address


def test_tls_by_files_which_may_be_renewed_while_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = make_certificate(tmp_path / "old"), make_certificate(tmp_path / "new")
    settings = WebConfig(listen=Address("127.0.0.1", free_port()), cert=old.cert, key=old.key)
    web = make_web(tmp_path, settings=settings)
    monkeypatch.setattr(web_server, "_RENEW_EVERY", 0.05)
    with served(web.app, settings):
        url = f"https://{settings.listen}/liveness"
        answer = requests.get(url, verify=str(old.ca), timeout=10)
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises(requests.ConnectionError):
            requests.get(url.replace("https", "http"), timeout=10)
        old.cert.write_text("no certificate")
        until(lambda: "the certificate in use stays" in caplog.text, "the bad file to be told")
        assert requests.get(url, verify=str(old.ca), timeout=10).status_code == 200
        shutil.copy(new.key, old.key)
        shutil.copy(new.cert, old.cert)

        def renewed() -> bool:
            try:
                return requests.get(url, verify=str(new.ca), timeout=10).ok
            except requests.exceptions.SSLError:
                return False

        until(renewed, "the new certificate to be used")


def test_files_that_cannot_be_used_for_tls_are_named(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    with pytest.raises(ConfigError, match=r"nowhere\.pem: No such file"):
        check_files(WebConfig(cert=tmp_path / "nowhere.pem", key=made.key))
    with pytest.raises(ConfigError, match=r"cannot be used: .*web\.cert is the certificate"):
        check_files(WebConfig(cert=made.cert, key=tmp_path / "ca.key"))
    with pytest.raises(ConfigError, match="without a passphrase"):
        check_files(WebConfig(cert=made.key, key=made.key))
