"""The OCF agent as Pacemaker calls it, one action after the other, with the real engine; and by ocf-tester."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from tests.support.lab import CLUSTER_NAME, PROGRAM, end_all, processes_of
from tests.support.load import ROOT_FOLDER
from tests.support.process import find_program, free_port, is_stopped, search_path, workspace
from tests.support.wait import until

AGENT = ROOT_FOLDER / "scripts" / "ocf" / "proxyroute"
OCF_ROOT = Path("/usr/lib/ocf")
FUNCTIONS = OCF_ROOT / "lib" / "heartbeat" / "ocf-shellfuncs"
AT_WORK = "import time; print('at work', flush=True); time.sleep(600)"
NOBODY = ("setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups", "--")
SQUASHED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--")
"""Root as it is on a network disk with root_squash: it may not do what nobody else may do with a file."""
OK, GENERIC, ARGS, UNIMPLEMENTED, INSTALLED, CONFIGURED, NOT_RUNNING = 0, 1, 2, 3, 5, 6, 7


class Resource:
    """One resource on one node: its parameters, and what the actions answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "serve.log"
        (folder / "run").mkdir()
        (folder / "state").mkdir()
        (folder / "password").write_text("secret")
        secret = {"file": str(folder / "password")}
        nobody = f"127.0.0.1:{free_port()}"
        shop = {
            "account": {"user": "proxyroute", "password": secret},
            "replication": {"user": "repl", "password": secret},
            "servers": {"db1": nobody, "db2": nobody.replace("127.0.0.1", "127.0.0.2")},
        }
        self.values = {"version": 1, "state_dir": str(folder / "state"), "clusters": {CLUSTER_NAME: shop}}
        self.config = folder / "proxyroute.yml"
        self.configure()
        self.parameters = {
            "binary": str(PROGRAM),
            "config": str(self.config),
            "user": "root",
            "state_dir": str(folder / "state"),
            "logfile": str(self.log),
        }

    def configure(self, **changes: object) -> None:
        self.config.write_text(yaml.safe_dump(self.values | changes))

    @property
    def environment(self) -> dict[str, str]:
        told = {f"OCF_RESKEY_{name}": value for name, value in self.parameters.items()}
        fixed = {"OCF_ROOT": str(OCF_ROOT), "OCF_RESOURCE_INSTANCE": "engine", "HA_RSCTMP": str(self.folder / "run")}
        return {**os.environ, "PATH": search_path(), **fixed, **told}

    def act(self, action: str, timeout: float = 60.0, launcher: Sequence[str] = ()) -> tuple[int, str]:
        """Returns what the agent answers within ``timeout``, and its words. ``launcher`` stands before its argv."""
        environment = {**self.environment, "OCF_RESKEY_CRM_meta_timeout": f"{timeout * 1000:.0f}"}
        # the engine has its output in the log, so nobody else keeps these pipes open
        done = subprocess.run(
            [*launcher, str(AGENT), action], capture_output=True, text=True, env=environment, timeout=timeout, cwd="/"
        )
        return done.returncode, done.stderr

    @property
    def pid(self) -> int:
        return int((self.folder / "run" / "proxyroute-engine.pid").read_text())

    @property
    def ready(self) -> Path:
        return self.folder / "run" / "proxyroute-engine" / "ready"


@pytest.fixture
def resource() -> Iterator[Resource]:
    if os.geteuid() != 0:
        pytest.skip("only root runs resources of a cluster")
    if not FUNCTIONS.exists():
        pytest.skip("resource-agents is not installed; run scripts/setup --for test")
    with_folder = workspace()
    try:
        yield Resource(with_folder)
    finally:
        end_all(with_folder)
        subprocess.run(["rm", "-rf", str(with_folder)], check=True)


def test_it_starts_is_there_and_stops_however_often_it_is_told(resource: Resource) -> None:
    assert resource.act("monitor") == (NOT_RUNNING, "")
    assert resource.act("stop")[0] == OK
    assert resource.act("start")[0] == OK
    first = resource.pid
    assert resource.ready.read_text() == f"{first}\n"
    assert resource.act("monitor") == (OK, "")
    assert resource.act("start")[0] == OK
    assert resource.pid == first
    assert '"serving"' in resource.log.read_text()
    assert resource.act("stop")[0] == OK
    assert processes_of(resource.folder) == []
    assert resource.act("monitor") == (NOT_RUNNING, "")
    assert resource.act("stop")[0] == OK


