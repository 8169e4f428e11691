"""A cluster, its plans, records and results as samples, and an engine that only remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from proxyroute.addresses import address_findings
from proxyroute.decided import Election, Plan, PlannedStep, Ranked
from proxyroute.engine import Summary
from proxyroute.errors import Refused
from proxyroute.gtid import MariaDBPosition
from proxyroute.inspection import Inspection, Transaction
from proxyroute.model import (
    Address,
    Epoch,
    Finding,
    Holding,
    Observed,
    Receipt,
    ReceiptState,
    Receiver,
    Severity,
    Silent,
    Source,
    Status,
    View,
)
from proxyroute.outcome import Evidence, Proof, Result, Verdict
from proxyroute.prospect import Prospect
from proxyroute.standing import Standing

OPERATION = "20261123T031500-4f2a9c"
POSITION = MariaDBPosition.parse("0-1-41,0-2-1234567")


def server(number: int, *, of: int | None = None, **changes: Any) -> Status:
    address = Address(f"10.0.0.{number}", 3306)
    source = Source(
        "", Address(f"10.0.0.{of}", 3306), "repl", of, Receiver.RUNNING, True, POSITION, 0.0, heartbeat_seconds=1.0
    )
    status = Status(
        f"db{number}", address, "mariadb", (10, 11, 19), "10.11.19-MariaDB", number, of is None, POSITION,
        sources=(source,) if of else (),
    )  # fmt: skip
    return replace(status, **changes)


def view(*servers: Status | Silent) -> View:
    inspections = {
        "db1": Inspection(
            "db1",
            "proxyroute@%",
            transactions=(
                Transaction(11, "app", "10.9.9.9", 1.2, 3, True, "UPDATE t SET x = 1"),
                Transaction(12, "app", "10.9.9.9", 90.0, 0, False, "SELECT 1"),
            ),
        )
    }
    return View("shop", {s.name: s for s in servers}, inspections, 1.0)


HEALTHY = view(server(1), server(2, of=1), server(3, of=1))
ON_DB1 = Observed("edge1", True, Epoch(3, 1), "db1", ("db2", "db3"), {"db1": 8})
PLAN = Plan("shop", "db1", "db2", ("db3",))
LAGS = Finding("replica.lag", Severity.WARNING, "db3", "is 12 s behind", "wait for it")
DENIED = Finding("account.privileges", Severity.ERROR, "db2", "lacks RELOAD", "GRANT RELOAD ON *.* TO x;", True)
GOING = Prospect(
    HEALTHY,
    PLAN,
    Election("db2", (Ranked("db2", True, ("most up to date",)), Ranked("db3", False, ("lags", "is in never")))),
    (LAGS,),
    (PlannedStep("freeze", "writes wait; budget 3 s", ("db1: FLUSH TABLES WITH READ LOCK",)),),
    0.012,
    "from measured round trips",
    go=True,
)
PROVEN = Proof((Evidence("db2", "takes writes", Verdict.PROVEN, "read_only=0"),), 0.023)
DONE = Result(OPERATION, "switchover", "done", "db2", PROVEN, text="db2 is the primary now")
RECORDS = (
    {"v": 1, "n": 1, "t": 100.0, "kind": "begin", "operation": OPERATION, "operation_kind": "switchover",
     "cluster": "shop", "epoch": "3.1", "plan": {"primary": "db1", "candidate": "db2"}},
    {"v": 1, "n": 2, "t": 100.1, "kind": "step", "name": "freeze"},
    {"v": 1, "n": 3, "t": 100.2, "kind": "stepped", "name": "freeze", "seconds": 0.0123, "detail": "at 0-1-41"},
    {"v": 1, "n": 4, "t": 100.2, "kind": "undo", "verb": "restore_writes", "server": "db1", "arguments": {"a": 1}},
    {"v": 1, "n": 5, "t": 100.3, "kind": "commit", "goal": {"flavour": "mariadb", "text": "0-1-41"}},
    {"v": 1, "n": 6, "t": 100.4, "kind": "leftover", "verb": "follow", "server": "db3", "reason": "no answer"},
    {"v": 1, "n": 7, "t": 100.5, "kind": "proof", "verdict": "PROVEN",
     "evidence": [{"subject": "db2", "claim": "takes writes", "verdict": "PROVEN", "seen": "read_only=0"}]},
    {"v": 1, "n": 8, "t": 100.6, "kind": "end", "outcome": "done", "text": ""},
)  # fmt: skip
HISTORY = (
    Summary(OPERATION, "switchover", "done", 100.0, 0.6, "db1", "db2", 0.023, "PROVEN"),
    Summary("20261123T041500-aaaaaa", "switchover", "open", 200.0, 0.1, "db2", "db1", None, None),
)


class FakeEngine:
    """Answers with what the test has laid down; ``asked`` is what it was told to do."""

    def __init__(self) -> None:
        self.reading: View = HEALTHY
        self.proxies: tuple[Observed, ...] = (ON_DB1,)
        self.prospect: Prospect = GOING
        self.outcome: Result | Exception = DONE
        self.healed: tuple[Result, ...] | Exception = ()
        self.found: tuple[Finding, ...] = ()
        self.receipts: tuple[Receipt, ...] = (Receipt("edge1", ReceiptState.DONE, Epoch(4, 1), "pid 7"),)
        self.past: tuple[Summary, ...] = HISTORY[:1]
        self.unread: tuple[Finding, ...] = ()
        self.blocks: tuple[Finding, ...] = ()
        self.asked: list[tuple[Any, ...]] = []
        self.listener: Callable[[dict[str, Any]], None] | None = None
        self.closed = False
        self.holding = Holding("local")
        self.standing = Standing()

    def look(self) -> View:
        self.asked.append(("look",))
        return self.reading

    def observe(self) -> tuple[Observed, ...]:
        return self.proxies

    def lease(self) -> Holding:
        return self.holding

    def intended(self, view: View, observed: tuple[Observed, ...]) -> tuple[str | None, str]:
        return (view.primary.name, "") if view.primary is not None else (None, "there is no primary")

    def last_move(self) -> Summary | None:
        return self.past[-1] if self.past else None

    def failover_blocks(self, view: View, observed: tuple[Observed, ...], known: object) -> tuple[Finding, ...]:
        return self.blocks

    def address_findings(self, observed: tuple[Observed, ...]) -> tuple[Finding, ...]:
        return address_findings(observed)

    def check(self) -> tuple[Finding, ...]:
        return self.found

    def plan(self, target: str | None, force: bool) -> Prospect:
        self.asked.append(("plan", target, force))
        return self.prospect

    def switchover(
        self, target: str | None, *, force: bool, kill_long: bool, confirm: Callable[[Prospect], bool]
    ) -> Result:
        if not confirm(self.prospect):
            raise Refused("not confirmed; nothing was touched")
        self.asked.append(("switchover", target, force, kill_long))
        assert self.listener is not None
        for record in RECORDS:
            self.listener(dict(record))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def heal(self, declare_lost: tuple[str, ...]) -> tuple[Result, ...]:
        self.asked.append(("heal", *declare_lost))
        if isinstance(self.healed, Exception):
            raise self.healed
        return self.healed

    def history(self) -> tuple[Summary, ...]:
        return self.past

    def damaged(self) -> tuple[Finding, ...]:
        return self.unread

    def show(self, operation: str) -> tuple[dict[str, Any], ...]:
        self.asked.append(("show", operation))
        return RECORDS

    def publish(self) -> tuple[Receipt, ...]:
        return self.receipts

    def render(self) -> dict[str, dict[str, str]]:
        return {"edge1": {"haproxy.cfg": "global\n  daemon\n"}, "edge2": {"a.map": "x y\n"}}

    def close(self) -> None:
        self.closed = True


def lines_fit(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())
