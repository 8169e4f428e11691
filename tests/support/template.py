"""The data folder every test server is a copy of, made once per server version and set of accounts."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.accounts import all_statements
from tests.support.process import find_program

_KEEP_SECONDS = 7 * 86400

Run = Callable[[Sequence[str], Path], str]
"""Runs a program of the server's with access to a folder, and returns its output; raises RuntimeError."""


def run_locally(argv: Sequence[str], folder: Path) -> str:
    """Runs an installed program. Raises RuntimeError with its words when it fails."""
    done = subprocess.run([find_program(argv[0]), *argv[1:]], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def template(run: Run = run_locally, *, scheduler: bool = False, force: bool = False) -> Path:
    """Returns a data folder with system tables and accounts, never started; made when it is not there yet.

    ``scheduler`` and ``force`` give the engine's account what ``proxyroute grants`` gives it for these.
    """
    cache = cache_folder()
    told = run(["mariadbd", "--version"], cache)
    match = re.search(r"Ver (\d+)\.(\d+)\.(\d+)\S*", told)
    if not match:
        raise RuntimeError(f"mariadbd does not tell its version: {told!r}")
    version = (int(match[1]), int(match[2]), int(match[3]))
    statements = ";\n".join(all_statements(version, scheduler=scheduler, force=force)) + ";\n"
    key = hashlib.sha256(f"{match[0]}\n{statements}".encode()).hexdigest()[:16]
    name = f"mariadb-{'.'.join(map(str, version))}-{key}"
    return install(name, lambda aside: _make(aside, statements, run))


def cache_folder() -> Path:
    """Returns the folder of what test runs keep for the next one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxyroute-tests"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def install(name: str, make: Callable[[Path], Path]) -> Path:
    """Returns the folder ``name`` of the cache. ``make`` is given an empty one to make it in when it is not there yet.

    Safe when several test runs need it at the same moment: it is made aside and renamed into place.
    """
    wanted = cache_folder() / name
    if not wanted.is_dir():
        _forget_old(wanted.parent)
        aside = Path(tempfile.mkdtemp(prefix=".making-", dir=wanted.parent))
        try:
            made = make(aside)
            with contextlib.suppress(OSError):  # somebody else was quicker: theirs is as good
                made.rename(wanted)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.utime(wanted)
    return wanted


def _make(aside: Path, statements: str, run: Run) -> Path:
    extra = aside / "accounts.sql"
    extra.write_text(statements)
    data = aside / "data"
    argv = [
        "mariadb-install-db",
        "--no-defaults",
        f"--user={getpass.getuser()}",
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--innodb-log-file-size=4M",
        "--innodb-buffer-pool-size=8M",
        f"--extra-file={extra}",
    ]
    run(argv, aside)
    return data


def _forget_old(cache: Path) -> None:
    for folder in cache.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
