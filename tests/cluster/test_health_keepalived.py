"""keepalived on the hosts of the databases, which asks ``serve`` who the primary is, as the guide configures it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import pytest
import yaml

from proxyroute.model import Address
from tests.support import netns
from tests.support.certificates import make_certificate
from tests.support.death import failed_over, remembered
from tests.support.lab import CLUSTER_NAME
from tests.support.load import ROOT_FOLDER
from tests.support.netlab import NetLab
from tests.support.network import PREFIX_LENGTH, virtual_address
from tests.support.process import Daemon, find_program
from tests.support.scene import beat, switched
from tests.support.serving import serving
from tests.support.vrrp import SYSTEM_PATH
from tests.support.wait import until

GUIDE = ROOT_FOLDER / "docs" / "guide" / "monitoring.md"
ADDRESS = virtual_address()
PORT = 8480


@pytest.fixture
def lab() -> Iterator[NetLab]:
    try:
        netns.require()
        for program in ("keepalived", "curl", "openssl"):
            find_program(program)
    except (netns.Unavailable, FileNotFoundError) as reason:
        pytest.skip(f"no VRRP between hosts: {reason}")
    with NetLab.start(2, 0, proof=False, options={"bind-address": "0.0.0.0"}) as started:
        engine = started.network.hosts["engine1"]
        certificate = make_certificate(started.folder, engine)
        web = {"listen": f"{engine}:{PORT}", "cert": str(certificate.cert), "key": str(certificate.key)}
        values = yaml.safe_load(started.config.read_text()) | {"web": web}
        started.config.write_text(yaml.safe_dump(values, sort_keys=False))
        yield started


class Keepalived:
    """keepalived on one database host, with the file of the guide."""

    def __init__(self, lab: NetLab, host: str) -> None:
        (text,) = re.findall(r"^```keepalived\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
        for what, instead in (
            ("10.0.0.5:8480", f"{lab.network.hosts['engine1']}:{PORT}"),
            ("health/shop/db1/", f"health/{CLUSTER_NAME}/{host}/"),
            ("/etc/keepalived/proxyroute.pem", str(lab.folder / "ca.pem")),
            ("10.0.0.101/24", f"{ADDRESS}/{PREFIX_LENGTH}"),
            ("script_user nobody", "script_user root"),  # nobody else may look into the folder of the laboratory
        ):
            assert text.count(what) == 1, what
            text = text.replace(what, instead)
        self.log = lab.folder / f"keepalived-{host}.log"
        file = lab.folder / f"keepalived-{host}.conf"
        file.write_text(text)
        pids = [word for flag in "pr" for word in (f"-{flag}", str(lab.folder / f"keepalived-{host}.{flag}"))]
        argv = [find_program("keepalived"), "-n", "-l", "-D", "-P", "-f", str(file), *pids]
        self.daemon = Daemon(argv, self.log, launcher=lab.network.launcher(host), environment={"PATH": SYSTEM_PATH})

    @property
    def answer(self) -> str:
        """What the script says, the last time that its word changed: ``succeeded`` or ``failed``."""
        return (["", *re.findall(r"VRRP_Script\(primary\) (succeeded|failed)", self.log.read_text())])[-1]


def holders(lab: NetLab) -> list[str]:
    return [host for host in ("db1", "db2") if lab.network.has_address(host, ADDRESS)]


def at(lab: NetLab, *wanted: str) -> None:
    until(lambda: holders(lab) == list(wanted), f"the address to be at {wanted}", 30, 0.1)


def through(lab: NetLab) -> str:
    with lab.inside("client1"):
        return beat(lab, Address(ADDRESS, 3306))


def test_the_address_follows_the_primary_and_stays_while_nobody_can_be_asked(lab: NetLab) -> None:
    with contextlib.ExitStack() as ends:
        with serving(lab):
            kept = {host: Keepalived(lab, host) for host in ("db1", "db2")}
            for one in kept.values():
                ends.callback(one.daemon.kill)
            at(lab, "db1")
            assert through(lab) == "db1"
            switched(lab, "--to", "db2")
            began = time.monotonic()
            at(lab, "db2")
            print(f"the address was at the new primary {time.monotonic() - began:.1f} s after the switchover")
            assert through(lab) == "db2"
        until(lambda: {one.answer for one in kept.values()} == {"failed"}, "nobody to be told anything any more", 30)
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            assert holders(lab) == ["db2"], "an engine that is away moves no address"
        assert through(lab) == "db2"

        with lab.inside("engine1"):
            remembered(lab)
        with serving(lab):
            until(lambda: kept["db2"].answer == "succeeded", "the primary to be known again", 30)
            lab.cut("db2")
            lab.cluster["db2"].kill9()
            until(lambda: "db1" in holders(lab), "the address to leave the host that is gone", 30)
            failed_over(lab, "--force", code=7)  # no semi-sync, and no proxy that could show that no client reaches it
            assert through(lab) == "db1"
            until(lambda: kept["db1"].answer == "succeeded", "the new primary to be known", 30)
        lab.mend("db2")
        at(lab, "db1")
