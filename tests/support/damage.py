"""What can be wrong with the cables of hosts, as a value, and the switch's rules that make it so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

TABLE = "lab"
Pair = tuple[str, str]


def port(host: str) -> str:
    """The end of a host's cable at the switch."""
    return f"v_{host}"


def late_port(host: str) -> str:
    """What is in the bridge instead of that while a relay makes the host slow."""
    return f"p_{host}"


@dataclass(frozen=True)
class Damage:
    """What is wrong with the cables. A pair is two hosts between which nothing passes; one way, from the first one."""

    off: tuple[str, ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    one_way: tuple[tuple[str, str], ...] = ()
    slow: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by which every frame is late, each way."""
    lossy: Mapping[str, int] = field(default_factory=dict)
    """Of a hundred frames, how many are lost, each way."""
    narrow: Mapping[str, int] = field(default_factory=dict)
    """Kilobits per second that pass, each way."""

    @classmethod
    def read(cls, file: Path) -> Damage:
        """Returns what is written in ``file``; nothing when there is none."""
        if not file.exists():
            return cls()
        told = json.loads(file.read_text())
        for name in ("apart", "one_way"):
            told[name] = tuple((one, other) for one, other in told[name])
        return cls(**{**told, "off": tuple(told["off"])})

    def without(self, host: str) -> Damage:
        """Returns what is left when everything about ``host`` is mended."""
        return Damage(
            tuple(name for name in self.off if name != host),
            tuple(pair for pair in self.apart if host not in pair),
            tuple(pair for pair in self.one_way if host not in pair),
            {name: value for name, value in self.slow.items() if name != host},
            {name: value for name, value in self.lossy.items() if name != host},
            {name: value for name, value in self.narrow.items() if name != host},
        )

    def between(self, one: str, other: str) -> Damage:
        """Returns what is left when the two reach each other again, as far as that is a matter of this pair."""
        return replace(
            self,
            apart=tuple(pair for pair in self.apart if set(pair) != {one, other}),
            one_way=tuple(pair for pair in self.one_way if set(pair) != {one, other}),
        )

    def with_cut(self, host: str) -> Damage:
        """Returns this and the cable of ``host`` pulled."""
        return replace(self, off=tuple(sorted({*self.off, host})))

    def with_apart(self, one: str, other: str) -> Damage:
        """Returns this and nothing between the two."""
        return replace(self, apart=tuple(sorted({*self.apart, (min(one, other), max(one, other))})))

    def with_one_way(self, source: str, target: str) -> Damage:
        """Returns this and nothing from ``source`` to ``target``."""
        return replace(self, one_way=tuple(sorted({*self.one_way, (source, target)})))

    @property
    def named(self) -> set[str]:
        """The hosts that something is wrong with."""
        pairs = (*self.apart, *self.one_way)
        return {*self.off, *self.slow, *self.lossy, *self.narrow}.union(*pairs)

    def lines(self) -> list[str]:
        """Returns what is wrong, a line each, for people; empty when all is well."""
        found = [f"{host} is cut off from everybody" for host in self.off]
        found += [f"{one} and {other} are cut off from each other" for one, other in self.apart]
        found += [f"what {source} sends to {target} is lost" for source, target in self.one_way]
        found += [f"{host} is {value:g} ms late, each way" for host, value in self.slow.items()]
        found += [f"{host} loses {value} % of its frames, each way" for host, value in self.lossy.items()]
        return found + [f"{host} has {value} kbit/s, each way" for host, value in self.narrow.items()]

    def ruleset(self) -> str:
        """Returns the switch's rules: one transaction that puts them in the place of whatever was there.

        Pulled cables, late and narrow ones are no matter of rules.
        """
        rules = []
        for one, other in self.apart:
            rules += [f"{_from(one)} {_to(other)} counter drop", f"{_from(other)} {_to(one)} counter drop"]
        for source, target in self.one_way:
            # they still find each other: otherwise the other way would be lost as well, after half a minute
            rules.append(f"{_from(source)} {_to(target)} ether type != arp counter drop")
        for host, percent in self.lossy.items():
            rules += [f"{end} numgen random mod 100 < {percent} counter drop" for end in (_from(host), _to(host))]
        chain = ["type filter hook forward priority 0; policy accept;", *rules]
        # added first, so that deleting it succeeds also when it was not there
        lines = [
            f"add table bridge {TABLE}",
            f"delete table bridge {TABLE}",
            f"table bridge {TABLE} {{",
            "chain links {",
        ]
        return "\n".join([*lines, *chain, "}", "}", ""])


def _from(host: str) -> str:
    return f"iifname {{ {port(host)}, {late_port(host)} }}"


def _to(host: str) -> str:
    return f"oifname {{ {port(host)}, {late_port(host)} }}"
