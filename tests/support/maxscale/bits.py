"""Server states as they are: bits. What the REST API shows is only a rendering of them."""

from __future__ import annotations

from enum import IntFlag


class Bit(IntFlag):
    """What a server is marked with. Any combination can stand; hidden ones still act."""

    NONE = 0
    RUNNING = 1
    MASTER = 2
    SLAVE = 4
    SYNCED = 8
    MAINTENANCE = 16
    DRAIN = 32
    BLR = 64


WORDS: dict[str, Bit] = {
    "running": Bit.RUNNING,
    "master": Bit.MASTER,
    "slave": Bit.SLAVE,
    "synced": Bit.SYNCED,
    "maintenance": Bit.MAINTENANCE,
    "maint": Bit.MAINTENANCE,
    "drain": Bit.DRAIN,
    "blr": Bit.BLR,
    "binlogrouter": Bit.BLR,
}
"""What ``set`` and ``clear`` take, in any case; neither ``primary`` nor ``replica`` is among them."""

ASIDE = Bit.MAINTENANCE | Bit.DRAIN
"""The operator's bits: a monitor never owns them."""
ROLES = Bit.MASTER | Bit.SLAVE | Bit.SYNCED | Bit.BLR


def word(text: str) -> Bit | None:
    """Returns the bit that ``text`` names, None when it names none."""
    return WORDS.get(text.lower())


def render(bits: Bit, connections: int = 0) -> str:
    """Returns what ``attributes.state`` shows."""
    shown = []
    if Bit.MAINTENANCE in bits:
        shown.append("Maintenance")
    elif Bit.DRAIN in bits:
        shown.append("Draining" if connections else "Drained")
    if Bit.RUNNING not in bits:
        return ", ".join([*shown, "Down"])
    if Bit.MAINTENANCE not in bits:
        if Bit.MASTER in bits:
            shown.append("Master")
        elif Bit.SLAVE in bits:
            shown.append("Slave")
        if Bit.SYNCED in bits:
            shown.append("Synced")
        if Bit.BLR in bits:
            shown.append("Binlog Relay")
    return ", ".join([*shown, "Running"])


def usable(bits: Bit, role: Bit) -> bool:
    """Whether a new session with need of ``role`` may be sent there."""
    return role in bits and Bit.RUNNING in bits and not bits & ASIDE
