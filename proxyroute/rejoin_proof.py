"""The proof after a rejoin: what the server is now, and, where its data were replaced or undone, whether they agree."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from proxyroute.binlog import Table
from proxyroute.gtid import Containment
from proxyroute.model import Deadline, Source, View
from proxyroute.operation import Operation
from proxyroute.outcome import Evidence, Proof, Verdict
from proxyroute.parts import LOOK
from proxyroute.rejoin_data import let_go
from proxyroute.rejoin_dump import accounts
from proxyroute.rejoin_look import Means, contained

_PAUSE = 0.05
_ACCOUNTS = 15.0
_COMPARE = 7 * 86400.0
_VERDICTS = {
    Containment.YES: Verdict.PROVEN,
    Containment.NO: Verdict.NOT_PROVEN,
    Containment.UNKNOWN: Verdict.UNKNOWN,
}


def prove(means: Means, op: Operation, name: str, primary: str, *, keep_lease: bool) -> Proof:
    """Returns the proof. With ``keep_lease`` the data are not compared, and it says so.

    It looks again until everything holds, or for as long as the policy gives a proof: writes go on meanwhile, and what
    ``name`` has just received its source may be about to count, once that is acknowledged.
    """
    deadline = Deadline.after(op.plan.policy.prove)
    while True:
        view = means.parts.site.look(Deadline.after(LOOK))
        evidence = list(_standing(means, view, name, primary))
        if all(e.verdict is Verdict.PROVEN for e in evidence) or deadline.left < _PAUSE:
            break
        time.sleep(_PAUSE)
    tables, channel = _to_compare(op), _channel(view, name, primary)
    if channel is not None and channel.delay_seconds == 0 and (tables is None or tables):
        if tables is None and op.kept("reseed")["way"] == "dump":
            evidence.append(accounts(means, name, primary, Deadline.after(_ACCOUNTS)))
        claim = f"has the same data as {primary}"
        if keep_lease:  # it may take days, and nobody could move a dying primary meanwhile
            seen = f"not compared: proxyroute verify --server {name}"
            return Proof((*evidence, Evidence(name, claim, Verdict.UNKNOWN, seen)))
        let_go(means.parts, op.lease)
        comparison = means.compare(primary, name, tables, Deadline.after(_COMPARE))
        evidence.append(Evidence(name, claim, comparison.verdict, str(comparison)))
    return Proof(tuple(evidence))


def _standing(means: Means, view: View, name: str, primary: str) -> Iterator[Evidence]:
    status, top = view.status(name), view.status(primary)
    if status is None or top is None:
        yield Evidence(name, "answers", Verdict.UNKNOWN, "it does not")
        return
    closed = Verdict.NOT_PROVEN if status.writable else Verdict.PROVEN
    yield Evidence(name, "refuses writes", closed, f"read_only={not status.writable}")
    channel = _channel(view, name, primary)
    follows = Verdict.PROVEN if channel is not None and channel.running else Verdict.NOT_PROVEN
    yield Evidence(name, f"follows {primary}", follows, channel.error if channel else "no channel")
    held = _VERDICTS[contained(means, status, top.executed)]
    yield Evidence(name, f"has nothing that {primary} lacks", held, str(status.executed))


def _channel(view: View, name: str, primary: str) -> Source | None:
    status, top = view.status(name), view.status(primary)
    if status is None or top is None:
        return None
    return next((s for s in status.sources if s.address == top.address), None)


def _to_compare(op: Operation) -> Sequence[Table] | None:
    """The tables with rows that it had of its own, after a reseed everything, otherwise nothing."""
    method = op.kept("method")
    if method in ("flashback", "empty"):
        return [Table(*table) for table in op.kept(method)["tables"]]
    return None if method == "reseed" else ()
