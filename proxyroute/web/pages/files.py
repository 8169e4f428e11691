"""The files of the pages: style, script and icon, from this package and nowhere else."""

from __future__ import annotations

from fastapi import APIRouter, Response

from proxyroute.web.pages.shell import STATIC
from proxyroute.web.problems import Problem

router = APIRouter(include_in_schema=False)

_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_FILES = {file.name: file.read_bytes() for file in STATIC.iterdir() if file.suffix in _TYPES}
_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}


@router.get("/static/{name}")
def static_file(name: str) -> Response:
    """One of our files; nobody has to be logged in for it."""
    found = _FILES.get(name)
    if found is None:
        raise Problem(404, f"there is no file {name!r}")
    return Response(found, headers=_HEADERS, media_type=_TYPES[name[name.rindex(".") :]])
