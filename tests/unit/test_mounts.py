"""Where a folder's disk is mounted, as the kernel says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxyroute.agent_memory import Local
from proxyroute.errors import ShareError
from proxyroute.haproxy import mounts
from proxyroute.haproxy.mounts import file_system, mount_point, on_mount


def test_a_folder_is_on_the_nearest_mount_above_it(tmp_path: Path) -> None:
    assert mount_point(Path("/")) == "/"
    assert mount_point(Path("/proc/self")) == "/proc"
    assert mount_point(Path("/")) == "/", "what was found last is not what is asked now"
    found = Path(mount_point(tmp_path))
    assert tmp_path.is_relative_to(found)
    assert os.path.ismount(found)
    (tmp_path / "link").symlink_to("/proc")
    assert mount_point(tmp_path / "link") == "/proc"
    with pytest.raises(FileNotFoundError):
        mount_point(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["é", "a b", "a\\040b", "日本\u3000x", "a\rb", os.fsdecode(b"latin-\xe9")])
def test_a_disk_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The kernel tells blanks, tabs, line ends and backslashes in octal, and every other byte as it is."""
    folder = tmp_path / name
    folder.mkdir()
    real = mounts._mount_id(folder).encode()
    told = re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % found[0][0], os.fsencode(folder))
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"1 0 0:1 / / rw - ext4 /dev/a rw\n%s 1 0:99 / %s rw,relatime shared:7 - nfs4 a:/b rw\n" % (real, told)
    )
    monkeypatch.setattr(mounts, "_TABLE", str(table))
    monkeypatch.setattr(mounts, "_places", mounts._Places())
    assert mount_point(folder) == str(folder)
    assert file_system(folder) == "nfs4"
    with on_mount(folder, str(folder)):
        pass


APART = """
import subprocess, sys
from pathlib import Path
from proxyroute.errors import ShareError
from proxyroute.haproxy.mounts import mount_point, on_mount

def run(*argv):
    subprocess.run(argv, check=True)

def refused(folder, wanted):
    try:
        with on_mount(folder, wanted):
            return ""
    except ShareError as error:
        return str(error)

disk = Path(sys.argv[1])
"""


def in_mounts_of_its_own(folder: Path, code: str) -> None:
    """Runs ``code``, which may mount what it likes; ``disk`` is ``folder`` there."""
    own = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", APART + code, str(folder)]
    done = subprocess.run(own, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if "not permitted" in done.stderr:
        pytest.skip(f"no mounts to try it with: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes mounts of its own")
def test_a_folder_that_is_bound_onto_itself_is_no_disk(tmp_path: Path) -> None:
    """systemd does that for ``ReadWritePaths``: after a start of the host without the disk it would look like one."""
    in_mounts_of_its_own(
        tmp_path,
        """
below = mount_point(disk)
run("mount", "-t", "tmpfs", "disk", disk)
assert mount_point(disk) == str(disk)
run("umount", disk)
run("mount", "--bind", disk, disk)  # it gets the number that the disk had
for _ in range(2):
    told = refused(disk, str(disk))
    assert told == f"{disk} is not mounted: it lies on {below}, and its disk belongs on {disk}", told
    run("mount", "--bind", disk, disk)
run("mount", "-t", "tmpfs", "disk", disk)
assert refused(disk, str(disk)) == "", "the disk has come, over what was bound"
run("mount", "--bind", disk, disk)
assert refused(disk, str(disk)) == "", "the disk itself may be bound as well"
""",
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes mounts of its own")
def test_a_folder_on_a_disk_that_is_bound_onto_itself_is_on_that_disk(tmp_path: Path) -> None:
    in_mounts_of_its_own(
        tmp_path,
        """
run("mount", "-t", "tmpfs", "disk", disk)
folder, other = disk / "routes", disk / "other"
folder.mkdir()
other.mkdir()
run("mount", "--bind", folder, folder)
assert refused(folder, str(disk)) == "", "as it was found without systemd"
run("mount", "--bind", other, folder)
assert "lies on" in refused(folder, str(disk)), "that is another folder"
assert mount_point(folder) == str(folder)
""",
    )


def test_nfs_tells_what_is_bound_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says ``/`` of every folder of it, and where it is on the server instead."""
    real = mounts._mount_id(tmp_path)
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "_TABLE", str(table))
    for export, folder, point in (("/e/routes", "/mnt/routes", "/mnt"), ("/e/x", "/mnt/routes", "/mnt/routes")):
        table.write_text(
            f"1 0 0:1 / / rw - ext4 /dev/a rw\n7 1 0:9 / /mnt rw shared:7 - nfs4 a:/e rw\n"
            f"{real} 7 0:9 / {folder} rw - nfs4 a:{export} rw\n"
        )
        monkeypatch.setattr(mounts, "_places", mounts._Places())
        assert mount_point(tmp_path) == point


def read(folder: Path, wanted: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    with on_mount(folder, wanted):
        meanwhile()


def test_what_is_read_elsewhere_does_not_count(tmp_path: Path) -> None:
    with on_mount(Path("/proc"), "") as point:
        assert point == "/proc"
    with on_mount(Path("/proc"), "/proc"):
        pass
    with pytest.raises(ShareError, match="is not mounted: it lies on /proc, and its disk belongs on /mnt/routes"):
        read(Path("/proc"), "/mnt/routes")


def test_a_disk_that_goes_away_meanwhile_has_not_been_read(tmp_path: Path) -> None:
    link = tmp_path / "folder"
    link.symlink_to("/proc")

    def goes_away() -> None:
        link.unlink()
        link.symlink_to("/")

    with pytest.raises(ShareError, match="is not mounted"):
        read(link, "", goes_away)


def test_where_the_disk_is_belongs_to_what_was_learned_in_this_way(tmp_path: Path) -> None:
    """A former version took a folder that systemd had bound onto itself for the place of the disk, and kept that."""
    local = Local(tmp_path)
    local.remember_mount(Path("/mnt/routes"), "/mnt")
    assert local.mount_point(Path("/mnt/routes")) == "/mnt"
    (tmp_path / "mount.json").write_text(json.dumps({"folder": "/mnt/routes", "point": "/mnt/routes"}))
    assert local.mount_point(Path("/mnt/routes")) == ""
    local.close()
