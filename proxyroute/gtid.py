"""Replication positions as sets of transactions: what contains what, and what is left over.

Two flavours that cannot be mixed. A MySQL position is a complete set, and every answer about it is exact. A
MariaDB position only knows, for each pair of domain and server id, the last sequence number; where a pair is
missing the history may be missing too, and the answer is :attr:`Containment.UNKNOWN`, which must never be
read as clean.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class Containment(StrEnum):
    """Answer to "is it in there?"; ``UNKNOWN`` when the history that would tell is missing."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Position(Protocol):
    """What a server has executed or received. Every comparison raises TypeError for another flavour."""

    @property
    def flavour(self) -> str: ...

    @property
    def empty(self) -> bool: ...

    @property
    def ordered(self) -> bool:
        """Whether the last transaction of a domain stands for all before it, whoever wrote them."""

    def contains(self, other: Position) -> Containment:
        """Tells whether every transaction of ``other`` is in this position."""

    def equals(self, other: Position) -> Containment:
        """Tells whether a server at this position stands exactly at ``other``, no less and no more."""

    def minus(self, other: Position) -> Position:
        """Returns what is here and not provably in ``other``; empty exactly when ``other`` contains this."""

    def merge(self, other: Position) -> Position:
        """Returns everything that is in either."""

    def alongside(self, other: Position, members: Collection[int | str] = ()) -> Position:
        """Returns what is here of a cluster's history: what a replica of several sources has besides is from elsewhere.

        ``other`` is of that history. MariaDB tells it by the domains that ``other`` has; MySQL, which has none, by who
        numbered it: somebody whom ``other`` names, or one of ``members``, each given as its ``Status.identity``.
        """

    def by(self, server: int | str) -> Position:
        """Returns what this server wrote itself; ``server`` is its ``Status.identity``."""

    def as_far_as(self, other: Position) -> bool:
        """Tells by order alone whether this has come as far as ``other``: for a replica that leaves events out."""

    def distance(self, other: Position) -> int | None:
        """Returns about how many transactions are here and not in ``other``; None if nobody can tell."""

    def to_json(self) -> dict[str, str]:
        """Returns what :func:`from_json` reads."""

    def __str__(self) -> str: ...


def from_json(value: Mapping[str, str]) -> Position:
    """Reads what ``to_json`` wrote. Raises ValueError for anything else."""
    flavour, text = value.get("flavour"), value.get("text")
    if not isinstance(text, str):
        raise ValueError(f"{dict(value)!r} is not a position: it has no text")
    if flavour == MariaDBPosition.flavour:
        return MariaDBPosition.parse(text)
    if flavour == MySQLPosition.flavour:
        return MySQLPosition.parse(text)
    raise ValueError(f"{flavour!r} is not a flavour of positions; mariadb and mysql are")


def _worst(answers: Iterable[Containment]) -> Containment:
    """Any NO makes it NO, else any UNKNOWN makes it UNKNOWN; nothing asked is YES."""
    given = set(answers)
    for answer in (Containment.NO, Containment.UNKNOWN):
        if answer in given:
            return answer
    return Containment.YES


# -- MariaDB -------------------------------------------------------------------------------------------------


class GTID(NamedTuple):
    """One MariaDB transaction, and by the order within its domain all earlier ones of the same server."""

    domain: int
    server_id: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server_id}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> GTID:
        """Reads ``domain-server-sequence``. Raises ValueError for anything else."""
        if not re.fullmatch(r"[0-9]+-[0-9]+-[0-9]+", text):
            raise ValueError(f"{text!r} is not a MariaDB GTID; one reads domain-server-sequence, as 0-1-42")
        gtid = cls(*(int(part) for part in text.split("-")))
        if gtid.domain >= 2**32 or gtid.server_id >= 2**32 or gtid.sequence >= 2**64:
            raise ValueError(f"{text!r} is not a MariaDB GTID: a number is too large")
        return gtid