def test_what_it_says_of_itself_is_valid(resource: Resource) -> None:
    done = subprocess.run([str(AGENT), "meta-data"], capture_output=True, text=True, env=resource.environment)
    assert done.returncode == OK
    told = resource.folder / "meta-data.xml"
    told.write_text(done.stdout.replace("ra-api-1.dtd", "/usr/share/resource-agents/ra-api-1.dtd"))
    subprocess.run([find_program("xmllint"), "--noout", "--valid", str(told)], check=True)


def test_an_action_that_there_is_not(resource: Resource) -> None:
    assert resource.act("promote")[0] == UNIMPLEMENTED


@pytest.mark.parametrize("name", ["binary", "config", "user", "state_dir"])
def test_what_is_missing_on_this_node_is_named_and_no_reason_for_a_probe_or_a_stop_to_fail(
    resource: Resource, name: str
) -> None:
    assert resource.act("validate-all") == (OK, "")
    resource.parameters[name] = "/nowhere/to-be-found"
    status, words = resource.act("validate-all")
    assert (status, "/nowhere/to-be-found" in words) == (INSTALLED, True)
    assert resource.act("start")[0] == INSTALLED
    assert resource.act("monitor")[0] == NOT_RUNNING
    assert resource.act("stop")[0] == OK


def test_a_configuration_with_a_mistake_keeps_this_node_from_it_and_says_which(resource: Resource) -> None:
    resource.configure(state_directory="x")
    status, words = resource.act("start")
    assert status == ARGS
    assert "state_directory" in words
    assert resource.act("monitor")[0] == NOT_RUNNING


def test_a_process_that_was_killed_is_not_there_and_its_number_is_nobodys(resource: Resource) -> None:
    assert resource.act("start")[0] == OK
    killed = resource.pid
    os.kill(killed, signal.SIGKILL)
    until(lambda: resource.act("monitor")[0] == NOT_RUNNING, "monitor to notice")
    # another program has got the number meanwhile
    (resource.folder / "run" / "proxyroute-engine.pid").write_text(f"{os.getpid()}\n")
    assert resource.act("monitor")[0] == NOT_RUNNING
    assert resource.act("stop")[0] == OK


def test_one_that_gives_no_sign_of_life_is_told_from_one_that_is_gone(resource: Resource) -> None:
    assert resource.act("start")[0] == OK
    os.kill(resource.pid, signal.SIGSTOP)
    until(lambda: is_stopped(resource.pid), "it to stand still")
    hours_ago = time.time() - 7200
    os.utime(resource.ready, (hours_ago, hours_ago))
    status, words = resource.act("monitor")
    assert status == GENERIC
    assert "no sign of life" in words
    os.kill(resource.pid, signal.SIGCONT)
    until(lambda: resource.ready.stat().st_mtime > hours_ago + 3600, "a sign of life")
    assert resource.act("monitor") == (OK, "")


def test_a_stop_ends_within_its_time_out_though_the_engine_does_not(resource: Resource) -> None:
    assert resource.act("start")[0] == OK
    os.kill(resource.pid, signal.SIGSTOP)
    began = time.monotonic()
    status, words = resource.act("stop", timeout=12.0)
    assert status == OK
    assert time.monotonic() - began < 12.0
    assert "killed" in words
    assert processes_of(resource.folder) == []


def stopped_by(resource: Resource, argv: Sequence[str], *, as_nobody: bool = False, squashed: bool = False) -> str:
    """Lets a process be at work while the resource is stopped; returns what ``stop`` says once it has ended it."""
    whom = (*NOBODY, *argv) if as_nobody else argv
    with subprocess.Popen(whom, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            status, words = resource.act("stop", timeout=6.0, launcher=SQUASHED if squashed else ())
            assert (status, process.poll()) == (OK, -signal.SIGKILL), words
            return words
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("said", "by"),
    [("{0}/", "{0}"), ("//{0}//", "{0}"), ("{1}", "{0}"), ("{0}", "{1}"), ("{1}/", "{1}")],
    ids=["slash", "slashes", "symlink-said", "symlink-configured", "both"],
)
def test_a_guard_is_found_by_whichever_name_state_dir_has(resource: Resource, said: str, by: str) -> None:
    state, link = resource.folder / "state", resource.folder / "link"
    link.symlink_to(state)
    resource.parameters["state_dir"] = said.format(state, link)
    journal = f"{by.format(state, link)}/shop/journal/op.jsonl"
    (state / "shop" / "journal").mkdir(parents=True)
    (state / "shop" / "journal" / "op.jsonl").touch()
    words = stopped_by(resource, [sys.executable, "-c", AT_WORK, "proxyroute.guard", journal])
    assert "at work until the end of the time-out" in words


