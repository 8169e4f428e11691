"""``proxyroute init --from-replication-manager``: writes what was converted, and tells what became of each option."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from proxyroute.cli import repman, repman_read
from proxyroute.cli.context import Context
from proxyroute.cli.repman_proxies import BY_HAND_WORD
from proxyroute.config import InvalidConfig, load
from proxyroute.errors import ConfigError, Refused

_ELSEWHERE = "name another file by --config, or type it as root"
_HEAD = """\
# Configuration of ProxyRoute, converted from {file}
# docs/reference/configuration.md explains every field; docs/guide/moving-over.md what became of which option.
# Secrets are never written here. What is left for you to do stands at the end.
"""


def move_over(ctx: Context, file: Path, target: Path, state_dir: Path) -> None:
    """Converts ``file`` and writes ``target`` and the files of passwords beside it; shows what became of everything.

    Raises ConfigError (``file`` cannot be understood) or Refused (a file is there already); then nothing is written.
    """
    moved = repman.convert(repman_read.read(file), file, target.parent)
    there = [str(path) for path in moved.secrets if path.exists()]
    if there:
        raise Refused(f"{', '.join(there)} is there already and is never overwritten; name another folder by --config")
    body = yaml.safe_dump(
        {"version": 1, "state_dir": str(state_dir), "clusters": moved.clusters},
        sort_keys=False, allow_unicode=True, width=110, default_flow_style=None,
    )  # fmt: skip
    make_folder(target.parent)
    written: list[Path] = []
    try:
        for path, password in moved.secrets.items():
            write_new(path, password + "\n", 0o600)
            written.append(path)
        write_new(target, _HEAD.format(file=file) + body + _rest(moved), 0o644)
        written.append(target)
        load(target)
    except BaseException as error:
        for path in written:  # ours, made a moment ago: all or nothing
            path.unlink(missing_ok=True)
        if isinstance(error, InvalidConfig):  # its lines are those of a file that is gone
            raise InvalidConfig(replace(p, file=f"what {file} becomes", line=0) for p in error.problems) from None
        raise
    _tell(ctx, target, moved)


def require_writable(folder: Path) -> None:
    """Raises ConfigError when files could not be written in ``folder``, which need not be there yet; makes nothing."""
    above = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not above.is_dir():
        raise ConfigError(f"{folder} cannot be made: {above} is no folder; {_ELSEWHERE}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"nothing can be written in {above}; {_ELSEWHERE}")


def make_folder(folder: Path) -> None:
    """Makes the folder in which files are to be written, if need be. Raises ConfigError when they could not be."""
    require_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}; {_ELSEWHERE}") from error


def write_new(path: Path, text: str, mode: int) -> None:
    """Writes a file that must not be there yet. Raises ConfigError."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)


def _rest(moved: repman.Moved) -> str:
    """Returns what is left to do by hand, as comments."""
    clusters: dict[str, list[str]] = {}
    for cluster in moved.clusters:
        for text in _alike(moved, cluster, BY_HAND_WORD):
            clusters.setdefault(text, []).append(cluster)
    lines: list[str] = []
    for text, names in clusters.items():
        whole = f"{', '.join(names)}: {text}"
        lines += textwrap.wrap(whole, 108, initial_indent="# - ", subsequent_indent="#   ", break_on_hyphens=False)
    return "\n# By hand:\n" + "\n".join(lines) + "\n" if lines else ""


def _alike(moved: repman.Moved, cluster: str, verdict: str) -> Iterator[str]:
    """Yields what became of options, those together of which the same is to be said."""
    options: dict[str, list[str]] = {}
    for note in moved.notes:
        if note.cluster == cluster and note.verdict == verdict:
            options.setdefault(note.text, []).append(note.option)
    return (f"{', '.join(names)}: {text}" for text, names in options.items())


def _tell(ctx: Context, target: Path, moved: repman.Moved) -> None:
    if ctx.as_json:
        ctx.out.json(
            {
                "config": target,
                "clusters": list(moved.clusters),
                "secrets": list(moved.secrets),
                "options": [vars(note) for note in moved.notes],
            }
        )
        return
    for cluster in moved.clusters:
        notes = [note for note in moved.notes if note.cluster == cluster]
        ctx.out.raw(f"{cluster}: {repman.summary(notes)}")
        for verdict in repman.VERDICTS:
            for text in _alike(moved, cluster, verdict):
                ctx.out.raw(f"  {verdict:<10}  {text}")
    ctx.out.raw(f"{target} is written, with {len(moved.secrets)} files of passwords (mode 600) beside it.")
    ctx.out.raw(
        f"Next: end replication-manager, then {ctx.command_line('grants')}, {ctx.command_line('check')} "
        f"and {ctx.command_line('plan')}"
    )
