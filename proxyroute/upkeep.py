"""Routes in quiet times: published for the first time, and told again to proxies that are not as they are meant to be.

Nothing here touches a database. Whoever calls what changes a route holds the lease.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from proxyroute import intent as memory
from proxyroute.drift import Correction, correction
from proxyroute.errors import ProxyRouteError, Refused
from proxyroute.gtid import Containment
from proxyroute.history import Summary
from proxyroute.intent import Intent
from proxyroute.model import (
    NO_EPOCH,
    Deadline,
    Epoch,
    Observed,
    Receipt,
    ReceiptState,
    Receiver,
    RouteTable,
    View,
)
from proxyroute.operation import new_id
from proxyroute.parts import LOOK, Parts
from proxyroute.policy import Policy
from proxyroute.ports import Lease
from proxyroute.routes import highest_epoch
from proxyroute.routing import route
from proxyroute.sight import Sightings
from proxyroute.site import shut
from proxyroute.topology import mixed

_PREPARE = 6.0
_TELL = 10.0
_ASK = 1.0
"""Seconds for the proxies to say whether somebody else has acted since; one that hangs keeps nobody closed."""


@dataclass(frozen=True)
class Corrected:
    """What was wrong with the proxies, and what became of telling them."""

    wrong: Mapping[str, tuple[str, ...]]
    epoch: Epoch
    receipts: tuple[Receipt, ...]


class Upkeep:
    """The routes of one cluster while nothing is being moved, and who is meant to be its primary."""

    def __init__(
        self,
        parts: Parts,
        lease: Lease,
        policy: Callable[[], Policy],
        file: Path,
        last_acted: Callable[[], Summary | None],
    ) -> None:
        """``policy`` returns what holds now; ``file`` keeps what is meant.

        ``last_acted`` returns the operation that ended last, of those that acted.
        """
        self._parts = parts
        self._lease = lease
        self._policy = policy
        self._file = file
        self._last_acted = last_acted

    # -- what is meant --

    def intent(self) -> Intent | None:
        """Returns who was made primary last: by what was published, or by an operation; the higher epoch counts.

        What was only seen, and by no proxy, has none: of that the later counts.
        """
        kept, acted = memory.recall(self._file), self._last_acted()
        if acted is None or acted.ended_with is None:
            return kept
        by_act = Intent(acted.ended_with, Epoch.parse(acted.epoch), acted.started + acted.seconds)
        if kept is None:
            return by_act
        later = kept.epoch > by_act.epoch if kept.epoch != NO_EPOCH else kept.at > by_act.at
        return kept if later else by_act

    def intended(self, view: View, observed: Sequence[Observed]) -> str:
        """Returns the server that writes are meant to go to. Raises Refused when that is not for us to say.

        It is the one that takes writes, if it is also the one with which the last operation ended, or that was
        published last, here or (a proxy has seen a higher epoch) elsewhere.
        """
        found = view.primary
        if found is None:
            raise Refused("there is not exactly one server that takes writes; look at 'proxyroute status'")
        meant = self.intent()
        if meant is None or meant.primary == found.name:
            return found.name
        if any(o.primary == found.name and o.epoch is not None and o.epoch > meant.epoch for o in observed):
            return found.name
        raise Refused(
            f"{found.name} takes writes, and {meant.primary} was the primary when ProxyRoute last did something; "
            f"if {found.name} is right type: proxyroute publish"
        )

    def needed(self, view: View, observed: Sequence[Observed]) -> tuple[RouteTable, Correction] | None:
        """Returns what the proxies should be told, None when they are as they are meant to be. Raises Refused."""
        primary = self.intended(view, observed)
        table = route(view, primary, self._policy(), NO_EPOCH, self._parts.site.endpoints)
        found = correction(table, observed)
        return (table, found) if found is not None else None

    # -- what is done --

    def publish(self, view: View, primary: str, observed: Sequence[Observed]) -> tuple[Receipt, ...]:
        """Makes every proxy follow ``primary`` under a fresh epoch; returns what became of it.

        Nothing is changed when a proxy cannot prepare: then the receipts say which.
        """
        epoch = self._lease.claim(self._highest(observed), f"publish-{new_id()}")
        table = route(view, primary, self._policy(), epoch, self._parts.site.endpoints)
        prepared = self._parts.routes.prepare(table, table, Deadline.after(_PREPARE))
        if any(r.state is ReceiptState.FAILED for r in prepared):
            return prepared
        # one that is silent is no reason to leave the others as they are
        receipts = self._parts.routes.settle(table, Deadline.after(_TELL))
        self._keep(primary, epoch)
        return receipts

    def correct(self, table: RouteTable, found: Correction, observed: Sequence[Observed]) -> Corrected:
        """Tells the proxies that are not as ``table`` wants them; all of them when it takes a fresh epoch.

        One that cannot be told is no reason to leave the others as they are.
        """
        self._lease.check()
        epoch, proxies = found.epoch, self._parts.routes.only(found.wrong)
        if epoch is None:
            epoch, proxies = self._lease.claim(self._highest(observed), f"publish-{new_id()}"), self._parts.routes
        receipts = proxies.settle(replace(table, epoch=epoch), Deadline.after(_TELL))
        return Corrected(found.wrong, epoch, receipts)

    def reopen(self, primary: str, *, semi_sync: bool, last: Sightings | None = None) -> str:
        """Lets ``primary``, which has restarted and refuses writes, take them again; returns what was done.

        With ``semi_sync`` it waited for acknowledgements before, and does again: a restart may have forgotten that.

        Like every opening it reads everybody else first. Raises Refused unless all of them refuse writes and have
        received nothing that it lacks. Whoever does not answer is judged by ``last``, what whoever calls has itself
        seen of it (closed by then and silent since, it was not opened by anybody with our lease), if that was after
        ``primary`` came back: before, it may have received on. In maintenance it is no matter; one that was never seen
        may be anything.
        """
        view = self._parts.site.look(Deadline.after(LOOK))
        server = view.status(primary)
        if server is None or server.sources:
            raise Refused(f"{primary} does not answer as a primary any more")
        if server.writable:
            return f"{primary} takes writes already"
        came_back, aside = time.monotonic() - server.uptime_seconds, self._policy().aside
        silent = {s.name: last.tracks[s.name].good_since(came_back) if last else None for s in view.silent}
        unknown = [name for name, seen in silent.items() if seen is None and name not in aside]
        if unknown:
            raise Refused(
                f"{primary} is not opened: {', '.join(unknown)} does not answer, and may take writes or have received "
                f"what {primary} lacks; if that cannot be type: proxyroute maintenance {unknown[0]} on"
            )
        for other in (*view.seen, *(seen for name, seen in silent.items() if seen is not None and name not in aside)):
            if other.name == primary:
                continue
            if other.writable:
                raise Refused(f"{primary} is not opened: {other.name} takes writes")
            if told := mixed({s.name: s.flavour for s in (server, other)}):
                raise Refused(f"{primary} is not opened: {told}")
            received = [other.executed, *(s.received for s in other.sources)]
            if any(server.executed.contains(position) is not Containment.YES for position in received):
                raise Refused(f"{primary} is not opened: {other.name} has received what it lacks, or may have")
        intent = self.intent()
        if intent is not None and intent.primary != primary:
            raise Refused(f"{primary} is not opened: {intent.primary} was made primary since")
        if moved := self._moved_since(primary):
            raise Refused(f"{primary} is not opened: {moved}")
        self._lease.check()
        self._reconnect(view, primary)
        if semi_sync:
            self._parts.site[primary].semi_sync(Deadline.after(LOOK), primary=True)
        self._parts.site[primary].accept_writes(Deadline.after(LOOK))
        return f"{primary} takes writes again; nobody had received more than it has"

    def _moved_since(self, primary: str) -> str:
        """Returns why ``primary`` may not be it any more: an engine with records of its own may have made another one.

        Proxies remember the highest epoch that they were told. Empty: none that answers knows of a later one than we.
        """
        meant = self.intent()
        ours = meant.epoch if meant is not None else NO_EPOCH
        observed = [o for o in self._parts.routes.observe(Deadline.after(_ASK)) if o.epoch is not None]
        highest = max([ours, *(o.epoch for o in observed if o.epoch is not None)])
        others = [o for o in observed if o.epoch == highest and o.epoch > ours and o.primary != primary]
        if not others:
            return ""
        where = others[0].primary or "nobody"
        return (
            f"{others[0].proxy} was told since, under epoch {highest}, that writes go to {where}; look at the engine "
            f"that did that; if {primary} is right type: proxyroute publish"
        )

    def _reconnect(self, view: View, primary: str) -> None:
        """Replicas that lost the primary come back now, not when their next try is due: that may be a minute away.

        Not one whose applier stands still: with its receiver stopped as well it would not be started again.
        """
        source = view.peer(primary)
        for replica in view.seen:
            mine = [s for s in replica.sources if s.source_id == source.server_id]
            if any(s.receiver is Receiver.CONNECTING and s.applier for s in mine):
                with contextlib.suppress(ProxyRouteError):
                    self._parts.site[replica.name].stop_receiver(source, Deadline.after(LOOK))
                    self._parts.site[replica.name].start_receiver(source, Deadline.after(LOOK))

    def close_strays(self, names: Sequence[str]) -> str:
        """Makes servers that take writes beside the primary refuse them, and ends their clients' sessions.

        Raises Refused unless another server takes writes, and is meant to.
        """
        view = self._parts.site.look(Deadline.after(LOOK))
        writing = [s.name for s in view.writable if s.name not in names]
        intent = self.intent()
        if len(writing) != 1 or (intent is not None and intent.primary != writing[0]):
            raise Refused(f"{', '.join(names)} is left alone: nobody knows for sure who is meant to take writes")
        if moved := self._moved_since(writing[0]):
            raise Refused(f"{', '.join(names)} is left alone: {moved}")
        done = []
        for name in names:
            self._lease.check()
            done.append(f"{name} was closed, {shut(self._parts.site[name], Deadline.after(LOOK))} sessions ended")
        return f"{'; '.join(done)}; {writing[0]} is the primary"

    def remember(self, view: View, observed: Sequence[Observed]) -> None:
        """Keeps the primary of ``view`` as the one that is meant, if it is. Raises JournalError."""
        with contextlib.suppress(Refused):
            primary, meant = self.intended(view, observed), self.intent()
            shown = highest_epoch(o for o in observed if o.primary == primary)
            # what was published counts on where no proxy shows it now
            self._keep(primary, max(shown, meant.epoch) if meant is not None and meant.primary == primary else shown)

    def _keep(self, primary: str, epoch: Epoch) -> None:
        memory.remember(self._file, Intent(primary, epoch, time.time()))

    def _highest(self, observed: Sequence[Observed]) -> Epoch:
        """Returns the highest epoch that any proxy has loaded, or was told, or that anything here was done under."""
        told = [o.published.epoch for o in observed if o.published is not None]
        meant = self.intent()
        return max([highest_epoch(observed), *told, *([meant.epoch] if meant is not None else [])])
