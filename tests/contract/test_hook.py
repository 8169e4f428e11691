"""The hook adapter and the programs it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxyroute.adapters.hook import HookSettings
from proxyroute.argv import run, run_argv
from proxyroute.errors import ScriptFailed
from proxyroute.model import Address, ReceiptState
from tests.contract.subjects import HookSubject, soon, table
from tests.support.wait import until


@pytest.fixture
def hook(tmp_path: Path) -> HookSubject:
    subject = HookSubject(tmp_path)
    subject.start()
    return subject


def program(folder: Path, name: str, text: str) -> tuple[str, ...]:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return (str(file),)


def test_the_environment_is_as_documented_and_holds_no_secret(
    hook: HookSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPL_PASSWORD", "hunter2")
    out = hook.folder / "env"
    adapter = hook.adapter(set=program(hook.folder, "dump", f"env > {out}"), read=())
    adapter.apply(table(hook.servers, (1, 2), "db2", {"db1": 50, "db3": 7}), soon())
    seen = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert {name: value for name, value in seen.items() if name.startswith("PROXYROUTE_")} == {
        "PROXYROUTE_CLUSTER": "shop",
        "PROXYROUTE_PROXY": "edge1",
        "PROXYROUTE_PHASE": "apply",
        "PROXYROUTE_EPOCH": "1.2",
        "PROXYROUTE_PRIMARY_NAME": "db2",
        "PROXYROUTE_PRIMARY_HOST": "127.0.0.1",
        "PROXYROUTE_PRIMARY_PORT": "3302",
        "PROXYROUTE_READERS": "db1=50,db3=7",
        "PROXYROUTE_SERVERS": "db1=127.0.0.1:3301,db2=127.0.0.1:3302,db3=127.0.0.1:3303",
    }
    assert "REPL_PASSWORD" not in seen


def test_arguments_reach_the_program_as_they_are(hook: HookSubject) -> None:
    out = hook.folder / "arguments"
    dump = program(hook.folder, "dump", f'printf "%s\\n" "$@" > {out}')
    hook.adapter(set=(*dump, "$HOME; rm x", "a b"), read=()).apply(table(hook.servers, (1, 2), "db2"), soon())
    assert out.read_text().splitlines() == ["$HOME; rm x", "a b"]


def test_without_a_read_back_a_receipt_is_unknown(hook: HookSubject) -> None:
    adapter = hook.adapter(read=())
    target = table(hook.servers, (1, 2), "db2")
    assert adapter.prepare(target, table(hook.servers, (1, 1), "db1"), soon()).state is ReceiptState.PREPARED
    assert adapter.apply(target, soon()).state is ReceiptState.UNKNOWN
    assert adapter.settle(target, soon()).state is ReceiptState.UNKNOWN
    assert not adapter.observe(soon()).reachable
    assert {finding.code for finding in adapter.check(soon())} == {"hook.blind"}


def test_a_program_that_fails_is_a_failed_receipt_with_its_words(hook: HookSubject) -> None:
    adapter = hook.adapter(set=program(hook.folder, "bad", "echo cannot reach the pool >&2; exit 4"))
    receipt = adapter.apply(table(hook.servers, (1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "status 4: cannot reach the pool" in receipt.detail


def test_a_program_that_says_yes_and_does_nothing_is_found_out(hook: HookSubject) -> None:
    receipt = hook.adapter(set=program(hook.folder, "lazy", "exit 0")).apply(table(hook.servers, (1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert receipt.evidence["primary"] == "db1"


def test_the_reload_runs_after_the_set(hook: HookSubject) -> None:
    log = hook.folder / "order"
    adapter = hook.adapter(
        set=program(hook.folder, "one", f"echo set >> {log}"),
        reload=program(hook.folder, "two", f"echo reload >> {log}"),
        read=(),
    )
    adapter.apply(table(hook.servers, (1, 2), "db2"), soon())
    assert log.read_text().split() == ["set", "reload"]


def test_a_reload_that_failed_is_run_again(hook: HookSubject) -> None:
    runs, allowed = hook.folder / "runs", hook.folder / "allowed"
    adapter = hook.adapter(reload=program(hook.folder, "reload", f"echo run >> {runs}; test -e {allowed}"))
    target = table(hook.servers, (1, 2), "db2")
    assert adapter.apply(target, soon()).state is ReceiptState.FAILED
    assert adapter.settle(target, soon()).state is ReceiptState.FAILED, "what set wrote does not count yet"
    allowed.touch()
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    assert runs.read_text().split() == ["run"] * 3, "what is done is not done again"


def test_a_read_back_that_hangs_does_not_keep_the_route_from_being_set(hook: HookSubject) -> None:
    adapter = hook.adapter(read=program(hook.folder, "hang", "exec sleep 30"))
    receipt = adapter.settle(table(hook.servers, (1, 2), None), soon(3))
    assert receipt.state is ReceiptState.UNKNOWN
    assert hook.state.read_text() == "closed 1.2"


@pytest.mark.parametrize(
    ("printed", "primary"), [("db2", "db2"), ("127.0.0.1:3303", "db3"), ("closed", None), ("db1 9.1", "db1")]
)
def test_a_read_back_names_the_server_in_either_way(hook: HookSubject, printed: str, primary: str | None) -> None:
    seen = hook.adapter(read=program(hook.folder, "say", f"echo {printed}")).observe(soon())
    assert (seen.reachable, seen.primary) == (True, primary)


@pytest.mark.parametrize("printed", ["", "db9", "10.0.0.9:3306", "db1 soon"])
def test_a_read_back_nobody_understands_is_not_believed(hook: HookSubject, printed: str) -> None:
    seen = hook.adapter(read=program(hook.folder, "say", f"echo {printed}")).observe(soon())
    assert not seen.reachable
    assert seen.detail


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"set": ()}, "set"),
        ({"set": ("x",), "timeout": 0.0}, "timeout"),
        ({"set": ("x",), "write_address": ":"}, "wri"),
    ],
)
def test_settings_name_the_field_that_is_wrong(values: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        HookSettings(**values)  # type: ignore[arg-type]


def test_addresses_for_the_proof_come_from_the_settings(hook: HookSubject) -> None:
    adapter = hook.adapter(read_address="db.example:3307")
    assert adapter.routes("read") == (Address("db.example", 3307),)
    assert hook.adapter(write_address="").routes("write") == ()


def test_when_its_time_is_over_a_program_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    argv = program(tmp_path, "slow", f"sleep 60 & echo $$ $! > {pids}; wait")
    with pytest.raises(ScriptFailed, match="did not end in time"):
        run_argv(argv, {}, soon(0.5))
    until(lambda: all(_over(int(pid)) for pid in pids.read_text().split()), "both processes to end")


def _over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_a_program_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    assert run_argv(program(tmp_path, "quick", f"sleep 60 & echo $! > {pids}; echo out"), {}, soon(20)) == "out\n"
    pid = int(pids.read_text())
    assert not _over(pid)
    os.kill(pid, 9)


def test_a_program_ended_by_a_signal_or_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match="ended by signal 15"):
        run_argv(program(tmp_path, "suicide", "kill -TERM $$"), {}, soon())
    with pytest.raises(ScriptFailed, match="cannot be started"):
        run_argv((str(tmp_path / "nothing"),), {}, soon())
    with pytest.raises(ScriptFailed, match="no time was left"):
        run_argv(("true",), {}, soon(0))


def test_run_returns_whatever_the_status(tmp_path: Path) -> None:
    done = run(program(tmp_path, "seven", "echo out; echo err >&2; exit 7"), {}, soon())
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")
