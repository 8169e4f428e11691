"""What of all that ``serve`` tells is worth a message."""

from __future__ import annotations

from proxyroute.notify_choice import Choice
from proxyroute.notify_message import Notice


def notice(kind: str, text: str, level: str = "", operation: str = "") -> Notice:
    return Notice("shop", kind, text, level, details={"report": {"operation": operation}} if operation else {})


def test_of_the_state_only_the_turn_to_bad_and_the_return_to_good() -> None:
    choice = Choice()
    told = [("a", "good"), ("b", "warn"), ("c", "bad"), ("d", "bad"), ("e", "warn"), ("f", "good"), ("g", "good")]
    assert [text for text, level in told if choice.takes(notice("state", text, level))] == ["c", "f"]


def test_the_same_is_not_told_twice_in_an_hour_whatever_its_figures() -> None:
    now = 0.0
    choice = Choice(clock=lambda: now)
    assert choice.takes(notice("trouble", "no answer after 3.02 s"))
    assert not choice.takes(notice("trouble", "no answer after 3.04 s"))
    assert choice.takes(notice("trouble", "something else"))
    assert choice.takes(notice("refused", "no answer after 3.02 s"))
    now = 3601.0
    assert choice.takes(notice("trouble", "no answer after 3.05 s"))


def test_another_operation_is_another_matter() -> None:
    choice = Choice()
    assert choice.takes(notice("healed", "healed 1: db2 is the primary now", operation="1"))
    assert choice.takes(notice("healed", "healed 2: db2 is the primary now", operation="2"))
    assert not choice.takes(notice("healed", "healed 1: db2 is the primary now", operation="1"))


def test_what_is_tried_again_and_again_in_vain_is_told_once() -> None:
    choice = Choice()
    assert choice.takes(notice("blocked", "everything was undone after 3 s", operation="1"))
    assert not choice.takes(notice("blocked", "everything was undone after 4 s", operation="2"))


def test_the_comings_and_goings_of_serve_are_nobodys_news() -> None:
    choice = Choice()
    assert not any(choice.takes(notice(kind, "x")) for kind in ("serving", "ended", "unsent"))
