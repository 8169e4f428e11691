"""The demonstration behind ``scripts/demo``: a site of its own, writers, one switchover, and the books closed.

Two proxy hosts follow a shared folder. On the way the agent of one and the HAProxy of the other are killed.
"""

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
from dataclasses import replace
from pathlib import Path
from types import FrameType

import yaml

from tests.support.accounts import APPLICATION, APPLICATION_SCHEMA, ROOT
from tests.support.demo_report import Cost, Killed, Report, Standing, show_hosts, show_report
from tests.support.hosts import ProxyHost
from tests.support.lab import UNDER_LOAD, Lab, end_all, processes_of
from tests.support.load import ROOT_FOLDER, Load, Records, RowId, create_table, now, read_rows
from tests.support.process import free_port
from tests.support.supervisor import Service, Supervisor
from tests.support.verdict import Verdict, Window, blackout, judge
from tests.support.wait import until

STATE = Path(os.environ.get("PROXYROUTE_DEMO_STATE", ROOT_FOLDER / ".demo" / "state.json"))
"""Where the folder of a demo that was left running is written down."""
POOLED, POOLED_RATE = 8, 50
FRESH, FRESH_RATE = 2, 25
STEADY_WRITES = 400


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
    print("ProxyRoute demo: starting a private cluster and two proxy hosts on loopback …", flush=True)
    lab = Lab.start(3, hosts=2, disk=True, options=UNDER_LOAD, outlive=keep)
    kept = False
    try:
        show_site(lab, time.monotonic() - begun)
        report = perform(lab)
        show_report(report, POOLED)
        if keep:
            _remember(lab)
            kept = True
            show_help(lab, _with_pages(lab))
    finally:
        if not kept:
            lab.close()
    if as_json:
        print(json.dumps(report.to_json()), flush=True)
    return 0 if report.ok else 1


def perform(lab: Lab) -> Report:
    """Writes through both hosts, moves the primary, kills what can be killed, writes on, and closes the books."""
    old = lab.cluster.primary.name
    create_table(lab.cluster[old])
    lab.cluster.await_synced()
    places = [host.write for host in lab.hosts]
    first, second = lab.hosts
    agents, haproxies = _services(lab)
    with (
        Supervisor(*agents, *haproxies),
        Load.start(places, writers=POOLED, rate=POOLED_RATE) as pooled,
        Load.start(places, writers=FRESH, rate=FRESH_RATE, mode="fresh", first=POOLED) as fresh,
    ):
        print(f"writers through both hosts: {POOLED} that keep their session, {POOLED_RATE} writes/s each,")
        print(f"and {FRESH} that connect anew for every write, {FRESH_RATE}/s each\n", flush=True)
        pooled.await_more(STEADY_WRITES)
        without_agent = kill_agent(first, agents[0], pooled)
        begin = now()
        status = run_switchover(lab)
        pooled.await_more(STEADY_WRITES)
        fresh.await_more(FRESH)
        window = (begin, now())
        show_hosts("Receipts of the hosts, from the shared folder", [Standing.of(host) for host in lab.hosts])
        without_haproxy = kill_haproxy(second, haproxies[1], pooled)
        fresh.await_more(FRESH)
        sessions = await_sessions(lab)
        hosts = [Standing.of(host) for host in lab.hosts]
        show_hosts("Receipts of the hosts afterwards", hosts)
        books = pooled.stop(), fresh.stop()
    new = lab.cluster.primary.name
    until(lambda: all(n.gtid() == lab.cluster[new].gtid() for n in lab.cluster), "all servers to catch up")
    rows = read_rows(lab.cluster)
    everything = books[0] + books[1]
    ambiguous = judge(everything, rows, new, [window]).ambiguous
    costs = [
        Cost.of(killed, everything, _at_home(lab, killed.host), ambiguous)
        for killed in (without_agent, without_haproxy)
    ]
    whole, kept, anew = (_without(part, without_haproxy, rows, new, window) for part in (everything, *books))
    astray = [server for found in sessions for server, count in found.items() if count and server != new]
    behind = [host for host in hosts if (host.state, host.route) != ("done", new)]
    return Report(
        ok=status == 0 and new != old and whole.clean and not (costs[0].errors or astray or behind),
        switchover_exit=status,
        old_primary=old,
        new_primary=new,
        blackout_ms=round(blackout(everything, window) * 1000, 1),
        pooled=kept,
        fresh=anew,
        whole=whole,
        costs=costs,
        hosts=hosts,
        sessions=sessions[0],
        proxied=sessions[1],
    )


def _services(lab: Lab) -> tuple[list[Service], list[Service]]:
    """Returns agents and HAProxies as their supervisor sees them."""

    def agent(host: ProxyHost) -> Service:
        def start() -> int:
            host.start_agent()
            return _pid(host)

        return Service(f"agent of {host.name}", _pid(host), start, host.kill_agent)

    def haproxy(host: ProxyHost) -> Service:
        def start() -> int:
            host.start_haproxy()
            return host.haproxy.pid

        return Service(f"HAProxy of {host.name}", host.haproxy.pid, start, host.haproxy.kill9)

    return [agent(host) for host in lab.hosts], [haproxy(host) for host in lab.hosts]


