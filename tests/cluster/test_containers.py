"""The site of docker-compose.yml: a switchover under writers, health that tells the truth, and no secret in an image.

Where no container engine runs, one of the tests' own is started; where no public image is, stand-ins under their names
are made from Debian's packages. Skipped, with the reason, where neither can be had.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.compose import SERVICES, Composed, compose_command
from tests.support.dockerd import container_engine
from tests.support.images import Unavailable, docker, provide
from tests.support.lab import PROGRAM
from tests.support.load import ROOT_FOLDER
from tests.support.wait import until

IMAGES = ("proxyroute-engine", "proxyroute-proxy", "proxyroute-database")
PASSWORD = "of-the-test-alone"
WRITER = """
import itertools, pymysql, sys, time
def connect():
    return pymysql.connect(host=sys.argv[1], port=3306, user="app", password=sys.argv[2], database="app",
                           autocommit=True, connect_timeout=10, read_timeout=15, ssl_disabled=True)
session = None
end = time.monotonic() + 60
for n in itertools.count(1):
    if time.monotonic() > end:
        break
    try:
        session = session or connect()
        with session.cursor() as cursor:
            cursor.execute("INSERT INTO ticks VALUES (%s, @@server_id)", (n,))
        print("ok", n, time.time(), flush=True)
    except pymysql.err.MySQLError as error:
        print("error", n, time.time(), error, flush=True)
        session = None
    time.sleep(0.02)
