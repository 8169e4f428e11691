"""What every adapter keeps, whatever is behind it."""

from __future__ import annotations

from proxyroute.adapters import find_adapters
from proxyroute.model import Address, Epoch, ReceiptState, Severity
from tests.contract.subjects import NAME, Subject, is_adapter, soon, table

FLAVOURS = ("mariadb-11.8",)

NOT_DONE = (ReceiptState.FAILED, ReceiptState.UNKNOWN)


def test_it_is_an_adapter_found_by_its_entry_point(subject: Subject) -> None:
    adapter = subject.adapter()
    assert is_adapter(adapter)
    assert type(adapter) in find_adapters().values()
    assert adapter.name == NAME


def test_a_healthy_proxy_has_no_errors(subject: Subject) -> None:
    assert [f for f in subject.adapter().check(soon()) if f.severity is Severity.ERROR] == []


def test_routes_are_addresses_a_client_can_use(subject: Subject) -> None:
    (write,) = subject.adapter().routes("write")
    assert isinstance(write, Address)
    assert subject.adapter().routes("nonsense") == ()


def test_preparing_moves_nothing(subject: Subject) -> None:
    adapter = subject.adapter()
    target, abort = table(subject.servers, (1, 2), "db2"), table(subject.servers, (1, 1), "db1")
    receipt = adapter.prepare(target, abort, soon())
    assert (receipt.proxy, receipt.state, receipt.epoch) == (NAME, ReceiptState.PREPARED, target.epoch), receipt
    assert adapter.observe(soon()).primary == "db1"


def test_applying_moves_the_writes_and_may_be_repeated(subject: Subject) -> None:
    adapter = subject.adapter()
    target = table(subject.servers, (1, 2), "db2")
    for _ in range(2):
        receipt = adapter.apply(target, soon())
        assert (receipt.proxy, receipt.state, receipt.epoch) == (NAME, ReceiptState.DONE, target.epoch), receipt
        assert adapter.observe(soon()).primary == "db2"


def test_settling_alone_is_enough_and_may_be_repeated(subject: Subject) -> None:
    target = table(subject.servers, (1, 2), "db2")
    for _ in range(2):
        assert subject.adapter().settle(target, soon()).state is ReceiptState.DONE


def test_what_is_observed_is_what_was_settled(subject: Subject) -> None:
    adapter = subject.adapter()
    target = table(subject.servers, (2, 1), "db3", {"db1": 100})
    assert adapter.settle(target, soon()).state is ReceiptState.DONE
    seen = subject.adapter().observe(soon())
    assert (seen.proxy, seen.reachable, seen.primary, seen.epoch) == (NAME, True, "db3", Epoch(2, 1))
    assert seen.readers in (("db1",), ())
    assert seen.drift == ()


def test_a_lower_epoch_is_refused_by_every_verb_that_routes(subject: Subject) -> None:
    assert subject.adapter().settle(table(subject.servers, (2, 1), "db2"), soon()).state is ReceiptState.DONE
    stale = table(subject.servers, (1, 9), "db3")
    for other_process in (subject.adapter(), subject.adapter()):
        for receipt in (
            other_process.apply(stale, soon()),
            other_process.settle(stale, soon()),
        ):
            assert receipt.state is ReceiptState.FAILED
            assert "superseded" in receipt.detail
    assert subject.adapter().observe(soon()).primary == "db2"


def test_an_epoch_means_one_primary_only(subject: Subject) -> None:
    adapter = subject.adapter()
    assert adapter.apply(table(subject.servers, (2, 1), "db2"), soon()).state is ReceiptState.DONE
    receipt = adapter.apply(table(subject.servers, (2, 1), "db3"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "conflict" in receipt.detail
    assert adapter.observe(soon()).primary == "db2"


def test_a_closed_route_leads_nowhere_and_opens_under_the_same_epoch(subject: Subject) -> None:
    adapter = subject.adapter()
    assert adapter.settle(table(subject.servers, (2, 1), None), soon()).state is ReceiptState.DONE
    seen = adapter.observe(soon())
    assert (seen.reachable, seen.primary, seen.epoch) == (True, None, Epoch(2, 1))
    assert adapter.settle(table(subject.servers, (2, 1), "db2"), soon()).state is ReceiptState.DONE
    assert adapter.observe(soon()).primary == "db2"


def test_a_hold_is_seen_until_it_is_released_or_said_to_be_none(subject: Subject) -> None:
    adapter = subject.adapter()
    receipt = adapter.hold("op-1", soon(60))
    assert receipt.state is ReceiptState.DONE
    assert adapter.observe(soon()).held is subject.holds
    if not subject.holds:
        assert "cannot hold" in receipt.detail
    for _ in range(2):
        assert adapter.release(soon()).state is ReceiptState.DONE
        assert not adapter.observe(soon()).held


def test_a_proxy_that_is_down_is_told_apart_and_never_raises(subject: Subject) -> None:
    subject.break_down()
    adapter = subject.adapter()
    target, abort = table(subject.servers, (1, 2), "db2"), table(subject.servers, (1, 1), "db1")
    seen = adapter.observe(soon())
    assert not seen.reachable
    assert seen.detail
    assert adapter.prepare(target, abort, soon()).state is ReceiptState.FAILED
    assert adapter.apply(target, soon()).state in NOT_DONE
    assert adapter.settle(target, soon()).state in NOT_DONE
    errors = [f for f in adapter.check(soon()) if f.severity is Severity.ERROR]
    assert errors
    assert all(f.cure for f in errors)


def test_without_time_nothing_is_done_and_nothing_raises(subject: Subject) -> None:
    adapter = subject.adapter()
    target, abort = table(subject.servers, (1, 2), "db2"), table(subject.servers, (1, 1), "db1")
    assert adapter.apply(target, soon(0)).state in NOT_DONE
    assert adapter.settle(target, soon(0)).state in NOT_DONE
    assert adapter.prepare(target, abort, soon(0)).state in NOT_DONE
    assert not adapter.observe(soon(0)).reachable
    assert subject.adapter().observe(soon()).primary == "db1"


def test_what_somebody_did_by_hand_is_seen_and_taken_back(subject: Subject) -> None:
    adapter = subject.adapter()
    target = table(subject.servers, (1, 1), "db1")
    adapter.settle(target, soon())
    subject.edit("db3")
    seen = adapter.observe(soon())
    assert seen.primary == "db3"
    assert seen.drift
    renewed = table(subject.servers, (1, 2), "db1")
    assert adapter.settle(renewed, soon()).state is ReceiptState.DONE
    seen = adapter.observe(soon())
    assert (seen.primary, seen.drift) == ("db1", ())


def test_closing_an_adapter_twice_is_harmless(subject: Subject) -> None:
    adapter = subject.adapter()
    adapter.observe(soon())
    adapter.close()
    adapter.close()
