"""What ``proxyroute serve`` does for one cluster: it looks, names what is the matter, and does what follows.

It heals what a crash has left open, here or in another process; closes a former primary that comes back; fails over if
it is told to do that by itself; tells proxies that are not as they are meant to be; and takes up what an operation left
to do. It never moves a primary that lives. What changes is told once, as a :class:`Notice`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from proxyroute.config_values import ClusterConfig
from proxyroute.contingency import Contingency, foresee
from proxyroute.deadline import give_way, giving_way
from proxyroute.decided import Action, Diagnosis
from proxyroute.drift import differences
from proxyroute.engine import Corrected, Engine
from proxyroute.errors import Busy, GaveWay, ProxyRouteError, Refused
from proxyroute.glance import Glance, glance
from proxyroute.gtid import Position
from proxyroute.history import beyond_healing, fenced, waiting_for_heal
from proxyroute.inspection import Event
from proxyroute.known import lost_since
from proxyroute.model import Finding, Observed, ReceiptState, View
from proxyroute.outcome import Verdict
from proxyroute.outlet import Listener
from proxyroute.rejoining import is_alone
from proxyroute.retry import Retry
from proxyroute.sentry import Sentry
from proxyroute.sight import Sightings
from proxyroute.telling import Telling, listed

_PATIENCE = 0.2
"""Seconds to wait for the lease: whoever has it is at work, and we come again."""
_EVENTS_EVERY = 60.0
_BUSY_TOLD = 10.0
"""Seconds for which somebody else may have the lease while the primary is gone, until that is told, and told again."""
_SHOW_EVERY = 0.25
"""Seconds between two glances for those who look on."""
_ASK_EVERY = 0.1
"""Seconds between two askings whether a chore is to give way: each of its waits asks all the time."""
_URGENT = frozenset({Action.WAIT, Action.CLOSE, Action.REOPEN, Action.FAILOVER})
"""What a chore gives way to, and is not begun under: the primary is silent or refuses writes, or has a rival."""

Show = Callable[[Glance], None]


class Keeper:
    """Keeps one cluster. ``step`` does what there is to do now; what the world does raises nothing."""

    def __init__(
        self,
        config: ClusterConfig,
        engine: Engine,
        sentry: Sentry,
        listener: Listener,
        stopping: Callable[[], bool] = lambda: False,
        show: Show | None = None,
    ) -> None:
        """``stopping`` tells whether this is to end: then nothing is begun that can wait."""
        self._config = config
        self._engine = engine
        self._sentry = sentry
        self._tell = Telling(config.name, listener, lambda operation: engine.show(operation))
        self._show_to = show
        self._heal = Retry()
        """Of what moves the primary; what can wait must not make it wait."""
        self._chores = Retry()
        self._beyond: dict[str, Position] = {}
        """Servers that no heal can help, and what they had executed when one tried."""
        self._busy_since: float | None = None
        self._busy_told = 0.0
        self._correct = Retry()
        self._observed: tuple[Observed, ...] = ()
        self._observe_at = 0.0
        self._suspect: dict[str, tuple[str, ...]] = {}
        self._act = Retry()
        self._rejoin = Retry()
        self._rejoined_at: dict[str, float] = {}
        self._forgiven: set[str] = set()
        """Refused rejoins of servers that were seen to follow since."""
        self._events_at = 0.0
        self._orders_told: tuple[str, ...] = ()
        self._silent: frozenset[str] = frozenset()
        self._stopping = stopping
        self._asking = threading.Lock()
        self._ask_at = 0.0
        self._urgency = ""
        self._shown: str | None = None
        self._show_again_at = 0.0

    def step(self) -> None:
        """Looks once, and does what follows."""
        try:
            self._heal_what_is_open()
            sightings = self._sentry.sightings()
            if self._engine.busy() or not sightings.complete:
                self._show(sightings, None)
                return
            view = sightings.view
            fresh = time.monotonic() >= self._observe_at
            if (last := self._engine.last_move()) is not None and last.ended_with is not None:
                self._sentry.follow(last.ended_with, last.started + last.seconds)
            diagnosis = self._sentry.diagnose(sightings, self._observed)
            self._show(sightings, diagnosis)
            self._tell.diagnosis(diagnosis)
            self._tell_orders()
            self._try_anew(view)
            self._undo_what_is_left(diagnosis)
            if self._acted(diagnosis) or diagnosis.action is Action.WAIT:
                return
            self._ask_at = 0.0
            self._sentry.remember(sightings, self._events_if_due(view, diagnosis))
            if fresh:
                with giving_way(self._news(diagnosis)):  # a proxy that hangs keeps nobody from acting
                    observed = self._engine.observe()
                    give_way()  # what was cut short says nothing of any proxy
                self._observed = observed
                self._observe_at = time.monotonic() + self._config.serve.proxies_period
                self._tell.addresses(self._engine.address_findings(self._observed), self._observed)
            # before the chores: one may wait for long
            left = waiting_for_heal(self._engine.history())
            self._tell.state(view, self._observed, left, self._sentry.standing)
            if self._sentry.standing.idle:
                return
            self._take_up_leftovers(view)
            self._rejoin_who_returned(sightings)
            if fresh:
                self._keep_routes(view)
        except GaveWay:
            return  # a chore; it is taken up again when there is time for it
        except ProxyRouteError as error:
            self._tell.say("trouble", str(error), "bad")
        else:
            self._tell.over("trouble")

    def _urgent(self) -> str:
        """What a chore of ours is to give way to, see ``proxyroute.deadline``. Any thread may ask.

        While a chore goes on nothing else looks, so what there is to remember of the primary is remembered here, and
        shown to whoever looks on.
        """
        if self._stopping():
            return "serve is to stop"
        if time.monotonic() >= self._ask_at and self._asking.acquire(blocking=False):
            try:
                sightings = self._sentry.sightings()
                diagnosis = self._sentry.diagnose(sightings, self._observed)
                grave = bool(_URGENT & {diagnosis.action, diagnosis.wanted})
                self._urgency = f"{diagnosis.primary}: {diagnosis.name}" if grave else ""
                if not grave:
                    self._sentry.remember(sightings)
                self._show(sightings, diagnosis)
                self._ask_at = time.monotonic() + _ASK_EVERY
            finally:
                self._asking.release()
        return self._urgency

    def _news(self, diagnosis: Diagnosis) -> Callable[[], str]:
        """As :meth:`_urgent`, but for ``diagnosis``: nothing is done by it now, and the proxies are to be looked at."""
        known = f"{diagnosis.primary}: {diagnosis.name}"

        def news() -> str:
            urgent = self._urgent()
            return "" if urgent == known else urgent

        return news

    def _show(self, sightings: Sightings, diagnosis: Diagnosis | None) -> None:
        """Shows what is seen to whoever looks on; at most some times a second, for it is judged anew each time.

        Whatever is wrong there must not keep us from acting.
        """
        name, now = diagnosis.name if diagnosis is not None else None, time.monotonic()
        if self._show_to is None or not sightings.complete or (name == self._shown and now < self._show_again_at):
            return
        self._shown, self._show_again_at = name, now + _SHOW_EVERY
        try:
            self._show_to(glance(self._engine, self._sentry, sightings, self._observed, diagnosis))
        except Exception as error:  # noqa: BLE001 - a mistake of ours in what is only looked at
            self._tell.say("trouble", f"cannot be shown: {type(error).__name__}: {error}; please report this", "warn")

    # -- the primary --

    def _tell_orders(self) -> None:
        """Standing orders that came or went, once each."""
        lines, before = self._sentry.standing.lines(), self._orders_told
        if before != lines:
            self._orders_told = lines
            self._act.reset()
            come = [line for line in lines if line not in before]
            gone = [f"no more: {line}" for line in before if line not in lines]
            self._tell.say("orders", "; ".join([*come, *gone]), "warn" if come else "good")

    def _try_anew(self, view: View) -> None:
        """What was refused may be possible once somebody else answers, or is gone: nobody should wait for that."""
        silent = frozenset(s.name for s in view.silent)
        if silent != self._silent:
            self._silent = silent
            self._act.reset()

    def _acted(self, diagnosis: Diagnosis) -> bool:
        """Does what the diagnosis allows; tells whether anything was done, or tried."""
        standing = self._sentry.standing
        if not self._act.due or diagnosis.primary is None or standing.paused is not None or standing.withheld:
            return False
        if standing.unreadable and diagnosis.action is not Action.CLOSE:
            return False
        automatic, began = self._config.failover.mode == "automatic", time.time()
        try:
            if diagnosis.action is Action.CLOSE:
                self._tell.done(self._engine.close_strays(diagnosis.servers), "warn")
            elif diagnosis.action is Action.REOPEN and automatic:
                known = self._sentry.known
                waited = known is not None and known.primary == diagnosis.primary and known.semi_sync is not None
                last = self._sentry.sightings()
                lost = lost_since(known, last.view.status(diagnosis.primary))
                done = self._engine.reopen(diagnosis.primary, semi_sync=waited, last=last)
                told = f"{done}; but it has lost {lost} in its restart, which nobody has received" if lost else done
                self._tell.done(told, "warn" if lost else "good")
            elif diagnosis.action is Action.FAILOVER and automatic:
                self._fail_over()
            else:
                self._busy_since = None  # whoever was at work has done it, or there is nothing to do
                self._tell.blockers(diagnosis)
                return False
        except Busy as error:
            self._tell_busy(error)
            return False
        except Refused as error:
            self._act.failed()
            findings = listed(error.findings)
            self._tell.say("blocked", f"{error}{': ' if findings else ''}{findings}", "bad")
        except ProxyRouteError as error:
            self._act.failed()
            self._tell.undone(str(error), self._begun_since(began))
        else:
            self._act.reset()
            self._busy_since = None
            self._chores.reset()  # one that could not be done below the old primary can be now
            self._tell.over("blocked")
            self._observed, self._observe_at = (), 0.0
        return True

    def _begun_since(self, moment: float) -> str:
        """Returns the failover of ours that was begun after ``moment`` in Unix time; empty when there is none."""
        ours = (s for s in reversed(self._engine.history()) if s.kind == "failover" and s.automatic)
        return next((s.operation for s in ours if s.started >= moment), "")

    def _tell_busy(self, error: Busy) -> None:
        """Somebody else may be about to do the same; when that lasts, a person must know who is in the way."""
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = self._busy_told = now
        if now - self._busy_told >= _BUSY_TOLD:
            self._busy_told = now
            self._tell.say("blocked", f"cannot act for {now - self._busy_since:.0f} s: {error}", "bad")

    def _fail_over(self) -> None:
        def look(more: tuple[Finding, ...]) -> Contingency:
            sightings = self._sentry.sightings()
            diagnosis = self._sentry.diagnose(sightings)
            c = self._config
            limits = tuple(self._engine.failover_limits())
            return foresee(
                sightings, diagnosis, self._sentry.rules, c.failover, self._sentry.known, events=self._sentry.events,
                hosts=c.with_hosts, more=(*more, *limits),
            )  # fmt: skip

        result = self._engine.failover(look, force=False, automatic=True, confirm=lambda prospect: True)
        left = f"; left to do: {'; '.join(result.leftovers)}" if result.leftovers else ""
        verdict = result.proof.verdict if result.proof is not None else Verdict.UNKNOWN
        level = "good" if verdict is Verdict.PROVEN and not left else "warn"
        self._tell.done(f"failover {result.operation}: {result.text}; {verdict}{left}", level, result.operation)

    def _events_if_due(self, view: View, diagnosis: Diagnosis) -> tuple[Event, ...] | None:
        """The scheduled events of the primary, which it cannot tell any more once it is gone; read now and then."""
        primary = view.primary
        if primary is None or time.monotonic() < self._events_at:
            return None
        with giving_way(self._news(diagnosis)):
            inspection = self._engine.inspect(View(view.cluster, {primary.name: primary})).inspections.get(primary.name)
            give_way()
        self._events_at = time.monotonic() + _EVENTS_EVERY
        return inspection.events if inspection is not None else None

    # -- what an operation has left --

    def _heal_what_is_open(self) -> None:
        """What moves the primary, whatever else is the matter; an open rejoin is a chore.

        Also what has touched nothing yet: if its process is dead, nobody else would ever close it.
        """
        if self._heal.due and self._engine.busy():
            self._try_to_heal(self._heal, self._engine.busy)

    def _take_up_leftovers(self, view: View) -> None:
        """Only when a server or proxy that has something left is there: trying keeps the lease for some seconds.

        One that we have stopped ourselves, to swap its data, cannot be there: nobody else would start it again. And one
        that only a rejoin can help is not tried again while it stands where it stood: each try makes the record longer.
        """
        executed = {s.name: s.executed for s in view.seen}
        there = {s.name for s in view.seen} | {o.proxy for o in self._observed if o.reachable}
        spared = {*self._sentry.standing.maintenance}
        there -= spared

        def wanting() -> bool:
            left = waiting_for_heal(self._engine.history())
            stuck = {name for name, stood in self._beyond.items() if executed.get(name) == stood}
            return any(
                (s.left_at - stuck) & there
                or (s.outcome == "open" and (s.candidate in there or (s.stopped and s.candidate not in spared)))
                for s in left
            )

        if self._chores.due and wanting() and not self._urgent():
            self._try_to_heal(self._chores, wanting)
            left = waiting_for_heal(self._engine.history())
            self._beyond = {n: executed[n] for s in left for n in beyond_healing(s) if n in executed}

    def _undo_what_is_left(self, diagnosis: Diagnosis) -> None:
        """A failover that was undone but for something stands in its own way: by receivers that it has stopped, say.

        Only once it is said to be blocked: looking for what is left must not delay one that can be done.
        """
        blocked = Action.FAILOVER in (diagnosis.action, diagnosis.wanted) and self._tell.stands("blocked")
        if not blocked or not self._chores.due:
            return

        def left() -> bool:
            found = waiting_for_heal(self._engine.history())
            return any(s.kind == "failover" and s.outcome == "aborted" and s.left_at for s in found)

        if left():
            self._try_to_heal(self._chores, left, gives_way=False)
            self._act.reset()

    def _rejoin_who_returned(self, sightings: Sightings) -> None:
        """A member that is back, refuses writes and follows nobody: it follows, if it has nothing of its own.

        One that has is archived, shown and left as it is; nobody asks it again until a person has chosen a method.
        What was seen may have been a switchover in its midst, which is over by now: its old primary was closed and had
        not been told yet whom to follow. So it is looked at again under the lease.
        """
        known, view = self._sentry.known, sightings.view
        if known is None or view.primary is None or not self._rejoin.due or self._engine.busy() or self._urgent():
            return
        if self._engine.intended(view, self._observed)[0] != view.primary.name:
            return
        barred = {s.candidate: s.operation for s in fenced(self._engine.history())}
        top = view.primary.server_id
        for server in view.seen:  # one that has followed since was put in order by somebody: what was said is over
            if server.name in barred and any(c.running and c.source_id == top for c in server.sources):
                self._forgiven.add(barred[server.name])
        fenced_off = {name for name, operation in barred.items() if operation not in self._forgiven}
        for server in view.seen:
            member = server.name in known.server_ids and server.name != view.primary.name
            left_as_is = server.name in fenced_off or server.name in self._sentry.standing.maintenance
            if not member or left_as_is or not is_alone(view, server.name):
                continue
            last = sightings.tracks[server.name].last
            if last is None or last.began <= self._rejoined_at.get(server.name, 0.0):
                continue  # seen before it rejoined
            try:
                with giving_way(self._urgent):
                    result = self._engine.rejoin(server.name, if_alone=True)
                if result.outcome != "unchanged":
                    self._tell.done(result.text, "good", result.operation)
                self._rejoined_at[server.name] = time.monotonic()
                self._rejoin.reset()
            except (Busy, GaveWay):
                return
            except ProxyRouteError as error:
                self._rejoin.failed()
                told = "; ".join([str(error), *(f.text for f in getattr(error, "findings", ()))])
                self._tell.say("blocked", f"{server.name} does not rejoin by itself: {told}", "warn")

    def _try_to_heal(self, retry: Retry, still: Callable[[], bool], *, gives_way: bool = True) -> None:
        """``still`` tells whether what it was for is left afterwards."""
        try:
            for result in self._engine.heal(patience=_PATIENCE, urgent=self._urgent if gives_way else None):
                self._tell.healed(result)
        except Busy:
            return  # somebody is at work on it
        except ProxyRouteError as error:
            retry.failed()
            self._tell.say("refused", f"cannot heal now: {error}", "bad")
            return
        if not still():
            retry.reset()
        elif not gives_way or not self._urgent():
            retry.failed()

    # -- the routes --

    def _keep_routes(self, view: View) -> None:
        """A proxy is told again when it was seen to be wrong twice: what passes by itself is left alone."""
        primary = view.primary
        if primary is None or not self._config.serve.assert_routes:
            return
        wrong = {o.proxy: found for o in self._observed if (found := differences(primary.name, o))}
        suspected, self._suspect = self._suspect, wrong
        if wrong and not wrong.keys() & suspected.keys():
            self._observe_at = 0.0  # look again at once
            return
        if not self._correct.due:
            return
        try:
            with giving_way(self._urgent):
                corrected = self._engine.keep_routes(view, self._observed)
        except Busy:
            return
        except Refused as error:
            self._tell.say("refused", f"routes are left as they are: {error}", "warn")
            return
        if corrected is None:
            self._tell.over("refused")
            self._correct.reset()
            with contextlib.suppress(ProxyRouteError):
                self._engine.upkeep.remember(view, self._observed)
            return
        self._tell_corrected(corrected)
        self._observe_at = 0.0

    def _tell_corrected(self, corrected: Corrected) -> None:
        for receipt in corrected.receipts:
            why = "; ".join(corrected.wrong.get(receipt.proxy, ())) or "it gets the same epoch as the others"
            done = receipt.state is ReceiptState.DONE
            ended = f"told again under {corrected.epoch}" if done else f"{receipt.state}: {receipt.detail}"
            details = {"proxy": receipt.proxy, "drift": list(corrected.wrong.get(receipt.proxy, ()))}
            self._tell.say("corrected", f"{receipt.proxy}: {why}: {ended}", "good" if done else "bad", details)
        if all(r.state is ReceiptState.DONE for r in corrected.receipts):
            self._correct.reset()
        else:
            self._correct.failed()
