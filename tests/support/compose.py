"""The site of ``docker-compose.yml``, brought up by testcontainers from images that are built here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.images import Unavailable
from tests.support.load import ROOT_FOLDER
from tests.support.process import find_program
from tests.support.wait import until

SERVICES = ("db1", "db2", "db3", "edge1", "edge2", "engine")
_SHIM = """\
#!/bin/sh
# `docker compose …` of an engine that has only docker-compose
shift
exec {program} "$@"
"""


def compose_command() -> list[str]:
    """Returns the words before a command of compose. Raises Unavailable when there is none."""
    try:
        docker = find_program("docker")
        if subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
            return [docker, "compose"]
        return [find_program("docker-compose")]
    except FileNotFoundError as error:
        raise Unavailable(f"no compose: {error}") from None


class Composed:
    """The site. ``folder`` takes its secrets; use it as a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = folder / "secrets"
        self.project = f"proxyroute{os.getpid()}"
        # any free port: nobody here comes from outside
        names = (
            "EDGE1_WRITE",
            "EDGE1_READ",
            "EDGE2_WRITE",
            "EDGE2_READ",
            "ENGINE_PAGES",
            "MAXSCALE_WRITE",
            "MAXSCALE_READ",
        )
        ports = dict.fromkeys(names, "0")
        self.environment = {
            "PROXYROUTE_SECRETS": str(self.secrets),
            "COMPOSE_PROJECT_NAME": self.project,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            **ports,
        }
        self._compose = self._testcontainers()

    def _testcontainers(self) -> Any:
        from testcontainers.compose import DockerCompose

        command = compose_command()
        if len(command) == 1:
            shim = self.folder / "docker"
            shim.write_text(_SHIM.format(program=command[0]))
            shim.chmod(0o755)
            command = [str(shim), "compose"]
        return DockerCompose(str(ROOT_FOLDER), build=False, wait=False, docker_command_path=command[0])

    def with_maxscale(self) -> None:
        """The profile of that name is up from now on, and the engine knows of it."""
        more = {"COMPOSE_PROFILES": "maxscale", "PROXYROUTE_SITE": "maxscale"}
        self.environment.update(more)
        os.environ.update(more)
        self._compose.start()

    def __enter__(self) -> Composed:
        made = [str(ROOT_FOLDER / "scripts" / "compose-secrets")]
        subprocess.run(made, check=True, capture_output=True, env={**os.environ, **self.environment})
        os.environ.update(self.environment)  # testcontainers starts compose with ours
        try:
            self._compose.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._compose.stop(down=True)
        finally:
            for name in self.environment:
                os.environ.pop(name, None)

    def container(self, service: str) -> Any:
        """Returns a service's container, as the client of testcontainers knows it. Raises LookupError."""
        import docker

        client = docker.from_env()
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        found = client.containers.list(all=True, filters={"label": labels})
        if not found:
            raise LookupError(f"there is no container of {service}")
        return found[0]

    def health(self, service: str) -> str:
        """Returns what the engine says of a service: ``healthy``, ``unhealthy``, ``starting``."""
        return str(self.container(service).attrs["State"]["Health"]["Status"])

    def health_log(self, service: str) -> str:
        log = self.container(service).attrs["State"]["Health"]["Log"]
        return str(log[-1]["Output"]).strip() if log else ""

    def await_health(self, wanted: str, *services: str, seconds: float = 90) -> None:
        """Returns when all ``services`` are so. Raises AssertionError with what each says."""
        asked = services or SERVICES

        def so() -> bool:
            return all(self.health(service) == wanted for service in asked)

        try:
            until(so, f"{', '.join(asked)} to be {wanted}", seconds, pause=0.2)
        except AssertionError as error:
            said = "\n".join(f"{s}: {self.health(s)}: {self.health_log(s)}" for s in asked)
            raise AssertionError(f"{error}\n{said}") from None

    def run(self, service: str, *argv: str, user: str = "", check: bool = True) -> str:
        """Runs a program in a container and returns its output. Raises RuntimeError with its words if it fails."""
        status, output = self.container(service).exec_run(list(argv), user=user)
        text = str(output.decode(errors="replace"))
        if check and status:
            raise RuntimeError(f"{' '.join(argv)} in {service} ended with {status}:\n{text}")
        return text

    def sql(self, service: str, statement: str) -> str:
        """Runs a statement as root of a server, who has no password and gets in by the socket alone."""
        argv = ["mariadb", "--no-defaults", "--socket=/run/mysqld/mysqld.sock", "--batch", "--skip-column-names"]
        return self.run(service, *argv, f"--execute={statement}").strip()

    def pids(self, service: str, word: str) -> list[str]:
        """Returns the processes of a container, by its own numbers, whose command line begins with ``word``."""
        script = 'for p in /proc/[0-9]*; do c=$(tr "\\0" " " <$p/cmdline 2>/dev/null); echo "${p#/proc/} $c"; done'
        lines = self.run(service, "bash", "-c", script).splitlines()
        split: Sequence[tuple[str, str]] = [(one, rest) for one, _, rest in (line.partition(" ") for line in lines)]
        return [pid for pid, command in split if command.startswith(word)]

    def signal(self, service: str, number: str, word: str) -> None:
        """Sends a signal to those processes."""
        pids = self.pids(service, word)
        if not pids:
            raise LookupError(f"there is no {word} in {service}")
        self.run(service, "bash", "-c", f"kill -{number} {' '.join(pids)}")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of compose on this site, to its end."""
        environment: Mapping[str, str] = {**os.environ, **self.environment}
        argv = [*compose_command(), *words]
        return subprocess.run(argv, cwd=ROOT_FOLDER, capture_output=True, text=True, env=environment, timeout=400)
