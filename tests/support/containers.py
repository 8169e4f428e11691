"""The same cluster from containers, by testcontainers, where there is an engine and an image of MariaDB.

The containers share the host's network and each has its node's folder at the same path, so that ports, option files
and sockets are those of a local server and nothing but starting and signalling differs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.mariadb import LocalCluster, Node, Options
from tests.support.netns import Place

IMAGES = ("mariadb:10.11", "mariadb:11.8", "mariadb:11.4", "mariadb:latest")


def find_image(images: Sequence[str] = IMAGES) -> str:
    """Returns the first of ``images`` that is here, by default of MariaDB; none is ever pulled.

    Raises LookupError with the reason.
    """
    import docker
    from docker.errors import DockerException, ImageNotFound

    socket = Path("/var/run/docker.sock")
    if "DOCKER_HOST" not in os.environ and not socket.exists():
        raise LookupError(f"no container engine: neither {socket} nor DOCKER_HOST is there")
    try:
        client = docker.from_env(timeout=5)
    except DockerException as error:
        raise LookupError(f"no container engine answers: {error}") from None
    try:
        for image in images:
            try:
                client.images.get(image)
            except ImageNotFound:
                continue
            return image
    except DockerException as error:
        raise LookupError(f"the container engine does not work: {error}") from None
    finally:
        client.close()
    raise LookupError(f"the container engine has none of the images {', '.join(images)}")


def _container(image: str, folder: Path, argv: Sequence[str]) -> Any:
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True  # one more image; we remove what we start
    return (
        DockerContainer(image)
        .with_volume_mapping(str(folder), str(folder), "rw")
        .with_kwargs(
            network_mode="host", user=f"{os.getuid()}:{os.getgid()}", entrypoint=[argv[0]], working_dir=str(folder)
        )
        .with_command(list(argv[1:]))
    )


class ContainerProcess:
    """A server in a container, handled like a child process."""

    def __init__(self, image: str, folder: Path, argv: Sequence[str]) -> None:
        self._container = _container(image, folder, argv)
        self._container.start()

    @property
    def running(self) -> bool:
        if self._container is None:
            return False
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return bool(wrapped.status == "running")

    def send(self, number: signal.Signals) -> None:
        self._container.get_wrapped_container().kill(signal=number.name)

    def kill(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.stop(force=True)

    def terminate(self, seconds: float = 20.0) -> None:
        self._container.get_wrapped_container().stop(timeout=int(seconds))
        self.kill()


class ContainerNode(Node):
    """A node whose server runs in a container of ``image``."""

    image = IMAGES[0]

    def launch(self) -> None:
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        argv = ["mariadbd", f"--defaults-file={self.folder / 'my.cnf'}"]
        self.process = ContainerProcess(self.image, self.folder, argv)


class ContainerCluster(LocalCluster):
    """A cluster whose servers run in containers."""

    def run_program(self, argv: Sequence[str], folder: Path) -> str:
        image = find_image()
        container = _container(image, folder, argv)
        container.start()
        try:
            wrapped = container.get_wrapped_container()
            status = wrapped.wait(timeout=60)["StatusCode"]
            words = str(wrapped.logs().decode(errors="replace"))
        finally:
            container.stop(force=True)
        if status:
            raise RuntimeError(f"{' '.join(argv)} failed in {image}:\n{words}")
        return words

    def make_node(
        self, name: str, server_id: int, folder: Path, options: Options, place: Place | None, outlive: bool
    ) -> Node:
        node = ContainerNode(name, server_id, folder, options, place, outlive=outlive)
        node.image = find_image()
        return node