@dataclass(frozen=True)
class MariaDBPosition:
    """The highest sequence number for each pair of domain and server id, as ``gtid_binlog_state`` tells it.

    Sequence numbers are counted per domain, not per server, and they alone prove nothing:
    ``MASTER_GTID_WAIT('0-99-N')`` answers 0 as soon as the domain has reached N, although no server 99 ever
    existed; and an old primary at 0-1-13234 looks behind a new one at 0-2-13239 although the last
    transactions of server 1 are nowhere else. Hence everything here is compared per domain *and* server id.
    """

    entries: tuple[GTID, ...] = ()
    """Sorted, one for each pair of domain and server id."""

    flavour = "mariadb"
    ordered = True

    def __post_init__(self) -> None:
        highest: dict[tuple[int, int], GTID] = {}
        for gtid in sorted(GTID(*entry) for entry in self.entries):
            highest[gtid.domain, gtid.server_id] = gtid
        object.__setattr__(self, "entries", tuple(highest.values()))

    @classmethod
    def parse(cls, text: str) -> MariaDBPosition:
        """Reads ``gtid_binlog_state``, ``gtid_binlog_pos`` or ``gtid_slave_pos``; empty is allowed.

        Raises ValueError, naming the part that is wrong.
        """
        if not text.strip():
            return cls()
        return cls(tuple(GTID.parse(part.strip()) for part in text.split(",")))

    def __str__(self) -> str:
        return ",".join(map(str, self.entries))

    def to_json(self) -> dict[str, str]:
        return {"flavour": self.flavour, "text": str(self)}

    @property
    def empty(self) -> bool:
        return not self.entries

    @property
    def state_text(self) -> str:
        """How ``gtid_binlog_state`` is set to it: the server takes what stands last of a domain for its latest."""
        return ",".join(map(str, sorted(self.entries, key=lambda gtid: (gtid.domain, gtid.sequence))))

    def latest(self) -> MariaDBPosition:
        """Returns the one GTID with the highest sequence number of each domain."""
        last: dict[int, GTID] = {}
        for gtid in sorted(self.entries, key=lambda entry: (entry.sequence, entry.server_id)):
            last[gtid.domain] = gtid
        return MariaDBPosition(tuple(last.values()))

    @property
    def latest_text(self) -> str:
        """The text of :meth:`latest`: what ``MASTER_GTID_WAIT`` and ``gtid_slave_pos`` take."""
        return str(self.latest())

    def contains(self, other: Position) -> Containment:
        """Tells whether every transaction of ``other`` is here.

        For each d-s-n of ``other``: YES when (d, s) has reached n here, NO when it has not. Without an entry
        for (d, s) it is NO when n is beyond everything this domain has here (a domain that is missing has
        nothing), and UNKNOWN below that: this server may have been seeded from a backup taken after n, or n
        may be a transaction that was never here. Any NO makes the whole NO, else any UNKNOWN makes it
        UNKNOWN.
        """
        return _worst(self._holds(gtid) for gtid in _mariadb(other).entries)

    def equals(self, other: Position) -> Containment:
        """Tells whether this server, having waited for ``other``, now stands exactly there.

        NO unless the latest GTID of every domain is the same, server id included: a wait for 0-99-N that was
        answered at 0-1-N, or one for 0-2-13239 that ended with 0-1-13240, stops here. NO as well when a pair
        of domain and server id that both know differs: one of them has transactions the other never had.
        UNKNOWN when this position has a pair that ``other`` lacks, below the latest: either the history of
        ``other`` is missing, or these transactions are errant.

        A pair that only ``other`` has is no objection once the latest is the same: this server was seeded
        from a copy that had it already. Within a domain replication applies in order, and under
        ``gtid_strict_mode`` a server cannot be at the latest GTID without everything before it.
        """
        theirs = _mariadb(other)
        if self.latest() != theirs.latest():
            return Containment.NO
        known = theirs._sequences()
        answers = set()
        for domain, server_id, sequence in self.entries:
            reached = known.get((domain, server_id))
            if reached is None:
                answers.add(Containment.UNKNOWN)
            elif reached != sequence:
                answers.add(Containment.NO)
        return _worst(answers)

    def minus(self, other: Position) -> MariaDBPosition:
        """Returns the entries not provably in ``other``: all to which it answers NO or UNKNOWN."""
        theirs = _mariadb(other)
        return MariaDBPosition(tuple(g for g in self.entries if theirs._holds(g) is not Containment.YES))

    def merge(self, other: Position) -> MariaDBPosition:
        return MariaDBPosition(self.entries + _mariadb(other).entries)

    def alongside(self, other: Position, members: Collection[int | str] = ()) -> MariaDBPosition:
        domains = {gtid.domain for gtid in _mariadb(other).entries}
        return MariaDBPosition(tuple(gtid for gtid in self.entries if gtid.domain in domains))

    def by(self, server: int | str) -> MariaDBPosition:
        return MariaDBPosition(tuple(gtid for gtid in self.entries if gtid.server_id == server))

    def as_far_as(self, other: Position) -> bool:
        return all(self._highest(gtid.domain) >= gtid.sequence for gtid in _mariadb(other).entries)

    def distance(self, other: Position) -> int | None:
        """Returns how many sequence numbers lie between ``other`` and here; an upper bound.

        Numbers another server of the domain has taken in between are counted too. None when ``other`` lacks
        the history that would tell.
        """
        theirs = _mariadb(other)
        known = theirs._sequences()
        missing: dict[int, list[Interval]] = {}
        for gtid in self.entries:
            answer = theirs._holds(gtid)
            if answer is Containment.UNKNOWN:
                return None
            if answer is Containment.NO:
                reached = known.get((gtid.domain, gtid.server_id), max(0, theirs._highest(gtid.domain)))
                missing.setdefault(gtid.domain, []).append((reached + 1, gtid.sequence))
        return sum(_count(_normal(intervals)) for intervals in missing.values())

    def _sequences(self) -> dict[tuple[int, int], int]:
        return {(gtid.domain, gtid.server_id): gtid.sequence for gtid in self.entries}

    def _highest(self, domain: int) -> int:
        return max((gtid.sequence for gtid in self.entries if gtid.domain == domain), default=-1)

    def _holds(self, gtid: GTID) -> Containment:
        reached = self._sequences().get((gtid.domain, gtid.server_id))
        if reached is not None:
            return Containment.YES if reached >= gtid.sequence else Containment.NO
        return Containment.NO if gtid.sequence > self._highest(gtid.domain) else Containment.UNKNOWN


