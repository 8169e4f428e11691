"""Those who are to be told are told once, of what became of an operation and of trouble; nothing waits for them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.receivers import MailServer, WebService, silent_port
from tests.support.scene import assert_order, books, configured, other, switched
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {"n": 3, "more": {"serve": {"period": "200ms", "proxies_period": "400ms"}}}
AFTER_COMMIT = "engine/mariadb.accept_writes:after"


@pytest.fixture
def service() -> Iterator[WebService]:
    with WebService() as started:
        yield started


def webhook(site: Lab, url: str, **more: Any) -> dict[str, Any]:
    file = site.folder / f"{abs(hash(url))}.url"
    file.touch(mode=0o600)
    file.write_text(url + "\n")
    return {"type": "webhook", "url": {"file": str(file)}, **more}


@contextlib.contextmanager
def telling(site: Lab, service: WebService, *more: dict[str, Any]) -> Iterator[None]:
    """For a ``with`` block: the site has notices for ``service`` and ``more``."""
    with configured(site, notices=[webhook(site, service.url), *more]):
        yield
    with configured(site):
        assert_order(site)


def kept(site: Lab) -> list[dict[str, Any]]:
    log = site.folder / "state" / "demo" / "notices.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]


def test_a_switchover_sends_one_message_with_the_verdict(site: Lab, service: WebService) -> None:
    old, new = site.cluster.primary.name, other(site)
    with MailServer() as server:
        post = {
            "type": "email", "host": "127.0.0.1", "port": server.port, "tls": "none",
            "sender": "proxyroute@example.net", "to": ["dba@example.net"],
        }  # fmt: skip
        with telling(site, service, post), books(site):
            shown = switched(site, "--to", new)
        (message,) = server.mails
    (value,) = service.values
    report = value["report"]
    assert (value["cluster"], value["kind"], value["level"]) == ("demo", "operation", "good")
    assert (report["old_primary"], report["new_primary"], report["primary"]) == (old, new, new)
    assert (report["outcome"], report["verdict"], report["left_to_do"]) == ("done", "PROVEN", [])
    assert report["operation"] == shown["result"]["operation"]
    assert report["blackout_seconds"] == shown["result"]["proof"]["blackout_seconds"]
    assert [e["claim"] for e in report["evidence"]] == [e["claim"] for e in shown["result"]["proof"]["evidence"]]
    steps = [record["name"] for record in report["story"] if record["kind"] == "stepped"]
    assert steps.index("freeze") < steps.index("commit") < steps.index("open") < steps.index("prove")
    assert report["by"]
    assert report["host"]
    assert message["Subject"] == f"demo: switchover {old} → {new}: PROVEN, {new} is the primary now"
    assert value["text"] == f"switchover {old} → {new}: PROVEN, {new} is the primary now"
    assert kept(site) == []


def test_an_operation_that_was_undone_is_told_and_one_that_never_began_is_not(site: Lab, service: WebService) -> None:
    primary = site.cluster.primary.name
    with telling(site, service):
        assert site.run("switchover", "--yes", "--to", "nobody").returncode == 3
        assert site.run("switchover", "--yes", "--to", primary).returncode == 0  # it is the primary already
        assert service.values == []
        with configured(site, scripts={"address_down": ["false"]}):
            assert site.run("switchover", "--yes").returncode == 4
    (value,) = service.values
    assert (value["level"], value["report"]["outcome"], value["report"]["primary"]) == ("warn", "aborted", primary)
    assert "aborted" in value["text"]
    assert "exited with status 1" in json.dumps(value["report"]["story"])


def test_receivers_that_hang_or_refuse_change_nothing_and_are_said(site: Lab, service: WebService) -> None:
    with silent_port() as port:
        hangs = webhook(site, f"http://127.0.0.1:{port}/t0ken", timeout="300ms")
        with telling(site, service, hangs, {"type": "script", "run": ["false"]}):
            done = site.run("switchover", "--yes")
    assert done.returncode == 0
    assert "PROVEN" in done.stdout
    assert "notice not sent: notices[1] webhook: no answer in time (attempt 3 of 3)" in done.stderr
    assert "notice not sent: notices[2] script: false exited with status 1 (attempt 3 of 3)" in done.stderr
    assert "t0ken" not in done.stdout + done.stderr
    assert len(service.values) == 1
    lines = kept(site)
    assert {line["receiver"] for line in lines} == {"notices[1] webhook", "notices[2] script"}
    assert {line["notice"]["id"] for line in lines} == {service.values[0]["id"]}


def test_the_guard_tells_when_it_has_healed(site: Lab, service: WebService) -> None:
    with telling(site, service):
        with books(site):
            killed = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": AFTER_COMMIT})
            assert killed.returncode == -signal.SIGKILL
            (value,) = service.await_values(1)
        assert (value["kind"], value["report"]["outcome"]) == ("healed", "done")
        assert value["report"]["resumed_by"] == ["guard"]
        until(lambda: not site.json("status")[1]["open_operations"], "nothing to be open")
    assert len(service.values) == 1


def test_heal_tells_what_it_has_finished(site: Lab, service: WebService) -> None:
    fault = f"{AFTER_COMMIT},guard/guard.take_over:before"
    with telling(site, service):
        assert site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": fault}).returncode == -signal.SIGKILL
        assert service.values == []
        assert site.run("heal").returncode == 0
        assert site.run("heal").returncode == 0
    (value,) = service.values
    assert (value["kind"], value["report"]["outcome"], value["report"]["verdict"]) == ("healed", "done", "PROVEN")


def test_an_interrupted_switchover_is_left_to_the_guard_although_a_receiver_hangs(
    site: Lab, service: WebService
) -> None:
    """The engine still waits for a receiver; the guard does not wait for the engine's end."""
    service.answers = [0]
    with telling(site, service):
        argv = ["env", "--default-signal=INT", f"PROXYROUTE_FAULT={AFTER_COMMIT}@INT"]
        with subprocess.Popen(
            [*argv, *site.command("switchover", "--yes")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as engine:
            values = service.await_values(2)
            assert engine.poll() is None, "it waits for the one that hangs"
            assert engine.wait(60) == 130
    assert [(v["kind"], v["report"]["outcome"]) for v in values[:2]] == [
        ("operation", "unfinished"),
        ("healed", "done"),
    ]
    assert values[0]["level"] == "bad"
    kept(site)


def test_serve_sends_once_when_the_primary_dies_and_once_when_all_is_well(site: Lab, service: WebService) -> None:
    primary = site.cluster.primary
    with silent_port() as port, telling(site, service, webhook(site, f"http://127.0.0.1:{port}/")):
        with serving(site) as served:
            primary.kill9()
            (value,) = await_states(service, 1)
            assert value["level"] == "bad"
            assert "no server takes writes" in value["text"]
            primary.start()
            primary.sql("SET GLOBAL read_only=0")
            value = await_states(service, 2)[1]
            assert value["level"] == "good"
            assert f"{primary.name} takes writes, 2 of 2 replicas follow" in value["text"]
        assert len(await_states(service, 2)) == 2
        told = served.texts("unsent")
        assert all(text.startswith("notice not sent: notices[1] webhook: ") for text in told)
        assert len(told) == len(kept(site)) == len(service.values), "what hung until the end is told and kept"


def await_states(service: WebService, number: int) -> list[dict[str, Any]]:
    """Returns what was told of the state, once there are ``number`` of them; the read pool changes meanwhile."""

    def states() -> list[dict[str, Any]]:
        found = [value for value in service.values if value["kind"] == "state"]
        return found if len(found) >= number else []

    return until(states, f"{number} states", 60)


def test_what_serve_heals_is_told_with_its_report(site: Lab, service: WebService) -> None:
    fault = f"{AFTER_COMMIT},guard/guard.take_over:before"
    with telling(site, service), serving(site) as served:
        assert site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": fault}).returncode == -signal.SIGKILL
        served.await_told("healed")
        # on a busy machine something may be left to do at first, and a second one tells of that
        healed = until(lambda: [v for v in service.values if v["kind"] == "healed"], "it to be told")
        assert healed[0]["report"], served.told
        assert (healed[0]["report"]["kind"], healed[0]["report"]["outcome"]) == ("switchover", "done")


def test_a_test_message_reaches_each_receiver_and_what_became_of_it_is_said(site: Lab, service: WebService) -> None:
    assert site.run("notices", "--test").returncode == 3
    with telling(site, service, {"type": "script", "run": ["false"], "on": ["trouble"]}):
        status, shown = site.json("notices")
        assert (status, service.values) == (0, [])
        assert [r["on"] for r in shown["receivers"]] == [["operations", "trouble"], ["trouble"]]
        done = site.run("notices", "--test")
        assert done.returncode == 1
        first, second = done.stdout.splitlines()[:2]
        assert first.split() == ["notices[0]", "webhook", "operations,", "trouble", "sent"]
        assert "not sent: false exited with status 1" in second
    (value,) = service.values
    assert (value["kind"], value["report"]) == ("test", None)
    kept(site)


AUTOMATIC = {"mode": "automatic", "single_engine": True, "policy": "most_advanced", "quiet_period": "0s"}


def test_a_failover_and_the_rejoin_after_it_are_told_everywhere_with_their_reports(
    site: Lab, service: WebService, tmp_path: Path
) -> None:
    old, kept_by_script = site.cluster.primary, tmp_path / "told.jsonl"
    script = tmp_path / "keep"
    script.write_text(f'#!/bin/sh\ntr -d "\\n" <"$PROXYROUTE_NOTICE" >>{kept_by_script}; echo >>{kept_by_script}\n')
    script.chmod(0o755)
    with MailServer() as server:
        post = {
            "type": "email", "host": "127.0.0.1", "port": server.port, "tls": "none", "on": ["operations"],
            "sender": "proxyroute@example.net", "to": ["dba@example.net"],
        }  # fmt: skip
        tell = {"type": "script", "run": [str(script)], "on": ["operations"]}
        with (
            telling(site, service, post, tell),
            configured(site, notices=[webhook(site, service.url), post, tell], failover=AUTOMATIC),
            serving(site) as served,
        ):
            old.kill9()
            served.await_told("acted", "failover", 60)
            old.start()
            served.await_told("acted", f"{old.name} follows", 60)
        by_script = [json.loads(line) for line in kept_by_script.read_text().splitlines()]
        mailed = [json.loads(attached(mail)) for mail in server.mails]
    new = site.cluster.primary.name
    for told in (service.values, mailed, by_script):
        reports = [value["report"] for value in told if value["report"]]
        assert [r["kind"] for r in reports] == ["failover", "rejoin"], told
        moved, back = reports
        assert (moved["old_primary"], moved["new_primary"], moved["verdict"]) == (old.name, new, "UNKNOWN")
        assert any(e["claim"] == "nothing that it acknowledged is lost" for e in moved["evidence"])
        assert [r["name"] for r in moved["story"] if r["kind"] == "stepped"].count("open") == 1
        assert (back["outcome"], back["verdict"]) == ("done", "PROVEN")


def attached(mail: EmailMessage) -> str:
    (report,) = mail.iter_attachments()
    return str(report.get_content() if isinstance(report.get_content(), str) else report.get_content().decode())
