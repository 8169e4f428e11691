"""The rules of preflight on what an inspection has read: accounts, privileges, transactions. As in checks.py; pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxyroute.checks import Case, Said
from proxyroute.conditions import seconds
from proxyroute.election import direct_writers
from proxyroute.gtid import Position
from proxyroute.inspection import Transaction
from proxyroute.model import Receiver


def uninspected(case: Case) -> Iterator[Said]:
    for server in case.view.seen:
        if server.name not in case.view.inspections:
            yield Said(server.name, "privileges and transactions could not be read", "proxyroute grants")


def missing_privileges(case: Case) -> Iterator[Said]:
    for name, inspection in case.view.inspections.items():
        for privilege in inspection.missing_privileges:
            on = "" if " ON " in privilege.upper() else " ON *.*"
            where = case.primary.name if case.primary else name
            yield Said(
                name,
                f"the account {inspection.account} lacks {privilege}",
                f"on {where}: GRANT {privilege}{on} TO {quoted(inspection.account)};",
            )


def unverifiable(case: Case) -> Iterator[Said]:
    """A channel that has an authority keeps it, and gives it to one that stands in for it."""
    has_one = any(
        channel.options.get("ssl_ca") or channel.options.get("ssl_capath")
        for server in case.view.seen
        for channel in server.sources
    )
    for name, inspection in case.view.inspections.items():
        if inspection.unverifiable and not has_one:
            yield Said(
                name,
                "replication.tls names no ca, and MySQL has none of its own to verify a source by: repointed, "
                "it would not replicate",
                "replication.tls.ca: PATH in the configuration, that of a file on the database servers",
            )


def quoted(account: str) -> str:
    """Returns ``user@host`` as it must be written in a statement."""
    if account.startswith(("'", "`")):
        return account
    user, _, host = account.rpartition("@")
    return f"'{user}'@'{host}'"


def privileged_writers(case: Case) -> Iterator[Said]:
    if case.primary is None:
        return
    locked = case.plan.lock_accounts if case.plan else ()
    for account in direct_writers(case.view, case.primary.name, case.policy):
        if account not in locked:
            yield Said(
                case.primary.name,
                f"{account} may write although the server refuses ordinary writes",
                "--force locks it during the switchover; or "
                f"REVOKE SUPER, READ_ONLY ADMIN ON *.* FROM {quoted(account)};",
            )


def locked_writers(case: Case) -> Iterator[Said]:
    if case.plan:
        for account in case.plan.lock_accounts:
            text = f"{account} will be locked during the switchover, because it may write past read_only"
            yield Said(case.plan.primary, text)


def blind_primary(case: Case) -> Iterator[Said]:
    """MySQL: whom the write lock waits for is found by its locks, before the freeze and when it is undone."""
    found = case.inspection
    if found is not None and found.unrecorded:
        yield Said(
            found.name,
            f"{_off(found.unrecorded)}: nobody can tell who holds locks, so that a long reader can keep the write lock "
            "waiting, and whoever wants its tables even after that is given up",
            _record_again(found.name, found.unrecorded),
        )


def blind_others(case: Case) -> Iterator[Said]:
    for name, found in case.view.inspections.items():
        if found.unrecorded and found is not case.inspection:
            text = f"{_off(found.unrecorded)}: nobody could tell who holds locks there, once it is the primary"
            yield Said(name, text, _record_again(name, found.unrecorded))


def _off(what: str) -> str:
    return "runs with performance_schema=OFF" if what == "performance_schema" else f"does not record locks ({what})"


def _record_again(name: str, what: str) -> str:
    if what == "performance_schema":
        return f"performance_schema=ON in my.cnf of {name}, then restart it"
    table = "setup_instruments" if "/" in what else "setup_consumers"
    update = f"UPDATE performance_schema.{table} SET ENABLED='YES' WHERE NAME='{what}'"  # noqa: S608 - for people
    return f"on {name}: {update}; locks that are held already are not seen for that"


def backup_on_primary(case: Case) -> Iterator[Said]:
    """MySQL: it keeps no write from being held back, and ends with the sessions of all other clients."""
    found = case.inspection
    for session, whose in found.backups if found else ():
        yield Said(
            found.name if found else "",
            f"session {session} of {whose} holds LOCK INSTANCE FOR BACKUP: it is ended with all sessions, and with it "
            "the backup; accounts and events cannot be altered before that",
            "wait until the backup has ended",
        )


def prepared_xa(case: Case) -> Iterator[Said]:
    if case.inspection and case.inspection.prepared_xa:
        first = case.inspection.prepared_xa[0]
        yield Said(
            case.inspection.name,
            f"XA transactions are prepared, and would stay behind: {', '.join(case.inspection.prepared_xa)}",
            f"let their coordinator end them; or on {case.inspection.name}: XA COMMIT {first}; or XA ROLLBACK {first};",
        )


def long_transactions(case: Case) -> Iterator[Said]:
    if case.inspection:
        for transaction in case.inspection.transactions:
            if transaction.writes and transaction.age_seconds >= case.policy.long_transaction:
                yield _long(case.inspection.name, transaction)


def _long(server: str, transaction: Transaction) -> Said:
    statement = f": {transaction.statement}" if transaction.statement else ""
    return Said(
        server,
        f"a {transaction.kind} of {transaction.user}@{transaction.host} (session {transaction.session}) has been "
        f"running for {seconds(transaction.age_seconds)}, {transaction.rows_modified} rows modified{statement}",
        f"wait for it, or proxyroute switchover --kill-long, or on {server}: KILL {transaction.session};",
    )


def unserved(case: Case) -> Iterator[Said]:
    """Who will not follow the candidate when the others do, for that has purged what comes next to it."""
    inspection = case.view.inspections.get(case.target) if case.target else None
    if inspection is None or inspection.purged is None or case.primary is None:
        return
    if inspection.purged.flavour != case.primary.flavour:
        return
    name, purged = inspection.name, inspection.purged
    gone = f"which {name} has not in its binary log any more"
    if not case.primary.executed.as_far_as(purged):  # of a candidate with another source besides
        top = case.primary
        yield Said(
            top.name, f"needs {purged.minus(top.executed)}, {gone}; it will follow nobody", _built_anew(top.name)
        )
    for replica in case.replicas:
        server, channel = replica.server, replica.channel
        at_rest = channel is None or (channel.receiver is Receiver.STOPPED and not channel.applier)  # told as that
        if channel is None or at_rest or replica.chained or server.flavour != case.primary.flavour:
            continue
        if not server.executed.as_far_as(purged):
            needed = purged.minus(server.executed)
            if server.executed.merge(channel.received).as_far_as(purged):
                text = f"has to apply {needed} from its relay logs first, {gone}; it follows later"
                yield Said(server.name, text, "wait until it has; or afterwards, when it has: proxyroute heal")
            else:
                yield Said(server.name, f"needs {needed}, {gone}; it will be left as it is", _built_anew(server.name))
        elif channel.delay_seconds and (untold := _other_domains(server.executed, purged)):
            text = (
                f"is at {untold}; whether {name} can go on from there is not known: its oldest binary log does not tell"
            )
            yield Said(server.name, text, f"on {name}: SHOW BINLOG EVENTS LIMIT 10; its first Gtid must not come later")


def _built_anew(name: str) -> str:
    return f"wait until it has fetched that; or afterwards: proxyroute rejoin {name} --method reseed"


def _other_domains(executed: Position, purged: Position) -> str:
    """Returns what ``executed`` has of domains that ``purged`` has not (MariaDB): a log begins without them where it
    was the first one, or after RESET MASTER or in a copy that was put back."""
    return str(executed.minus(executed.alongside(purged))) if executed.ordered else ""
