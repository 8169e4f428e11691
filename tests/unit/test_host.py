"""Programs on hosts: quoting, deadlines, pipes, secrets."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from proxyroute.errors import ScriptFailed
from proxyroute.host import Host, Program, option_file, output, prefix, pump
from proxyroute.model import Deadline
from tests.support.wait import until

ODD = 'it\'s a "test" $HOME `id` *; \\ \n end'


@pytest.fixture
def ssh(tmp_path: Path) -> str:
    """A program called ssh that does with its words what ssh does: join them and give them to a shell."""
    file = tmp_path / "ssh"
    file.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    file.chmod(0o755)
    return str(file)


def soon() -> Deadline:
    return Deadline.after(10)


def test_words_arrive_as_they_are_through_ssh(ssh: str) -> None:
    host = Host("db1", (ssh, "root@db1"))
    assert output(host.program("printf", "%s", ODD), soon()).decode() == ODD
    assert host.ask('printf %s "$1$2"', ODD, "x", deadline=soon()) == ODD + "x"


def test_words_arrive_as_they_are_through_anything_else() -> None:
    assert Host("db1", ("env",)).ask('printf %s "$1"', ODD, deadline=soon()) == ODD


def test_the_prefix_of_a_host() -> None:
    assert prefix((), "root", "10.0.0.1")[-1] == "root@10.0.0.1"
    assert "BatchMode=yes" in prefix((), "root", "10.0.0.1")
    assert prefix(("nsenter", "x"), "", "10.0.0.1") == ("nsenter", "x")


def test_an_option_file_is_given_and_not_in_the_arguments() -> None:
    program = Program(("sh", "-c", 'printf "%s " "$@"'), options="[client]\npassword=secret\n")
    reading = Program(("cat",), options="[client]\n")
    assert "secret" not in repr(program)
    with pytest.raises(ScriptFailed):  # cat knows no --defaults-file; what it got is a path only we can open
        output(reading, soon())
    text = option_file("client", {"password": 'a"b\\c', "ssl": True, "nothing": None})
    assert text == '[client]\npassword="a\\"b\\\\c"\nssl\n'


def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(ScriptFailed, match="in time"):
        output(Program(("sh", "-c", f"sleep 600 & echo $! >{pid}; wait")), Deadline.after(2.0))
    until(partial(_ended, int(pid.read_text())), "the child to end")


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(ScriptFailed, match="status 3: no such thing"):
        output(Program(("sh", "-c", "echo no such thing >&2; exit 3")), soon())
    with pytest.raises(ScriptFailed, match="cannot be started"):
        output(Program(("/nowhere/at/all",)), soon())


def test_a_pipe_of_two_programs(tmp_path: Path) -> None:
    seen: list[int] = []
    target = tmp_path / "copy"
    heads: list[bytes] = []
    pump(
        Program(("head", "-c", "3000000", "/dev/zero")),
        Program(("sh", "-c", 'cat >"$0"', str(target))),
        soon(),
        seen.append,
        head=10,
        hear=lambda head: bool(heads.append(head)),
    )
    assert target.stat().st_size == seen[-1] == 3_000_000
    assert heads == [bytes(10)]


def test_the_head_of_a_pipe_is_heard_while_the_rest_is_still_to_come(tmp_path: Path) -> None:
    """What it raises ends both at once."""
    go, heads = tmp_path / "go", []  # type: tuple[Path, list[bytes]]
    text = 'printf one; until [ -e "$0" ]; do sleep 0.02; done; printf two'
    source = Program(("sh", "-c", text, str(go)))

    def hear(head: bytes) -> bool:
        heads.append(head)
        go.touch()
        return b"two" in head

    pump(source, Program(("cat",)), soon(), head=100, hear=hear)
    assert heads == [b"one", b"onetwo"]
    go.unlink()
    deadline = soon()
    with pytest.raises(ScriptFailed, match="not wanted"):
        pump(source, Program(("cat",)), deadline, head=100, hear=lambda _: refuse())
    assert not deadline.passed


def refuse() -> bool:
    raise ScriptFailed("not wanted")


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("printf half; echo broken >&2; exit 1", "cat >/dev/null", "broken"),
        ("cat /dev/zero", "head -c 10 >/dev/null; echo full >&2; exit 4", "full"),
        ("printf whole", "cat >/dev/null; echo late >&2; exit 5", "late"),
    ],
)
def test_a_pipe_that_breaks_tells_whose_fault_it_is(source: str, target: str, told: str) -> None:
    with pytest.raises(ScriptFailed, match=told):
        pump(Program(("sh", "-c", source)), Program(("sh", "-c", target)), soon())


def test_the_environment_of_ours_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "secret")
    assert "secret" not in output(Program(("env",)), soon()).decode()
    assert os.environ["PATH"] in output(Program(("env",)), soon()).decode()
