"""The shell scripts, and those that a guide prints, are what shellcheck and the plainest shell take."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELL = re.compile(r"#!\s*/(?:usr/)?bin/(?:env )?(?:ba|da)?sh\b")
PRINTED = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@cache
def scripts() -> dict[str, str]:
    """Returns the text of every shell script that is shipped or that a guide has people write, by where it stands."""
    found = {}
    for folder in ("scripts", "containers", "tests/support"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file() and file.suffix in ("", ".sh"):
                text = file.read_text(errors="replace")
                if SHELL.match(text):
                    found[str(file.relative_to(ROOT))] = text
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for text in map(textwrap.dedent, PRINTED.findall(page.read_text())):
            if SHELL.match(text):
                found[f"{page.relative_to(ROOT)}, {text.splitlines()[1]}"] = text
    return found


def test_they_are_found() -> None:
    assert {"scripts/ocf/proxyroute", "scripts/ocf/fence", "scripts/setup", "containers/database"} <= set(scripts())
    assert [name for name in scripts() if name.startswith("docs/guide/scripts.md, ")]


def checked(*argv: str, text: str) -> str:
    """Returns what a checker has to say of a script, empty if nothing; skips where there is no such checker."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed (Debian: apt-get install {argv[0]})")
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=120)
    return (done.stdout + done.stderr).strip() or ("" if done.returncode == 0 else f"exit status {done.returncode}")


@pytest.mark.parametrize("name", scripts())
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    assert not checked("shellcheck", "-", text=scripts()[name])


@pytest.mark.parametrize("name", [name for name, text in scripts().items() if text.startswith("#!/bin/sh")])
def test_dash_reads_what_is_for_any_shell(name: str) -> None:
    assert not checked("dash", "-n", text=scripts()[name])


def test_what_is_wrong_is_found() -> None:
    assert "SC2086" in checked("shellcheck", "-", text="#!/bin/sh\necho $1\n")
    assert "yntax error" in checked("dash", "-n", text="a=(1 2)\n")
