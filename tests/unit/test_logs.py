"""The log: one form for everything, without secrets, and nobody waits for it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import threading
import time
import warnings
from typing import Any

import pytest

from proxyroute import logs
from proxyroute.config_secrets import Secret
from proxyroute.notify_message import Notice
from tests.support.wait import until

HEALED = Notice("shop", "healed", "healed 7: done", "good", 1.0, {"report": {"operation": "7"}}, "n1")


def written(*told: Notice, style: str = "json") -> list[Any]:
    stream = io.StringIO()
    with logs.logging_to(stream, style):
        for notice in told:
            logs.tell(notice)
    lines = stream.getvalue().splitlines()
    return [json.loads(line) for line in lines] if style == "json" else lines


def test_a_notice_is_an_object_with_its_cluster_and_operation() -> None:
    (line,) = written(HEALED)
    time_ = line.pop("time")
    assert time_.endswith("Z")
    assert line == {
        "severity": "info", "text": "healed 7: done", "id": "n1", "level": "good", "at": 1.0,
        "details": {"report": {"operation": "7"}}, "cluster": "shop", "kind": "healed", "operation": "7",
    }  # fmt: skip


def test_what_an_operation_does_is_told_with_its_id_and_what_is_for_others_is_not() -> None:
    at = {"v": 1, "n": 2, "t": 1.0, "operation": "7"}
    stepped = at | {"kind": "stepped", "name": "catch up", "seconds": 0.25, "detail": "at once"}
    failed = at | {"kind": "stepped", "name": "freeze", "seconds": 1.0, "error": "db1: no"}
    left = at | {"kind": "keep", "name": "settings", "value": {"password": "x"}}
    stream = io.StringIO()
    with logs.logging_to(stream, "json"):
        for record in (stepped, failed, left):
            logs.tell_record("shop", record)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    first.pop("time")
    assert first == {
        "severity": "info", "text": "catch up: 250 ms  at once", "cluster": "shop", "kind": "record",
        "record": "stepped", "operation": "7",
    }  # fmt: skip
    assert (second["severity"], second["operation"]) == ("error", "7")
    stream = io.StringIO()
    with logs.logging_to(stream, "console"):
        logs.tell_record("shop", stepped)
    (line,) = stream.getvalue().splitlines()
    assert "shop: catch up: 250 ms  at once" in line
    assert line.endswith("operation=7")
    logs.tell_record("shop", stepped)  # no log is kept, e.g. by a command: nothing is written


@pytest.mark.parametrize(("level", "severity"), [("bad", "error"), ("warn", "warning"), ("good", "info"), ("", "info")])
def test_severity_follows_the_level(level: str, severity: str) -> None:
    assert written(Notice("shop", "state", "x", level))[0]["severity"] == severity


def test_for_people_a_line_names_its_cluster_once() -> None:
    stated, healed = written(Notice("shop", "state", "shop: db1 takes writes", "good", 1.0), HEALED, style="console")
    assert stated.endswith("shop: db1 takes writes")
    assert "shop: healed 7: done" in healed
    assert "operation=7" in healed
    assert "cluster=" not in healed


def test_what_others_have_said_never_looks_like_a_line_of_ours() -> None:
    forged = "called off by ann: because\n2026-11-29 00:00:00 [error] shop: lost\x1b[2J \u202eesrever"
    first, second = written(Notice("shop", "ended", forged, "good", 1.0), style="console")
    assert first.endswith("shop: called off by ann: because")
    assert second == "    2026-11-29 00:00:00 [error] shop: lost\\x1b[2J \\u202eesrever"
    (told,) = written(Notice("shop", "ended", forged, "good", 1.0))
    assert told["text"] == forged, "a program gets what was said"


def test_secrets_are_written_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXYROUTE_TEST_SECRET", "correct horse")
    Secret("env", "PROXYROUTE_TEST_SECRET").reveal()
    token = "pr_ab12_" + "x" * 30
    told = Notice(
        "shop", "trouble", f"'correct horse' was sent with Bearer {token}", "bad", 1.0,
        {"password": "hunter2", "deep": [{"said": "correct horse"}], "headers": {"Authorization": "Basic abc"}},
    )  # fmt: skip
    for style in logs.STYLES:
        text = json.dumps(written(told, style=style))
        for secret in ("correct horse", "hunter2", "Basic abc", "x" * 30):
            assert secret not in text
        assert "pr_ab12_***" in text


def test_what_libraries_log_and_warn_comes_in_the_same_form() -> None:
    stream = io.StringIO()
    with logs.logging_to(stream, "json"):
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("a route failed")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    failed, warned = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (failed["logger"], failed["severity"], failed["kind"]) == ("uvicorn.error", "error", "log")
    assert "ValueError: no" in failed["exception"]
    assert "DeprecationWarning: old" in warned["text"]


def test_a_reader_who_takes_nothing_keeps_nobody_waiting_and_learns_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "_WAITING", 50)
    monkeypatch.setattr(logs, "_LAST_LINES", 10.0)
    read, write = os.pipe()
    told = Notice("shop", "state", "x" * 4000, "good")
    lines: list[str] = []

    def take() -> None:
        with os.fdopen(read) as taken:
            lines.extend(taken)

    with os.fdopen(write, "w") as stream, logs.logging_to(stream, "json"):
        began = time.monotonic()
        for _ in range(200):
            logs.tell(told)
        assert time.monotonic() - began < 5
        reader = threading.Thread(target=take)
        reader.start()
        until(lambda: len(lines) > 40, "what waited to be read")
        logs.tell(Notice("shop", "state", "the last"))
    reader.join(10)
    assert any("lines were not written" in line for line in lines)
    assert "the last" in lines[-1]


def test_a_closed_pipe_is_no_trouble() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    with logs.logging_to(stream, "json"):
        logs.tell(HEALED)
    with contextlib.suppress(OSError):
        stream.close()


def test_style_follows_the_configuration_then_the_terminal() -> None:
    assert logs.style_of("console", io.StringIO()) == "console"
    assert logs.style_of("", io.StringIO()) == "json"