def _mariadb(position: Position) -> MariaDBPosition:
    if not isinstance(position, MariaDBPosition):
        raise TypeError(f"a position of MariaDB cannot be compared with {position!r}")
    return position


# -- MySQL ---------------------------------------------------------------------------------------------------

Interval = tuple[int, int]
"""First and last number, both included."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_INTERVAL = re.compile(r"([0-9]+)(?:\s*-\s*([0-9]+))?")


def _normal(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Returns the same numbers as sorted intervals that neither overlap nor touch."""
    result: list[Interval] = []
    for first, last in sorted(intervals):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)


def _common(mine: Iterable[Interval], theirs: Iterable[Interval]) -> tuple[Interval, ...]:
    theirs = tuple(theirs)
    overlaps = ((max(a, c), min(b, d)) for a, b in mine for c, d in theirs)
    return _normal((first, last) for first, last in overlaps if first <= last)


def _without(mine: Iterable[Interval], theirs: Iterable[Interval]) -> tuple[Interval, ...]:
    left = tuple(mine)
    for first, last in theirs:
        pieces = [piece for a, b in left for piece in ((a, min(b, first - 1)), (max(a, last + 1), b))]
        left = tuple((a, b) for a, b in pieces if a <= b)
    return _normal(left)


def _count(intervals: Iterable[Interval]) -> int:
    return sum(last - first + 1 for first, last in intervals)


class TaggedSource(NamedTuple):
    """Who numbered a transaction of MySQL: a server's UUID and, from MySQL 8.3, a tag."""

    uuid: str
    tag: str = ""


