"""What engines and agents tell each other through a shared folder: values, their bytes, and whom to believe.

Nothing here touches a disk. Every file is one JSON object that carries a format version and an HMAC over the rest and
over what kind of file it is, so that a release cannot be passed off as a receipt. A reader believes nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from proxyroute.errors import Conflict, OtherFormat, Outdated, Tampered, Torn
from proxyroute.model import (
    NO_EPOCH,
    Address,
    Endpoint,
    Epoch,
    Finding,
    Observed,
    Reader,
    Receipt,
    ReceiptState,
    RouteTable,
    Severity,
)

FORMAT = 1
RELEASED = "released"
"""In the evidence of a receipt for ``apply``: the host has let those go who waited."""
_SIGNATURE = "hmac"
_NAME = re.compile(r"([0-9]+\.[0-9]+)-([0-9a-f]{16})")


class Phase(StrEnum):
    """What the engine asks of the proxy hosts."""

    PREPARE = "prepare"
    HOLD = "hold"
    APPLY = "apply"
    SETTLE = "settle"
    RELEASE = "release"

    @property
    def routes(self) -> bool:
        """Whether the route that is named is to be made true."""
        return self in (Phase.APPLY, Phase.SETTLE)

    @property
    def lasting(self) -> bool:
        """Whether its announcement waits for the disk. Not while writes wait for it; ``settle`` makes it lasting."""
        return self in (Phase.PREPARE, Phase.SETTLE)


@dataclass(frozen=True)
class Shape:
    """What of HAProxy's configuration is the same on all hosts. Paths and accounts are each host's own affair."""

    write: str
    read: str = ""
    stats: str = ""
    hard_stop_after: float = 30.0
    template: str = ""
    """Text of an own template; empty: ours."""


@dataclass(frozen=True)
class Release:
    """A route with all that is needed to render it. Immutable: its name follows from its content."""

    table: RouteTable
    shape: Shape

    @property
    def name(self) -> str:
        """``<epoch>-<digest>``."""
        return f"{self.table.epoch}-{hashlib.sha256(_plain(self.values())).hexdigest()[:16]}"

    def values(self) -> dict[str, Any]:
        table = self.table
        return {
            "cluster": table.cluster,
            "epoch": str(table.epoch),
            "primary": table.primary,
            "readers": {r.name: r.weight for r in table.readers},
            "servers": [[e.name, e.address.host, e.address.port] for e in table.servers],
            "shape": dict(vars(self.shape)),
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Release:
        """Reads what ``values`` returned. Raises Torn for anything else."""
        try:
            table = RouteTable(
                cluster=str(values["cluster"]),
                epoch=Epoch.parse(values["epoch"]),
                servers=tuple(Endpoint(name, Address(host, int(port))) for name, host, port in values["servers"]),
                primary=values["primary"],
                readers=tuple(Reader(name, int(weight)) for name, weight in values["readers"].items()),
            )
            return cls(table, Shape(**values["shape"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Torn(f"this is not a release: {error}") from None


def epoch_of(name: str) -> Epoch:
    """Returns the epoch in the name of a release. Raises Torn for what is no such name."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise Torn(f"{name!r} is not the name of a release")
    return Epoch.parse(found[1])


@dataclass(frozen=True)
class Announcement:
    """``current.json``: what is asked of the hosts now."""

    id: str
    """Unlike that of any other announcement; a receipt repeats it."""
    sequence: int
    """Grows with each announcement."""
    cluster: str
    phase: Phase
    writer: str
    operation: str = ""
    route: str | None = None
    """Name of the release that is in force; None before the first."""
    target: str | None = None
    abort: str | None = None
    """Releases to be staged, for ``prepare``."""
    seconds: float = 0.0
    """How long a hold may last from the moment a host reads it: a length, because clocks of hosts differ."""

    @property
    def named(self) -> tuple[str, ...]:
        return tuple(name for name in (self.route, self.target, self.abort) if name)

    def values(self) -> dict[str, Any]:
        route = _NAME.fullmatch(self.route or "")
        shown = {"epoch": route[1] if route else None, "digest": route[2] if route else None}
        return {**vars(self), "phase": str(self.phase), **shown}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Announcement:
        """Reads what ``values`` returned. Raises Torn for anything else."""
        try:
            found = {k: v for k, v in values.items() if k not in ("epoch", "digest")}
            announced = cls(**{**found, "phase": Phase(found["phase"])})
        except (KeyError, TypeError, ValueError) as error:
            raise Torn(f"this is not an announcement: {error}") from None
        for name in announced.named:
            epoch_of(name)
        return announced


