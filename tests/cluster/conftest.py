"""Sites for scenarios: one per module, handed on from test to test as long as it is in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import provider_of
from tests.support.clients import Clients
from tests.support.disk import Disk
from tests.support.disk import small_disk as mounted
from tests.support.lab import Lab
from tests.support.scene import assert_order


class Keeper:
    """Keeps the site of one module; a test that leaves it in disorder fails, and the next one gets a new site."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._lab: Lab | None = None

    def get(self) -> Lab:
        if self._lab is None:
            self._lab = Lab.start(**self._options)
        return self._lab

    def drop(self) -> None:
        lab, self._lab = self._lab, None
        if lab is not None:
            lab.close()


@pytest.fixture(scope="module")
def keeper(request: pytest.FixtureRequest, flavour: str) -> Iterator[Keeper]:
    kept = Keeper({"provider": provider_of(flavour, request.config), **getattr(request.module, "SITE", {})})
    yield kept
    kept.drop()


@pytest.fixture
def site(keeper: Keeper) -> Iterator[Lab]:
    """A site in order, started with the module's ``SITE``; the test must leave it in order, whoever is the primary."""
    yield keeper.get()
    try:
        assert_order(keeper.get())
    except BaseException:
        keeper.drop()
        raise


@pytest.fixture
def renewed(keeper: Keeper) -> Callable[[], Lab]:
    """Gives the module's site up for a new one: where a test that has failed left it in order, and of no use."""

    def anew() -> Lab:
        keeper.drop()
        return keeper.get()

    return anew


@pytest.fixture
def clients(site: Lab) -> Iterator[Clients]:
    """Sessions on the present primary, directly at the server."""
    with contextlib.ExitStack() as ends:
        yield Clients(site.cluster.primary, ends)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk at ``tmp_path``, where that can be had."""
    with contextlib.ExitStack() as ends:
        try:
            disk = ends.enter_context(mounted(tmp_path))
        except PermissionError as error:
            pytest.skip(str(error))
        yield disk
