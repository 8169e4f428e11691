"""What a switchover or a failover would do, as JSON values: the same for the command line and over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxyroute.inspection import Transaction

if TYPE_CHECKING:
    from proxyroute.contingency import Contingency
    from proxyroute.prospect import Prospect


def offenders(prospect: Prospect) -> tuple[Transaction, ...]:
    """Returns the writing transactions on the primary that were running when it was inspected, the oldest first."""
    primary = prospect.view.primary
    inspection = prospect.view.inspections.get(primary.name) if primary else None
    found = [t for t in inspection.transactions if t.writes] if inspection else []
    return tuple(sorted(found, key=lambda t: -t.age_seconds))


def prospect_json(prospect: Prospect) -> dict[str, Any]:
    """Returns a plan as JSON values, without the readings it was made from."""
    return {
        "cluster": prospect.view.cluster,
        "go": prospect.go,
        "unchanged": prospect.unchanged,
        "primary": prospect.view.primary.name if prospect.view.primary else None,
        "plan": prospect.plan,
        "election": prospect.election,
        "findings": prospect.findings,
        "offenders": offenders(prospect),
        "steps": prospect.steps,
        "predicted_seconds": prospect.predicted_seconds,
        "prediction_basis": prospect.prediction_basis,
    }


def contingency_json(prospect: Contingency) -> dict[str, Any]:
    """Returns a failover's prospect as JSON values, without the readings it was made from."""
    return {
        "cluster": prospect.view.cluster,
        "go": prospect.go,
        "diagnosis": prospect.diagnosis,
        "plan": prospect.plan,
        "election": prospect.election,
        "findings": prospect.findings,
        "may_be_missing": prospect.may_be_missing,
        "fetch_from": prospect.orders.fetch_from,
        "blocks_automatic": prospect.limits,
        "dead_binlog": {"mode": prospect.orders.dead_binlog, "told": prospect.dead_binlog},
    }