@dataclass(frozen=True)
class Question:
    """``asks/<writer>.json``: an engine wants to know what the proxies do now."""

    id: str
    writer: str
    cluster: str
    check: bool = False
    """Also look for what would keep the proxy from following."""

    def values(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Question:
        """Reads what ``values`` returned. Raises Torn for anything else."""
        try:
            return cls(**values)
        except TypeError as error:
            raise Torn(f"this is not a question: {error}") from None


@dataclass(frozen=True)
class Answer:
    """``acks/<host>.json``: what a host made of the last announcement, and what it saw when it was last asked."""

    host: str
    cluster: str
    answers: str = ""
    """The announcement's id."""
    phase: str = ""
    operation: str = ""
    release: str = ""
    """What the host has taken for the route in force."""
    receipt: Receipt = field(default_factory=lambda: Receipt("", ReceiptState.UNKNOWN, NO_EPOCH))
    asked: Mapping[str, str] = field(default_factory=dict)
    """Id of the question that was last answered, by its writer."""
    observed: Observed | None = None
    findings: tuple[Finding, ...] = ()
    watch: str = ""
    """How the host learns of changes."""
    closes_after: float = 0.0
    """Seconds of hearing nothing after which the host closes its writes by itself; 0 for never."""
    heard: str = ""
    """Id of an announcement that the host has read and works on; empty once it has answered."""

    def values(self) -> dict[str, Any]:
        receipt, seen = self.receipt, self.observed
        # an engine that is older than its agents does not know the field
        known = {name: value for name, value in vars(self).items() if name != "heard" or value}
        return {
            **known,
            "receipt": {**vars(receipt), "state": str(receipt.state), "epoch": str(receipt.epoch)},
            # what is published the engine reads for itself
            "observed": _seen(seen) if seen else None,
            "findings": [{**vars(f), "severity": str(f.severity)} for f in self.findings],
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Answer:
        """Reads what ``values`` returned. Raises Torn for anything else."""
        try:
            receipt, seen = values["receipt"], values["observed"]
            if seen is not None:
                seen = Observed(
                    **{
                        **seen,
                        "epoch": Epoch.parse(seen["epoch"]) if seen["epoch"] else None,
                        "readers": tuple(seen["readers"]),
                        "drift": tuple(seen["drift"]),
                        "aside": tuple(seen.get("aside", ())),
                    }
                )
            state, epoch = ReceiptState(receipt["state"]), Epoch.parse(receipt["epoch"])
            found = tuple(Finding(**{**f, "severity": Severity(f["severity"])}) for f in values["findings"])
            return cls(
                **{
                    **values,
                    "receipt": Receipt(**{**receipt, "state": state, "epoch": epoch}),
                    "observed": seen,
                    "findings": found,
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Torn(f"this is not a receipt: {error}") from None


def _seen(seen: Observed) -> dict[str, Any]:
    values = {**vars(seen), "epoch": str(seen.epoch) if seen.epoch else None, "published": None}
    if not seen.addresses:
        del values["addresses"]  # an engine that is older than its agents does not know the field
    return values


@dataclass(frozen=True)
class Memory:
    """The latest route that was accepted. What comes next is judged by it, and nothing ever leads back behind it."""

    release: str
    epoch: Epoch
    primary: str | None
    sequence: int

    @classmethod
    def of(cls, release: Release, sequence: int) -> Memory:
        return cls(release.name, release.table.epoch, release.table.primary, sequence)


def accept(known: Memory | None, release: Release, sequence: int) -> Memory:
    """Returns what is to be remembered when ``release``, announced as number ``sequence``, is the route in force.

    An epoch means one primary. Within it a closed route may open, and readers may change, in the order of the
    announcements. Raises Outdated and Conflict.
    """
    fresh = Memory.of(release, sequence)
    if known is None or fresh.epoch > known.epoch or fresh.release == known.release:
        return replace(fresh, sequence=max(sequence, known.sequence)) if known else fresh
    refuse_outdated(known, fresh.epoch)
    if known.primary not in (None, fresh.primary):
        raise Conflict(
            f"conflict: route {known.epoch} to {known.primary} is published, the same epoch cannot mean "
            f"{fresh.primary or 'nobody'}"
        )
    if sequence <= known.sequence:
        raise Outdated(f"superseded: announcement {known.sequence} of epoch {known.epoch} is known, this is {sequence}")
    return fresh


def refuse_outdated(known: Memory | None, epoch: Epoch) -> None:
    """Raises Outdated when a later epoch than ``epoch`` has been accepted."""
    if known is not None and epoch < known.epoch:
        text = f"route {known.epoch} to {known.primary or 'nobody'} is published"
        raise Outdated(f"superseded: {text}, {epoch} is older")


# -- Bytes ------------------------------------------------------------------------------------------------------


def seal(kind: str, values: Mapping[str, Any], key: bytes) -> bytes:
    """Returns the bytes of a file of ``kind``, signed. The same values give the same bytes."""
    body = {**values, "format": FORMAT}
    return _plain({**body, _SIGNATURE: _signature(kind, body, key)}) + b"\n"


def unseal(kind: str, data: bytes, key: bytes) -> dict[str, Any]:
    """Returns the values in a file of ``kind``. Raises Torn, OtherFormat or Tampered."""
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Torn(f"the {kind} is cut off: {len(data)} bytes that are not a JSON object")
    if body.get("format") != FORMAT:
        raise OtherFormat(f"the {kind} has format {body.get('format')!r}, and this program reads {FORMAT}")
    given = body.pop(_SIGNATURE, None)
    if not isinstance(given, str) or not hmac.compare_digest(given, _signature(kind, body, key)):
        raise Tampered(f"the {kind} is not signed with our key: compare the key files, and who can write there")
    del body["format"]
    return body


def _signature(kind: str, body: Mapping[str, Any], key: bytes) -> str:
    return hmac.new(key, kind.encode() + b"\0" + _plain(body), hashlib.sha256).hexdigest()


def _plain(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict).encode()
