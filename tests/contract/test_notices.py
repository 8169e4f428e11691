"""Notices against real receivers: a web service, a mail server, scripts; some hang, refuse or are not trusted."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.errors import ConfigError, NotSent
from proxyroute.model import Deadline
from proxyroute.notify import Delivery, Notifier
from proxyroute.notify_choice import kinds_of
from proxyroute.notify_message import Notice
from proxyroute.notify_receivers import Mail, Receiver, Script, Webhook
from tests.support.process import free_port
from tests.support.receivers import Certificate, MailServer, WebService, certificate, silent_port
from tests.support.wait import until

REPORT = {
    "operation": "20261123T031500-4f2a9c", "kind": "switchover", "cluster": "shop", "old_primary": "db1",
    "new_primary": "db2", "primary": "db2", "outcome": "done", "text": "db2 is the primary now", "verdict": "PROVEN",
    "evidence": [{"subject": "db2", "claim": "takes writes", "verdict": "PROVEN", "seen": "read_only=0"}],
    "by": "alice (as root)", "host": "ops1", "pid": 7, "version": "0.1.0", "force": False, "reason": "",
    "resumed_by": [], "started": 1764000000.0, "seconds": 1.5, "committed": True, "blackout_seconds": 0.023,
    "clients": "writes stood still for 23 ms",
    "story": [{"kind": "stepped", "name": "freeze", "seconds": 0.003, "detail": "at 0-1-41"}, {"kind": "commit"}],
    "left_to_do": ["follow db3: no answer"],
}  # fmt: skip
NOTICE = Notice(
    "shop", "operation", "switchover db1 → db2: PROVEN", "good", 1764000001.0, {"report": REPORT}, id="a" * 32
)
ALL = kinds_of(("operations", "trouble"))
TOKEN = "t0ken"


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certified"))


def known(text: str) -> Callable[[], str]:
    return lambda: text


def deliver(receiver: Receiver, notice: Notice = NOTICE) -> None:
    receiver.deliver(notice, Deadline.after(receiver.timeout))


def refusal(receiver: Receiver) -> NotSent:
    with pytest.raises(NotSent) as caught:
        deliver(receiver)
    assert TOKEN not in str(caught.value)
    return caught.value


class Sending:
    """A notifier, and what became of the notices it was given."""

    def __init__(self, folder: Path, *receivers: Receiver, attempts: int = 1) -> None:
        self.log = folder / "state" / "notices.log"
        self.ended: list[Delivery] = []
        self.notifier = Notifier([(r, ALL) for r in receivers], self.log, self.ended.append, attempts)

    @property
    def errors(self) -> dict[str, str]:
        return {delivery.receiver: delivery.error for delivery in self.ended}

    @property
    def kept(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


# -- A web service --------------------------------------------------------------------------------------------


def test_a_webhook_gets_the_notice_and_the_report_as_json() -> None:
    with WebService() as service:
        deliver(Webhook("w", known(service.url), "Authorization", known("Bearer s3cret")))
    (request,) = service.requests
    assert request.path == f"/hook/{TOKEN}"
    assert request.headers["Authorization"] == "Bearer s3cret"
    assert request.headers["Content-Type"] == "application/json"
    assert request.value == {
        "id": "a" * 32,
        "cluster": "shop",
        "kind": "operation",
        "level": "good",
        "text": "switchover db1 → db2: PROVEN",
        "at": 1764000001.0,
        "report": REPORT,
        "details": {},
    }


def test_a_password_in_netrc_does_not_take_the_place_of_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with WebService() as service:
        deliver(Webhook("w", known(service.url), "Authorization", known("Bearer s3cret")))
    assert service.requests[0].headers["Authorization"] == "Bearer s3cret"


def test_a_certificate_is_verified_with_the_authority_that_is_named(certified: Certificate, tmp_path: Path) -> None:
    with WebService(certified) as service:
        deliver(Webhook("w", known(service.url), ca=certified.ca))
        error = refusal(Webhook("w", known(service.url)))
        assert "certificate is not to be trusted" in str(error)
        assert not error.again
    assert len(service.requests) == 1


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    other = certificate(tmp_path / "other", "DNS:elsewhere.example.net")
    with WebService(other) as service:
        error = refusal(Webhook("w", known(service.url), ca=other.ca))
    assert "not to be trusted" in str(error)
    assert service.requests == []


@pytest.mark.parametrize(("code", "again"), [(400, False), (404, False), (429, True), (500, True), (503, True)])
def test_an_answer_that_is_no_yes_is_an_error(code: int, again: bool) -> None:
    with WebService() as service:
        service.answers = [code]
        error = refusal(Webhook("w", known(service.url)))
    assert (str(error), error.again) == (f"it answered {code}", again)


def test_a_redirection_is_an_error_and_not_followed() -> None:
    with WebService() as service:
        service.answers = [302]
        error = refusal(Webhook("w", known(service.url)))
    assert "it answered 302, so it is elsewhere" in str(error)
    assert not error.again
    assert len(service.requests) == 1


def test_nobody_there_is_said_without_the_address() -> None:
    error = refusal(Webhook("w", known(f"http://127.0.0.1:{free_port()}/hook/{TOKEN}")))
    assert (str(error), error.again) == ("Connection refused", True)


def test_a_service_that_does_not_answer_is_left_at_the_time_out() -> None:
    with silent_port() as port:
        error = refusal(Webhook("w", known(f"http://127.0.0.1:{port}/hook/{TOKEN}"), timeout=0.2))
    assert (str(error), error.again) == ("no answer in time", True)


def test_what_is_no_address_of_a_service_is_said_without_showing_it() -> None:
    assert "does not begin with https://" in str(refusal(Webhook("w", known(f"{TOKEN}.example.net"))))
    assert refusal(Webhook("w", known(f"http://[{TOKEN}")))


def test_a_secret_that_cannot_be_read_is_said() -> None:
    def missing() -> str:
        raise ConfigError("the file /etc/x does not exist")

    assert "the file /etc/x does not exist" in str(refusal(Webhook("w", missing)))


# -- A mail server --------------------------------------------------------------------------------------------


def mail(server: MailServer, **changes: object) -> Mail:
    values: dict[str, object] = {
        "label": "m", "host": "127.0.0.1", "port": server.port, "sender": "proxyroute@example.net",
        "to": ("ops@example.net", "dba@example.net"), "tls": server.tls,
        "ca": server.certified.ca if server.certified else None,
    }  # fmt: skip
    return Mail(**{**values, **changes})  # type: ignore[arg-type]


def test_an_e_mail_says_what_happened_and_has_the_notice_attached() -> None:
    with MailServer() as server:
        deliver(mail(server))
    (message,) = server.mails
    assert message["Subject"] == "shop: switchover db1 → db2: PROVEN"
    assert message["From"] == "proxyroute@example.net"
    assert message["To"] == "ops@example.net, dba@example.net"
    assert message["Message-ID"] == f"<{'a' * 32}@example.net>"
    body = message.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    for said in (
        "shop: switchover db1 → db2: PROVEN, db2 is the primary now; 1 left to do",
        "Asked for by  alice (as root) on ops1",
        "Clients       writes stood still for 23 ms",
        "freeze                       3 ms  at 0-1-41",
        "-- committed",
        "PROVEN      db2: takes writes: read_only=0",
        "follow db3: no answer",
        "proxyroute show 20261123T031500-4f2a9c",
    ):
        assert said in text, text
    (attached,) = message.iter_attachments()
    assert attached.get_content_type() == "application/json"
    assert json.loads(attached.get_content())["report"] == REPORT


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_an_e_mail_over_tls_with_a_login(tls: str, certified: Certificate) -> None:
    with MailServer(tls, certified, password="s3cret") as server:
        deliver(mail(server, user="prober", password=known("s3cret")))
        assert len(server.mails) == 1
        error = refusal(mail(server, user="prober", password=known(TOKEN)))
        assert "the mail server answered 535" in str(error)
        assert not error.again
    assert len(server.mails) == 1


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_mail_server_that_is_not_trusted_gets_nothing(tls: str, certified: Certificate) -> None:
    with MailServer(tls, certified) as server:
        error = refusal(mail(server, ca=None))
    assert "not to be trusted" in str(error)
    assert not error.again
    assert server.mails == []


def test_a_mail_server_without_starttls_gets_nothing_in_plain() -> None:
    with MailServer() as server:
        error = refusal(mail(server, tls="starttls"))
    assert "cannot do what is configured" in str(error)
    assert server.mails == []


def test_a_recipient_that_is_refused_is_named_and_the_others_get_it_once() -> None:
    with MailServer(refused=("ops@example.net",)) as server:
        error = refusal(mail(server))
        assert "sent, but the mail server refuses ops@example.net: 550 no such mailbox" in str(error)
        assert not error.again
        assert len(server.mails) == 1
        error = refusal(mail(server, to=("ops@example.net",)))
        assert (str(error), error.again) == ("the mail server refuses ops@example.net: 550 no such mailbox", False)


def test_a_mail_server_that_is_silent_or_not_there() -> None:
    with silent_port() as port:
        error = refusal(Mail("m", "127.0.0.1", port, "a@b", ("c@d",), "none", timeout=0.3))
    assert (str(error), error.again) == ("no answer in time", True)
    assert str(refusal(Mail("m", "127.0.0.1", free_port(), "a@b", ("c@d",), "none"))) == "Connection refused"


def test_a_text_over_several_lines_makes_one_line_of_subject() -> None:
    with MailServer() as server:
        deliver(mail(server), Notice("shop", "trouble", "shop: first\nBcc: eve@example.net\n" + "x" * 300, "bad"))
    (message,) = server.mails
    assert message["Subject"].startswith("[BAD] shop: first Bcc: eve@example.net xxx")
    assert message["Bcc"] is None


# -- A script -------------------------------------------------------------------------------------------------

COPY = """
import json, os, sys
with open(sys.argv[1], "w") as file:
    json.dump({"notice": json.load(open(os.environ["PROXYROUTE_NOTICE"])), "env": dict(os.environ)}, file)