def test_a_guard_of_another_state_dir_is_left_alone(resource: Resource) -> None:
    (resource.folder / "state-of-another").mkdir()
    argv = [sys.executable, "-c", AT_WORK, "proxyroute.guard", str(resource.folder / "state-of-another" / "op.jsonl")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            assert resource.act("stop", timeout=6.0) == (OK, "")
            assert process.poll() is None
        finally:
            process.kill()


@pytest.fixture
def of_nobody(resource: Resource) -> Resource:
    """A resource whose engine runs as nobody, in a state_dir that root may not look into as it is on a network disk."""
    folder = resource.folder / "state" / "shop"
    folder.mkdir()
    (folder / f"lease-{os.uname().nodename}.lock").touch(mode=0o600)
    resource.folder.chmod(0o755)
    subprocess.run(["chown", "-R", "nobody", str(resource.folder / "state")], check=True)
    (resource.folder / "state").chmod(0o700)
    resource.parameters["user"] = "nobody"
    return resource


def test_a_holder_of_the_lease_is_found_where_root_sees_nothing(of_nobody: Resource) -> None:
    lock = of_nobody.folder / "state" / "shop" / f"lease-{os.uname().nodename}.lock"
    hold = f'echo "{{\\"term\\": 7, \\"holder\\": \\"here:$$\\"}}" >{lock}; echo at work; exec sleep 600'
    argv = ["flock", "--no-fork", str(lock), "sh", "-c", hold]
    words = stopped_by(of_nobody, argv, as_nobody=True, squashed=True)
    assert "at work until the end of the time-out" in words


def test_a_lock_that_nobody_may_look_at_is_told(of_nobody: Resource) -> None:
    lock = of_nobody.folder / "state" / "shop" / f"lease-{os.uname().nodename}.lock"
    lock.chmod(0)
    status, words = of_nobody.act("stop", timeout=6.0)
    assert status == OK
    assert f"cannot be told: nobody cannot use {lock}" in words


def test_one_that_is_started_while_another_serves_here_is_refused(resource: Resource) -> None:
    other = subprocess.Popen(
        [str(PROGRAM), "--config", str(resource.config), "serve"], stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert other.stdout is not None
    try:
        assert "serving" in other.stdout.readline()
        status, words = resource.act("start")
        assert status == ARGS
        assert f"served already by process {other.pid}" in words
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_it_runs_as_the_user_that_is_named(resource: Resource) -> None:
    """With a stand-in for the engine: the real one may lie where nobody else than root may look."""
    program = resource.folder / "engine"
    program.write_text(
        '#!/bin/sh\nfor file; do :; done\nid -un >"$file"\nid -Gn >>"$file"\nwhile :; do sleep 0.1; done\n'
    )
    for place, mode in ((program, 0o755), (resource.folder, 0o755), (resource.folder / "run", 0o755)):
        place.chmod(mode)
    resource.parameters |= {"binary": str(program), "user": "nobody"}
    assert resource.act("start")[0] == OK
    until(lambda: len(resource.ready.read_text().splitlines()) == 2, "it to say who it is")
    user, groups = resource.ready.read_text().splitlines()
    assert (user, "root" in groups.split()) == ("nobody", False)
    assert resource.act("monitor") == (OK, "")
    assert resource.act("stop")[0] == OK
    assert resource.act("monitor")[0] == NOT_RUNNING


def test_ocf_tester_is_content(resource: Resource) -> None:
    try:
        tester = find_program("ocf-tester")
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    words = [word for name, value in resource.parameters.items() for word in ("-o", f"{name}={value}")]
    done = subprocess.run(
        [tester, "-n", "engine", *words, str(AGENT)],
        capture_output=True,
        text=True,
        env={**resource.environment, "OCF_RESKEY_CRM_meta_timeout": "60000"},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed all tests" in done.stdout
