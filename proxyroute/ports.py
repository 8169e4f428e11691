"""What the engine needs from the outside, as protocols: a database server, a proxy, a lease, hooks.

The verbs say what must be true afterwards, never how: no statement, variable or position format of a particular
database appears in a signature. Every verb is idempotent. Every verb that can wait takes a
:class:`~proxyroute.model.Deadline` and raises ``TimedOut`` or ``LostReply`` when the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from proxyroute.gtid import Position
from proxyroute.inspection import Event, Inspection, WriteState
from proxyroute.model import Address, Deadline, Epoch, Finding, Holding, Observed, Peer, Receipt, RouteTable, Status
from proxyroute.policy import Policy


class Server(Protocol):
    """One database server. An object is used by one thread at a time and owns its connections."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> Address: ...

    # Reading

    def connect(self, deadline: Deadline, operation: str = "") -> None:
        """Opens the connections that will be needed, before any limit is lowered.

        With ``operation`` also those in which it will block writes, named so that whoever heals it can end them.
        """

    def look(self, deadline: Deadline) -> Status:
        """Returns a fresh reading."""

    def line(self) -> int | None:
        """Returns a file descriptor that becomes readable when the server hangs up, None when there is none now.

        It belongs to the connection that ``look`` uses: to be waited for between two looks, never read.
        """

    def inspect(self, deadline: Deadline, policy: Policy) -> Inspection:
        """Returns what is too dear for every second; privileges are read on a fresh connection."""

    def position(self, deadline: Deadline) -> Position:
        """Returns everything executed so far."""

    def purged(self, deadline: Deadline) -> Position | None:
        """Returns what its binary log has no more: whoever has not come as far as that cannot follow it.

        None when it does not tell.
        """

    def write_state(self, deadline: Deadline, operation: str) -> WriteState:
        """Returns what stands between this server and a write, with the lock holders of ``operation``."""

    def wait_for(self, goal: Position, deadline: Deadline) -> None:
        """Returns once everything in ``goal`` is applied here; the caller compares exactly afterwards.

        Raises TimedOut, and StatementError when replication has stopped and cannot get there.
        """

    # Freezing

    def write_settings(self, deadline: Deadline) -> Mapping[str, Any]:
        """Returns, as JSON values, what ``restore`` needs to make this server take writes as it does now."""

    def client_sessions(self, deadline: Deadline) -> frozenset[int]:
        """Returns the ids of ordinary client sessions (no replication, no engine, no monitor user).

        Whoever is logging in is one of them: nobody knows yet who that will be.
        """

    def block_writes(self, operation: str, deadline: Deadline, policy: Policy) -> None:
        """Makes writes wait, in short bounded attempts. Holds until ``unblock_writes`` or until we die.

        Raises TimedOut when no attempt succeeded; then nothing is held.
        """

    def arm(self, operation: str, seconds: float, deadline: Deadline) -> None:
        """Makes the server itself hold writes back for ``seconds`` and refuse them from then on, whoever dies.

        Only while writes are blocked already. Returns when it is armed; ``unblock_writes`` disarms it.
        """

    def unblock_writes(self, operation: str, deadline: Deadline) -> None:
        """Lets waiting writes go on; ends every session of ``operation`` that holds them, whoever began it."""

    def limit_connections(self, limit: int, deadline: Deadline) -> None:
        """Lowers the connection limit; our own connections stay."""

    def keep_clients_out(self, policy: Policy, deadline: Deadline) -> None:
        """Clients that are cut off next do not come back before ``restore``; our own connections stay."""

    def kill_clients(self, deadline: Deadline) -> int:
        """Ends all ordinary client sessions, waits until they are gone, and returns how many there were."""

    def kill_session(self, session: int, deadline: Deadline) -> None:
        """Ends one session; done if it is gone already."""

    def refuse_writes(self, deadline: Deadline) -> None:
        """Ordinary accounts get an error for a write from now on; survives our death."""

    def accept_writes(self, deadline: Deadline) -> None:
        """Ordinary accounts may write again."""

    def restore(self, settings: Mapping[str, Any], deadline: Deadline) -> None:
        """Puts back what ``write_settings`` returned, except whether writes are accepted."""

    def lock_account(self, account: str, deadline: Deadline) -> None:
        """Refuses new logins of ``account`` on this server only."""

    def unlock_account(self, account: str, deadline: Deadline) -> None:
        """Takes ``lock_account`` back."""

    # Roles

    def detach(self, source: Peer, deadline: Deadline) -> None:
        """Stops the channel that follows ``source``; keeps its configuration, so that it can be started again."""

    def resume(self, source: Peer, deadline: Deadline) -> None:
        """Starts the channel that is configured to follow ``source``; takes ``detach`` back."""

    def stop_receiver(self, source: Peer, deadline: Deadline) -> None:
        """Stops fetching from ``source``; what was received stays and goes on being applied."""

    def start_receiver(self, source: Peer, deadline: Deadline, *, applier: bool = False) -> None:
        """Fetches from ``source`` again, as soon as it answers; takes ``stop_receiver`` back. Does not wait for it.

        With ``applier`` it applies again as well; that takes ``detach`` back where the source may be gone.
        """

    def follow(
        self,
        source: Peer,
        deadline: Deadline,
        *,
        instead_of: Peer | None = None,
        source_has: Callable[[], Position] | None = None,
        source_purged: Callable[[], Position | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Replicates from ``source``, by the channel that followed ``instead_of`` if there is one.

        ``source_has`` reads what the source has, and is called after this server was read, so that whatever reached
        this server through others in between does not look errant: received events outside it are applied before
        the channel is repointed, and a server with executed events outside it is refused (Diverged). What the
        source has purged, told by ``source_purged``, is taken from the relay logs, before they go (all that is in
        them when nobody can tell); a server that does not have it there either is refused, and keeps its channel
        (Unserved). ``options``
        are connection options for a channel that did not exist. Reads back before and after; returns only when
        receiver and applier run.
        """

    def forget_source(self, source: Peer, deadline: Deadline) -> None:
        """Drops the channel that follows ``source``, if there is one and it is stopped."""

    def semi_sync(self, deadline: Deadline, *, primary: bool | None = None, replica: bool | None = None) -> None:
        """Switches waiting for acknowledgements (``primary``) and sending them (``replica``) on or off."""

    def stop_events(self, deadline: Deadline) -> None:
        """No scheduled event starts from now on (the scheduler, not the single events)."""

    def start_events(self, deadline: Deadline) -> None: ...

    def set_events(self, events: Sequence[Event], status: str, deadline: Deadline) -> None:
        """Gives each event the ``status`` of :class:`~proxyroute.inspection.Event`; definer and charset are kept."""

    def statements(self, verb: str, policy: Policy, peer: Peer) -> Sequence[str]:
        """Returns what the verb would send, for a plan people read; ``peer`` is the other side of a role verb."""

    def end_others(self, deadline: Deadline) -> int:
        """Ends every session by which another engine may change something here; returns how many there were.

        Sessions that only read are left alone. Raises Refused when one does not end, and soon when the server hangs.
        """

    def close(self) -> None:
        """Closes all connections; never raises."""


class Probe(Protocol):
    """Writes and reads the proof's own row, as a client would: through a route, by a new connection."""

    def write(self, route: Address, operation: str, epoch: Epoch, deadline: Deadline) -> int:
        """Writes the row of ``operation``; returns the server id of the server that took it."""

    def read(self, route: Address, deadline: Deadline) -> str:
        """Returns the operation of the row, or an empty string."""


class Sentinel(Protocol):
    """Somebody outside this process who heals when we die: the guard."""

    def begin(self) -> None:
        """Starts it and does not wait for it. Raises OSError."""

    def start(self, deadline: Deadline) -> None:
        """Returns when it watches. Raises ProxyRouteError when it cannot: then nothing must be touched."""

    def expect(self, seconds: float) -> None:
        """In ``seconds`` it must hear of us again: else it ends us and takes over. Does not wait."""

    def dismiss(self) -> None:
        """The operation is over; it ends without doing anything."""


@runtime_checkable
class Adapter(Protocol):
    """One proxy. Receives values and never calls the engine. Found by the entry points ``proxyroute.adapters``."""

    @property
    def name(self) -> str: ...

    def check(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns what would keep this proxy from following, each with its cure."""

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> Receipt:
        """Validates and stages both routes; after it only a runtime command is left to do."""

    def hold(self, operation: str, deadline: Deadline) -> Receipt:
        """Makes newcomers of the write route wait, at the latest until ``deadline``, then they go on by themselves."""

    def release(self, deadline: Deadline) -> Receipt:
        """Lets those who wait go where the route points now."""

    def apply(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """New sessions go by ``table`` from now on; at once, by a runtime command. Does not wait for a disk."""

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Makes ``table`` lasting, cuts write sessions that are elsewhere, proves it by reading back. Idempotent."""

    def observe(self, deadline: Deadline) -> Observed:
        """Returns what the proxy really does. Never raises: an unreachable proxy is ``reachable=False``."""

    def routes(self, kind: str) -> Sequence[Address]:
        """Returns the addresses at which clients reach the ``write`` or ``read`` route; empty if not known."""

    def close(self) -> None: ...


@runtime_checkable
class Foretelling(Protocol):
    """An adapter that can also tell beforehand what a switchover will mean to clients."""

    @property
    def name(self) -> str: ...

    def outlook(self, deadline: Deadline, *, armed: bool) -> Sequence[Finding]:
        """Returns what clients will see, with the setting that would make it better. Never raises, never an error.

        ``armed`` tells whether the old primary makes writes wait until the routes have moved; otherwise it refuses
        them before the new one opens.
        """


@runtime_checkable
class Queueing(Protocol):
    """An adapter in whose proxy writes may wait while its write route is closed, instead of failing."""

    @property
    def name(self) -> str: ...

    def queues(self, deadline: Deadline) -> bool:
        """Whether they do, for every client of every service. Then closing the route early saves them errors.

        Never raises; what cannot be told is no.
        """


@runtime_checkable
class Hearing(Protocol):
    """An adapter whose proxy may close its writes by itself when it hears nothing."""

    @property
    def name(self) -> str: ...

    def closes_at(self, table: RouteTable) -> float | None:
        """Returns when, by our monotonic clock, the proxy has closed its writes if it has not heard of ``table``.

        None: it never does, or nobody knows that it can hear of ``table``.
        """

    def answer(self, table: RouteTable, deadline: Deadline) -> Receipt | None:
        """Waits for what the proxy says of ``table``. None: up to ``deadline`` nothing shows that it has heard of it.

        Never raises; what cannot be seen is UNKNOWN.
        """


class Lease(Protocol):
    """Who may act on a cluster. One operation at a time, across processes and engines."""

    @property
    def distributed(self) -> bool:
        """Whether a former holder may still be alive, elsewhere, and not know that it has lost the lease.

        Then whoever gets the lease ends the sessions of the one before, and never writes to its journal file.
        """

    @property
    def automatic(self) -> bool:
        """Whether a failover that nobody watches may rely on it: an engine that is cut off does not have it."""

    @property
    def term(self) -> int:
        """The term in which it is held; 0 when it is not."""

    def acquire(self, purpose: str, deadline: Deadline) -> int:
        """Returns the term, higher than every term before.

        Raises Busy, naming the holder, at the deadline; Refused when it cannot be had at all now. Nothing was touched.
        """

    def check(self) -> None:
        """Raises LeaseLost when somebody else may act now. Asks nobody: it is quick, and may be too hopeful by a pause.

        A moment's pause is what ``Server.end_others`` and the permit of each new session are for.
        """

    def lost(self, deadline: Deadline) -> bool:
        """Tells, by asking where it is kept, whether it is surely not ours any more; False when nobody answers."""

    def commit(self, decision: str, deadline: Deadline) -> None:
        """Puts ``decision`` on record where the lease is kept, only if the lease is still ours there.

        Raises LeaseLost when it is not, TimedOut when nobody knows. The journal decides what happened, not this record.
        """

    def claim(self, above: Epoch, operation: str) -> Epoch:
        """Returns a fresh epoch of this term above ``above``, claimed so that no other operation can have it."""

    def highest(self, besides: str = "") -> Epoch:
        """Returns the highest epoch claimed by anybody; with ``besides`` by any other operation."""

    def ticket(self) -> str:
        """Returns in one line what ``adopt`` needs in the process that goes on when we die; empty if nothing helps."""

    def adopt(self, ticket: str) -> bool:
        """Holds the lease of a process of this host that is dead, by its latest ticket. False: ``acquire`` it."""

    def holding(self, deadline: Deadline) -> Holding:
        """Returns who holds it. Never raises."""

    def hands_off(self) -> str:
        """Returns why nothing may be done here by itself now, whoever has the lease; empty when nothing is against it.

        By what was seen a moment ago: it is asked all the time.
        """

    def findings(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns what is wrong with where it is kept, each with its cure."""

    def release(self) -> None: ...


class Hooks(Protocol):
    """Scripts of the site's owner, called at named moments."""

    def run(self, moment: str, environment: Mapping[str, str]) -> None:
        """Runs the script configured for ``moment`` (``address_down``, ``address_up``, …), if any.

        Raises ScriptFailed when it exits non-zero or does not end within its ``seconds``.
        """

    def seconds(self, moment: str) -> float:
        """Returns the seconds that ``run`` may take for ``moment``; 0 where there is no script."""

    def configured(self, moment: str) -> Sequence[str]:
        """Returns the argv that ``run`` would call, or nothing."""
