"""New data on their way from server to server, slowed down or held up midway."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.lab import Lab

_THROTTLE = """
import sys, time
rate = float(sys.argv[1])
while part := sys.stdin.buffer.read1(1 << 15):
    sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()
    time.sleep(len(part) / rate)
"""
_GATE = """
import os, sys, time
mark, until = sys.argv[1].encode(), sys.argv[2]
kept = b""
while part := sys.stdin.buffer.read1(1 << 15):
    kept += part
    before, found, after = kept.partition(mark)
    if found:
        sys.stdout.buffer.write(before)
        sys.stdout.buffer.flush()
        while not os.path.exists(until):
            time.sleep(0.05)
        sys.stdout.buffer.write(found + after)
        kept, mark = b"", b"\\0nothing any more\\0"
    elif len(kept) > len(mark):
        sys.stdout.buffer.write(kept[: -len(mark)])
        kept = kept[-len(mark) :]
sys.stdout.buffer.write(kept)
"""
_WRAPPER = """#!/bin/sh
case "$*" in
*--backup*|*--single-transaction*) {program} "$@" | {python} {filter} ;;
*) exec {program} "$@" ;;
esac
"""


def _wrapped(lab: Lab, program: str, script: str, *words: str) -> dict[str, str]:
    """Returns an environment in which what ``program`` gives away goes through a Python ``script`` with ``words``."""
    folder = lab.folder / "slow"
    folder.mkdir(exist_ok=True)
    code, wrapper = folder / "filter.py", folder / program
    code.write_text(script)
    real = shutil.which(program)
    assert real is not None
    told = " ".join([str(code), *(f"'{word}'" for word in words)])
    wrapper.write_text(_WRAPPER.format(program=real, python=sys.executable, filter=told))
    wrapper.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def slowly(lab: Lab, program: str, rate: float) -> dict[str, str]:
    """Returns an environment in which ``program`` gives away ``rate`` bytes per second, as over a network."""
    return _wrapped(lab, program, _THROTTLE, str(rate))


@dataclass(frozen=True)
class Gate:
    """A dump that stands still before one of its tables until it is let ``go``."""

    environment: dict[str, str]
    file: Path

    def go(self) -> None:
        self.file.touch()


@contextlib.contextmanager
def held_dump(lab: Lab, table: str) -> Iterator[Gate]:
    """For a ``with`` block: in the environment of the gate a dump has everything that comes before ``table``."""
    file = lab.folder / "go"
    gate = Gate(_wrapped(lab, lab.cluster.dumper, _GATE, f"CREATE TABLE `{table}`", str(file)), file)
    try:
        yield gate
    finally:
        gate.go()
