"""``proxyroute serve`` beside a site, and what it has told so far."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.engines import on_host
from tests.support.lab import Lab
from tests.support.netlab import NetLab
from tests.support.process import Daemon
from tests.support.wait import until


def notices(log: Path) -> list[dict[str, Any]]:
    """Returns every notice in what ``serve --json`` has written so far."""
    found = []
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):  # the last line may be half written
            found.append(json.loads(line))
    return found


class Serving:
    """The daemon of one site; ``told`` is every notice since it began."""

    def __init__(
        self, lab: Lab | NetLab, *words: str, environment: Mapping[str, str] | None = None, host: str = ""
    ) -> None:
        """On ``host``, if it is given, which differs from this one in nothing but its name."""
        self.log = lab.folder / f"serve{host}.log"
        self.log.unlink(missing_ok=True)
        argv, launcher = lab.command("serve", "--json", *words), on_host(host) if host else ()
        told = {"PYTHONFAULTHANDLER": "1", **(environment or {})}
        self.daemon = Daemon(argv, self.log, environment=told, launcher=launcher)

    @property
    def told(self) -> list[dict[str, Any]]:
        return notices(self.log)

    def texts(self, kind: str) -> list[str]:
        return [notice["text"] for notice in self.told if notice["kind"] == kind]

    def await_told(self, kind: str, words: str = "", seconds: float = 30.0) -> str:
        """Returns the first notice of ``kind`` that holds ``words``, once it is there."""

        def found() -> str:
            return next((text for text in self.texts(kind) if words in text), "")

        try:
            return until(found, f"serve to tell of {kind} {words!r}", seconds)
        except AssertionError as error:
            self.abort()
            raise AssertionError(f"{error}; it told:\n{self.log.read_text()}") from None

    def abort(self) -> None:
        """Ends it at once; where each of its threads stands is in its log then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.send(signal.SIGABRT)
            self.daemon.wait()
        self.daemon.kill()

    def end(self, seconds: float = 100.0) -> int:
        """Asks it to end, and returns its exit status; one that does not end tells where it stands."""
        self.daemon.send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.daemon.wait(seconds)
        self.abort()
        return self.daemon.wait()


@contextlib.contextmanager
def serving(
    lab: Lab | NetLab, *words: str, environment: Mapping[str, str] | None = None, host: str = ""
) -> Iterator[Serving]:
    """Serves ``lab`` for a ``with`` block; returns when it has told the state. It must end cleanly."""
    served = Serving(lab, *words, environment=environment, host=host)
    try:
        served.await_told("state")
        yield served
    except BaseException:
        served.daemon.kill()
        raise
    assert served.end() == 0, served.log.read_text()  # what has begun is brought to its end first
