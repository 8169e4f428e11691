"""Who asks for an operation, and why: it stands in the operation's first record."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Caller:
    """Whoever asks, as the journal names him."""

    by: str
    reason: str = ""
    """Why, in his words."""
    operation: str = ""
    """The id that the operation gets; empty: a new one."""
    called_off: Callable[[], str] = field(default=lambda: "", compare=False, repr=False)
    """Returns who does not want it any more, in words; an empty string while it is wanted. Any thread may ask."""


def user() -> str:
    """Returns the user of this process, with who has become it by sudo."""
    sudo = os.environ.get("SUDO_USER")
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{sudo} (as {name})" if sudo else name