"""


def test_a_script_finds_the_report_in_a_file_and_the_rest_in_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPL_PASSWORD", TOKEN)
    deliver(Script("s", (sys.executable, "-c", COPY, str(tmp_path / "seen.json"))))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["notice"]["report"] == REPORT
    ours = {key: value for key, value in seen["env"].items() if key.startswith("PROXYROUTE_")}
    file = ours.pop("PROXYROUTE_NOTICE")
    assert not os.path.exists(file)
    assert ours == {
        "PROXYROUTE_NOTICE_ID": "a" * 32,
        "PROXYROUTE_CLUSTER": "shop",
        "PROXYROUTE_KIND": "operation",
        "PROXYROUTE_LEVEL": "good",
        "PROXYROUTE_TEXT": "switchover db1 → db2: PROVEN",
        "PROXYROUTE_OPERATION": "20261123T031500-4f2a9c",
    }
    assert TOKEN not in str(seen["env"])


def test_a_script_that_fails_hangs_or_is_missing_is_said() -> None:
    assert "exited with status 3: no pager" in str(refusal(Script("s", ("sh", "-c", "echo no pager >&2; exit 3"))))
    assert "did not end in time and was killed" in str(refusal(Script("s", ("sleep", "600"), timeout=0.1)))
    assert "cannot be started" in str(refusal(Script("s", ("/nowhere/tell",))))


# -- Sending beside the work ----------------------------------------------------------------------------------


def test_what_fails_for_now_is_tried_again_and_arrives_once(tmp_path: Path) -> None:
    with WebService() as service, MailServer(busy=1) as server:
        service.answers = [503]
        sending = Sending(tmp_path, Webhook("w", known(service.url)), mail(server), attempts=3)
        sending.notifier.send(NOTICE)
        sending.notifier.close(Deadline.after(30))
        assert sending.errors == {"w": "", "m": ""}
        assert len(server.mails) == 1
        assert [value["id"] for value in service.values] == ["a" * 32] * 2, "by the id they are known to be the same"
    assert sending.kept == []


def test_what_is_refused_for_good_is_tried_once_told_and_kept(tmp_path: Path) -> None:
    with WebService() as service:
        service.answers = [404]
        sending = Sending(tmp_path, Webhook("w", known(service.url)), attempts=3)
        sending.notifier.send(NOTICE)
        sending.notifier.close(Deadline.after(30))
        assert len(service.requests) == 1
    assert sending.errors == {"w": "it answered 404 (attempt 1 of 3)"}
    (kept,) = sending.kept
    assert (kept["receiver"], kept["error"]) == ("w", sending.errors["w"])
    assert kept["notice"] == service.values[0]
    assert sending.log.stat().st_mode & 0o777 == 0o600


def test_one_that_hangs_holds_up_neither_the_sender_nor_the_others(tmp_path: Path) -> None:
    with WebService() as service, silent_port() as port:
        hangs = Webhook("hangs", known(f"http://127.0.0.1:{port}/"), timeout=600)
        sending = Sending(tmp_path, hangs, Webhook("w", known(service.url)))
        for _ in range(3):
            sending.notifier.send(Notice("shop", "trouble", "x"))
        service.await_values(3)
        assert not any(delivery.error for delivery in sending.ended)
        sending.notifier.close(Deadline.after(0.1))
        texts = [d.error for d in sending.ended if d.receiver == "hangs"]
        assert texts == ["no end in time; it may have arrived all the same", "not tried in time", "not tried in time"]
        assert len(sending.kept) == 3


class Stuck:
    """A receiver that heeds no time-out, as a look-up of a name may."""

    label, timeout = "stuck", 0.1

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked = 0

    def deliver(self, notice: Notice, deadline: Deadline) -> None:
        self.asked += 1
        assert self.go_on.wait(60)


def test_an_attempt_that_heeds_no_time_out_is_left_behind(tmp_path: Path) -> None:
    stuck = Stuck()
    sending = Sending(tmp_path, stuck)
    sending.notifier.send(NOTICE)
    until(lambda: sending.ended, "the attempt to be given up")
    assert sending.errors == {"stuck": "no end within 0.1 s; it may have arrived all the same"}
    stuck.go_on.set()
    sending.notifier.close(Deadline.after(10))
    assert len(sending.ended) == 1


def test_a_mistake_of_ours_is_told_without_its_text(tmp_path: Path) -> None:
    class Broken(Stuck):
        def deliver(self, notice: Notice, deadline: Deadline) -> None:
            raise LookupError(TOKEN)

    sending = Sending(tmp_path, Broken(), attempts=3)
    sending.notifier.send(NOTICE)
    sending.notifier.close(Deadline.after(10))
    assert sending.errors == {"stuck": "LookupError; please report this (attempt 1 of 3)"}


HALF = replace(NOTICE, text="no space for half\udcffname", details={"file": "\ud800"}, kind="trouble", id="b" * 32)
"""Nothing can encode it as it is: the name of a file, or what a journal has read."""


def test_half_a_character_reaches_everybody_written_out(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", "import os, sys; sys.exit(os.environ['PROXYROUTE_TEXT'] != sys.argv[1])")
    with WebService() as service, MailServer() as server:
        script = Script("s", (*argv, r"no space for half\udcffname"))
        sending = Sending(tmp_path, Webhook("w", known(service.url)), mail(server), script)
        sending.notifier.send(HALF)
        sending.notifier.close(Deadline.after(30))
        assert sending.errors == {"w": "", "m": "", "s": ""}
        assert [value["text"] for value in service.values] == [HALF.text]
        assert r"no space for half\udcffname" in server.mails[0]["Subject"]


def test_a_notice_that_cannot_be_sent_and_hardly_be_kept_silences_no_receiver(tmp_path: Path) -> None:
    sending = Sending(tmp_path, Webhook("w", known(f"http://127.0.0.1:{free_port()}/")))
    for notice in (HALF, NOTICE):
        sending.notifier.send(notice)
    sending.notifier.close(Deadline.after(30))
    assert [(d.notice.id, d.error) for d in sending.ended] == [(n.id, "Connection refused") for n in (HALF, NOTICE)]
    assert len(sending.kept) == 2


def test_a_mistake_of_ours_with_one_notice_is_logged_and_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def ended(delivery: Delivery) -> None:
        told.append(delivery.notice.id)
        if delivery.notice is HALF:
            raise LookupError("nobody takes it")

    with WebService() as service:
        notifier = Notifier([(Webhook("w", known(service.url)), ALL)], tmp_path / "log", ended, 1)
        for notice in (HALF, NOTICE):
            notifier.send(notice)
        notifier.close(Deadline.after(30))
        assert len(service.requests) == 2
    assert told == [HALF.id, NOTICE.id]
    assert "what became of a notice to w could not be told" in caplog.text


def test_more_than_can_wait_is_told_and_kept_and_the_sender_goes_on(tmp_path: Path) -> None:
    stuck = Stuck()
    stuck.timeout = 600
    sending = Sending(tmp_path, stuck)
    sending.notifier.send(NOTICE)
    until(lambda: stuck.asked, "the first attempt")
    for number in range(105):
        sending.notifier.send(Notice("shop", "trouble", str(number)))
    sending.notifier.close(Deadline.after(0.05))
    over = [d.notice.text for d in sending.ended if "others were waiting already" in d.error]
    assert over == ["100", "101", "102", "103", "104"]
    assert len(sending.ended) == len(sending.kept) == 106


def test_nobody_is_flooded(tmp_path: Path) -> None:
    with WebService() as service:
        sending = Sending(tmp_path, Webhook("w", known(service.url)))
        for number in range(45):
            sending.notifier.send(Notice("shop", "trouble", str(number)))
        sending.notifier.close(Deadline.after(60))
        assert len(service.requests) == 40
    spared = [d.error for d in sending.ended if d.error]
    assert spared == ["it got 40 in the last 10 minutes, and is spared more"] * 5


def test_only_those_who_asked_for_a_kind_get_it(tmp_path: Path) -> None:
    with WebService() as service:
        receiver = Webhook("w", known(service.url))
        notifier = Notifier([(receiver, kinds_of(("operations",)))], tmp_path / "log", lambda _: None, 1)
        for kind in ("state", "trouble", "operation", "healed", "test"):
            notifier.send(Notice("shop", kind, kind))
        notifier.close(Deadline.after(30))
        assert [value["kind"] for value in service.values] == ["operation", "healed", "test"]


def test_a_log_that_cannot_be_written_or_has_grown_keeps_nothing_from_being_told(tmp_path: Path) -> None:
    refused = Webhook("w", known(f"http://127.0.0.1:{free_port()}/"))
    sending = Sending(tmp_path, refused)
    sending.log.parent.write_text("a file where the folder should be")
    sending.notifier.send(NOTICE)
    sending.notifier.close(Deadline.after(30))
    assert sending.errors == {"w": "Connection refused"}
    sending.log.parent.unlink()
    sending.log.parent.mkdir()
    sending.log.write_bytes(b"x" * (1 << 20) + b"\n")
    sending = Sending(tmp_path, refused)
    sending.notifier.send(NOTICE)
    sending.notifier.close(Deadline.after(30))
    assert len(sending.kept) == 1
    assert sending.log.with_name("notices.log.1").stat().st_size > 1 << 20


def test_nothing_to_send_makes_no_thread_and_ends_at_once(tmp_path: Path) -> None:
    before = threading.active_count()
    sending = Sending(tmp_path, Stuck())
    sending.notifier.close(Deadline.after(600))
    assert threading.active_count() == before
