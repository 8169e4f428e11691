"""Disks that are really full, and really read-only: the shared folder, and those of a host's own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proxyroute.cli import main
from proxyroute.model import ReceiptState
from tests.contract.agents import AgentsSubject
from tests.contract.subjects import CLUSTER, soon
from tests.support.disk import Disk, small_disk
from tests.support.wait import until

FULL, READ_ONLY = "No space left on device", "Read-only file system"


def spoil(disk: Disk, words: str) -> None:
    if words == FULL:
        disk.fill()
    else:
        disk.read_only()


def mend(disk: Disk, words: str) -> None:
    if words == FULL:
        disk.free()
    else:
        disk.read_only(False)


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Callable[[str], tuple[AgentsSubject, Disk]]]:
    """Starts a proxy host that has ``shared``, its ``state`` or its ``etc`` on a small disk."""
    with contextlib.ExitStack() as ends:

        def start(what: str) -> tuple[AgentsSubject, Disk]:
            folder = tmp_path / what if what == "shared" else tmp_path / "edge1" / what
            made = AgentsSubject(tmp_path, read=False)
            folder.mkdir(exist_ok=True)
            try:
                disk = ends.enter_context(small_disk(folder))
            except PermissionError as reason:
                made.close()
                pytest.skip(str(reason))
            ends.callback(made.close)
            if what == "etc":
                made.host.config_file, made.host.map_file = folder / "haproxy.cfg", folder / "haproxy.route.map"
            made.host.write_agent_file(config_file=str(made.host.config_file))
            made.start(made.table((1, 1), "db1"))
            return made, disk

        yield start


def status(host: AgentsSubject) -> tuple[int, dict[str, Any]]:
    """What an operator on the host is told, and by which exit code."""
    done = CliRunner().invoke(main, ["agent", "status", "--json", "--config", str(host.host.agent_file)])
    return done.exit_code, json.loads(done.stdout)


def troubled(host: AgentsSubject, words: str) -> None:
    until(lambda: words in " ".join(status(host)[1].get("trouble", ())), f"the status to say {words!r}")
    assert status(host)[0] == 1


def in_order(host: AgentsSubject) -> None:
    """Asserts that everything goes on by itself: no trouble, nothing lying about, and the next route is followed."""
    until(lambda: status(host)[0] == 0, "the trouble to be over")
    receipt = host.adapter().settle(host.table((1, 3), "db3"), soon())
    assert receipt.state is ReceiptState.DONE, receipt
    assert (host.host.route(), host.client().server) == ("db3/1.3", "db3")
    until(lambda: list(host.folder.rglob("*.new")) == [], "nothing to be left lying about")


@pytest.mark.parametrize("words", [FULL, READ_ONLY])
def test_a_shared_folder_that_takes_nothing_is_told_and_what_it_says_is_untouched(
    on_disk: Callable[[str], tuple[AgentsSubject, Disk]], words: str
) -> None:
    host, disk = on_disk("shared")
    current = host.shared / CLUSTER / "current.json"
    before = current.read_bytes()
    spoil(disk, words)
    adapter, target = host.adapter(), host.table((1, 2), "db2")
    for receipt in (
        adapter.prepare(target, host.table((1, 2), "db1"), soon()),
        adapter.apply(target, soon()),
        adapter.settle(target, soon()),
    ):
        assert receipt.state is ReceiptState.FAILED
        assert words in receipt.detail
    assert words in adapter.release(soon()).detail
    (found,) = adapter.check(soon())
    assert (found.code, words in found.text) == ("agents.folder", True)
    assert current.read_bytes() == before
    assert (host.host.route(), host.client().server) == ("db1/1.1", "db1")
    mend(disk, words)
    in_order(host)


@pytest.mark.parametrize("words", [FULL, READ_ONLY])
def test_a_receipt_that_finds_no_room_is_told_on_the_host_and_comes_later(
    on_disk: Callable[[str], tuple[AgentsSubject, Disk]], words: str
) -> None:
    host, disk = on_disk("shared")
    host.host.kill_agent()
    adapter, target = host.adapter(), host.table((1, 2), "db2")
    assert adapter.apply(target, soon(0.3)).state is ReceiptState.UNKNOWN
    spoil(disk, words)
    host.host.start_agent()
    until(lambda: host.host.route() == "db2/1.2", "the new route")  # it is followed all the same
    troubled(host, "the receipt cannot be written")
    troubled(host, words)
    assert host.client().server == "db2"
    mend(disk, words)
    until(lambda: host.host.receipt().receipt.epoch == target.epoch, "the receipt")
    in_order(host)


@pytest.mark.parametrize("words", [FULL, READ_ONLY])
def test_an_agent_whose_own_disk_takes_nothing_follows_nothing_it_could_forget_and_says_so(
    on_disk: Callable[[str], tuple[AgentsSubject, Disk]], words: str
) -> None:
    host, disk = on_disk("state")
    until(lambda: status(host)[0] == 0, "the agent to be in order")
    spoil(disk, words)
    adapter, target = host.adapter(), host.table((1, 2), "db2")
    refused = adapter.prepare(target, host.table((1, 2), "db1"), soon())
    assert refused.state is ReceiptState.FAILED
    assert refused.detail.startswith("could not remember a route in")
    assert words in refused.detail
    receipt = adapter.apply(target, soon())
    assert receipt.state is ReceiptState.FAILED
    assert words in receipt.detail
    assert (host.host.route(), host.client().server) == ("db1/1.1", "db1")
    troubled(host, f"the agent cannot write in {host.host.state_dir} ({words})")
    mend(disk, words)
    until(lambda: host.host.route() == "db2/1.2", "what was announced to be followed")
    in_order(host)


@pytest.mark.parametrize("words", [FULL, READ_ONLY])
def test_a_haproxy_whose_files_cannot_be_written_refuses_before_and_still_moves_in_memory(
    on_disk: Callable[[str], tuple[AgentsSubject, Disk]], words: str
) -> None:
    host, disk = on_disk("etc")
    spoil(disk, words)
    adapter, target = host.adapter(), host.table((1, 2), "db2")
    refused = adapter.prepare(target, host.table((1, 2), "db1"), soon())
    assert refused.state is ReceiptState.FAILED
    assert words in refused.detail
    assert adapter.apply(target, soon()).state is ReceiptState.DONE  # no file is touched
    assert (host.host.route(), host.client().server) == ("db2/1.2", "db2")
    settled = adapter.settle(target, soon())
    assert settled.state is ReceiptState.FAILED
    assert words in settled.detail
    troubled(host, words)
    assert host.client().server == "db2"
    mend(disk, words)
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    in_order(host)
