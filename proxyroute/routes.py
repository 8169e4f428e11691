"""All proxies of a cluster, told and asked together: each verb fans out and collects a receipt per proxy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from proxyroute.model import (
    NO_EPOCH,
    Deadline,
    Epoch,
    Finding,
    Observed,
    Receipt,
    ReceiptState,
    RouteTable,
    Severity,
)
from proxyroute.operation import each
from proxyroute.ports import Adapter, Foretelling, Hearing, Queueing

_GRACE = 0.5
"""Seconds that a proxy which is declared absent gets beyond the others, where no write waits for it."""


class Routes:
    """The proxies of one cluster. Those in ``absent`` are told if they can be, and never waited for or required."""

    def __init__(self, adapters: Iterable[Adapter], absent: Iterable[str] = ()) -> None:
        self._adapters = {a.name: a for a in adapters}
        self._absent = frozenset(absent)

    def __bool__(self) -> bool:
        return bool(self._adapters)

    @property
    def required(self) -> tuple[Adapter, ...]:
        return tuple(a for a in self._adapters.values() if a.name not in self._absent)

    @property
    def all(self) -> tuple[Adapter, ...]:
        return tuple(self._adapters.values())

    def only(self, names: Collection[str]) -> Routes:
        """Returns the proxies that are named; not to be closed apart from the others."""
        return Routes([a for a in self.all if a.name in names], self._absent)

    def is_required(self, proxy: str) -> bool:
        return proxy not in self._absent

    def silence(self, proxy: str) -> float | None:
        """Returns after how many seconds of hearing nothing ``proxy`` closes its writes by itself; None: never."""
        seconds: float | None = getattr(self._adapters[proxy], "closes_when_silent", None)
        return seconds

    def closes_at(self, proxy: str, table: RouteTable) -> float | None:
        """Returns when ``proxy`` has closed its writes by itself if it hears nothing of ``table``; None: never."""
        adapter = self._adapters[proxy]
        return adapter.closes_at(table) if isinstance(adapter, Hearing) else None

    def answer(self, proxy: str, table: RouteTable, deadline: Deadline) -> Receipt | None:
        """Waits for what ``proxy``, which closes by itself, says of ``table``; None when it has heard nothing of it."""
        adapter = self._adapters[proxy]
        assert isinstance(adapter, Hearing), "nobody else closes by itself"
        return adapter.answer(table, deadline)

    def check(self, deadline: Deadline) -> tuple[Finding, ...]:
        """Returns the findings of every proxy; one that does not answer is a finding too."""
        outcomes = each(self.all, lambda a: tuple(a.check(deadline)), deadline, spared=self._absent, grace=_GRACE)
        findings: list[Finding] = []
        for name, found in outcomes.items():
            if found.error is not None:
                findings.append(Finding("proxy.silent", Severity.ERROR, name, str(found.error), "proxyroute check"))
            else:
                findings.extend(found.get())
        return tuple(findings)

    def outlook(self, deadline: Deadline, *, armed: bool) -> tuple[Finding, ...]:
        """Returns what clients will see of a switchover, for the proxies that can tell; never an error.

        ``armed`` tells whether the old primary makes writes wait until the routes have moved.
        """
        told = [a for a in self.all if isinstance(a, Foretelling)]
        outcomes = each(told, lambda a: tuple(a.outlook(deadline, armed=armed)), deadline)
        return tuple(finding for found in outcomes.values() for finding in found.value or ())

    def queueing(self, deadline: Deadline) -> tuple[str, ...]:
        """Returns the required proxies in which writes wait while the write route is closed."""
        asked = [a for a in self.required if isinstance(a, Queueing)]
        if not asked:
            return ()
        outcomes = each(asked, lambda a: a.queues(deadline), deadline)
        return tuple(name for name, found in outcomes.items() if found.value)

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> tuple[Receipt, ...]:
        return self._tell(lambda a: a.prepare(target, abort, deadline), target.epoch, deadline, _GRACE)

    def hold(self, operation: str, deadline: Deadline, answer_by: Deadline) -> tuple[Receipt, ...]:
        """Makes newcomers wait until ``deadline``; the proxies must say so by ``answer_by``."""
        return self._tell(lambda a: a.hold(operation, deadline), NO_EPOCH, answer_by)

    def release(self, deadline: Deadline) -> tuple[Receipt, ...]:
        return self._tell(lambda a: a.release(deadline), NO_EPOCH, deadline)

    def apply(self, table: RouteTable, deadline: Deadline) -> tuple[Receipt, ...]:
        return self._tell(lambda a: a.apply(table, deadline), table.epoch, deadline)

    def settle(self, table: RouteTable, deadline: Deadline) -> tuple[Receipt, ...]:
        return self._tell(lambda a: a.settle(table, deadline), table.epoch, deadline, _GRACE)

    def observe(self, deadline: Deadline) -> tuple[Observed, ...]:
        outcomes = each(self.all, lambda a: a.observe(deadline), deadline, spared=self._absent, grace=_GRACE)
        return tuple(
            found.value if found.value is not None else Observed(name, reachable=False, detail=str(found.error))
            for name, found in outcomes.items()
        )

    def missing(self, receipts: Iterable[Receipt], wanted: ReceiptState) -> list[Receipt]:
        """Returns the receipts of required proxies that are not what is wanted."""
        return [r for r in receipts if r.state is not wanted and self.is_required(r.proxy)]

    def _tell(
        self, verb: Callable[[Adapter], Receipt], epoch: Epoch, deadline: Deadline, grace: float = 0.0
    ) -> tuple[Receipt, ...]:
        """Tells all at once; those declared absent are waited for only ``grace`` seconds longer than the others."""
        # no thread for the usual sidecar: it is inside the blackout; but in a chore, which must be able to leave it
        if len(self._adapters) == 1 and not self._absent and not deadline.gives_way:
            (adapter,) = self.all
            return (_receipt(adapter.name, lambda: verb(adapter), epoch),)
        outcomes = each(
            self.all, lambda a: _receipt(a.name, lambda: verb(a), epoch), deadline, spared=self._absent, grace=grace
        )
        return tuple(
            found.value or Receipt(name, ReceiptState.UNKNOWN, epoch, self._silence(name, found.error))
            for name, found in outcomes.items()
        )

    def _silence(self, name: str, error: BaseException | None) -> str:
        return "declared absent, so it was not waited for" if name in self._absent else str(error)

    def close(self) -> None:
        for adapter in self.all:
            adapter.close()


def _receipt(proxy: str, call: Callable[[], Receipt], epoch: Epoch) -> Receipt:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises is what became of its proxy
        return Receipt(proxy, ReceiptState.UNKNOWN, epoch, str(error) or type(error).__name__)


def highest_epoch(observed: Iterable[Observed]) -> Epoch:
    """Returns the highest epoch that any proxy has loaded."""
    return max((o.epoch for o in observed if o.epoch is not None), default=NO_EPOCH)
