"""MySQL's side of a comparison: a snapshot in a moment without commits, an applier that waits for a GTID of ours.

A snapshot does not tell where it stands. But a transaction owns its GTID from before it is written to the binary log
until it is among those executed, and its rows appear in between: where nothing is owned before and after a snapshot is
opened, and nothing was executed meanwhile, it stands exactly there.

An applier is held back by owning the GTID that it would apply next: it waits until that is given back, which happens by
itself when the session ends, however it ends. Nothing is stopped, so that nothing has to be started again.
"""

from __future__ import annotations

import itertools
import random
import re
import time

from proxyroute.db.compare import POLL, Compare
from proxyroute.db.mysql_read import read_channels, read_position
from proxyroute.db.owning import COMPARE, DEAD_MAN, own
from proxyroute.db.session import Session
from proxyroute.errors import LostReply, ServerError
from proxyroute.gtid import Containment, MySQLPosition, Position, TaggedSource
from proxyroute.model import Deadline, Source
from proxyroute.verify import Place

_OWNED = "SELECT @@global.gtid_owned AS owned, @@global.gtid_executed AS executed"
"""In this order: what is not owned any more by then is among those executed."""
_NUMBER = re.compile(r"(\d+)#(\d+)")
_OWN = 1.0
"""Seconds within which a GTID is ours, or is being applied already."""
_AHEAD = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""How far ahead a GTID is looked for that nobody is applying yet, under more and more writes."""


class MySQLCompare(Compare):
    """One MySQL server."""

    digest = "SHA2(%s, 256)"  # MD5 is an extra component from 9.6 on
    sight = "mysql.gtid_executed"

    _first: Session | None = None
    _second: Session | None = None
    _writer = ""
    _seconds = 0.0
    _held = 0
    """The number of the writer's at which the applier waits; 0: it does not."""
    _stood = MySQLPosition()
    """What had been executed when it was held back."""

    def _channels(self, session: Session, deadline: Deadline) -> tuple[Source, ...]:
        return read_channels(session, deadline)

    def writer(self, deadline: Deadline) -> str:
        row = self._control.open(deadline).one("SELECT @@global.server_uuid AS uuid", deadline)
        return str(row["uuid"]).lower()

    # -- standing still --

    def pause(self, writer: str, seconds: float, deadline: Deadline) -> None:
        """Owns the next GTID of ``writer``, or one soon after it; a server that lost us gives it back by itself."""
        self._applying("START REPLICA SQL_THREAD", deadline)
        self._require_order(deadline)
        self._writer, self._held, self._seconds = writer, 0, seconds
        for ahead in _AHEAD:
            deadline.require(f"{self.name} to wait for a GTID")
            if self._first is None or not self._first.is_open:
                self._first = self._holder(COMPARE, deadline)
            # beyond what is being applied: that would be given to us when it is done, and too late
            owned, executed = self._owned(deadline)
            number = max([_last(executed, writer), *owned]) + 1 + ahead
            if self._own_next(self._first, "verify.pause", number, deadline):
                self._held, self._stood = number, self._executed(deadline)
                return
        raise ServerError(self.name, f"applies what {writer} writes faster than it could be held back")

    def _require_order(self, deadline: Deadline) -> None:
        row = self._control.open(deadline).one(
            "SELECT @@global.replica_parallel_workers AS workers, @@global.replica_preserve_commit_order AS ordered",
            deadline,
        )
        if int(row["workers"]) > 1 and not int(row["ordered"]):
            cure = "SET GLOBAL replica_preserve_commit_order=ON; STOP REPLICA SQL_THREAD; START REPLICA SQL_THREAD"
            raise ServerError(self.name, f"applies in any order and stands at no position ever; on it: {cure}")

    def _holder(self, lock: str, deadline: Deadline) -> Session:
        """A session for nothing but to own a GTID: any other statement in it might use the GTID up."""
        session = Session(self.name, self.address, self._login).open(deadline)
        own(session, lock, (DEAD_MAN,) if lock == COMPARE else (), self._claim, deadline)
        session.change("verify.dead_man", "SET SESSION wait_timeout=%s", deadline, (max(1, round(self._seconds)),))
        return session

    def _own_next(self, holder: Session, point: str, number: int, deadline: Deadline) -> bool:
        """Tells whether ``holder`` owns ``number`` of the writer's now: what is executed already is not given."""
        session = holder.id
        try:
            holder.change(point, "SET SESSION gtid_next=%s", deadline.within(_OWN), (f"{self._writer}:{number}",))
        except LostReply:  # somebody applies it, and has to wait for what we hold back
            return False
        return self._owned(deadline)[0].get(number) == session

    def _owned(self, deadline: Deadline) -> tuple[dict[int, int], MySQLPosition]:
        """Returns the numbers of the writer's that are being applied, each with its session, and what is executed."""
        row = self._control.open(deadline).one(_OWNED, deadline)
        return owned_by(self._writer, str(row["owned"] or "")), MySQLPosition.parse(str(row["executed"] or ""))

    def _executed(self, deadline: Deadline) -> MySQLPosition:
        return read_position(self._control.open(deadline), deadline)

    def advance(self, place: Place, deadline: Deadline) -> bool:
        """Owns the GTID right after ``place``, and gives back the first: what lies between is applied.

        False when another worker applies that one already, which waits for what is held back.
        """
        assert self._first is not None
        number = _last(_mysql(place.position), self._writer) + 1
        if number != self._held:
            owned, executed = self._owned(deadline)
            if number in owned or number <= _last(executed, self._writer):
                return False
            self._second = self._holder(DEAD_MAN, deadline)
            if not self._own_next(self._second, "verify.advance", number, deadline):
                self._second.close()
                return False
            self._held = number
            self._give_back(self._first, deadline)
        while self._executed(deadline).contains(place.position) is not Containment.YES:
            deadline.require(f"{self.name} to apply up to {place.position}")
            channel = self._the_channel(deadline)
            if not channel.applier:
                raise ServerError(self.name, f"could not apply up to {place.position}: {channel.error}")
            time.sleep(POLL)
        self.confirm(place.position, deadline)
        return True

    def confirm(self, position: Position, deadline: Deadline) -> None:
        executed = self._executed(deadline)
        if executed != self._stood.merge(position):
            more = executed.minus(self._stood.merge(position))
            text = f"has executed {more} as well" if not more.empty else f"stands at {executed}"
            raise ServerError(self.name, f"{text}, and not at {position}, where it is to be compared")

    def resume(self, deadline: Deadline) -> None:
        for holder in (self._first, self._second):
            if holder is not None and holder.is_open:
                self._give_back(holder, deadline)
        self._first = self._second = None
        self._held = 0

    def _give_back(self, holder: Session, deadline: Deadline) -> None:
        """Whatever becomes of the statement, the GTID is free when the session has ended."""
        try:
            holder.change("verify.resume", "ROLLBACK", deadline)
        except ServerError:
            holder.abandon()
        finally:
            holder.close()

    # -- reading --

    def open_reading(self, deadline: Deadline) -> Place:
        if self._held:  # nothing is executed here, and what was begun waits
            self._open_snapshot(deadline)
            return Place(self._executed(deadline))
        control = self._control.open(deadline)
        while True:
            before = control.one(_OWNED, deadline)
            if not before["owned"]:
                self._open_snapshot(deadline)
                if control.one(_OWNED, deadline) == before:
                    return Place(MySQLPosition.parse(str(before["executed"] or "")))
            deadline.require(f"a moment without a commit on {self.name}, in which a reading can begin")
            time.sleep(POLL * random.random())  # not in step with whoever writes

    def close(self) -> None:
        for holder in (self._first, self._second):
            if holder is not None:
                holder.close()
        super().close()


def owned_by(writer: str, told: str) -> dict[int, int]:
    """Returns the numbers of ``writer`` in ``told``, a ``gtid_owned``, with the session of each.

    Those under a tag are counted by themselves, and are none of these: they follow the tag, up to the next comma.
    """
    found: dict[int, int] = {}
    for part in told.lower().split(","):
        source, *pieces = part.strip().split(":")
        numbers = itertools.takewhile(bool, map(_NUMBER.fullmatch, pieces)) if source == writer else ()
        found |= {int(number[1]): int(number[2]) for number in numbers if number}
    return found


def _last(position: MySQLPosition, writer: str) -> int:
    """Returns the highest number of ``writer`` in ``position``, without those under a tag; 0 when there is none."""
    spans = dict(position.sets).get(TaggedSource(writer), ())
    return max((last for _, last in spans), default=0)


def _mysql(position: Position) -> MySQLPosition:
    if not isinstance(position, MySQLPosition):
        raise TypeError("a MySQL server cannot stand at a position of another flavour")
    return position
