"""A whole site behind MaxScale: a real cluster, one or several doubles that route to it, and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.lab import CLUSTER_NAME, Lab, site_config
from tests.support.mariadb import LocalCluster, Node
from tests.support.maxscale.backends import Databases
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.double import Double
from tests.support.wait import until


class MaxScaleLab(Lab):
    """``doubles`` are mxs1, mxs2 …; clients go to the first. In MaxScale the servers have names of their own."""

    doubles: tuple[Double, ...] = ()

    @classmethod
    def begin(
        cls,
        mode: str,
        *,
        number: int = 1,
        policy: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
        semi_sync: bool = False,
        options: Mapping[str, Any] | None = None,
        proxy: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> MaxScaleLab:
        """Starts everything; returns when clients can write.

        ``settings`` go to the doubles, ``options`` to servers, ``proxy`` into the configuration of each proxy.
        """
        lab = cls(LocalCluster.start(3, semi_sync=semi_sync, options=dict(options or {})))
        try:
            known = {f"mx-{node.name}": node.address for node in lab.cluster}
            monitor = {"monitor": mode == "following", "monitor_parameters": {"monitor_interval": "2000ms"}}
            doubles = [Double(known, Databases(), **{**monitor, **settings}) for _ in range(number)]
            lab.doubles = tuple(double.start(route=True) for double in doubles)
            lab.write, lab.read = lab.doubles[0].write, lab.doubles[0].read
            secret = lab.folder / "maxscale.password"
            secret.touch(mode=0o600)
            secret.write_text("mariadb")
            proxies = [
                {
                    "type": "maxscale",
                    "name": f"mxs{n}",
                    "url": double.url,
                    "mode": mode,
                    "user": "admin",
                    "password": {"file": str(secret)},
                    "write_address": str(double.write),
                    "read_address": str(double.read),
                    **(proxy or {}),
                }
                for n, double in enumerate(lab.doubles, 1)
            ]
            values = site_config(lab.cluster, lab.folder, proxies=proxies, policy=policy, more=more)
            lab.config.write_text(yaml.safe_dump(values, sort_keys=False))
            lab.run("publish", check=True)
        except BaseException:
            lab.close()
            raise
        return lab

    @property
    def double(self) -> Double:
        return self.doubles[0]

    def bits(self, double: Double | None = None) -> dict[str, Bit]:
        """Returns the bits of each server, the hidden ones included."""
        found = double or self.double
        return {node.name: found.bits(f"mx-{node.name}") for node in self.cluster}

    def shown(self, dead: Node) -> str | None:
        """A monitor shows nobody while the primary is dead, and that one as soon as it is up; it is awaited here.

        Until its next look it shows the dead one, and whoever did not get as far as MaxScale did not make it look.
        """
        if not self.double.machine.monitors:
            return dead.name
        until(lambda: Bit.MASTER not in self.bits()[dead.name], f"the monitor to see that {dead.name} is dead")
        return None

    def change_proxy(self, **changes: Any) -> None:
        """Changes the first proxy in the configuration."""
        values = yaml.safe_load(self.config.read_text())
        values["clusters"][CLUSTER_NAME]["proxies"][0].update(changes)
        self.config.write_text(yaml.safe_dump(values, sort_keys=False))

    def close(self) -> None:
        for double in self.doubles:
            double.stop()
        super().close()
