"""When a host may have missed how an operation ended, and how far it steps back then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from proxyroute.agent_doubt import BACK, Doubt
from proxyroute.agent_memory import Local
from proxyroute.haproxy.release import Phase


def test_only_silence_in_the_midst_of_an_operation_is_doubt() -> None:
    doubt = Doubt()
    assert doubt.since(silent=True, closed=False) is None, "the route that is in force is the one that counts"
    for phase in Phase:
        doubt.told(phase)
        assert (doubt.since(silent=True, closed=False) is not None) == (phase is Phase.HOLD), phase
        assert doubt.since(silent=True, closed=True) is not None, phase
        assert doubt.since(silent=False, closed=True) is None, phase


def test_it_lasts_since_it_began_and_ends_with_the_silence() -> None:
    doubt = Doubt(midway=True)
    before = time.monotonic()
    first = doubt.since(silent=True, closed=False)
    assert first is not None
    assert before <= first <= time.monotonic()
    assert doubt.since(silent=True, closed=False) == first
    assert doubt.since(silent=False, closed=False) is None
    again = doubt.since(silent=True, closed=False)
    assert again is not None
    assert again >= first


@pytest.mark.parametrize(
    ("told", "midway"),
    [("", False), ("{}", False), ('{"midway": true}', True), ('{"midway": false}', False), ("[torn", False)],
)
def test_an_agent_that_starts_anew_knows_whether_an_operation_had_begun(
    tmp_path: Path, told: str, midway: bool
) -> None:
    (tmp_path / "status.json").write_text(told)
    local = Local(tmp_path)
    assert local.was_midway() is midway
    local.close()


def test_a_host_steps_back_at_once_elsewhere_and_a_little_later_where_the_address_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    doubt = Doubt(midway=True)
    assert [doubt.steps_back(here) for here in ([], [True], [False])] == [0, 0, 0], "nothing is in doubt"
    doubt.since(silent=True, closed=False)
    assert [doubt.steps_back(here) for here in ([], [True], [False, True], [False, None], [False])] == [0] * 4 + [-BACK]
    now += 2.1
    assert [doubt.steps_back(here) for here in ([], [True], [False])] == [-BACK] * 3
    doubt.since(silent=False, closed=False)
    assert [doubt.steps_back(here) for here in ([], [True], [False])] == [0, 0, 0]


def test_keepalived_reads_a_number_from_the_state_folder(tmp_path: Path) -> None:
    local = Local(tmp_path)
    for number in (-BACK, 0):
        local.tell_priority(number)
        assert (tmp_path / "priority").read_text() == f"{number}\n"
    local.close()
