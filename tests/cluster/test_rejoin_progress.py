"""What is seen of a server that is built anew while that goes on, and where there is no room for old data and new."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.broken import await_equal, diverge, ready
from tests.support.disk import small_disk
from tests.support.dumps import slowly
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.mariadb import Node
from tests.support.scene import assert_order
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
FULL = ("mariadb-11.8",)
NOTE = re.compile(r"([\d.]+) (k|M)B of about ([\d.]+) MB, [\d.]+ (?:k|M)?B/s, about (\d+) s left")
SECONDS = 18
"""For which the copy takes, about: long enough for it to be told once how far it is."""


def fill(primary: Node, rows: int = 9000) -> int:
    """Gives the cluster data of some megabytes, with an index; returns about how many bytes of a dump that is."""
    primary.sql("CREATE TABLE app.v (id INT PRIMARY KEY, f VARCHAR(300), KEY (f))")
    primary.sql(f"INSERT INTO app.v SELECT seq, CONCAT(seq, REPEAT('x', 290)) FROM app.seq_1_to_{rows}")
    primary.sql("ANALYZE TABLE app.v")  # what the servers count themselves is right only some seconds after that
    return rows * 300


@pytest.mark.parametrize(
    "way",
    [
        "dump and load",
        pytest.param(
            "copy",
            marks=[pytest.mark.full, pytest.mark.mariadb_only("a clone is no program whose data could be held up")],
        ),
    ],
    ids=["dump", "copy"],
)
def test_rate_and_time_left_are_shown_while_a_copy_goes_on(way: str, start_lab: Callable[..., Lab]) -> None:
    with start_lab(2) as lab:
        ready(lab, hosts=way == "copy")
        program = "mariabackup" if way == "copy" else lab.cluster.dumper
        size = fill(lab.cluster.primary)
        old, new = diverge(lab)
        if way == "copy":
            size = int(new.value("(SELECT SUM(FILE_SIZE) FROM information_schema.INNODB_SYS_TABLESPACES)"))
        environment = {**os.environ, **slowly(lab, program, size / SECONDS)}
        argv = lab.command("rejoin", old.name, "--method", "reseed", "--yes")
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as rejoin:
            assert rejoin.stdout is not None
            seen = ""
            for line in rejoin.stdout:
                seen += line
                if NOTE.search(seen):
                    break
            assert rejoin.poll() is None, f"it is shown while it goes on, not afterwards: {seen}"
            (operation,) = [o for o in lab.json("history")[1]["operations"] if o["outcome"] in ("open", "begun")]
            kept = lab.run("show", operation["operation"]).stdout
            found = NOTE.search(" ".join(kept.split()))
            assert found, f"whoever asks meanwhile sees it as well: {kept}"
            print(found[0])
            done = float(found[1]) * (1e3 if found[2] == "k" else 1e6)
            total, left = float(found[3]) * 1e6, float(found[4])
            assert 0.2 * total < done < total, found[0]
            assert 0 < left < 2 * SECONDS, found[0]
            seen += rejoin.stdout.read()
        assert rejoin.returncode == 0, seen
        await_equal(old, new)


# -- No room for both ---------------------------------------------------------------------------------------------


@pytest.fixture
def cramped(tmp_path: Path, start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """A site with hosts; the data of db1 are on a disk of their own on which they are not twice."""
    with start_lab(2) as lab:
        ready(lab, hosts=True)
        node = lab.cluster["db1"]
        fill(node)
        lab.cluster.await_synced()
        node.stop()
        used = sum(f.stat().st_size for f in (node.folder / "data").rglob("*") if f.is_file())
        try:
            with small_disk(tmp_path, int(used * 1.7)):
                shutil.copytree(node.folder / "data", tmp_path / "data")
                node.set_options({"datadir": str(tmp_path / "data")})
                node.start()
                node.sql("SET GLOBAL read_only=0")
                values = yaml.safe_load(lab.config.read_text())
                values["clusters"][CLUSTER_NAME]["servers"]["db1"]["host"]["data_dir"] = str(tmp_path / "data")
                lab.config.write_text(yaml.safe_dump(values, sort_keys=False))
                until(lab.cluster["db2"].replicates, "db2 to follow")
                try:
                    yield lab
                finally:
                    lab.cluster.kill()
                    node.stop()
        except PermissionError as error:
            pytest.skip(str(error))


@pytest.mark.full
@pytest.mark.mariadb_only("a clone drops the data of the target first: it never needs room for both")
def test_without_room_for_the_old_data_they_are_not_kept_and_that_is_said(cramped: Lab, tmp_path: Path) -> None:
    old, new = diverge(cramped)
    status, value = cramped.json("rejoin", old.name, "--method", "reseed", "--yes")
    assert (status, value["verdict"]) == (0, "PROVEN"), value
    records = cramped.json("show", value["result"]["operation"])[1]["records"]
    told = [r["text"] for r in records if r["kind"] == "note"]
    (why,) = [text for text in told if text.startswith(f"the old data of {old.name} are not kept: ")]
    assert re.search(r"no room beside the data of db1: \d+ MiB are free, \d+ are needed", why)
    names = [r["name"] for r in records if r["kind"] == "stepped"]
    assert "dump and load" in names
    assert "swap" not in names
    await_equal(old, new)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["data"], "nothing half made is left on the full disk"
    assert_order(cramped, new.name)
