"""Stand-ins for public images, where none can be had: Debian's packages under their names.

``python -m tests.support.images`` makes those that ``Dockerfile`` begins with, in the engine that DOCKER_HOST names:
``mmdebstrap`` once, and wheels for the ``pip`` in them, which has no network. For tests only: a stand-in has a label
that says so, is never made where the real image is, and the tests say which they ran on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.load import ROOT_FOLDER
from tests.support.process import find_program

LABEL = "net.proxyroute.stand-in"
DEBIAN = "debian:bookworm-slim"
MARIADB = "mariadb:10.11"
MAXSCALE = "mariadb/maxscale:24.02"
ALL = (DEBIAN, MARIADB, MAXSCALE)
PACKAGES = ("ca-certificates", "python3", "python3-venv", "python3-pip", "haproxy", "mariadb-server")
BUILD_NEEDS = ("hatchling",)
"""What building the package takes, beside what it needs itself."""
NEEDS = hashlib.sha256((ROOT_FOLDER / "pyproject.toml").read_bytes()).hexdigest()[:12]
"""What the package needs, as a label of the images that have it."""

_DEBIAN = f"""\
FROM proxyroute-stand-in-base
LABEL {LABEL}={NEEDS}
COPY wheels /wheels
RUN printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' > /etc/pip.conf \\
    && rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
"""
# the real one: an empty data folder that is a volume, and an entrypoint, which ours replaces
_MARIADB = f"""\
FROM {DEBIAN}
RUN rm -rf /var/lib/mysql /etc/mysql/mariadb.conf.d/* && install -d -o mysql -g mysql /var/lib/mysql
VOLUME /var/lib/mysql
ENTRYPOINT ["false"]
"""
# no MaxScale at all, but the double that was derived from recordings of one
_MAXSCALE = f"""\
FROM {DEBIAN}
COPY src /opt/stand-in
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --quiet /opt/stand-in \\
    && useradd --system maxscale && install -d -o maxscale /var/lib/maxscale \\
    && for name in maxscale maxctrl; do \\
        printf '#!/bin/sh\\nPYTHONPATH=/opt/stand-in exec /opt/venv/bin/python -m %s %s "$@"\\n' \\
            tests.support.maxscale.standin $name > /usr/bin/$name && chmod 0755 /usr/bin/$name; \\
    done
VOLUME /var/lib/maxscale
ENTRYPOINT ["false"]
"""


class Unavailable(Exception):
    """The images can neither be found nor made here; the text says why."""


def docker(*words: str, text: str | None = None, seconds: float = 300) -> str:
    """Runs the engine's client and returns its output. Raises Unavailable with its words."""
    try:
        program = find_program("docker")
    except FileNotFoundError:
        raise Unavailable("no container engine: there is no docker") from None
    done = subprocess.run(
        [program, *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )
    if done.returncode:
        raise Unavailable(f"docker {words[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def exists(image: str) -> bool:
    """Whether the engine has an image. Raises Unavailable when there is no engine."""
    return bool(docker("images", "--quiet", image).strip())


def _made_for(image: str) -> str:
    """Returns what a stand-in was made for, empty for a real image."""
    return docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', image).strip()


def is_stand_in(image: str) -> bool:
    """Whether it is one of ours."""
    return bool(_made_for(image))


def _usable(image: str) -> bool:
    """Whether it is here, and if it is one of ours, has what it needs today.

    A MaxScale has our code in it: it is built again, which costs nothing where that is the same.
    """
    return exists(image) and _made_for(image) in ("", NEEDS if image != MAXSCALE else "")


def provide() -> list[str]:
    """Makes what is missing of the images that ours begin with. Returns the names of those that are stand-ins.

    None is ever pulled. Raises Unavailable with the reason when they cannot be had.
    """
    missing = [image for image in ALL if not _usable(image)]
    if missing:
        with tempfile.TemporaryDirectory(prefix="proxyroute-images-") as name:
            _make(Path(name), missing)
    return [image for image in ALL if is_stand_in(image)]


def _make(folder: Path, missing: Sequence[str]) -> None:
    if DEBIAN not in missing and not is_stand_in(DEBIAN):
        raise Unavailable(f"the real {DEBIAN} is here, and not all the others: docker pull {' and '.join(missing)}")
    if DEBIAN in missing:
        base = folder / "base.tar"
        argv = ["--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(base)]
        _run([_mmdebstrap(), *argv], 400)
        docker("import", str(base), "proxyroute-stand-in-base")
        base.unlink()
        wheels = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder / "wheels")]
        _run([*wheels, str(ROOT_FOLDER), *BUILD_NEEDS], 300)
        _build(folder, DEBIAN, _DEBIAN)
        docker("rmi", "--no-prune", "proxyroute-stand-in-base")
    if MARIADB in missing:
        _build(folder, MARIADB, _MARIADB)
    if MAXSCALE in missing:
        for name in ("proxyroute", "templates", "tests/__init__.py", "tests/support", "pyproject.toml", "README.md"):
            target = folder / "src" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT_FOLDER / name).is_dir() else shutil.copy
            copy(ROOT_FOLDER / name, target)
        _build(folder, MAXSCALE, _MAXSCALE)


def _mmdebstrap() -> str:
    try:
        return find_program("mmdebstrap")
    except FileNotFoundError:
        raise Unavailable("the public images are not here, and there is no mmdebstrap to make others") from None


def _run(argv: Sequence[str], seconds: float) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise Unavailable(f"{' '.join(argv)} failed: {done.stderr.strip()[-2000:]}")


def _build(folder: Path, image: str, lines: str) -> None:
    (folder / "Dockerfile").write_text(lines)
    docker("build", "--tag", image, str(folder))


if __name__ == "__main__":
    try:
        print(f"stand-ins: {', '.join(provide()) or 'none, the real images are here'}")
    except Unavailable as reason:
        sys.exit(f"{reason}")