def _pid(host: ProxyHost) -> int:
    assert host.agent is not None
    return host.agent.pid


def kill_agent(host: ProxyHost, service: Service, load: Load) -> Killed:
    """Kills the agent of ``host`` while writes flow; returns when it has taken up its work and writes still flow."""

    def back() -> bool:
        return bool(service.starts) and host.status().get("since", 0.0) > died

    pid, died = service.pid, time.time()
    print(f"$ kill -9 {pid}    # the agent of {host.name}", flush=True)
    begun = now()
    os.kill(pid, signal.SIGKILL)
    until(back, f"the agent of {host.name} to be back")
    killed = _killed("agent", host, pid, begun, service)
    print(
        f"its supervisor has started it again after {killed.started_ms:.0f} ms; after {killed.back_ms:.0f} ms it knows "
        f"its route, epoch {host.status()['epoch']}\n",
        flush=True,
    )
    load.await_more(STEADY_WRITES // 2)
    return replace(killed, window=(begun, now()))


def kill_haproxy(host: ProxyHost, service: Service, load: Load) -> Killed:
    """Kills the HAProxy of ``host`` while writes flow; returns when it takes writes again and they flow."""
    route, pid = host.route(), service.pid

    def back() -> bool:
        return bool(service.starts) and host.route() == route

    print(f"\n$ kill -9 -{pid}    # the HAProxy of {host.name}, master and worker", flush=True)
    begun = now()
    os.killpg(pid, signal.SIGKILL)
    until(back, f"the HAProxy of {host.name} to take writes again")
    killed = _killed("HAProxy", host, pid, begun, service)
    print(
        f"its supervisor has started it again after {killed.started_ms:.0f} ms, closed for writes; after "
        f"{killed.back_ms:.0f} ms its agent has opened it: {route.partition('/')[0]}, epoch {route.partition('/')[2]}",
        flush=True,
    )
    load.await_more(STEADY_WRITES)
    return replace(killed, window=(begun, now()))


def _killed(what: str, host: ProxyHost, pid: int, begun: float, service: Service) -> Killed:
    over = now()
    return Killed(
        what,
        host.name,
        pid,
        (begun, over),
        started_ms=round((service.starts[0] - begun) * 1000, 1),
        back_ms=round((over - begun) * 1000, 1),
    )


def _at_home(lab: Lab, host: str) -> frozenset[int]:
    """Returns the writers whose first choice is ``host``: the hosts are given out in turn."""
    names = [each.name for each in lab.hosts]
    kept = {n for n in range(POOLED) if names[n % len(names)] == host}
    return frozenset(kept | {POOLED + n for n in range(FRESH) if names[n % len(names)] == host})


def _without(
    records: Records, killed: Killed, rows: Mapping[str, Mapping[RowId, int]], new: str, window: Window
) -> Verdict:
    """Closes the books without what the end of ``killed`` did to its clients; that is told apart.

    Their rows in doubt are explained: they are no rows that nobody knows of.
    """
    begun, over = killed.window
    cut = [f for f in records.failed if begun <= f.ended <= over]
    kept = Records(records.acknowledged, tuple(f for f in records.failed if f not in cut))
    found = judge(kept, rows, new, [window])
    return replace(found, unexplained=found.unexplained - {(f.writer, f.n) for f in cut})


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
    """Returns where the application's sessions are, by the servers' word and by the HAProxies'.

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
    for host in lab.hosts:
        print(f"  {host.name}    {host.write}  writes; reads at {host.read}; HAProxy {haproxy[2]} and its agent")
    print(f"routes are published in {lab.shared}; the hosts learn of changes by {lab.hosts[0].status()['watch']}")


def _with_pages(lab: Lab) -> str:
    """Lets ``proxyroute serve`` have pages; returns where."""
    listen = f"127.0.0.1:{free_port()}"
    values = yaml.safe_load(lab.config.read_text())
    lab.config.write_text(yaml.safe_dump(values | {"web": {"listen": listen}}, sort_keys=False))
    return f"http://{listen}/"


def show_help(lab: Lab, pages: str) -> None:
    command = f"{os.path.relpath(lab.command()[0])} --config {lab.config}"
    client = f"--user={APPLICATION.user} --password={APPLICATION.password} {APPLICATION_SCHEMA}"
    print(f"""
It is left running:
  {command} status
  {command} plan
  {command} switchover
  {command} history
  {command} token create you --scope operate    # then, to log in with that at {pages}
  {command} serve
  mariadb --host={lab.write.host} --port={lab.write.port} {client}    # writes, through edge1
  mariadb --host={lab.read.host} --port={lab.read.port} {client}    # reads, through edge1
  {os.path.relpath(lab.command()[0])} agent status --config {lab.hosts[1].agent_file}
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