"""


def test_what_compose_reads_holds_no_secret_and_no_default(tmp_path: Path) -> None:
    """Needs compose, and no engine."""
    text = (ROOT_FOLDER / "docker-compose.yml").read_text()
    for service in yaml.safe_load(text)["services"].values():
        given = service.get("environment", {})
        assert not [name for name in given if "PASS" in name.upper() or "TOKEN" in name.upper()], given
    try:
        command = compose_command()
    except Unavailable as reason:
        pytest.skip(str(reason))
    composed = Composed(tmp_path)
    done = composed.command("config")
    assert done.returncode == 0, done.stderr
    assert command
    assert set(yaml.safe_load(done.stdout)["services"]) >= set(SERVICES)


def secrets(folder: Path) -> str:
    """Makes them in ``folder``; returns what is said."""
    argv = [str(ROOT_FOLDER / "scripts" / "compose-secrets")]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PROXYROUTE_SECRETS": str(folder)}
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=environment).stdout


def test_the_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    assert "made in" in secrets(tmp_path / "s")
    files = sorted((tmp_path / "s").iterdir())
    before = {file.name: file.read_bytes() for file in files}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    named = yaml.safe_load((ROOT_FOLDER / "docker-compose.yml").read_text())["secrets"]
    assert set(named) <= set(before)
    passwords = [text for name, text in before.items() if name.endswith(".password")]
    assert len(set(passwords)) == len(passwords)
    assert "nothing was missing" in secrets(tmp_path / "s")
    assert {file.name: file.read_bytes() for file in files} == before
    (tmp_path / "s" / "repl.password").unlink()
    assert "repl.password" in secrets(tmp_path / "s")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    try:
        command = compose_command()
        with container_engine():
            stand_ins = provide()
            print(f"stand-ins: {', '.join(stand_ins) or 'none'}; compose: {' '.join(command)}")
            composed = Composed(tmp_path_factory.mktemp("compose"))
            built = composed.command("build")
            assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
            with composed:
                composed.await_health("healthy")
                yield composed
    except Unavailable as reason:
        pytest.skip(f"no composed site: {reason}")


def status(site: Composed) -> dict[str, object]:
    found: dict[str, object] = json.loads(site.run("engine", "proxyroute", "status", "--json", check=False))
    return found


def switched(site: Composed, new: str) -> dict[str, object]:
    """Makes ``new`` the primary and returns the report.

    Seven containers on a busy machine: a server that does not answer within the second that it has is refused by its
    name, with nothing touched, and that is how often it may be.
    """
    for attempt in range(4):
        said = site.run("engine", "proxyroute", "switchover", "--to", new, "--yes", "--json", check=False)
        report: dict[str, object] = json.loads(said)
        if attempt == 3 or "error" not in report or "did not answer in time" not in said:
            break
        site.await_health("healthy")
    assert "error" not in report, report
    return report


def moved_under_a_writer(site: Composed, address: str) -> None:
    """A switchover while somebody writes through ``address``: proven, nothing lost, one error at the most."""
    old = str(status(site)["primary"])
    new = next(name for name in ("db1", "db2", "db3") if name != old)
    site.sql(old, f"CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON app.* TO app@'%'")
    site.sql(old, "CREATE SCHEMA IF NOT EXISTS app; CREATE OR REPLACE TABLE app.ticks (n INT PRIMARY KEY, server INT)")
    engine = site.container("engine").id
    argv = ["docker", "exec", "--user", "proxyroute", engine, "/opt/proxyroute/bin/python", "-c", WRITER]
    with subprocess.Popen([*argv, address, PASSWORD], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(50)]
            report = switched(site, new)
            moved = time.time()
            while len(lines) < 20_000:
                lines.append(writer.stdout.readline())
                if float(lines[-1].split()[2]) > moved + 1:
                    break
        finally:
            site.signal("engine", "TERM", "/opt/proxyroute/bin/python -c")
            lines += writer.stdout.readlines() if writer.stdout else []
    assert report["verdict"] == "PROVEN", report
    words = [line.split() for line in lines]
    acknowledged = {int(w[1]) for w in words if w and w[0] == "ok"}
    errors = [" ".join(w) for w in words if w and w[0] == "error"]
    assert len(errors) <= 1, errors  # the session that it kept open
    rows = dict(map(int, line.split()) for line in site.sql(new, "SELECT n, server FROM app.ticks").splitlines())
    assert acknowledged <= set(rows)
    assert set(rows.values()) == {int(old[-1]), int(new[-1])}, "before it the old one, afterwards the new one"
    taken = [float(w[2]) for w in words if w and w[0] == "ok"]
    gap = max(b - a for a, b in itertools.pairwise(taken))
    print(f"{len(acknowledged)} rows acknowledged, none lost, {len(errors)} errors, longest gap {gap * 1000:.0f} ms")


@pytest.mark.full
@pytest.mark.timeout(1500)  # images may have to be made first
def test_a_switchover_under_a_writer_is_proven_and_loses_nothing(site: Composed) -> None:
    checked = json.loads(site.run("engine", "proxyroute", "check", "--json"))
    assert checked["findings"] == [], "nothing to complain of, as it comes"
    moved_under_a_writer(site, "10.79.0.22")
    site.await_health("healthy")


@pytest.mark.full
@pytest.mark.timeout(300)
def test_healthy_is_only_what_really_is(site: Composed) -> None:
    primary = str(status(site)["primary"])
    replica = next(name for name in ("db1", "db2", "db3") if name != primary)

    site.sql(replica, "STOP SLAVE SQL_THREAD")
    site.await_health("unhealthy", replica, seconds=30)
    assert "does not replicate" in site.health_log(replica)
    site.sql(replica, "START SLAVE")
    site.await_health("healthy", replica, seconds=30)

    site.signal("edge1", "STOP", "haproxy ")
    site.await_health("unhealthy", "edge1", seconds=30)
    assert "HAProxy does not answer" in site.health_log("edge1")
    site.signal("edge1", "CONT", "haproxy ")
    site.await_health("healthy", "edge1", seconds=30)

    site.container("engine").kill(signal="SIGSTOP")  # from outside: from within a first process ignores it
    site.await_health("unhealthy", "engine", seconds=40)
    site.container("engine").kill(signal="SIGCONT")
    site.await_health("healthy", "engine", seconds=30)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_what_ends_on_a_proxy_host_runs_again_and_nothing_ends_with_it(site: Composed) -> None:
    agent, haproxy = "/opt/proxyroute/bin/python3 -m proxyroute.agent", "haproxy "
    before = site.pids("edge2", haproxy)
    (first,) = site.pids("edge2", agent)
    site.signal("edge2", "KILL", agent)
    until(lambda: site.pids("edge2", agent) not in ([], [first]), "the agent to run again", 30, pause=0.2)
    assert site.pids("edge2", haproxy) == before
    site.signal("edge2", "KILL", haproxy)
    until(lambda: set(site.pids("edge2", haproxy)) - set(before), "HAProxy to run again", 30, pause=0.2)
    site.await_health("healthy", "edge2", seconds=60)


@pytest.mark.full
@pytest.mark.timeout(400)
def test_a_site_that_was_stopped_as_a_whole_comes_back_by_itself(site: Composed) -> None:
    primary = status(site)["primary"]
    down = site.command("down")
    assert down.returncode == 0, down.stderr
    up = site.command("up", "--detach")
    assert up.returncode == 0, up.stderr
    site.await_health("healthy")
    until(lambda: status(site)["primary"] == primary, f"{primary} to take writes again", 60, pause=0.5)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_no_secret_is_in_an_image_or_in_what_the_engine_tells_of_it(site: Composed) -> None:
    texts = {f.name: f.read_text().split()[0] for f in site.secrets.glob("*.password")}
    texts["shared.key"] = (site.secrets / "shared.key").read_text().strip()
    texts["web.key"] = (site.secrets / "web.key").read_text().splitlines()[1]
    for image in IMAGES:
        told = docker("image", "inspect", image) + docker("history", "--no-trunc", image)
        assert not [name for name, text in texts.items() if text in told], image
        words = [option for text in texts.values() for option in ("-e", text)]
        where = ["/etc", "/opt", "/usr/local", "/var/lib", "/mnt", "/run", "/srv", "/root", "/home"]
        argv = ["run", "--rm", "--entrypoint", "sh", image, "-c", 'grep -rlF "$@" || test $? = 1', "sh", *words, *where]
        assert docker(*argv) == "", image
    for service in SERVICES:
        told = json.dumps(site.container(service).attrs["Config"])
        assert not [name for name, text in texts.items() if text in told], service


def test_the_configuration_of_maxscale_is_what_the_product_renders(tmp_path: Path) -> None:
    """Comments and all: the file is committed, so that a container needs no secret to get it."""
    secrets(tmp_path)
    text = (ROOT_FOLDER / "containers" / "maxscale.yml").read_text()
    for path in ("/run/proxyroute/secrets", "/mnt/routes", "/var/lib/proxyroute"):
        text = text.replace(path, str(tmp_path))
    (tmp_path / "proxyroute.yml").write_text(text)
    argv = [str(PROGRAM), "--config", str(tmp_path / "proxyroute.yml"), "render", "--proxy", "mxs1", "--json"]
    rendered = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert rendered["mxs1"]["/etc/maxscale.cnf"] == (ROOT_FOLDER / "containers" / "maxscale.cnf").read_text()


@pytest.mark.full
@pytest.mark.timeout(400)
def test_with_maxscale_a_switchover_is_proven_behind_it_and_its_first_account_is_gone(site: Composed) -> None:
    """The last one of this file: the site has a MaxScale from now on."""
    site.with_maxscale()
    site.await_health("healthy", *SERVICES, "maxscale")
    until(lambda: status(site)["level"] == "good", "everything to follow", 60, pause=0.5)
    moved_under_a_writer(site, "10.79.0.41")
    site.await_health("healthy", *SERVICES, "maxscale")
    assert site.health_log("maxscale") == status(site)["primary"]
    asked = [
        "maxctrl",
        "--secure",
        "--tls-ca-cert=/run/proxyroute/admin.pem",
        "--user",
        "admin",
        "--password",
        "mariadb",
    ]
    with pytest.raises(RuntimeError, match="401"):
        site.run("maxscale", *asked, "list", "users")
