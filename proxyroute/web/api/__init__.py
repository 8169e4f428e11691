"""The API, version 1: what `docs/reference/api.md` describes. One module for each thing that is asked for."""

from __future__ import annotations

from proxyroute.web.api import aside, audit, clusters, description, events, history, operations, plans, settings

ROUTERS = (
    description.router,
    clusters.router,
    aside.router,
    plans.router,
    operations.router,
    history.router,
    events.router,
    settings.router,
    audit.router,
)

TAGS: list[dict[str, str]] = [
    {"name": "clusters", "description": "What is seen of clusters, servers and proxies now."},
    {"name": "plans", "description": "What a switchover or failover would do. Touches nothing, takes some seconds."},
    {"name": "operations", "description": "Asking for something to be done, and following it to its end."},
    {"name": "history", "description": "What was done, as the journals have it."},
    {"name": "events", "description": "What happens, as it happens."},
    {"name": "settings", "description": "What was configured, and what is a default."},
    {"name": "health", "description": "Yes or no, for load balancers: 200 or 503."},
    {"name": "audit", "description": "Who asked for what, from where and why."},
]
"""The parts of the description for programs."""
