"""Whose certificates are trusted where no authority is named."""

from __future__ import annotations

import ssl
from pathlib import Path


def authorities(ca: Path | None) -> str | bool:
    """Returns what ``requests`` is to verify certificates with: ``ca``, or else the machine's own authorities.

    By itself it takes those that come with it. A machine has its own in a file or a folder, where OpenSSL looks for
    them (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` say where else); one that has neither, or nothing in the folder, takes
    those after all.
    """
    if ca is not None:
        return str(ca)
    own = ssl.get_default_verify_paths()
    hashed = own.capath and any(Path(own.capath).glob("*.[0-9]"))
    return own.cafile or (own.capath if hashed else None) or True


def machines_own() -> dict[str, str]:
    """Returns those of the machine for MySQL's programs, which do not look for them: lines of their option file.

    Empty where there are none: then no session of ours has been let in either.
    """
    found = authorities(None)
    if not isinstance(found, str):
        return {}
    return {"ssl-capath" if Path(found).is_dir() else "ssl-ca": found}
