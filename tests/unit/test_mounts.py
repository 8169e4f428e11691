"""Where a folder's disk is mounted, as the kernel says."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

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
    monkeypatch.setattr(mounts, "_last", [("", "")])
    assert mount_point(folder) == str(folder)
    assert file_system(folder) == "nfs4"
    with on_mount(folder, str(folder)):
        pass


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
