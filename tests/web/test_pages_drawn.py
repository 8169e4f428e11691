"""What the pages draw: steps in time, curves, and who follows whom."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute.model import View
from proxyroute.web.pages import graph
from proxyroute.web.pages.facts import ProxyFacts, ServerFacts
from proxyroute.web.pages.spark import HEIGHT, WIDTH, number_text, spark
from proxyroute.web.pages.waterfall import FULL, waterfall
from proxyroute.web.samples import EVERY, KEPT, Curve, Samples
from tests.support.builders import channel, replica, server, silent, view

Records = list[dict[str, Any]]


@pytest.fixture
def records() -> Records:
    """The journal of a switchover on real servers."""
    file = Path(__file__).parent / "browser" / "switchover.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


# -- steps in time ---------------------------------------------------------------------------------------------


def test_every_step_has_a_bar_in_order_and_the_time_without_writes_is_stretched_and_said_to_be(
    records: Records,
) -> None:
    drawn = waterfall(records)
    steps = [bar for bar in drawn.bars if bar.kind == "step"]
    assert [bar.name for bar in steps] == [r["name"] for r in records if r["kind"] == "step"]
    assert [bar.start for bar in steps] == sorted(bar.start for bar in steps)
    assert all(bar.start >= 0 and bar.start + bar.width <= FULL + 3 for bar in steps)
    assert drawn.stretched
    assert drawn.blackout == "19 ms"
    assert drawn.frozen is not None
    left, right = drawn.frozen
    inside = {bar.name for bar in steps if left <= bar.start < right}
    assert {"freeze", "catch up", "detach", "open", "route", "close old primary"} <= inside
    assert not {"warm up", "first writes", "prove"} & inside
    assert any(bar.kind == "commit" for bar in drawn.bars)


def test_the_time_between_a_crash_and_whoever_takes_it_up_is_left_out_and_told(records: Records) -> None:
    before, after = records[:32], records[34:]
    resumed = {"kind": "resumed", "n": 100, "t": before[-1]["t"] + 3600, "by": "the guard"}
    later = [{**r, "n": r["n"] + 100, "t": r["t"] + 3600} for r in after]
    drawn = waterfall([*before, resumed, *later])
    assert drawn.total == "1.2 s"
    told = next(bar for bar in drawn.bars if bar.kind == "resumed")
    assert told.name == "taken up again by the guard, 60 min 0 s later"


def test_a_step_that_goes_on_is_drawn_until_now_and_one_that_failed_says_why(records: Records) -> None:
    begun = records[:32]
    drawn = waterfall(begun, now=begun[-1]["t"] + 2.0)
    last = drawn.bars[-1]
    assert (last.name, last.kind, last.took) == ("detach", "running", "2.0 s")
    failed = {**records[32], "error": "lost connection"}
    last = waterfall([*begun, failed]).bars[-1]
    assert (last.kind, last.detail) == ("failed", "lost connection")


def test_a_long_blackout_is_drawn_to_scale(records: Records) -> None:
    proof = next(r for r in records if r["kind"] == "proof")
    proof["blackout_seconds"] = 0.44
    drawn = waterfall(records)
    assert not drawn.stretched
    assert drawn.frozen is not None


def test_there_may_be_nothing_to_draw() -> None:
    assert waterfall([]).bars == ()


# -- curves ----------------------------------------------------------------------------------------------------


def test_a_curve_has_a_gap_where_nothing_is_known_and_stays_inside_its_box() -> None:
    made = spark(Curve((0.0, 5.0, None, 2.0, 1.0)), "s")
    assert made.line.count("M") == 2
    assert (made.top, made.last) == ("5.0\u202fs", "1.0\u202fs")
    points = [float(x) for x in made.line.replace("M", " ").replace("L", " ").split()]
    assert all(0 <= x <= WIDTH for x in points[::2])
    assert all(0 <= y <= HEIGHT for y in points[1::2])
    assert spark(Curve(()), "s").line == ""
    assert number_text(None, "s") == "-"
    assert number_text(0.1234, "") == "0.12"


def lagging(at: int, lag: float | None) -> View:
    return view(server(1, f"0-1-{at}"), replica(2, channel(lag_seconds=lag), executed=f"0-1-{at}"))


def test_samples_are_bounded_and_count_what_the_primary_writes() -> None:
    samples = Samples()
    for n in range(KEPT + 20):
        samples.take(lagging(100 * n, n / 10), n * EVERY)
        samples.take(lagging(100 * n, 99.0), n * EVERY + EVERY / 2)  # too soon
    assert len(samples.lag("db2").values) == KEPT
    assert samples.lag("db2").last == (KEPT + 19) / 10
    assert samples.writes().last == 100 / EVERY
    assert samples.lag("db9").values == ()


def test_a_new_primary_or_none_makes_a_gap_and_no_false_rate() -> None:
    samples = Samples()
    samples.take(lagging(1000, 0.0), 0.0)
    samples.take(view(silent(1), replica(2)), EVERY)
    samples.take(lagging(5000, None), 2 * EVERY)
    assert samples.writes().values == (None, None, None)
    samples.take(lagging(5010, 0.0), 3 * EVERY)
    assert samples.writes().last == 10 / EVERY
    assert samples.lag("db2").values == (0.0, 0.0, None, 0.0)


# -- who follows whom ------------------------------------------------------------------------------------------

PRIMARY = ServerFacts("db1", "10.0.0.1:3306", "primary", "good", "takes writes")


def follower(name: str, source: str, **changes: Any) -> ServerFacts:
    made = ServerFacts(name, f"{name}:3306", "replica", "good", f"follows {source}", source=source)
    return replace(made, receiver="running", applier="running", **changes)


def apart(drawing: graph.Drawing) -> bool:
    return not any(
        a is not b and a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height
        for a in drawing.boxes
        for b in drawing.boxes
    )


CHAIN = [PRIMARY, follower("db2", "db1"), follower("db3", "db2"), follower("db4", "db3"), follower("db5", "db1")]
RING = [follower("db1", "db2"), follower("db2", "db1")]
ALONE = [replace(PRIMARY, name=f"db{n}", role="alone") for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "servers", [[PRIMARY], CHAIN, RING, ALONE, [PRIMARY, *(follower(f"r{n}", "db1") for n in range(20))]]
)
def test_every_server_is_drawn_once_and_nothing_lies_on_something_else(servers: list[ServerFacts]) -> None:
    proxies = [ProxyFacts("edge1", "good", "agrees", "db1", "db1", "-", "db1", "1.1", "db2", (), ())]
    for drawing in (graph.wide(servers, proxies), graph.narrow(servers)):
        drawn = [box.server.name for box in drawing.boxes if box.server is not None]
        assert sorted(drawn) == sorted(s.name for s in servers)
        assert apart(drawing)
        assert all(box.x + box.width <= drawing.width for box in drawing.boxes)
        assert all(box.y + box.height <= drawing.height for box in drawing.boxes)


def test_a_line_says_whether_events_flow_and_proxies_lead_to_whom_they_send_writes() -> None:
    stopped = follower("db2", "db1", trouble="error")
    stopped = replace(stopped, applier="stopped")
    proxies = [
        ProxyFacts("edge1", "good", "agrees", "db1", "db1", "-", "db1", "1.1", "db2", (), ()),
        ProxyFacts("edge2", "bad", "does not answer", None, "db1", "-", "?", "-", "-", (), ()),
    ]
    drawn = graph.wide([PRIMARY, stopped], proxies)
    assert [(link.kind, link.level) for link in drawn.links] == [("writes", "good"), ("follows", "bad")]
