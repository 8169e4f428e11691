"""The demonstration behind ``scripts/demo``: a site of its own, writers, one switchover, and the books closed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.accounts import APPLICATION, APPLICATION_SCHEMA, ROOT
from tests.support.lab import UNDER_LOAD, Lab, end_all, processes_of
from tests.support.load import ROOT_FOLDER, Load, create_table, now, read_rows
from tests.support.verdict import Verdict, blackout, judge
from tests.support.wait import until

STATE = Path(os.environ.get("PROXYROUTE_DEMO_STATE", ROOT_FOLDER / ".demo" / "state.json"))
"""Where the folder of a demo that was left running is written down."""
POOLED, POOLED_RATE = 8, 50
FRESH, FRESH_RATE = 2, 25
STEADY_WRITES = 400
ERRORS = {
    1053: "server shutdown",
    1205: "lock wait timeout",
    1290: "server is read-only",
    1927: "connection was killed",
    2003: "cannot connect",
    2006: "server has gone away",
    2013: "lost connection",
}


@dataclass(frozen=True)
class Report:
    """What the demonstration found."""

    ok: bool
    switchover_exit: int
    old_primary: str
    new_primary: str
    blackout_ms: float
    pooled: Verdict
    fresh: Verdict
    whole: Verdict
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
        }


class Ended(SystemExit):
    """A signal asked us to end; everything is taken down on the way out."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demonstration. Returns its exit status: 0 when all is well."""
    options = _options(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        if options.down:
            return down()
        if options.keep and _kept() is not None:
            print("A demo is kept running already; scripts/demo --down ends it.", file=sys.stderr)
            return 2
        return demonstrate(as_json=options.json, keep=options.keep)
    except KeyboardInterrupt:
        print("\ninterrupted; everything has been taken down", file=sys.stderr)
        return 130


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(128 + number)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", add_help=False)  # scripts/demo itself has the help
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--down", action="store_true")
    return parser.parse_args(argv)


def demonstrate(*, as_json: bool, keep: bool) -> int:
    """Runs everything once. Returns the exit status."""
    begun = time.monotonic()
    print("ProxyRoute demo: starting a private cluster and an HAProxy on loopback …", flush=True)
    lab = Lab.start(3, disk=True, options=UNDER_LOAD, outlive=keep)
    kept = False
    try:
        show_site(lab, time.monotonic() - begun)
        report = perform(lab)
        show_report(lab, report)
        if keep:
            _remember(lab)
            kept = True
            show_help(lab)
    finally:
        if not kept:
            lab.close()
    if as_json:
        print(json.dumps(report.to_json()), flush=True)
    return 0 if report.ok else 1


def perform(lab: Lab) -> Report:
    """Writes through the proxy, moves the primary, writes on, and closes the books."""
    old = lab.cluster.primary.name
    create_table(lab.cluster[old])
    lab.cluster.await_synced()
    with (
        Load.start(lab.write, writers=POOLED, rate=POOLED_RATE) as pooled,
        Load.start(lab.write, writers=FRESH, rate=FRESH_RATE, mode="fresh", first=POOLED) as fresh,
    ):
        print(f"writers through HAProxy: {POOLED} that keep their session, {POOLED_RATE} writes/s each,")
        print(f"and {FRESH} that connect anew for every write, {FRESH_RATE}/s each\n", flush=True)
        pooled.await_more(STEADY_WRITES)
        begin = now()
        status = run_switchover(lab)
        pooled.await_more(STEADY_WRITES)
        fresh.await_more(FRESH)
        window = (begin, now())
        sessions = await_sessions(lab)
        books = pooled.stop(), fresh.stop()
    new = lab.cluster.primary.name
    until(lambda: all(n.gtid() == lab.cluster[new].gtid() for n in lab.cluster), "all servers to catch up")
    rows = read_rows(lab.cluster)
    whole = judge(books[0] + books[1], rows, new, [window])
    astray = [server for found in sessions for server, count in found.items() if count and server != new]
    return Report(
        ok=status == 0 and new != old and whole.clean and not astray,
        switchover_exit=status,
        old_primary=old,
        new_primary=new,
        blackout_ms=round(blackout(books[0] + books[1], window) * 1000, 1),
        pooled=judge(books[0], rows, new, [window]),
        fresh=judge(books[1], rows, new, [window]),
        whole=whole,
        sessions=sessions[0],
        proxied=sessions[1],
    )


def run_switchover(lab: Lab) -> int:
    """Runs the real command line, its output where ours goes. Returns its exit status."""
    command = lab.command("switchover", "--yes")
    print(f"$ proxyroute {' '.join(command[1:])}\n", flush=True)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        try:
            return child.wait()
        except BaseException:
            child.kill()
            raise


def await_sessions(lab: Lab) -> tuple[dict[str, int], dict[str, int]]:
    """Returns where the application's sessions are, by the servers' word and by HAProxy's.

    They are counted while the writers are at it; a client between two connections is in neither.
    """
    return lab.sessions(), lab.proxied()


def show_site(lab: Lab, seconds: float) -> None:
    version = lab.cluster["db1"].value("VERSION()")
    haproxy = subprocess.run([lab.haproxy.binary, "-v"], capture_output=True, text=True, check=True).stdout.split()
    print(f"up in {seconds:.1f} s, in {lab.folder}")
    for node in lab.cluster:
        role = "primary" if node.name == "db1" else "replica"
        print(f"  {node.name}      {node.address}  {role}, MariaDB {version}")
    print(f"  haproxy  {lab.write}  writes; reads at {lab.read}; HAProxy {haproxy[2]}")


def show_report(lab: Lab, report: Report) -> None:
    whole = report.whole
    seen = "; ".join(f"{n} × {_kind(kind)}" for kind, n in sorted(report.pooled.errors.items())) or "none"
    print("\nWhat the clients saw")
    print(f"  write blackout      {report.blackout_ms:.1f} ms (longest time without an acknowledged write)")
    print(f"  client errors       {seen} ({POOLED} sessions, at most {report.pooled.errors_per_session} each)")
    print(f"  connecting anew     {sum(report.fresh.errors.values())} errors, {whole.refused} connections refused")
    print(f"  acknowledged rows   {whole.acknowledged}")
    print(f"  rows lost           {len(whole.lost)} (looked for on {report.new_primary}, the new primary)")
    print(f"  rows in doubt       {len(whole.ambiguous)} (errored, and there all the same)")
    print(f"  on two primaries    {whole.double_primary}")
    print(f"  sessions            at the servers: {_places(report.sessions)}; in HAProxy: {_places(report.proxied)}")
    print(f"\n{'All is well.' if report.ok else 'SOMETHING IS WRONG.'}", flush=True)


def _kind(kind: str) -> str:
    phase, _, number = kind.partition(" ")
    return f"{ERRORS.get(int(number), 'error')} ({number}) in a {phase}"


def _places(found: Mapping[str, int]) -> str:
    return ", ".join(f"{server} {count}" for server, count in sorted(found.items())) or "none"


def show_help(lab: Lab) -> None:
    command = f"{os.path.relpath(lab.command()[0])} --config {lab.config}"
    client = f"--user={APPLICATION.user} --password={APPLICATION.password} {APPLICATION_SCHEMA}"
    print(f"""
It is left running:
  {command} status
  {command} plan
  {command} switchover
  {command} history
  mariadb --host={lab.write.host} --port={lab.write.port} {client}    # writes, through HAProxy
  mariadb --host={lab.read.host} --port={lab.read.port} {client}    # reads, through HAProxy
  http://{lab.stats}/    # HAProxy's statistics
  mariadb --socket={lab.cluster["db1"].socket_file} --user={ROOT.user} --password={ROOT.password}
Its configuration, data and logs are in {lab.folder}; scripts/demo --down ends it.""")


def _remember(lab: Lab) -> None:
    STATE.parent.mkdir(exist_ok=True)
    STATE.write_text(json.dumps({"folder": str(lab.folder)}))


def _kept() -> Path | None:
    """Returns the folder of a demo that was left running, or None."""
    try:
        folder = Path(json.loads(STATE.read_text())["folder"])
    except (OSError, ValueError, KeyError):
        return None
    return folder if folder.is_dir() and folder.name.startswith("proxyroute-kept-") else None


def down() -> int:
    """Ends what was kept. Returns the exit status."""
    folder = _kept()
    if folder is None:
        print("No demo is left running.")
    else:
        end_all(folder)
        until(lambda: not processes_of(folder), "the demo's processes to end")
        shutil.rmtree(folder)
        print(f"The demo in {folder} has ended.")
    STATE.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
