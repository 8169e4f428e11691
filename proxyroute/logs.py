"""The log of ``proxyroute serve``: one line for each thing that happens, for people or as JSON, without secrets.

Writing is done by a thread of its own: a terminal that is stopped, or a full pipe, must not keep a keeper back.
Lines of libraries (the web server's, warnings) come out in the same form. A line knows its cluster, and the operation
that it is about; what operations do is told record by record.
"""

from __future__ import annotations

import logging
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from proxyroute.config_secrets import without_secrets
from proxyroute.jsonable import dump
from proxyroute.notify_message import Notice
from proxyroute.shown import record_text
from proxyroute.words import legible

STYLES = ("console", "json")
_WAITING = 10_000
"""Lines that may wait to be written; more are dropped, and how many is told."""
_LAST_LINES = 5.0
_FURTHER = " " * 4
"""Before the second and further lines of one text."""
_LEVELS = {"bad": logging.ERROR, "warn": logging.WARNING}
_HIDDEN_KEYS = re.compile(r"password|passwd|secret|token|authorization|cookie|api_?key", re.IGNORECASE)
_TOKEN = re.compile(r"\bpr_([0-9A-Za-z]+)_[0-9A-Za-z_-]{8,}")
"""A token of ours; who it belongs to may be read, the rest may not."""
_NOTICE = structlog.get_logger("proxyroute.notice")
_JOURNAL = structlog.get_logger("proxyroute.journal")
_TOLD = frozenset({"begin", "resumed", "stepped", "commit", "turned", "back", "note", "leftover", "proof", "end"})
"""Kinds of records that are told; the others are for whoever goes on after a crash."""


def tell(notice: Notice) -> None:
    """Writes a notice."""
    details = dict(notice.details)
    report = details.get("report") or {}
    operation = details.pop("operation", None) or report.get("operation")
    _NOTICE.log(
        _LEVELS.get(notice.level, logging.INFO), notice.text, notice=notice, cluster=notice.cluster,
        kind=notice.kind, **({"operation": operation} if operation else {}),
    )  # fmt: skip


def tell_record(cluster: str, record: Mapping[str, Any]) -> None:
    """Writes what an operation has just done, as its journal has it; nothing where no log is kept."""
    if record["kind"] in _TOLD and structlog.is_configured():
        text, level = record_text(record)
        _JOURNAL.log(
            _LEVELS.get(level, logging.INFO), text, cluster=cluster, kind="record", record=record["kind"],
            operation=record.get("operation", ""),
        )  # fmt: skip


@contextmanager
def logging_to(stream: TextIO, style: str) -> Iterator[None]:
    """Everything that is logged goes to ``stream`` for a ``with`` block, in one of ``STYLES``."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=style == "json", key="time"),
    ]
    last: list[Processor] = [_as_json] if style == "json" else [_for_people, _console(stream)]
    formatter = ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _without_secrets,
            *last,
        ],
    )
    handler = _Beside(stream)
    handler.setFormatter(formatter)
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    structlog.configure(
        processors=[*shared, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.captureWarnings(True)
    for chatty in ("urllib3", "watchdog", "asyncio", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        structlog.reset_defaults()
        root.handlers[:] = before
        root.setLevel(level)
        handler.close()


class _Beside(logging.Handler):
    """Writes in a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - what cannot be written must not end what is to be written about
            self.handleError(record)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        try:
            self._lines.put(None, timeout=_LAST_LINES)
            self._thread.join(_LAST_LINES)
        except queue.Full:
            pass  # nobody reads
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line = f"{dropped} lines were not written, for nobody took them\n{line}"
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                continue  # a closed pipe, a full disk: there is nowhere to say it


def _without_secrets(_: Any, __: str, event: EventDict) -> EventDict:
    return {key: _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return "***" if _HIDDEN_KEYS.search(key) else _TOKEN.sub(r"pr_\1_***", without_secrets(value))
    if isinstance(value, Mapping):
        return {k: _clean(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(key, v) for v in value]
    if isinstance(value, Notice):
        return Notice(
            value.cluster, value.kind, _clean("text", value.text), value.level, value.at,
            _clean("details", value.details), value.id,
        )  # fmt: skip
    return value


def _as_json(_: Any, __: str, event: EventDict) -> str:
    """A notice has the fields that receivers of notices get; every line has time, severity and text."""
    told: dict[str, Any] = {"time": event.pop("time"), "severity": event.pop("level"), "text": event.pop("event")}
    notice = event.pop("notice", None)
    logger = event.pop("logger", "")
    if isinstance(notice, Notice):
        told |= {"id": notice.id, "level": notice.level, "at": notice.at, "details": notice.details}
    elif "kind" not in event:
        told |= {"kind": "log", "logger": logger}
    return dump(told | dict(event), indent=None)


def _for_people(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What is in the text anyhow is left out; the clock is that of this place, to the second."""
    notice = event.pop("notice", None)
    event["time"] = time.strftime("%F %T", time.localtime(notice.at if isinstance(notice, Notice) else None))
    if isinstance(notice, Notice):
        for key in ("logger", "kind"):
            event.pop(key, None)
        cluster = event.pop("cluster", "")
        if cluster and notice.kind != "state":
            event["event"] = f"{cluster}: {event['event']}"
    elif event.get("kind") == "record":
        for key in ("logger", "kind", "record"):
            event.pop(key, None)
        event["event"] = f"{event.pop('cluster')}: {event['event']}"
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = legible(value, _FURTHER)  # or what others have said could look like a line of ours
    return event


def _console(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), timestamp_key="time", pad_event_to=0, sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )  # fmt: skip


def style_of(configured: str, stream: TextIO | None = None) -> str:
    """Returns how to write to ``stream``: as ``configured``, by default for people on a terminal and else as JSON."""
    return configured or ("console" if (stream or sys.stdout).isatty() else "json")
