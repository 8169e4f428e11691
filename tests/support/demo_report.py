"""What the demonstration found: values, and how they are told on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.support.hosts import ProxyHost
from tests.support.load import Records, longest_gap
from tests.support.verdict import Verdict, Window

ERRORS = {
    0: "not let in",
    1053: "server shutdown",
    1205: "lock wait timeout",
    1290: "server is read-only",
    1927: "connection was killed",
    2003: "cannot connect",
    2006: "server has gone away",
    2013: "lost connection",
}


@dataclass(frozen=True)
class Killed:
    """A process that was killed on the way, and when all was as before."""

    what: str
    host: str
    pid: int
    window: Window
    started_ms: float
    """Until its supervisor had started it again."""
    back_ms: float
    """Until it did its work again."""


@dataclass(frozen=True)
class Cost:
    """What a killed process cost the clients."""

    killed: Killed
    errors: Mapping[str, int]
    """Failed writes and connections by phase and error number."""
    in_doubt: int
    """Rows that are there although the client was told of an error."""
    longest_wait_ms: float
    """The longest time without an acknowledged write of any client that is at home there."""
    blackout_ms: float
    """The longest time without an acknowledged write of all clients."""

    @classmethod
    def of(
        cls, killed: Killed, records: Records, at_home: frozenset[int], ambiguous: frozenset[tuple[int, int]]
    ) -> Cost:
        """Closes the books over the window of ``killed``; ``at_home`` are the writers of its host."""
        inside = records.between(*killed.window)
        waits = [
            longest_gap((w.acknowledged for w in inside.acknowledged if w.writer == writer), *killed.window)
            for writer in at_home
        ]
        return cls(
            killed,
            dict(Counter(failure.kind for failure in inside.failed)),
            len({(f.writer, f.n) for f in inside.failed if f.phase == "statement"} & ambiguous),
            round(max(waits) * 1000, 1),
            round(longest_gap((w.acknowledged for w in inside.acknowledged), *killed.window) * 1000, 1),
        )

    def to_json(self) -> dict[str, Any]:
        killed = asdict(self.killed)
        del killed["window"]
        return {**killed, **{k: v for k, v in vars(self).items() if k != "killed"}}


@dataclass(frozen=True)
class Standing:
    """A proxy host by its receipt, and where its HAProxy sends writes."""

    host: str
    phase: str
    state: str
    epoch: str
    release: str
    watch: str
    pid: int
    """Of the HAProxy process that the receipt is about."""
    route: str

    @classmethod
    def of(cls, host: ProxyHost) -> Standing:
        """Reads the receipt in the shared folder. Raises ShareError when there is none."""
        said = host.receipt()
        receipt = said.receipt
        pid = int(receipt.evidence.get("pid", 0))
        route = host.route().partition("/")[0]
        return cls(host.name, said.phase, str(receipt.state), str(receipt.epoch), said.release, said.watch, pid, route)


@dataclass(frozen=True)
class Report:
    """What the demonstration found. What a killed HAProxy cost is told apart from what the switchover did."""

    ok: bool
    switchover_exit: int
    old_primary: str
    new_primary: str
    blackout_ms: float
    pooled: Verdict
    fresh: Verdict
    whole: Verdict
    """Of everything but the errors of the killed HAProxy."""
    costs: Sequence[Cost] = ()
    hosts: Sequence[Standing] = ()
    sessions: Mapping[str, int] = field(default_factory=dict)
    proxied: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "ok": self.ok,
            "switchover_exit": self.switchover_exit,
            "old_primary": self.old_primary,
            "new_primary": self.new_primary,
            "blackout_ms": self.blackout_ms,
            "client_errors": dict(self.whole.errors),
            "fresh_errors": sum(self.fresh.errors.values()),
            "errors_per_session": self.pooled.errors_per_session,
            "refused_new": self.whole.refused,
            "acknowledged": self.whole.acknowledged,
            "lost": len(self.whole.lost),
            "ambiguous": len(self.whole.ambiguous),
            "double_primary": self.whole.double_primary,
            "sessions": {"servers": dict(self.sessions), "proxy": dict(self.proxied)},
            "killed": [cost.to_json() for cost in self.costs],
            "hosts": [asdict(host) for host in self.hosts],
        }


def show_hosts(title: str, hosts: Sequence[Standing]) -> None:
    """Prints the receipts as a table."""
    rows = [("host", "phase", "state", "epoch", "release", "writes to", "learns of changes by", "haproxy pid")]
    rows += [(h.host, h.phase, h.state, h.epoch, h.release, h.route, h.watch, str(h.pid)) for h in hosts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())


def show_report(report: Report, sessions: int) -> None:
    """Prints what the clients saw; ``sessions`` is how many keep theirs."""
    whole = report.whole
    print("\nWhat the clients saw of the switchover")
    print(f"  write blackout      {report.blackout_ms:.1f} ms (longest time without an acknowledged write)")
    seen = _kinds(report.pooled.errors)
    print(f"  client errors       {seen} ({sessions} sessions, at most {report.pooled.errors_per_session} each)")
    print(f"  connecting anew     {sum(report.fresh.errors.values())} errors, {whole.refused} connections refused")
    for cost in report.costs:
        killed = cost.killed
        print(f"What the clients of {killed.host} saw when its {killed.what} was killed")
        print(f"  errors              {_kinds(cost.errors)}")
        if cost.errors:
            print(f"  rows in doubt       {cost.in_doubt} (errored, and there all the same)")
        print(f"  longest wait        {cost.longest_wait_ms:.1f} ms for one client, {cost.blackout_ms:.1f} ms for all")
    print("What is in the books, all in all")
    print(f"  acknowledged rows   {whole.acknowledged}")
    print(f"  rows lost           {len(whole.lost)} (looked for on {report.new_primary}, the new primary)")
    print(f"  rows in doubt       {len(whole.ambiguous)} by the switchover (errored, and there all the same)")
    print(f"  on two primaries    {whole.double_primary}")
    print(f"  sessions            at the servers: {_places(report.sessions)}; in HAProxy: {_places(report.proxied)}")
    print(f"\n{'All is well.' if report.ok else 'SOMETHING IS WRONG.'}", flush=True)


def _kinds(errors: Mapping[str, int]) -> str:
    return "; ".join(f"{n} × {_kind(kind)}" for kind, n in sorted(errors.items())) or "none"


def _kind(kind: str) -> str:
    phase, _, number = kind.partition(" ")
    return f"{ERRORS.get(int(number), 'error')} ({number}) in a {phase}"


def _places(found: Mapping[str, int]) -> str:
    return ", ".join(f"{server} {count}" for server, count in sorted(found.items())) or "none"
