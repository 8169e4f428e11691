"""The pages of ``proxyroute serve``: HTML made here, kept fresh by fragments that are sent as they change."""

from __future__ import annotations

from fastapi import FastAPI

from proxyroute.web.pages import access, acting, files, overview, records, settings
from proxyroute.web.pages.overview import Lines

PARTS = (files, access, overview, records, acting, settings)
"""Each has a router."""


def add_pages(app: FastAPI) -> None:
    """Adds the pages to the application."""
    app.state.lines = Lines()
    for part in PARTS:
        app.include_router(part.router)
