"""Whom replication-manager tells by e-mail, in our words. ``to`` comes first: the others go with it."""

from __future__ import annotations

from typing import Any

from proxyroute.cli.repman_proxies import BY_HAND_WORD, CONVERTED, NOT_NEEDED_WORD, Cluster
from proxyroute.config_receivers import is_mailbox

_SENDER = "proxyroute@localhost"


def to(cluster: Cluster, option: str, value: Any) -> None:
    """Makes a receiver of notices of the addresses in ``value``, with what other options say of the mail server."""
    if not value:
        return
    given = cluster.list_of(option)
    others = ", ".join(part for part in given if not _mailbox(part))
    if addresses := [address for part in given if (address := _mailbox(part))]:
        text = "notices: email; try it: proxyroute notices --test"
        cluster.out.setdefault("notices", []).append(_notice(cluster, addresses))
    else:
        text = "notices: {type: email} needs an address"
    if others:
        text += f"; {others} is none"
    cluster.note(option, BY_HAND_WORD if others else CONVERTED, text)


def _notice(cluster: Cluster, addresses: list[str]) -> dict[str, Any]:
    host, _, port = str(cluster.options.get("mail-smtp-addr", "localhost:25")).partition(":")
    from_ = _mailbox(str(cluster.options.get("mail-from", ""))) or _SENDER
    notice: dict[str, Any] = {"type": "email", "host": host, "sender": from_, "to": addresses}
    if port == "25" or not port:
        notice["tls"] = "none"
    elif port == "465":
        notice["tls"] = "tls"
    if port:
        notice["port"] = int(port) if port.isdigit() else port
    if user := str(cluster.options.get("mail-smtp-user", "")):
        notice |= {"user": user, "password": cluster.secret("mail-smtp-password", "mail.password")}
        if notice.get("tls") == "none":
            del notice["tls"]  # a login never goes in plain
    return notice


def sender(cluster: Cluster, option: str, value: Any) -> None:
    """Says what became of the sender."""
    if value and "notices" in cluster.out and not _mailbox(str(value)):
        text = f"{value!r} is no address: {_SENDER} sends until you write one into sender, of notices"
        cluster.note(option, BY_HAND_WORD, text)
    else:
        server(cluster, option, value)


def server(cluster: Cluster, option: str, value: Any) -> None:
    """Says what became of an option of the mail server."""
    if "notices" in cluster.out:
        cluster.note(option, CONVERTED, "notices: email")
    else:
        cluster.note(option, NOT_NEEDED_WORD, "mail-to names nobody")


def password(cluster: Cluster, option: str, value: Any) -> None:
    """Told of together with the account, when there is one."""
    if not ("notices" in cluster.out and cluster.options.get("mail-smtp-user")):
        cluster.note(option, NOT_NEEDED_WORD, "mail-to or mail-smtp-user names nobody")


def _mailbox(text: str) -> str:
    """Returns the address in ``ops@example.net`` or ``Ops <ops@example.net>``; nothing when there is none."""
    address = text.rpartition("<")[2].strip().removesuffix(">")
    return address if is_mailbox(address) else ""
