"""A part of a file of a binary log as text that people read, by a flavour's own program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from proxyroute.host import Program, stream
from proxyroute.model import Deadline


def decode_log(
    reader: tuple[str, ...], file: Path, start: int, end: int, sink: Callable[[bytes], object], deadline: Deadline
) -> None:
    """Gives ``sink``, in pieces, a part of a file of a binary log as ``reader`` tells it. Raises ScriptFailed."""
    bounds = (f"--start-position={start}", f"--stop-position={end}")
    stream(Program((*reader, "-vv", "--base64-output=decode-rows", *bounds, str(file))), sink, deadline)
