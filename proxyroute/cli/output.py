"""How things look: plain tables without frames, at most 80 columns when not on a terminal, colour only on one."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from proxyroute.config import InvalidConfig
from proxyroute.errors import ProxyRouteError, Refused
from proxyroute.jsonable import dump
from proxyroute.model import Finding, Severity
from proxyroute.words import legible

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.text import Text

STYLES = {"good": "green", "warn": "yellow", "bad": "bold red", "quiet": "dim"}
_HEADINGS = {Severity.ERROR: "Errors", Severity.WARNING: "Warnings", Severity.INFO: "Notes"}
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})
"""How a stream fails that takes nothing; what becomes of our own files has errors of its own."""
_FINDING_STYLES = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: "quiet"}


def styled(text: object, level: str = "") -> Text:
    """Returns ``text`` as it is (brackets and colons mean nothing, nor what acts on a terminal) in the colour of
    ``level``."""
    from rich.text import Text  # like all of rich: takes a while to import, and JSON wants none of it

    return Text(legible(str(text)), style=STYLES.get(level, level))


def _cell(text: object, level: str = "") -> Text:
    from rich.text import Text

    return text if isinstance(text, Text) else styled(text, level)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


class Output:
    """Where a command writes. Everything people read goes through here; JSON is one object on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @cached_property
    def console(self) -> Console:
        """Standard output, for people."""
        return _console(stderr=False)

    @cached_property
    def errors(self) -> Console:
        """Standard error, for people."""
        return _console(stderr=True)

    def json(self, value: Any) -> None:
        click.echo(dump(value))

    @contextlib.contextmanager
    def ended(self, code: int) -> Iterator[None]:
        """For the ``with`` block that shows how an act has ended: ends with ``code``, whether it could be shown or not.

        Raises SystemExit.
        """
        try:
            yield
        except OSError as error:
            lose_stdout(error)
        raise SystemExit(code)

    def line(self, text: object = "", level: str = "") -> None:
        self.console.print(_cell(text, level))

    def raw(self, text: str) -> None:
        """Writes text that somebody may copy: never wrapped, never cut."""
        click.echo(text)

    def heading(self, text: str) -> None:
        self.console.print()
        self.console.print(styled(text, "bold"))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
        """Writes a table; a cell is text, or a :class:`rich.text.Text` with a colour. Columns end in ``>``: right."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        if indent:
            table.add_column("", width=indent, no_wrap=True)
        for number, column in enumerate(columns):
            side: JustifyMethod = "right" if column.endswith(">") else "left"
            table.add_column(column.rstrip(">"), justify=side, overflow="fold", no_wrap=number == 0)
        for row in rows:
            cells = [_cell(cell) for cell in row]
            table.add_row(*([styled("")] if indent else []), *cells)
        self.console.print(table)

    def findings(self, findings: Iterable[Finding]) -> None:
        """Writes findings, the worst first, each with its cure on a line of its own that can be copied."""
        found = list(findings)
        width = max((len(f.subject) for f in found), default=0)
        for severity, heading in _HEADINGS.items():
            chosen = [f for f in found if f.severity is severity]
            if chosen:
                self.heading(heading)
            for finding in chosen:
                self._finding(finding, width)

    def _finding(self, finding: Finding, width: int) -> None:
        from rich.table import Table

        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(min_width=width + 2, no_wrap=True)
        grid.add_column(overflow="fold")
        text = styled(finding.text, _FINDING_STYLES[finding.severity]).append(f" ({finding.code})", style="dim")
        grid.add_row(f"  {finding.subject}", text)
        self.console.print(grid)
        forced = finding.forceable and finding.severity is Severity.ERROR
        for cure in (finding.cure, "--force goes on in spite of it" if forced else ""):
            if cure:
                self.raw(" " * (width + 4) + f"→ {cure}")

    def error(self, error: ProxyRouteError) -> None:
        """Writes an error: as JSON on standard output with ``--json``, else for people on standard error."""
        findings: tuple[Finding, ...] = error.findings if isinstance(error, Refused) else ()
        if self.as_json:
            value: dict[str, Any] = {
                "kind": type(error).__name__,
                "text": str(error),
                "exit_code": error.exit_code,
                "findings": findings,
            }
            if isinstance(error, InvalidConfig):
                value["problems"] = error.problems
            self.json({"error": value})
            return
        said = any(finding.text in str(error) for finding in findings)
        text = "refused, nothing was touched:" if said else f"refused: {error}"
        self.errors.print(styled(text if isinstance(error, Refused) else error, "bad"), soft_wrap=True)
        for finding in findings:
            self.errors.print(styled(f"  {finding.subject}: {finding.text}"), soft_wrap=True)
            if finding.cure:
                self.errors.print(styled(f"      {finding.cure}"), soft_wrap=True)


def lose_stdout(error: OSError) -> None:
    """Says why standard output takes nothing, and lets go of what it still has.

    Otherwise Python would try once more when it ends, and end with a code of its own.
    """
    if error.errno != errno.EPIPE:  # else nobody reads any more, and need not be told
        with contextlib.suppress(OSError):  # both may go to the same file
            click.echo(f"standard output: {error.strerror}; not everything could be shown", err=True)
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def stdout_lost() -> bool:
    """Tells whether standard output does not take what it still has; then it is given up."""
    try:
        if sys.stdout is not None:  # it is None where it was closed before we began
            sys.stdout.flush()
    except OSError as error:
        lose_stdout(error)
        return True
    return False


def verdict_level(verdict: str | None) -> str:
    return {"PROVEN": "good", "NOT PROVEN": "bad", "UNKNOWN": "warn"}.get(str(verdict), "")
