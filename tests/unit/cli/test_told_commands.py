"""Every command that a message or a page of the documentation tells somebody to type is one that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from proxyroute.cli import main

ROOT = Path(__file__).parents[3]
TOLD = re.compile(r"""(?:(?<=[\s"'`(>$#])|^)proxyroute ((?:--?)?[a-z][^"'`;:,()|\n\\]*)""")
"""A command within a sentence, up to where a sentence would go on."""
VALUE = re.compile(r"\{.+\}|[A-Z][A-Z:.]*")
"""What stands for a value: a placeholder of Python's, or a word like SERVER."""


@cache
def told() -> tuple[tuple[str, int, str], ...]:
    """Returns file, line and words of every command told."""
    return tuple(_told())


def _told() -> Iterator[tuple[str, int, str]]:
    files = [*ROOT.glob("proxyroute/**/*.py"), *ROOT.glob("docs/guide/*.md"), *ROOT.glob("docs/reference/*.md")]
    for file in sorted([*files, ROOT / "README.md"]):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not re.match(r"\s*(from|import) ", line):
                for found in TOLD.findall(line):
                    yield str(file.relative_to(ROOT)), number, found.strip()


def wrong_with(words: list[str]) -> str:
    """Says what a command of these words lacks, or nothing; prose after it is left out."""
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group) and words:
        if words[0].startswith("-"):
            break
        found = command.get_command(context, words[0].rstrip("."))
        if found is None:
            prose = command is main or command.invoke_without_command
            return "" if prose else f"no command {words[0]}"
        command, words = found, words[1:]
    options = {name: p for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)}
    arguments = sum(isinstance(p, click.Argument) for p in command.params)
    given = 0
    rest = iter(words)
    for word in rest:
        name, _, joined = word.rstrip(".?").partition("=")
        if name.startswith("--"):
            if name not in options and name != "--help":
                return f"{command.name} has no option {name}"
            if name in options and not options[name].is_flag and not joined:
                next(rest, None)
        elif VALUE.fullmatch(name):
            given += 1
        else:
            break
    return f"{command.name} takes {arguments} argument(s)" if given > arguments else ""


def test_it_finds_what_is_wrong() -> None:
    assert wrong_with(["verify", "SERVER"]) == "verify takes 0 argument(s)"
    assert wrong_with(["rejoin", "{name}", "--methods", "reseed"]) == "rejoin has no option --methods"
    assert wrong_with(["token", "make", "NAME"]) == "no command make"
    assert not wrong_with(["rejoin", "{name}", "--method", "reseed", "brings", "it", "back"])
    assert len(told()) > 100


@pytest.mark.parametrize("place", sorted({file for file, _, _ in told()}))
def test_every_command_told_can_be_typed(place: str) -> None:
    wrong = {f"{n}: proxyroute {text}": wrong_with(text.split()) for file, n, text in told() if file == place}
    assert {text: why for text, why in wrong.items() if why} == {}