@dataclass(frozen=True)
class MySQLPosition:
    """A GTID set, as ``gtid_executed`` tells it: exactly these transactions, so no answer is ever UNKNOWN."""

    sets: tuple[tuple[TaggedSource, tuple[Interval, ...]], ...] = ()
    """Sorted, one for each source, none of them empty; intervals neither overlap nor touch."""

    flavour = "mysql"
    ordered = False

    def __post_init__(self) -> None:
        gathered: dict[TaggedSource, tuple[Interval, ...]] = {}
        for source, intervals in self.sets:
            key = TaggedSource(*source)
            gathered[key] = gathered.get(key, ()) + tuple(intervals)
        normal = ((source, _normal(gathered[source])) for source in sorted(gathered))
        object.__setattr__(self, "sets", tuple(pair for pair in normal if pair[1]))

    @classmethod
    def parse(cls, text: str) -> MySQLPosition:
        """Reads a GTID set, comma separated ``uuid:interval…[:tag:interval…]``; empty is allowed.

        Raises ValueError, naming the part that is wrong.
        """
        sets: list[tuple[TaggedSource, tuple[Interval, ...]]] = []
        for part in text.split(",") if text.strip() else ():
            uuid, *pieces = (piece.strip().lower() for piece in part.split(":"))
            if not _UUID.fullmatch(uuid):
                raise ValueError(f"{part.strip()!r} is not a part of a GTID set; one reads uuid:1-42")
            sets.extend(cls._parse_pieces(part.strip(), uuid, pieces))
        return cls(tuple(sets))

    @staticmethod
    def _parse_pieces(part: str, uuid: str, pieces: list[str]) -> Iterable[tuple[TaggedSource, tuple[Interval, ...]]]:
        source, dangling = TaggedSource(uuid), True
        for piece in pieces:
            interval = _INTERVAL.fullmatch(piece)
            if interval:
                first, last = int(interval[1]), int(interval[2] or interval[1])
                if not 0 < first <= last < 2**63:
                    raise ValueError(f"{piece!r} in {part!r} is not an interval of transaction numbers")
                yield source, ((first, last),)
            elif not _TAG.fullmatch(piece):
                raise ValueError(f"{piece!r} in {part!r} is neither an interval nor a tag")
            else:
                source = TaggedSource(uuid, piece)
            dangling = interval is None
        if dangling:
            raise ValueError(f"{part!r} ends without an interval; one reads uuid:1-42")

    def __str__(self) -> str:
        uuids: dict[str, str] = {}
        for source, intervals in self.sets:
            numbers = (f"{first}" if first == last else f"{first}-{last}" for first, last in intervals)
            tag = f":{source.tag}" if source.tag else ""
            uuids[source.uuid] = uuids.get(source.uuid, source.uuid) + tag + ":" + ":".join(numbers)
        return ",".join(uuids.values())

    def to_json(self) -> dict[str, str]:
        return {"flavour": self.flavour, "text": str(self)}

    @property
    def empty(self) -> bool:
        return not self.sets

    def contains(self, other: Position) -> Containment:
        return Containment.YES if _mysql(other).minus(self).empty else Containment.NO

    def equals(self, other: Position) -> Containment:
        return Containment.YES if self == _mysql(other) else Containment.NO

    def minus(self, other: Position) -> MySQLPosition:
        theirs = dict(_mysql(other).sets)
        return MySQLPosition(tuple((s, _without(intervals, theirs.get(s, ()))) for s, intervals in self.sets))

    def merge(self, other: Position) -> MySQLPosition:
        return MySQLPosition(self.sets + _mysql(other).sets)

    def alongside(self, other: Position, members: Collection[int | str] = ()) -> MySQLPosition:
        writers = {source.uuid for source, _ in _mysql(other).sets}.union(members)
        return MySQLPosition(tuple((source, numbers) for source, numbers in self.sets if source.uuid in writers))

    def by(self, server: int | str) -> MySQLPosition:
        return MySQLPosition(tuple((source, numbers) for source, numbers in self.sets if source.uuid == server))

    def as_far_as(self, other: Position) -> bool:
        return self.contains(other) is Containment.YES

    def intersection(self, other: Position) -> MySQLPosition:
        """Returns what is in both."""
        theirs = dict(_mysql(other).sets)
        return MySQLPosition(tuple((s, _common(intervals, theirs.get(s, ()))) for s, intervals in self.sets))

    def distance(self, other: Position) -> int:
        """Returns how many transactions are here and not in ``other``; exact."""
        return sum(_count(intervals) for _, intervals in self.minus(other).sets)


def _mysql(position: Position) -> MySQLPosition:
    if not isinstance(position, MySQLPosition):
        raise TypeError(f"a position of MySQL cannot be compared with {position!r}")
    return position
