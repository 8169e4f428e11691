"""Intended, published, loaded: what differs, and under which epoch a proxy is told again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxyroute.drift import correction, differences
from proxyroute.model import NO_EPOCH, Address, Endpoint, Epoch, Observed, Published, Reader, RouteTable

SERVERS = tuple(Endpoint(f"db{n}", Address(f"10.0.0.{n}", 3306)) for n in (1, 2, 3))
TABLE = RouteTable("shop", NO_EPOCH, SERVERS, "db1", (Reader("db2", 100), Reader("db3", 100)))
GOOD = Observed("edge1", True, Epoch(2, 1), "db1", ("db2", "db3"), published=Published("db1", Epoch(2, 1)))


def test_a_proxy_that_is_as_it_should_be_differs_in_nothing() -> None:
    assert differences("db1", GOOD) == ()
    assert correction(TABLE, [GOOD, replace(GOOD, proxy="edge2")]) is None


def test_what_is_published_and_what_is_loaded_are_told_apart() -> None:
    found = differences("db1", replace(GOOD, primary="db2", epoch=Epoch(1, 1)))
    assert found == ("writes should go to db1, loaded is db2/1.1",)
    found = differences("db1", replace(GOOD, published=Published("db3", Epoch(1, 4))))
    assert found == ("writes should go to db1, published is db3/1.4",)
    assert differences("db1", replace(GOOD, drift=("a file differs",))) == ("a file differs",)


def test_of_a_proxy_that_cannot_be_read_nothing_is_known() -> None:
    silent = Observed("edge1", False, detail="no answer", published=Published("db3", Epoch(9, 1)))
    assert differences("db1", silent) == ()


@pytest.mark.parametrize(
    ("seen", "epoch"),
    [
        (replace(GOOD, primary="db2", epoch=Epoch(1, 1)), Epoch(2, 1)),  # an older one by hand
        (replace(GOOD, primary=None), Epoch(2, 1)),  # closed under its own epoch: it may open again
        (replace(GOOD, drift=("a file differs",)), Epoch(2, 1)),
        (replace(GOOD, primary="db2"), None),  # the same epoch means somebody else
        (replace(GOOD, primary="db2", epoch=Epoch(3, 1)), None),  # a higher one
        (replace(GOOD, published=Published("db2", Epoch(3, 1))), None),
        (replace(GOOD, published=Published("db2", Epoch(1, 1))), Epoch(2, 1)),
    ],
)
def test_the_epoch_is_kept_unless_another_server_stands_above_it(seen: Observed, epoch: Epoch | None) -> None:
    other = replace(GOOD, proxy="edge2")
    found = correction(TABLE, [seen, other])
    assert found is not None
    assert set(found.wrong) == {"edge1"}
    assert found.epoch == epoch


def test_when_nobody_has_heard_of_the_primary_it_takes_a_fresh_epoch() -> None:
    found = correction(TABLE, [replace(GOOD, primary="db2", published=None)])
    assert found is not None
    assert found.epoch is None
    found = correction(TABLE, [Observed("edge1", True)])
    assert found is not None
    assert found.epoch is None


def test_readers_count_where_there_is_a_read_route() -> None:
    found = correction(TABLE, [replace(GOOD, readers=("db2",))])
    assert found is not None
    assert found.wrong["edge1"] == ("reads should go to db2 and db3, loaded is db2",)
    assert correction(TABLE, [replace(GOOD, readers=())]) is None


def test_what_somebody_has_set_aside_at_a_proxy_is_not_corrected() -> None:
    aside = replace(GOOD, readers=("db1",), aside=("db2", "db3"))
    assert correction(TABLE, [aside]) is None, "the primary serves reads meanwhile"
    astray = replace(GOOD, readers=("db1", "db2"), aside=("db3",))
    assert correction(TABLE, [astray]) is not None
